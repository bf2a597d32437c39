"""Cost of the main job on this machine's processor: rates, processor time, memory, stages.

With --device as the first word: on its GPU, see permute_device.py.

Usage: python bench/permute.py [--permutations 96] [--repeat 1] [--write]
       python bench/permute.py --cases 11 --threads 2 --repeat 3 --write
       python bench/permute.py --device rates --write

Two projects of stated size (11 studies and 525 subjects, 50 studies and 1,000 subjects; 50
imputations, 2 mm) run from an empty cache, each in a process of its own, with one thread and with
all cores. Rates are those with both statistics and with the voxel statistic alone (no TFCE). Of
several repeats the fastest is kept beside the rates of them all. `--write` renews the figures of
these cases in bench/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peak_memory import peak_bytes

sys.path.insert(0, str(Path(__file__).parent))

CASES = {"11": (11, 525), "50": (50, 1000)}
# Bars on 2 cores: 1,000 permutations with both statistics in 60 s and in 5 minutes, all before
# them in 60 s and 3 minutes, the largest TFCE of a map in 15 ms on one core.
RATE_BARS = {"11": 1000 / 60, "50": 1000 / 300}
BEFORE_BARS = {"11": 60.0, "50": 180.0}
TFCE_BAR_MS = 15.0
PEAK_BAR_GB = 8.0
TFCE_MAPS = 8


def rate(problem: Any, plan: Any, permutations: int, statistics: Any, backend: Any) -> Any:
    """Permutations per second and processor seconds per permutation, the first tile left out."""
    from gpu_sdm.permute.engine import permute
    from gpu_sdm.permute.plan import TILE

    marks: list[tuple[int, float, float]] = []

    def progress(done: int) -> None:
        if done and done % TILE == 0 and (not marks or done > marks[-1][0]):
            marks.append((done, time.monotonic(), sum(os.times()[:2])))

    permute(problem, plan, permutations, statistics, backend, progress=progress)
    # The first tile also compiles, or loads what was compiled.
    (first, begin, used), (last, end, used_last) = marks[0], marks[-1]
    return (last - first) / (end - begin), (used_last - used) / (last - first)


def largest_tfce_ms(problem: Any, plan: Any, backend: Any) -> float:
    """Milliseconds of one core for the largest TFCE score of one side of a permuted map."""
    from concurrent.futures import ThreadPoolExecutor

    from gpu_sdm.ops.max_tfce import MAX_TFCE
    from gpu_sdm.permute.engine import z_tile
    from gpu_sdm.permute.plan import TILE

    with ThreadPoolExecutor(backend.threads) as pool:
        z = z_tile(problem, plan, TILE, backend, pool)[:TFCE_MAPS]
    compute, times = MAX_TFCE.on(backend.name), []
    for sign in (1.0, -1.0) * 3:
        begin = time.thread_time()
        compute(z, problem.neighbours, sign)
        times.append(time.thread_time() - begin)
    return 1e3 * (min(times[::2]) + min(times[1::2])) / 2 / TFCE_MAPS


def run_case(name: str, permutations: int, threads: int, cache: str) -> dict[str, Any]:
    """One whole analysis but for the writing of its maps; figures of this process."""
    os.environ["GPU_SDM_CACHE"] = cache
    from projects import write_project

    import gpu_sdm
    from gpu_sdm.analysis import limited_threads, prepare
    from gpu_sdm.problem import build_problem

    begin = time.monotonic()
    backend = gpu_sdm.get_backend("cpu", threads)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        write_project(project, *CASES[name])
        settings = gpu_sdm.Settings(permutations=permutations)
        analysis = prepare(gpu_sdm.read(project), settings, backend)
    timings = dict(analysis.timings)
    with limited_threads(backend):
        problem, _, _ = build_problem(analysis, lambda *_: None, timings)
        before = time.monotonic() - begin
        both, used = rate(problem, analysis.plan, permutations, ("voxel", "tfce"), backend)
        voxel, used_voxel = rate(problem, analysis.plan, permutations, ("voxel",), backend)
        peak = peak_bytes() / 1e9
        tfce = largest_tfce_ms(problem, analysis.plan, backend)
    return {
        "studies": CASES[name][0],
        "subjects": CASES[name][1],
        "voxels": analysis.space.n_voxels,
        "threads": threads,
        "permutations_per_s": both,
        "processor_s_per_permutation": used,
        "voxel_only_permutations_per_s": voxel,
        "voxel_only_processor_s_per_permutation": used_voxel,
        "largest_tfce_ms_per_map": tfce,
        "before_permutations_s": before,
        "peak_gb": peak,
        "timings_s": {stage: round(seconds, 3) for stage, seconds in timings.items()},
    }


def measured(name: str, threads: int, permutations: int, repeat: int) -> dict[str, Any]:
    """Figures of the fastest of several processes, with the rates of all."""
    rows = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as cache:
            command = [
                sys.executable, __file__, "--one", name, "--threads", str(threads),
                "--permutations", str(permutations), "--cache", cache,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    best = max(rows, key=lambda row: row["permutations_per_s"])
    spread = {
        key: [round(row[key], 4) for row in rows]
        for key in (
            "permutations_per_s",
            "processor_s_per_permutation",
            "voxel_only_permutations_per_s",
            "voxel_only_processor_s_per_permutation",
            "before_permutations_s",
        )
    }
    return {**best, "load_before": os.getloadavg()[0], "repeats": spread}


def missed(row: dict[str, Any]) -> list[str]:
    """Name the bars that a row with all cores misses."""
    case = str(row["studies"])
    found = {
        "permutations/s": row["permutations_per_s"] < RATE_BARS[case],
        "time before the permutations": row["before_permutations_s"] > BEFORE_BARS[case],
        "largest TFCE": row["largest_tfce_ms_per_map"] > TFCE_BAR_MS,
        "memory": row["peak_gb"] > PEAK_BAR_GB,
    }
    return [f"{case} studies: {bar}" for bar, bad in found.items() if bad and row["threads"] > 1]


def main() -> int:
    """Run the cases and print a table; 1 if a bar is missed."""
    if sys.argv[1:2] == ["--device"]:
        import permute_device

        return permute_device.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--permutations", type=int, default=96)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, help="one thread and all cores by default")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_case(args.one, args.permutations, args.threads, args.cache)))
        return 0

    from machine import machine

    where = machine()
    print(json.dumps(where))
    rows = []
    for name in args.cases:
        for threads in [args.threads] if args.threads else (int(str(where["cores"])), 1):
            rows.append(measured(name, threads, args.permutations, args.repeat))
            print(
                "{studies:3d} studies {subjects:5d} subjects {threads} threads: "
                "{permutations_per_s:6.2f} permutations/s, {voxel_only_permutations_per_s:6.2f} "
                "without TFCE, TFCE {largest_tfce_ms_per_map:5.2f} ms a map, "
                "{before_permutations_s:5.1f} s before, peak {peak_gb:.2f} GB".format(**rows[-1]),
                flush=True,
            )
    bars = [bar for row in rows for bar in missed(row)]
    if args.write:
        target = Path(__file__).parent / "results" / f"permute-cpu-{where['date']}.json"
        target.parent.mkdir(exist_ok=True)
        done = {(r["studies"], r["threads"]) for r in rows}
        old = json.loads(target.read_text())["cases"] if target.exists() else []
        rows += [r for r in old if (r["studies"], r["threads"]) not in done]
        rows.sort(key=lambda r: (r["studies"], -r["threads"]))
        target.write_text(json.dumps({"machine": where, "cases": rows}, indent=2) + "\n")
    print("bars missed: " + "; ".join(bars) if bars else "all bars met")
    return 1 if bars else 0


if __name__ == "__main__":
    sys.exit(main())
