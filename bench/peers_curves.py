"""How the compiled CPU path grows with voxels, studies, imputations, subjects, permutations.

    python bench/peers_curves.py --point '{"studies": 11, ...}' --threads 2

runs one point in this process and prints its seconds and peak memory; `measure` starts a process
for every point, so that the peak is that of the point alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from peak_memory import peak_bytes

BASE = {"voxels": 193_768, "studies": 11, "imputations": 50, "subjects": 525, "permutations": 64}
AXES: dict[str, list[int]] = {
    "voxels": [12_000, 24_000, 48_000, 97_000, 193_768],
    "studies": [5, 11, 25, 50, 100],
    "imputations": [2, 5, 20, 50, 100],
    "subjects": [132, 262, 525, 1050, 2100],
    "permutations": [32, 64, 128, 256, 512],
}
SUBJECTS_PER_STUDY = 20  # of the curve of studies
SMALL = {"voxels": 1500, "studies": 4, "imputations": 2, "subjects": 80, "permutations": 32}
STATISTICS = ("voxel", "tfce")


def points(quick: bool) -> list[dict[str, Any]]:
    """Give the sizes, one axis at a time."""
    if quick:
        return [{"axis": "voxels", **SMALL}]
    found = []
    for axis, values in AXES.items():
        for value in values:
            sizes = dict(BASE) | {axis: value}
            if axis == "studies":
                sizes["subjects"] = SUBJECTS_PER_STUDY * value
                # Enough to time; 100 studies of one tile take a while.
                sizes["permutations"] = 64 if value < 50 else 32
            found.append({"axis": axis, **sizes})
    return found


def run_point(sizes: dict[str, int], threads: int) -> dict[str, float]:
    """Time the permutations of one size in this process."""
    from scaling import workload_of

    from gpu_sdm.analysis import limited_threads
    from gpu_sdm.backend import get_backend
    from gpu_sdm.permute.engine import permute

    work = workload_of(sizes["studies"], sizes["imputations"], sizes["subjects"])
    if sizes["voxels"] < work.space.n_voxels:
        work = work.first_voxels(sizes["voxels"])
    backend, problem = get_backend("cpu", threads), work.problem()

    def clock() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        permute(problem, work.plan, sizes["permutations"], STATISTICS, backend)
        return time.perf_counter() - wall, time.process_time() - cpu

    with limited_threads(backend):
        permute(work.first_voxels(64).problem(), work.plan, 2, STATISTICS, backend)  # loads
        begin = time.perf_counter()
        runs = [clock()]
        while len(runs) < 3 and time.perf_counter() - begin < 6:
            runs.append(clock())
    wall, cpu = (min(run[i] for run in runs) for i in (0, 1))
    return {
        "voxels": work.space.n_voxels, "wall_s": wall, "cpu_s": cpu, "runs": len(runs),
        "peak_gb": peak_bytes() / 1e9,
    }  # fmt: skip


def measure(quick: bool, axes: list[str] | None = None) -> list[dict[str, Any]]:
    """Run every point of the chosen axes, each in a process of its own, on all cores."""
    from machine import machine

    cores = 1 if quick else int(str(machine()["cores"]))
    rows = []
    for point in points(quick):
        axis = point["axis"]
        if axes and axis not in axes:
            continue
        sizes = {name: value for name, value in point.items() if name != "axis"}
        command = [sys.executable, __file__, "--point", json.dumps(sizes), "--threads", str(cores)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{sizes}: {done.stderr}")
        rows.append(point | {"threads": cores} | json.loads(done.stdout.splitlines()[-1]))
        print("  {axis:12s} {voxels:7d} voxels {studies:4d} studies {imputations:3d} imputations "
              "{subjects:5d} subjects {permutations:4d} permutations: {wall_s:7.2f} s wall, "
              "{cpu_s:7.2f} s processor, peak {peak_gb:.2f} GB".format(**rows[-1]),
              file=sys.stderr, flush=True)  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--point", required=True)
    parser.add_argument("--threads", type=int, required=True)
    asked = parser.parse_args()
    print(json.dumps(run_point(json.loads(asked.point), asked.threads)))
