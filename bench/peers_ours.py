"""Our own ways against each other: plain NumPy, compiled, CUDA; start-up, import and the demo."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers_common import both_threads

from gpu_sdm.bench import Measured, backends, bench
from gpu_sdm.config import Settings
from gpu_sdm.workload import Workload

PROJECT = Path(__file__).parents[1] / "examples" / "pain21_project.py"
COMMAND = [sys.executable, "-m", "gpu_sdm.cli"]


def measure(quick: bool) -> list[dict[str, Any]]:
    """Compare and time every backend that runs here on the example's 11 studies."""
    workload = Workload.example(Settings(voxel_size=4 if quick else 2,
                                         imputations=3 if quick else 50))  # fmt: skip
    if quick:
        workload = workload.first_voxels(600)
    found: dict[tuple[str, str], Measured] = {}
    for threads in [1] if quick else both_threads():
        for place in backends(threads, 0, None, lambda said: print(said, file=sys.stderr)):
            if place.name != "cpu" and threads > 1:
                continue
            for measured in bench(workload, [place]):
                found[measured.backend, measured.where] = measured
    slowest = found["numpy", "1 thread"].rates
    rows = []
    for (name, where), one in found.items():
        for statistic, rate in one.rates.items():
            rows.append(
                {"backend": name, "where": where, "statistics": statistic, **workload.sizes(),
                 "permutations_per_s": rate, "ratio_to_numpy": rate / slowest[statistic],
                 "dz": one.dz, "dtfce": one.dtfce, "agrees": one.agrees}
            )  # fmt: skip
        if not one.rates:
            rows.append({"backend": name, "where": where, "statistics": "", "agrees": False,
                         "dz": one.dz, "dtfce": one.dtfce})  # fmt: skip
    return rows


def _child(command: list[str], **environment: str) -> dict[str, float]:
    """Seconds and memory of a process that runs to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    done = subprocess.run(
        command, env=dict(os.environ, NO_COLOR="1", **environment), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu}


def _best(command: list[str], repeats: int) -> dict[str, float]:
    runs = [_child(command) for _ in range(repeats)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def start(quick: bool) -> list[dict[str, Any]]:
    """Time what a user waits for first; the bars are those of issue 8, in seconds of wall time."""
    repeats = 1 if quick else 7
    python = [sys.executable, "-c"]
    rows = [
        {"what": "Python itself", "bar_s": None, **_best([*python, "pass"], repeats)},
        {"what": "import gpu_sdm", "bar_s": 1.0, **_best([*python, "import gpu_sdm"], repeats)},
        {"what": "gpu-sdm --help", "bar_s": 0.5, **_best([*COMMAND, "--help"], repeats)},
    ]
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            own = {"GPU_SDM_CACHE": f"{folder}/cache", "NUMBA_CACHE_DIR": f"{folder}/numba"}
            rows += _demos(Path(folder), own)
    for one in rows:
        one["met"] = None if one["bar_s"] is None else one["wall_s"] <= one["bar_s"]
    return rows


def _demos(folder: Path, own: dict[str, str]) -> list[dict[str, Any]]:
    """Time the first analysis after installation (nothing compiled, no template kept), and a 2nd.

    The first is `gpu-sdm demo`; the other one is `make demo` without its installation.
    """
    demo = [*COMMAND, "demo", f"{folder}/demo"]
    first = {"what": "gpu-sdm demo (11 studies, 4 mm, 500 permutations), nothing compiled yet",
             "bar_s": 60.0, **_child(demo, **own)}  # fmt: skip
    _child([sys.executable, str(PROJECT), f"{folder}/pain"])
    large = [*COMMAND, "permute", f"{folder}/pain", "--out", f"{folder}/out",
             "--permutations", "500"]  # fmt: skip
    second = {"what": "demo of the Makefile (21 studies, 2 mm, 500 permutations), compiled",
              "bar_s": 60.0, **_child(large, GPU_SDM_CACHE=own["GPU_SDM_CACHE"])}  # fmt: skip
    return [first, second]
