"""How much of a disagreement is noise: SDM-PSI's maps among several runs of ours.

Every run draws its own imputations, so that two runs of one program differ. Ten runs of ours from
SDM-PSI's own bounds, estimated once and imputed by ten seeds, are compared with each other and with
SDM-PSI's only run; and each of the eleven with the mean of nine of ours (its own left out), which
holds little noise. What sets the original apart from our runs is not noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import NamedTuple

import numpy as np
from fidelity_clusters import PEAK_ALPHA, PEAK_BAR, PEAK_VOXELS
from fidelity_data import enge, sdm_maps, sdm_maxima
from fidelity_ledger import Ledger
from fidelity_maps import estimated, pooled_maps
from fidelity_scores import agreement, cluster_peaks, dice, nearest

from gpu_sdm.analysis import Analysis
from gpu_sdm.inference import critical_value
from gpu_sdm.spaces import Space

PART = "noise"
RUNS = 10
SCORED = ("g", "z", "tau2", "i2", "q")
Maps = dict[str, np.ndarray]


def runs_of(analysis: Analysis, seeds: Iterable[int]) -> list[Maps]:
    """Estimate once and impute by each seed."""
    fit, found = estimated(analysis), []
    for seed in seeds:
        found.append(pooled_maps(analysis, fit, seed))
        print(f"{PART}: seed {seed} done", flush=True)
    return found


def mean_of(runs: list[Maps]) -> Maps:
    """Mean of every map; z is mean g over the root of mean var, as of a run without noise."""
    mean = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
    return mean | {"z": mean["g"] / np.sqrt(mean["var"])}


class Seen(NamedTuple):
    """A run's maps, and the places (n, 3) in mm of its cluster peaks."""

    maps: Maps
    peaks: np.ndarray


class Judge:
    """Scores one run against another at SDM-PSI's own thresholds."""

    def __init__(self, space: Space, voxel: float, cluster: float) -> None:
        self.space, self.voxel, self.cluster = space, voxel, cluster

    def see(self, maps: Maps) -> Seen:
        """Find the peaks of clusters above the threshold of SDM-PSI's report."""
        found = cluster_peaks(maps["z"], maps["z"] > self.cluster, self.space, PEAK_VOXELS)
        return Seen(maps, np.array([peak.mm for peak in found]).reshape(-1, 3))

    def scores(self, one: Seen, other: Seen) -> dict[str, float]:
        """Give Dice, r of every map, and the share of `one`'s cluster peaks that `other` has."""
        a, b = one.maps, other.maps
        found = {f"r({name})": agreement(a[name], b[name]).r for name in SCORED}
        found["Dice"] = dice(a["z"] > self.voxel, b["z"] > self.voxel)
        far, _ = nearest(one.peaks, other.peaks)
        near = float((far <= PEAK_BAR.high).mean()) if len(far) else float("nan")
        found[f"peaks within {PEAK_BAR.high:g} mm"] = near
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
    original, runs = judge.see(theirs), [judge.see(maps) for maps in ours]
    means = [judge.see(mean_of(ours[:i] + ours[i + 1 :])) for i in range(n)]
    record(ledger, "SDM-PSI, one of ours", [judge.scores(original, run) for run in runs])
    record(ledger, "two of ours", [judge.scores(*pair) for pair in permutations(runs, 2)])
    record(ledger, f"SDM-PSI, mean of {n - 1} of ours", [judge.scores(original, m) for m in means])
    record(ledger, f"one of ours, mean of the {n - 1} others",
           [judge.scores(run, m) for run, m in zip(runs, means, strict=True)])  # fmt: skip


def run(ledger: Ledger, imputations: int) -> None:
    """Run ours ten times and compare."""
    analysis = enge("bounds", permutations=1, exchange="studies", imputations=imputations)
    null = sdm_maxima()["voxel"][0]
    judge = Judge(analysis.space, critical_value(null, 0.05), critical_value(null, PEAK_ALPHA))
    compare(ledger, sdm_maps(analysis.space), runs_of(analysis, range(RUNS)), judge)
