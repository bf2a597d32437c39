"""The image: its install steps run here, outside Docker; its text keeps what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
SCRIPT = "docker/install.sh"


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (HOME / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_base_is_a_pinned_cuda_runtime() -> None:
    (base,) = of("FROM")
    assert re.fullmatch(r"nvidia/cuda:12\.\d+\.\d+-runtime-ubuntu24\.04", base)


def test_it_installs_by_the_script_with_an_extra_that_exists() -> None:
    (run,) = [r for r in of("RUN") if SCRIPT in r]
    extra = run.split()[-1]
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any("cupy" in r for r in project["optional-dependencies"][extra])
    assert not any("pip" in r.split() for r in of("RUN"))


def test_it_copies_all_that_the_build_needs() -> None:
    copied = {source for rest in of("COPY") for source in rest.split()[:-1]}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= copied
    assert {"gpu_sdm", "kernels", "docker", "examples"} <= copied
    assert all((HOME / source).exists() for source in copied)


def test_nobody_is_root_and_the_caches_are_in_a_volume() -> None:
    names = [name for name, _ in instructions()]
    assert of("USER") == ["sdm"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    (volume,) = of("VOLUME")
    environment = dict(pair.split("=", 1) for rest in of("ENV") for pair in rest.split())
    for name in ("GPU_SDM_CACHE", "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR"):
        assert environment[name].startswith(f"{volume}/")
    assert of("ENTRYPOINT") == ['["gpu-sdm"]']


@pytest.mark.slow
def test_the_install_steps_work(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = plain | {"PYTHON": sys.executable, "GPU_SDM_CACHE": str(tmp_path / "cache")}
    environment["COLUMNS"] = "200"
    done = subprocess.run(
        ["sh", str(HOME / SCRIPT), str(venv)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CuPy is not installed" in " ".join(done.stdout.split())
    # The wheel, not the checkout, and with the kernels in it.
    code = (
        "import gpu_sdm; from gpu_sdm.backend.kernels import KERNELS, source;"
        "print(gpu_sdm.__file__, KERNELS, 'void max_tfce(' in source('max_tfce.cu'))"
    )
    printed = subprocess.run(
        [venv / "bin" / "python", "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.count(str(venv)) == 2
    assert printed.split()[-1] == "True"
