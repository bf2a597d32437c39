"""Truth from images: analyses of peaks scored against the images of other studies (pain21).

    python bench/pain_truth.py            # everything; continues today's file
    python bench/pain_truth.py --report   # and renews docs/image-truth.md

Needs the test data (GPU_SDM_DATA, default ../shared/data). The 21 studies are split at random
into 10 and 11; the 10 are analysed from their peaks, some of them as images, and scored against
the random-effects mean of the images of the 11. Variants are compared on the even splits and the
winner is scored once on the odd ones. docs/image-truth.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from fidelity_data import ALL_DATA
from fidelity_scores import agreement
from machine import machine
from null_projects import without_cache
from pain_truth_data import RULES, Maps, Variant, read_pain
from pain_truth_scores import chosen, score, write_report

from gpu_sdm.analysis import limited_threads, silent
from gpu_sdm.backend import available_cores
from gpu_sdm.data import RandomEffects
from gpu_sdm.io.tables import write_json
from gpu_sdm.problem import complete_effects
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute

RESULTS = Path(__file__).parent / "results"
SEED = 21
DEFAULT = "default"
REACHED = 0.01  # share of the width of its bounds that a study's voxel must have lost


def _variants() -> dict[str, Variant]:
    one = {
        DEFAULT: Variant(),
        **{f"fwhm {w}": Variant({"fwhm": w}) for w in (10.0, 15.0, 25.0, 30.0, 40.0)},
        **{f"anisotropy {a}": Variant({"anisotropy": a}) for a in (0.0, 0.5)},
        **{f"discards {d}": Variant({"discards": d}) for d in (0, 1)},
        "truncated-normal": Variant({"imputation": "truncated-normal"}),
        "own template": Variant(own_template=True),
    }
    none = {"discards": 0}
    both: dict[str, dict[str, Any]] = {
        **{f"discards 0, fwhm {w}": none | {"fwhm": w} for w in (15.0, 25.0, 30.0, 40.0)},
        **{f"discards 0, anisotropy {a}": none | {"anisotropy": a} for a in (0.0, 0.5)},
        "discards 0, anisotropy 0.5, fwhm 30.0": none | {"anisotropy": 0.5, "fwhm": 30.0},
        "discards 0, truncated-normal": none | {"imputation": "truncated-normal"},
        "discards 1, fwhm 30.0": {"discards": 1, "fwhm": 30.0},
    }
    rules = {f"peaks: {rule}": Variant(rule=rule) for rule in RULES if rule != "spm"}
    return one | {name: Variant(settings) for name, settings in both.items()} | rules


VARIANTS = _variants()
# What an analyst can choose. Not the peaks that others report; nor a template made of the very
# images that are the truth here.
ELIGIBLE = [
    n for n, v in VARIANTS.items() if n != DEFAULT and v.rule == "spm" and not v.own_template
]


def halves(k: int, splits: int) -> list[tuple[list[int], list[int]]]:
    """Split K studies at random into K // 2, in random order, and the others."""
    orders = [np.random.default_rng((SEED, s)).permutation(k).tolist() for s in range(splits)]
    return [(order[: k // 2], sorted(order[k // 2 :])) for order in orders]


class Run:
    """Results so far, saved after every step so that a run can be continued.

    Parameters
    ----------
    maps : Maps
        The studies.
    path : path
        JSON file of the results; continued where it exists.
    splits : int
        Number of random splits.
    """

    def __init__(self, maps: Maps, path: Path, splits: int) -> None:
        self.maps, self.path = maps, path
        self.halves = halves(len(maps.names), splits)
        self.begin = monotonic()
        self.content: dict[str, Any] = {
            "default": DEFAULT, "winner": None, "seconds": 0.0, "half": len(maps.names) // 2,
            "splits": [], "fine": [], "whole": [], "why": {},
        }  # fmt: skip
        if path.exists():
            self.content |= json.loads(path.read_text(encoding="ascii"))
        self.before = self.content["seconds"]

    def save(self) -> None:
        """Write what is known."""
        self.content["seconds"] = round(self.before + monotonic() - self.begin, 1)
        self.content["machine"] = machine()
        write_json(self.path, self.content)

    def _done(self, part: str, row: dict[str, Any]) -> bool:
        return any(row.items() <= known.items() for known in self.content[part])

    def _add(self, part: str, key: dict[str, Any], scores: Callable[[], dict[str, float]]) -> None:
        if self._done(part, key):
            return
        found = {n: v if np.isfinite(v) else None for n, v in scores().items()}
        self.content[part].append(key | found)
        self.save()
        figures = " ".join(f"{n} {found[n]:.3f}" for n in ("r", "slope", "rmse"))
        print(*(f"{k} {v}" for k, v in key.items()), figures, file=sys.stderr, flush=True)

    def split(self, s: int, name: str, images: int, maps: Maps | None = None) -> None:
        """Score a variant on one split, the first `images` studies of the half as images.

        Maps of another grid than the run's are kept apart.
        """
        rows, others = self.halves[s]
        on = self.maps if maps is None else maps

        def scores() -> dict[str, float]:
            analysis = on.analysis(rows, VARIANTS[name], rows[:images], others, seed=s)
            return score(on.pooled(analysis), on.truth(others))

        key = {"split": s, "variant": name, "images": images}
        self._add("splits" if on is self.maps else "fine", key, scores)

    def all_splits(self, variants: list[str]) -> None:
        """Score the default on all splits, variants on the even ones, the winner on the odd."""
        half = self.content["half"]
        for s in range(len(self.halves)):
            for images in (0, half // 2, half):
                self.split(s, DEFAULT, images)
        for name in variants:
            for s in range(0, len(self.halves), 2):
                self.split(s, name, 0)
        even = [r for r in self.content["splits"] if r["split"] % 2 == 0]
        winner = chosen(even, DEFAULT, [n for n in ELIGIBLE if n in variants])
        self.content["winner"] = winner
        if winner is not None:
            for s in range(1, len(self.halves), 2):
                for images in (0, half // 2):
                    self.split(s, winner, images)
        self.save()

    def whole(self, maps: Maps, names: list[str]) -> None:
        """Score all studies from peaks against all of them as images."""
        rows = list(range(len(maps.names)))
        for name in names:

            def scores(name: str = name) -> dict[str, float]:
                analysis = maps.analysis(rows, VARIANTS[name])
                return score(maps.pooled(analysis), maps.truth(rows))

            key = {"voxel_size": maps.space.voxel_size, "variant": name, "voxels":
                   maps.space.n_voxels}  # fmt: skip
            self._add("whole", key, scores)


def why(maps: Maps) -> dict[str, list[dict[str, Any]]]:
    """Say where the slope is lost: bounds, likelihood or discards, all studies from peaks.

    Returns
    -------
    dict
        maps: r, slope and bias against the mean of all images; places: the mean imputed effect
        of a study's voxel against its own image, by what the bounds say there.
    """
    rows = list(range(len(maps.names)))
    truth, analysis = maps.truth(rows), maps.analysis(rows, VARIANTS[DEFAULT])
    lower, upper = analysis.bounds.lower, analysis.bounds.upper
    x, names = analysis.design.X, analysis.design.dataset.names

    def imputed(fit: RandomEffects) -> np.ndarray:
        return impute(
            analysis.bounds, fit, analysis.terms, x, names, analysis.settings, maps.space
        )[0]

    found: dict[str, np.ndarray] = {}
    found["the images, moved to the nearest value that the bounds allow"] = maps.pooled(
        analysis, np.clip(maps.g, lower, upper)[None]
    ).g
    right = RandomEffects(truth.g[None], truth.tau2, np.zeros((0, maps.space.n_voxels)), 0)
    found["imputed with the images' own mean and tau2"] = maps.pooled(analysis, imputed(right)).g
    for d in (0, 1, analysis.discards):
        fit = estimate(analysis.bounds, analysis.terms, x, analysis.design.criterion, d, maps.space)
        found[f"most likely mean, {d} discarded"] = fit.beta[0]
        found[f"imputed and pooled, {d} discarded"] = maps.pooled(analysis, imputed(fit)).g
    scored = [{"what": what, **agreement(g, truth.g)._asdict()} for what, g in found.items()]

    effects = complete_effects(analysis, silent, {})[0].mean(axis=0)
    b = 0.5 * (upper - lower).max(axis=1, keepdims=True)  # of a voxel that no peak reaches
    lost = 1 - (upper - lower) / (2 * b)
    places = {
        "all": np.ones(lost.shape, bool),
        "a peak": lost > 1 - 1e-4,
        "in reach of a peak": (lost > REACHED) & (lost <= 1 - 1e-4),
        "beyond all peaks": lost <= REACHED,
        "significant in its own image, no peak": (np.abs(maps.g) > b) & (lost <= 1 - 1e-4),
    }
    outside = (maps.g < lower - 1e-4) | (maps.g > upper + 1e-4)
    return {
        "maps": scored,
        "places": [
            {"where": name, "share": float(at.mean()), "excluded": float(outside[at].mean()),
             **agreement(effects, maps.g, at)._asdict()}
            for name, at in places.items() if at.sum() > 1
        ],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run, print and write."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--voxel-size", type=int, default=4, help="mm, of the halves")
    parse.add_argument("--splits", type=int, default=10)
    parse.add_argument("--imputations", type=int, default=20)
    parse.add_argument("--threads", type=int, default=available_cores())
    parse.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parse.add_argument("--whole", type=int, default=2, help="mm, of all 21; 0: leave out")
    parse.add_argument("--out", type=Path)
    parse.add_argument("--report", action="store_true", help="renew docs/image-truth.md")
    asked = parse.parse_args(arguments)
    folder = ALL_DATA / "pain21"
    if not folder.is_dir():
        print(f"REAL DATA ABSENT: {ALL_DATA} (set GPU_SDM_DATA to the folder that holds pain21)")
        return 1
    path = asked.out or RESULTS / f"pain-truth-{machine()['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    maps = read_pain(folder, asked.voxel_size, asked.imputations, asked.threads)
    run = Run(maps, path, asked.splits)
    run.content |= {
        "voxel_size": asked.voxel_size,
        "voxels": maps.space.n_voxels,
        "imputations": asked.imputations,
        "peaks": {rule: [len(s.peaks) for s in maps.studies(rule)] for rule in RULES},
    }
    with without_cache(), limited_threads(maps.backend):
        run.all_splits([n for n in asked.variants if n != DEFAULT])
        if not run.content["why"]:
            run.content["why"] = why(maps)
        compared = [DEFAULT, *filter(None, [run.content["winner"]])]
        # What of a combination comes from the discards alone.
        compared += [n for n in ("discards 0",) if n not in compared]
        run.whole(maps, compared)
        if asked.whole and asked.whole != asked.voxel_size:
            # Ten imputations at 2 mm take 0.2 GB; their number hardly matters for the mean.
            fine = read_pain(folder, asked.whole, min(asked.imputations, 10), asked.threads)
            run.whole(fine, compared)
            for s in range(1, asked.splits, 2):
                for name in compared:
                    run.split(s, name, 0, fine)
    run.save()
    if asked.report:
        write_report(run.content)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
