"""Wheel and source archive hold all that is needed; the wheel runs where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import gpu_sdm

HOME = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    pytest.importorskip("build", reason="BUILD ABSENT: pip install -e '.[dev]'")
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, HOME],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def sources(folder: str, *suffixes: str) -> set[str]:
    return {
        str(p.relative_to(HOME))
        for p in (HOME / folder).rglob("*")
        if p.suffix in suffixes and "__pycache__" not in p.parts
    }


def test_the_wheel_holds_code_kernels_demo_and_report(dist):
    (wheel,) = dist.glob("*.whl")
    assert wheel.name == f"gpu_sdm-{gpu_sdm.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"gpu_sdm-{gpu_sdm.__version__}.dist-info/METADATA").decode()
    package = sources("gpu_sdm", ".py", ".js", ".css", ".html", ".typed")
    assert package <= names
    kernels = sources("kernels", ".cu", ".cuh")
    assert kernels
    assert {f"gpu_sdm/{k}" for k in kernels} <= names
    demo = (HOME / "examples/pain_empathy/project_simulated").iterdir()
    assert {f"gpu_sdm/demo_project/{p.name}" for p in demo} <= names
    assert not [n for n in names if n.startswith(("tests", "bench", "docs"))]
    assert "License-Expression: BSD-3-Clause" in metadata
    for extra in ("cuda12", "cuda13", "dask", "nimare", "dev"):
        assert f"Provides-Extra: {extra}" in metadata


def test_the_source_archive_builds_the_same_wheel(dist, tmp_path):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (home,) = tmp_path.iterdir()
    for needed in ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "kernels", "docs"):
        assert (home / needed).exists(), needed
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, home],
        capture_output=True, check=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as again:
        mine = {(i.filename, i.CRC) for i in again.infolist()}
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as first:
        assert mine == {(i.filename, i.CRC) for i in first.infolist()}


def interpreter(version: str) -> str | None:
    """A Python of this version: on PATH, or below pyenv's folder."""
    found = shutil.which(f"python{version}")
    if found and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode:
        found = None  # a shim without a Python behind it
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return found or next(map(str, pyenv.glob(f"{version}.*/bin/python")), None)


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_installed_wheel_runs_the_demo(dist, tmp_path, version):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"PYTHON {version} ABSENT")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    bin_ = tmp_path / "venv" / "bin"
    (wheel,) = dist.glob("*.whl")
    install = [bin_ / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, wheel], check=True)
    env = {"PATH": str(bin_), "HOME": str(tmp_path), "GPU_SDM_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [bin_ / "gpu-sdm", "demo", "first", "--permutations", "100"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "first/result"
    assert (tmp_path / "first/result/maps/p_fwe_tfce.nii.gz").is_file()
    assert "SIMULATED" in done.stderr
