"""What each null finds of effects that are there: `make power`.

Usage: python bench/power.py [--tests z-subjects,score-studies] [--effects 0.35,0.5]
                             [--seeds 0:12] [--workers 2] [--report]

The projects of the calibration's base cell with an effect of every study at five places: five
Gaussians of 6 mm (standard deviation), their heights in standard deviations of the subjects. A
place is found where a corrected p within 12 mm of it is at most .05. Results accumulate in
bench/results/power.jsonl; `--report` writes the table of docs/calibration.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from calibration_report import DOC, interval_cell
from null_cells import Cell
from null_projects import Brain, analyse
from page import between, table

from gpu_sdm.inference import corrected_maps
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.permute.engine import TIE_TOLERANCE

RESULTS = Path(__file__).parent / "results" / "power.jsonl"
PLACES = ((36, 16, 4), (-36, 16, 4), (0, 20, 36), (-12, -20, 8), (28, -60, -28))  # MNI mm
WIDTH, NEAR = 6.0, 12.0  # mm
EFFECTS = (0.35, 0.5)
# Where a permutation is an analysis of its own 20 are the least that can give p = .05.
TESTS: dict[str, Cell] = {
    "z-subjects": Cell("subjects; z (the default)", permutations=200),
    "z-studies": Cell("studies; z, all estimated again", exchange="studies", permutations=20),
    "z-peaks": Cell("peaks; z, all estimated again", exchange="peaks", permutations=20),
    "score-studies": Cell(
        "studies; score", exchange="studies", permutations=200, options={"test": "score"}
    ),
    "score-peaks": Cell(
        "peaks; score", exchange="peaks", permutations=20, options={"test": "score"}
    ),
}
Job = tuple[str, float, int]


@lru_cache(maxsize=1)
def _brain() -> Brain:
    return Brain()


def planted_effect(mm: np.ndarray, height: float) -> np.ndarray:
    """Effect (V,) at voxels (V, 3)."""
    squares = [((mm - place) ** 2).sum(axis=1) for place in PLACES]
    effect: np.ndarray = height * np.exp(-np.min(squares, axis=0) / (2 * WIDTH**2))
    return effect


def found_places(
    brain: Brain, test: str, height: float, seed: int, imputations: int = 10
) -> dict[str, Any]:
    """Analyse a project: the smallest corrected p of either statistic at each place."""
    cell, begin = TESTS[test], process_time()
    mm = brain.space.mm()
    made = analyse(
        brain, cell, seed, cell.permutations or 200, imputations, planted_effect(mm, height)
    )
    observed = made.problem.observed_z
    tfce = TFCE.on("cpu")
    sides = {
        "voxel": (observed, -observed),
        "tfce": tuple(tfce(side, made.problem.neighbours) for side in (observed, -observed)),
    }
    line: dict[str, Any] = {"test": test, "effect": height, "seed": seed}
    near = [np.linalg.norm(mm - place, axis=1) <= NEAR for place in PLACES]
    for name, (up, down) in sides.items():
        p, *_ = corrected_maps(name, up, down, made.null.maxima[name], TIE_TOLERANCE[name]).values()
        line[f"p_{name}"] = [round(float(p[voxels].min(initial=1.0)), 4) for voxels in near]
    return line | {"seconds": round(process_time() - begin, 2)}


def _work(job: Job) -> dict[str, Any]:
    return found_places(_brain(), *job)


def read_lines(path: Path) -> dict[Job, dict[str, Any]]:
    """Finished projects."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="ascii").splitlines())
    return {(line["test"], line["effect"], line["seed"]): line for line in lines}


def share(lines: Iterable[Mapping[str, Any]], statistic: str) -> str:
    """Share of places found, with its interval (places taken as independent)."""
    p = np.array([line[f"p_{statistic}"] for line in lines])
    return interval_cell(int((p <= 0.05 + 1e-9).sum()), p.size)


def power_table(lines: Mapping[Job, Mapping[str, Any]]) -> str:
    """Lay out a row per test, a pair of columns per effect."""
    effects = sorted({effect for _, effect, _ in lines})
    heads = ["exchanged; tested", "projects of each"]
    heads += [f"{statistic}, {e:g}" for e in effects for statistic in ("voxel", "TFCE")]
    rows = []
    for test, cell in TESTS.items():
        mine = [[v for k, v in lines.items() if k[:2] == (test, e)] for e in effects]
        if not any(mine):
            continue
        counts = sorted({len(of) for of in mine})
        row = [cell.tests, " to ".join(map(str, sorted({counts[0], counts[-1]})))]
        for of in mine:
            row += [share(of, s) if of else "" for s in ("voxel", "tfce")]
        rows.append(row)
    return table(heads, rows)


def write_report(path: Path, doc: Path = DOC) -> None:
    """Bring the table of the page up to date."""
    text = doc.read_text(encoding="utf-8")
    doc.write_text(between(text, "power", power_table(read_lines(path))), encoding="utf-8")


def run(jobs: Sequence[Job], workers: int, path: Path) -> None:
    """Analyse the projects that are missing and write each as it is done."""
    done = read_lines(path)
    jobs = [job for job in jobs if job not in done]
    with ProcessPoolExecutor(workers) as pool, path.open("a", encoding="ascii") as file:
        futures = [pool.submit(_work, job) for job in jobs]
        try:
            for i, future in enumerate(as_completed(futures), 1):
                line = future.result()
                file.write(json.dumps(line) + "\n")
                file.flush()
                where = f"{line['test']} {line['effect']:g} seed {line['seed']}"
                print(f"{i}/{len(jobs)} {where}: {line['seconds']:g} s", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def main() -> None:
    """Read the options and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--effects", default=",".join(map(str, EFFECTS)))
    parser.add_argument("--seeds", default="0:12", metavar="FIRST:END")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only write the table")
    given = parser.parse_args()
    if not given.report:
        first, end = map(int, given.seeds.split(":"))
        jobs = [
            (test, effect, seed)
            for seed in range(first, end)
            for effect in map(float, given.effects.split(","))
            for test in given.tests.split(",")
        ]
        run(jobs, given.workers, given.results)
    write_report(given.results)


if __name__ == "__main__":
    main()
