"""Cost of the main job: permutations per second, peak memory, time to the first permutation.

Usage: python bench/permute.py [--permutations 96] [--write]

Two projects of stated size (11 studies and 525 subjects, 50 studies and 1,000 subjects; 50
imputations, 2 mm, both statistics) run from an empty cache, each in a process of its own, with
one thread and with all cores. `--write` keeps the figures in bench/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

CASES = {"11": (11, 525), "50": (50, 1000)}
# Bars on 2 cores: permutations per second with both statistics.
BARS = {"11": 10.0, "50": 2.0}


def run_case(name: str, permutations: int, threads: int, cache: str) -> dict[str, float]:
    """One whole analysis; figures of this process."""
    os.environ["GPU_SDM_CACHE"] = cache
    from projects import write_project

    import gpu_sdm

    begin = time.monotonic()
    tiles: list[tuple[float, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "permutations" and done > 1:
            tiles.append((time.monotonic() - begin, done))

    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        write_project(project, *CASES[name])
        result = gpu_sdm.run(
            gpu_sdm.read(project),
            gpu_sdm.Settings(permutations=permutations),
            threads=threads,
            progress=progress,
        )
    # The first tile also compiles, or loads what was compiled: the rate is that of the others.
    (first, before), (last, done) = tiles[0], tiles[-1]
    return {
        "studies": CASES[name][0],
        "subjects": CASES[name][1],
        "voxels": result.space.n_voxels,
        "threads": threads,
        "permutations_per_s": (done - before) / (last - first),
        "start_to_first_tile_s": first,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "timings_s": dict(result.timings),
    }


def main() -> int:
    """Run all cases and print a table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--permutations", type=int, default=96)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(args.case, args.permutations, args.threads, args.cache)))
        return 0

    from machine import machine

    where = machine()
    print(json.dumps(where))
    rows = []
    for name in CASES:
        for threads in (int(str(where["cores"])), 1):
            with tempfile.TemporaryDirectory() as cache:
                command = [
                    sys.executable, __file__, "--case", name, "--threads", str(threads),
                    "--permutations", str(args.permutations), "--cache", cache,
                ]  # fmt: skip
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(
                "{studies:3d} studies {subjects:5d} subjects {threads} threads: "
                "{permutations_per_s:6.2f} permutations/s, first tile after "
                "{start_to_first_tile_s:5.1f} s, peak {peak_gb:.2f} GB".format(**rows[-1]),
                flush=True,
            )
    if args.write:
        target = Path(__file__).parent / "results" / f"permute-cpu-{where['date']}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps({"machine": where, "cases": rows}, indent=2) + "\n")
    missed = [
        r for r in rows
        if r["threads"] > 1 and (
            r["permutations_per_s"] < BARS[str(r["studies"])] or r["peak_gb"] > 8
        )
    ]  # fmt: skip
    print("bars missed:" if missed else "all bars met", *missed)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
