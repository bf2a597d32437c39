"""How much of a disagreement is noise: SDM-PSI's maps among several runs of ours.

Every run draws its own imputations, so that two runs of one program differ. Ten runs of ours from
SDM-PSI's own bounds, estimated once and imputed by ten seeds, are compared with each other and with
SDM-PSI's only run; and each of the eleven with the mean of nine of ours (its own left out), which
holds little noise. What sets the original apart from our runs is not noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations

import numpy as np
from fidelity_data import enge, sdm_maps, sdm_maxima
from fidelity_ledger import Ledger
from fidelity_scores import agreement, cluster_peaks, dice, nearest

from gpu_sdm.analysis import Analysis, limited_threads
from gpu_sdm.inference import critical_value
from gpu_sdm.spaces import Space
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute
from gpu_sdm.stages.meta import meta

PART = "noise"
RUNS = 10
SCORED = ("g", "z", "tau2", "i2", "q")
CLOSE = 6  # mm
PEAK_VOXELS = 50  # of SDM-PSI's own report, which lists clusters at FWE p <= .001
Maps = dict[str, np.ndarray]


def runs_of(analysis: Analysis, seeds: Iterable[int]) -> list[Maps]:
    """Estimate once and impute by each seed: maps of the mean model; `var` is se^2."""
    settings, space, terms = analysis.settings, analysis.space, analysis.terms
    x, criterion, discards = analysis.likelihood
    found = []
    with limited_threads(analysis.backend):
        fit = estimate(analysis.bounds, terms, x, criterion, discards, space,
                       search=settings.search, compat=settings.sdm_compat)  # fmt: skip
        for seed in seeds:
            drawn = replace(settings, seed=seed)
            names = analysis.design.dataset.names
            effects, _ = impute(analysis.bounds, fit, terms, x, names, drawn, space)
            pooled = meta(effects, terms, analysis.design.X, analysis.design.contrast[0],
                          settings.tau2, space)  # fmt: skip
            found.append({name: getattr(pooled, name) for name in SCORED} | {"var": pooled.se**2})
            print(f"{PART}: seed {seed} done", flush=True)
    return found


def mean_of(runs: list[Maps]) -> Maps:
    """Mean of every map; z is mean g over the root of mean var, as of a run without noise."""
    mean = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
    return mean | {"z": mean["g"] / np.sqrt(mean["var"])}


class Judge:
    """Scores one run's maps against another's at SDM-PSI's own thresholds."""

    def __init__(self, space: Space, voxel: float, cluster: float) -> None:
        self.space, self.voxel, self.cluster = space, voxel, cluster

    def peaks(self, maps: Maps) -> np.ndarray:
        """Places (n, 3) in mm of the peaks of clusters above the threshold of SDM-PSI's report."""
        found = cluster_peaks(maps["z"], maps["z"] > self.cluster, self.space, PEAK_VOXELS)
        return np.array([peak.mm for peak in found]).reshape(-1, 3)

    def scores(self, one: Maps, other: Maps) -> dict[str, float]:
        """Give Dice, r of every map, and the share of `one`'s cluster peaks that `other` has."""
        found = {f"r({name})": agreement(one[name], other[name]).r for name in SCORED}
        found["Dice"] = dice(one["z"] > self.voxel, other["z"] > self.voxel)
        far, _ = nearest(self.peaks(one), self.peaks(other))
        near = float((far <= CLOSE).mean()) if len(far) else float("nan")
        found[f"peaks within {CLOSE} mm"] = near
        return found


def record(ledger: Ledger, who: str, scores: list[dict[str, float]]) -> None:
    """Enter mean, lowest and highest of every score."""
    for name in scores[0]:
        values = [found[name] for found in scores]
        for how, value in (("mean", np.mean(values)), ("lowest", min(values)),
                           ("highest", max(values))):  # fmt: skip
            ledger.add(PART, name, float(value), f"{who}: {how} of {len(values)}")


def compare(ledger: Ledger, theirs: Maps, ours: list[Maps], judge: Judge) -> None:
    """Enter how alike theirs and ours are, and each to the mean of others of ours."""
    n = len(ours)
    others = [mean_of(ours[:i] + ours[i + 1 :]) for i in range(n)]
    record(ledger, "SDM-PSI, one of ours", [judge.scores(theirs, run) for run in ours])
    pairs = permutations(range(n), 2)
    record(ledger, "two of ours", [judge.scores(ours[i], ours[j]) for i, j in pairs])
    record(ledger, f"SDM-PSI, mean of {n - 1} of ours", [judge.scores(theirs, m) for m in others])
    record(ledger, f"one of ours, mean of the {n - 1} others",
           [judge.scores(run, m) for run, m in zip(ours, others, strict=True)])  # fmt: skip


def run(ledger: Ledger, imputations: int) -> None:
    """Run ours ten times and compare."""
    analysis = enge("bounds", permutations=1, exchange="studies", imputations=imputations)
    null = sdm_maxima()["voxel"][0]
    judge = Judge(analysis.space, critical_value(null, 0.05), critical_value(null, 0.001))
    compare(ledger, sdm_maps(analysis.space), runs_of(analysis, range(RUNS)), judge)
