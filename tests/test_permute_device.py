"""The bench of a GPU and the sanitizer's workload, run on the stand-in device; its ceilings."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path
from time import monotonic

import device_clock
import numpy as np
import permute_device
import pytest
import sanitize
from host_build import HostDevice, HostKernel, build, entries, needs_compiler
from test_nvrtc import compile_kernel, needs_nvrtc, nvrtc

from gpu_sdm.backend.kernels import KERNELS, defines, source
from gpu_sdm.permute import launch
from gpu_sdm.permute.launch import knobs

ROOT = Path(__file__).parents[1]
FAST = {"repeats": 2, "seconds": 0.0, "warm": 0.0}
# What the bench and the CUDA tests may need: nothing else is on a bare machine.
BARE = {"numpy", "scipy", "numba", "llvmlite", "pytest", "pluggy", "iniconfig", "packaging",
        "pygments", "gpu-sdm"}  # fmt: skip


class Clocked(HostDevice):
    """A stand-in whose marks are times, and which takes one tile at a time."""

    def mark(self) -> float:  # type: ignore[override]
        return monotonic()

    def wait(self, mark: float) -> None: ...  # type: ignore[override]


@pytest.fixture
def _one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "MOST_TILES", 1)
    real = launch.plan_launches
    monkeypatch.setattr(launch, "plan_launches", lambda *a, **k: real(*a, **k, most_tiles=1))


def test_a_brain_of_any_size() -> None:
    space = permute_device.brain(permute_device.VOXELS)
    assert space.n_voxels == 193_768
    assert (space.neighbours() >= 0).mean() > 0.95  # one solid body
    work = permute_device.workload(11, 525, 2, 500)
    assert work.sizes() == {"studies": 11, "subjects": 525, "imputations": 2, "voxels": 500}
    assert work.problem().effects.shape == (2, 11, 500)


@needs_compiler
@pytest.mark.usefixtures("_one_tile")
def test_rates_and_stages_on_the_stand_in() -> None:
    work = permute_device.workload(3, 30, 2, 300)
    top = {"fma_per_s": 1e12, "special_per_s": 1e11, "copied_bytes_per_s": 1e9}
    found = permute_device.rates(HostDevice(block=32), work, top, **FAST)
    assert found["agreement"]["max_abs_dz"] < 1e-4
    assert found["voxel"]["permutations_per_s"] > 0 < found["tfce"]["permutations_per_s"]
    assert len(found["tfce"]["all"]) == 2
    terms = 3 * 2 * 300 * found["voxel"]["permutations_per_s"]
    assert found["share_of_ceilings"]["special"] == pytest.approx(2.5 * terms / 1e11)
    assert json.loads(json.dumps(found)) == found
    stages = permute_device.stages(Clocked(block=32), work, lambda a, b: 1e3 * (b - a))
    parts = stages["ms_per_permutation"]
    assert set(parts) == {
        "permutation_weights", "permutation_share", "residual products", "permuted_z",
        "max_statistic", "max_tfce",
    }  # fmt: skip
    assert 0 < sum(parts.values()) <= stages["wall_ms_per_permutation"]


@needs_compiler
@pytest.mark.usefixtures("_one_tile")
def test_long_runs_and_scaling_on_the_stand_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = permute_device.workload(3, 30, 2, 300)
    monkeypatch.setattr(permute_device, "LONGEST_S", 0.0)
    rows = permute_device.long_runs(HostDevice(block=32), work, (40, 10**9))
    assert [row["permutations"] for row in rows] == [40]
    assert rows[0]["p95_voxel"] > 0
    assert "would take longer" in capsys.readouterr().out
    device = HostDevice(block=32)
    points = permute_device.scaling(device, work, (5,), (3,), seconds=0.0, warm=0.0)
    assert [p["voxels"] for p in points[:3]] == [75, 150, 300]
    assert [(p["studies"], p["subjects"], p["imputations"]) for p in points[3:]] == [
        (5, 50, 2), (3, 30, 3),
    ]  # fmt: skip
    assert all(p["permutations_per_s"] > 0 for p in points)


def test_bars_are_named_where_they_are_missed() -> None:
    row = {s: {"permutations_per_s": 600.0} for s in ("voxel", "tfce")}
    assert permute_device.missed([{"studies": 50, **row}, {"studies": 135, **row}]) == [
        "50 studies, voxel: 600 < 1500 permutations/s"
    ]


def test_a_sanitizer_that_is_absent_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanitize, "find_tool", list)
    monkeypatch.setattr(sys, "argv", ["sanitize.py"])
    assert sanitize.main() == 1
    assert "pip install nvidia-cuda-sanitizer-api-cu12" in capsys.readouterr().out


def instructions(**chosen: int) -> tuple[int, int]:
    """Float32 instructions and special functions in the PTX of permuted_z."""
    lib, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    text = (defines(dict(chosen)) + source("permuted_z.cu")).encode()
    lib.nvrtcCreateProgram(ctypes.byref(program), text, b"kernel.cu", 0, None, None)
    options = (ctypes.c_char_p * 2)(b"--gpu-architecture=compute_90", b"-std=c++17")
    assert lib.nvrtcCompileProgram(program, 2, options) == 0
    lib.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetPTX(program, ptx)
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    plain = r"\b(?:fma\.rn|add|sub|mul|neg|setp\.\w+|selp|max|min)(?:\.rn|\.ftz)?\.f32"
    special = r"\b(?:rcp|rsqrt)\.approx"
    return tuple(len(re.findall(what, ptx.value.decode())) for what in (plain, special))  # type: ignore[return-value]


@needs_nvrtc
def test_the_ceilings_compile_and_the_terms_are_counted() -> None:
    for card in (75, 90, 120):
        compile_kernel(device_clock.ceilings_text(), card)
    few, more = (instructions(**knobs(k, True)) for k in (32, 40))
    np.testing.assert_allclose((np.array(more) - few) / 8, permute_device.KEPT_TERM, atol=0.5)
    few, more = (instructions(**{**knobs(64, True), "K": k}) for k in (64, 68))
    np.testing.assert_allclose((np.array(more) - few) / 4, permute_device.OTHER_TERM, atol=0.5)


@needs_compiler
def test_the_ceilings_compute_what_they_say() -> None:
    kernel = object.__new__(HostKernel)
    kernel.library = build(device_clock.ceilings_text())
    for kernel.entry in ("fma_rate", "special_rate"):
        out = np.zeros(4, np.float32)
        kernel(1, 4, [out, np.float32(0.5), np.int32(2)])
        chains = np.arange(4)[:, None] + np.arange(8)  # x -> x / 2 + 1 twice, or 1 / (1 / x)
        wanted = chains / 4 + 1.5 if kernel.entry == "fma_rate" else chains + 0.5
        np.testing.assert_allclose(out, wanted.sum(axis=1), rtol=1e-5)
    a, b = np.arange(9, dtype=np.float32), np.zeros(9, np.float32)
    kernel.entry = "copy"
    kernel(2, 2, [a, b, np.int64(9)])
    np.testing.assert_array_equal(a, b)


def run_bare(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code where only the packages of a bare machine can be imported."""
    numba_loads = {e.value.split(".")[0] for e in entry_points(group="numba_extensions")}
    absent = sorted(
        name
        for name, owners in packages_distributions().items()
        if not {o.lower() for o in owners} & BARE and name not in numba_loads
    )
    guard = (
        "import sys, importlib.abc\n"
        f"absent = set({absent!r})\n"
        "class Guard(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in absent:\n"
        "            raise ModuleNotFoundError('a bare machine has no ' + name, name=name)\n"
        "sys.meta_path.insert(0, Guard())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", guard + code], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env},
    )  # fmt: skip


def test_a_bare_machine_can_run_the_cuda_tests() -> None:
    files = sorted(str(p) for p in (ROOT / "tests").glob("test_cuda*.py"))
    code = f"import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *{files!r}]))"
    done = run_bare(code, GPU_SDM_REQUIRE_CUDA="1")
    assert "a bare machine has no" not in done.stdout
    assert " passed" in done.stdout
    assert done.returncode == 0 or "a GPU is required" in done.stdout


@needs_compiler
def test_a_bare_machine_can_run_bench_and_sanitizer() -> None:
    """And the sanitizer sees every kernel."""
    code = (
        "sys.path[:0] = ['bench', 'tests']\n"
        "from host_build import HostDevice\n"
        "import permute_device, sanitize\n"
        "work = permute_device.workload(3, 30, 2, 200)\n"
        "assert permute_device.agreement(work, HostDevice(block=32))['max_abs_dz'] < 1e-4\n"
        "permute_device.long_runs(HostDevice(block=32), work, (40,))\n"
        "assert permute_device.machine()['processor']\n"
        "device = HostDevice(block=32)\n"
        "sanitize.check_all(device)\n"
        "print(*{name for name, _, _ in device.launches})\n"
    )
    done = run_bare(code)
    assert done.returncode == 0, done.stderr
    *lines, launched = done.stdout.splitlines()
    assert sum("agree" in line for line in lines) == len(sanitize.CASES) + 2
    every = {e for p in KERNELS.glob("*.cu") for e in entries(source(p.name))}
    assert every == set(launched.split())
