"""Family-wise error of the whole analysis on null projects: `make calibrate`.

Usage: python bench/calibrate.py [--until-precise] [--cells base,images] [--seeds 0:100]
                                 [--workers 2] [--budget-minutes 60] [--report]

Every project is simulated from subjects, reported as peaks (or kept as images), and analysed by
the package from bounds to corrected p. Results accumulate in bench/results/calibration/CELL.jsonl,
one line a seed: a run continues where the last one ended, however that ended. `--report` writes
the table of docs/calibration.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from calibration_report import summary_lines, write_report
from null_projects import CELLS, HARNESS, Brain, run_project

RESULTS = Path(__file__).parent / "results" / "calibration"
Job = tuple[str, int]


def read_lines(path: Path) -> dict[int, dict[str, Any]]:
    """Finished projects of one cell by seed, but lines cut short or of another harness."""
    found: dict[int, dict[str, Any]] = {}
    if path.exists():
        for text in path.read_text(encoding="ascii").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                if line["harness"] == HARNESS:
                    found[line["seed"]] = line
    return found


def read_results(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Finished projects of every cell: cell -> seed -> line."""
    return {cell: read_lines(folder / f"{cell}.jsonl") for cell in CELLS}


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add one line by a single write; a half-written one before it is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(line) + "\n"
    with path.open("a+b", buffering=0) as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = "\n" + text
        file.write(text.encode("ascii"))


def precise_jobs(cells: Sequence[str]) -> Iterator[Job]:
    """All cells seed by seed, each up to the number of projects its precision asks for."""
    for seed in range(max(CELLS[c].projects for c in cells)):
        yield from ((c, seed) for c in cells if seed < CELLS[c].projects)


def missing(jobs: Iterable[Job], folder: Path, sizes: dict[str, int]) -> list[Job]:
    """Jobs without a line of the same permutations and imputations."""
    done = read_results(folder)

    def has(cell: str, seed: int) -> bool:
        line = done[cell].get(seed)
        wanted = sizes | {"permutations": CELLS[cell].permutations or sizes["permutations"]}
        return line is not None and all(line[name] == n for name, n in wanted.items())

    return [job for job in jobs if not has(*job)]


class Worker:
    """A process with one thread that runs one project after the other; ends with its parent."""

    def __init__(self, sizes: dict[str, int]) -> None:
        single = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(single, "1")},
        )

    def run(self, job: Job) -> dict[str, Any]:
        """Run one project."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker ended with status {self._process.wait()} at {job}")
        return json.loads(answer)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def serve(sizes: dict[str, int]) -> None:
    """Answer jobs on stdin with lines on stdout until it closes."""
    brain = Brain()
    for text in sys.stdin:
        print(json.dumps(run_project(brain, *json.loads(text), **sizes)), flush=True)


def calibrate(
    jobs: Iterable[Job], folder: Path, workers: int, sizes: dict[str, int], until: float
) -> int:
    """Run the jobs that have no line yet; give the number of those that were run.

    Parameters
    ----------
    jobs : iterable of (str, int)
        Cells and seeds in the order wanted.
    folder : path
        Where the lines are.
    workers : int
        Processes.
    sizes : dict
        `permutations` and `imputations`.
    until : float
        Time (`time.monotonic`) from which no further project is begun.
    """
    left = missing(jobs, folder, sizes)
    queue, lock, begin, done = iter(left), Lock(), time.monotonic(), 0

    def work() -> None:
        nonlocal done
        worker = Worker(sizes)
        try:
            while time.monotonic() < until:
                with lock:
                    job = next(queue, None)
                if job is None:
                    break
                line = worker.run(job)
                with lock:
                    append_line(folder / f"{job[0]}.jsonl", line)
                    done += 1
                    each = (time.monotonic() - begin) / done
                    print(
                        f"{done}/{len(left)} {job[0]} seed {job[1]}: {line['seconds']['all']:.1f} "
                        f"s; {each:.2f} s a project, {each * (len(left) - done) / 60:.0f} min left",
                        flush=True,
                    )
        finally:
            worker.close()

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(work) for _ in range(min(workers, len(left)))]:
            future.result()
    return done


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", default=",".join(CELLS), help="names, comma-separated")
    parser.add_argument("--seeds", help="A:B runs the seeds A to B - 1 of every cell")
    parser.add_argument("--until-precise", action="store_true", help="all that the report wants")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget-minutes", type=float, default=float("inf"))
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--imputations", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="write docs/calibration.md")
    parser.add_argument("--seed-sensitivity", action="store_true", help="5 seeds of the demo")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.cells = args.cells.split(",")
    unknown = [c for c in args.cells if c not in CELLS]
    if unknown:
        parser.error(f"no cell is called {', '.join(unknown)}; they are {', '.join(CELLS)}")
    return args


def main() -> int:
    """Run what is asked for and print the rates so far."""
    args = _arguments()
    if args.worker:
        serve(json.loads(args.worker))
        return 0
    sizes = {"permutations": args.permutations, "imputations": args.imputations}
    jobs: Iterable[Job] = ()
    if args.seeds:
        first, last = (int(x) for x in args.seeds.split(":"))
        jobs = ((c, seed) for seed in range(first, last) for c in args.cells)
    elif args.until_precise:
        jobs = precise_jobs(args.cells)
    if args.seeds or args.until_precise:
        print(f"{Brain().space.n_voxels} voxels of 4 mm, {sizes}")
        calibrate(
            jobs, args.results, args.workers, sizes, time.monotonic() + 60 * args.budget_minutes
        )
    if args.seed_sensitivity:
        from seed_sensitivity import seed_sensitivity

        seed_sensitivity(args.results / "seed-sensitivity.json", args.workers)
    results = read_results(args.results)
    print("\n".join(summary_lines(results)))
    if args.report:
        print(write_report(results, args.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
