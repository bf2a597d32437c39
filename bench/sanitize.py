"""Every CUDA kernel once, small, under compute-sanitizer; the results held against the CPU.

Usage: python bench/sanitize.py [--tools memcheck racecheck synccheck initcheck]

Needs numpy, scipy, numba, pytest and CuPy, and compute-sanitizer: from the CUDA toolkit, or by
`pip install nvidia-cuda-sanitizer-api-cu12`. memcheck sees every array by itself (no memory pool);
racecheck sees shared memory, not global: there the union-find is held by repeated runs
(tests/test_cuda*.py) and by the schedules of the host build.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
FOUND = 9  # exit code of the tool where it found something
MINUTES = 9.0
ALL = ("voxel", "tfce", "cluster-extent", "cluster-mass")
CASES: tuple[dict[str, Any], ...] = (
    {},
    {"exchange": "studies"},
    {"covariate": True},
    {"covariate": True, "tau2": "reml"},
)


def find_tool() -> list[str]:
    """Give the start of the command line of compute-sanitizer; empty where it is absent."""
    found = shutil.which("compute-sanitizer")
    for folder in sorted(Path("/usr/local").glob("cuda*/bin")):
        found = found or shutil.which("compute-sanitizer", path=str(folder))
    if found:
        return [found]
    wheel = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cuda_sanitizer_api"
    program = wheel / "bin" / "compute-sanitizer"
    if not program.is_file():
        return []
    program.chmod(program.stat().st_mode | 0o100)  # wheels do not keep it
    return [str(program), "--injection-path", str(wheel / "lib")]


def check_engine(device: Any) -> None:
    """Engines of every kind, all blocks of voxels on the device and most of them in passing."""
    from test_device_engine import plan_of, problem_of

    from gpu_sdm.backend import Backend
    from gpu_sdm.permute import launch
    from gpu_sdm.permute.device import DeviceEngine
    from gpu_sdm.permute.engine import TIE_TOLERANCE, Forming, permute
    from gpu_sdm.permute.plan import TILE

    whole_block, real = launch.voxel_block, launch.plan_launches
    for case in CASES:
        problem = problem_of(np.random.default_rng(1), **case)
        problem = dataclasses.replace(problem, forming=Forming.of(1.0, problem.space))
        plan = plan_of(case.get("exchange", "subjects"))
        wanted = permute(problem, plan, TILE, ALL, Backend("cpu", "", 1)).maxima
        for resident in (None, 1):
            try:
                if resident is not None:
                    launch.voxel_block = lambda sizes: min(64, sizes.n_voxels)
                    launch.plan_launches = lambda *a, r=resident, **k: dataclasses.replace(
                        real(*a, **k), resident=r
                    )
                found = DeviceEngine(problem, plan, device, ALL).maxima(0)
            finally:
                launch.voxel_block, launch.plan_launches = whole_block, real
            for name, error in TIE_TOLERANCE.items():
                kind = {"atol" if name == "voxel" else "rtol": error}
                np.testing.assert_allclose(found[name], wanted[name], **kind)
        print(f"engine {case or 'as it is'}: agrees with the CPU", flush=True)


def check_others(device: Any) -> None:
    """Many studies, whose effects are computed twice; enhanced maps; exceedances."""
    from permute_device import agreement, workload
    from test_device_engine import plan_of, problem_of

    from gpu_sdm.ops.exceedances import exceedances
    from gpu_sdm.ops.tfce import tfce
    from gpu_sdm.permute.device import DeviceEngine

    agreement(workload(70, 500, imputations=3, voxels=300), device)
    problem = problem_of(np.random.default_rng(1))
    z = np.random.default_rng(2).standard_normal((3, problem.space.n_voxels)).astype(np.float32)
    engine = DeviceEngine(problem, plan_of(), device, ("voxel", "tfce"))
    scores = [[tfce(s * row, problem.neighbours) for row in z] for s in (1, -1)]
    np.testing.assert_allclose(engine.enhanced(z), scores, rtol=1e-9)
    count = device.asarray(np.zeros((2, z.shape[1]), np.int32))
    args = [device.asarray(z), device.asarray(z[1]), count, np.float32(1e-4)]
    kernel = device.kernel("exceedances.cu", "exceedances")
    device.launch(kernel, 4, 128, [*args, *map(np.int64, z.shape)])
    np.testing.assert_array_equal(device.to_host(count), exceedances(z, z[1], 1e-4))
    print("many studies, enhanced maps, exceedances: agree with the CPU", flush=True)


def check_fit(device: Any) -> None:
    """Fit the likelihood at a few voxels."""
    from gpu_sdm.ops._fit_bounds_cuda import DeviceFit
    from gpu_sdm.ops.fit_bounds import FIT_BOUNDS, GRID
    from gpu_sdm.stages.device_fit import disagreement

    (lower, upper, *rest), _ = FIT_BOUNDS.sample(np.random.default_rng(1))
    fit = DeviceFit(device, *rest, GRID, lower.shape[1])
    wrong, _ = disagreement(fit(lower, upper), FIT_BOUNDS.on("numpy")(lower, upper, *rest))
    if wrong:
        raise AssertionError(f"the likelihood differs at {wrong} voxels")
    print("likelihood: agrees with the CPU", flush=True)


def check_all(device: Any) -> None:
    """Launch every kernel."""
    check_engine(device)
    check_others(device)
    check_fit(device)


def main() -> int:
    """Run the tools one after the other; 1 if one found something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=["memcheck", "racecheck"])
    parser.add_argument("--kernels", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kernels:
        from gpu_sdm.backend.cuda import probe

        device = probe()
        import cupy

        cupy.cuda.set_allocator(None)  # every array by itself: an overrun is seen
        check_all(device)
        return 0
    tool = find_tool()
    if not tool:
        print("compute-sanitizer is absent; pip install nvidia-cuda-sanitizer-api-cu12.")
        return 1
    bad = []
    for name in args.tools:
        command = [*tool, "--tool", name, "--error-exitcode", str(FOUND)]
        if name == "memcheck":  # calls that CuPy makes to ask are no errors of ours
            command += ["--report-api-errors", "no"]
        print(f"--- {name}", flush=True)
        try:
            done = subprocess.run(
                [*command, sys.executable, __file__, "--kernels"],
                check=False,
                timeout=60 * MINUTES,
                env={**os.environ, "CUPY_TF32": "0"},
            )
            code: int | str = done.returncode
        except subprocess.TimeoutExpired:
            code = f"over {MINUTES:g} minutes"
        print(f"--- {name}: {'nothing found' if code == 0 else f'FAILED ({code})'}", flush=True)
        bad += [name] if code else []
    print("failed: " + " ".join(bad) if bad else "all clean")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
