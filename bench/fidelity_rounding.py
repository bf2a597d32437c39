"""Known effects that SDM-PSI's search of tau2 takes for unknown, foretold from its peaks alone.

SDM-PSI computes effects in single precision: J = exp(L(df/2) - L((df-1)/2)) sqrt(2/df) with L, log
gamma, rounded; y = J t/sqrt(n) of a peak and b of the threshold, rounded after each step; limits
(y + b) - b and (y - b) + b where the effect is known, which are the same number or neighbours. Its
bound maps hold the lower one twice.

The law that is tried here: where the variances of the two limits differ by `LEAST` or more, the
search of tau2 does not take the effect as known. It is Brent's, from 0 to `HIGHEST`, and the
probability between two limits is a difference of two single-precision probabilities, taken in the
tail that both lie in. Where the upper limit is the larger one, the search goes down until that
difference is rounded to 0; where it is the smaller one, the likelihood is not a number and the
search ends where it begins. LEAST, HIGHEST and that these
probabilities are in single precision are inferred from the maps where it fails; which effects those
are, and whether tau2 ends low or at the beginning, follows from the peaks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from fidelity_data import enge, sdm_maps, sdm_maxima
from fidelity_ledger import Ledger
from fidelity_maps import estimated, pooled_maps, sdm_regions
from fidelity_noise import SCORED
from fidelity_scores import agreement, dice
from scipy.special import ndtr

from gpu_sdm.data import Bounds, Study, StudyTerms
from gpu_sdm.inference import critical_value
from gpu_sdm.ops.fit_mean_sdm import TAU2_OF_MEAN, brent
from gpu_sdm.stages.smoothing import smooth_sdm

PART = "rounding"
LEAST = 1e-6  # difference of the variances from which a known effect is not taken as known
HIGHEST = 1000.0  # tau2, where the search ends


def single(x: np.ndarray) -> np.ndarray:
    """Round to single precision."""
    return np.asarray(x).astype(np.float32)


class Known(NamedTuple):
    """Limits (n,) float32 where the effects of n peaks are known."""

    lower: np.ndarray
    upper: np.ndarray


def single_j(df: int) -> float:
    """Small-sample correction with the logarithms of the gamma function in single precision."""
    above, below = (float(single(np.float64(math.lgamma(x / 2)))) for x in (df, df - 1))
    return math.exp(above - below) * math.sqrt(2 / df)


def known_limits(t: np.ndarray, t_threshold: float, n: int) -> Known:
    """Limits of a sample of n subjects at its own peaks (n,), as SDM-PSI rounds them."""

    def effect(statistic: np.ndarray) -> np.ndarray:
        return single(j * single(single(statistic).astype(float) / math.sqrt(n)).astype(float))

    j = single_j(n - 1)
    y, b = effect(t), effect(np.float64(t_threshold))
    return Known(single(single(y + b) - b), single(single(y - b) + b))


class Mistaken(NamedTuple):
    """A study, voxels (n,) where its known effect is not taken as known, and its upper limit."""

    study: int
    voxels: np.ndarray
    upper: np.float32


def differs(known: Known, c: float, v2: float) -> np.ndarray:
    """Whether (n,) bool the variances c + v2 y^2 of the two limits differ by `LEAST` or more."""
    low, high = (c + v2 * limit.astype(float) ** 2 for limit in known)
    wide: np.ndarray = np.abs(high - low) >= LEAST
    return wide


def limits_of(study: Study) -> Known:
    """Limits at the peaks of known height of a sample; each pair once."""
    known = study.peaks.t[study.peaks.known]
    limits = known_limits(known, study.t_threshold, study.n1)
    _, first = np.unique(limits.lower, return_index=True)
    return Known(limits.lower[first], limits.upper[first])


def mistaken(studies: tuple[Study, ...], bounds: Bounds, terms: StudyTerms) -> list[Mistaken]:
    """Find the known effects that the search of tau2 does not take as known."""
    found = []
    for k, study in enumerate(studies):
        limits, here = limits_of(study), bounds.lower[k] == bounds.upper[k]
        for i in np.flatnonzero(differs(limits, float(terms.c[k]), float(terms.v2[k]))):
            voxels = np.flatnonzero(here & (bounds.lower[k] == limits.lower[i]))
            if len(voxels):
                found.append(Mistaken(k, voxels, limits.upper[i]))
    return found


def foretold(studies: tuple[Study, ...], bounds: Bounds) -> tuple[int, int]:
    """How many known effects of the bound maps are ours to the last bit, and of how many.

    Of those that a peak of known height comes near to; others are means of peaks equally far.
    """
    same = of = 0
    for k, study in enumerate(studies):
        here, ours = bounds.lower[k] == bounds.upper[k], limits_of(study).lower
        for value in np.unique(bounds.lower[k][here]) if len(ours) else ():
            off = np.abs(ours - value).min()
            of += bool(off < 2e-6 * np.abs(value))
            same += bool(off == 0)
    return same, of


def searched_tau2(
    lower: np.ndarray, upper: np.ndarray, terms: StudyTerms, known: np.ndarray, mean: float
) -> float:
    """Where the search for tau2 of one voxel ends: limits (K,), which are known (K,), the mean."""
    low, high = lower.astype(float), upper.astype(float)
    v_low, v_high = (terms.c + terms.v2 * y**2 for y in (low, high))
    same_tail = low > mean

    def loss(tau2: float) -> float:
        a, b = (high - mean) / np.sqrt(v_high + tau2), (low - mean) / np.sqrt(v_low + tau2)
        inner, outer = (single(ndtr(np.where(same_tail, *x))).astype(float)
                        for x in ((-b, a), (-a, b)))  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            unknown = -np.log(inner - outer)
        density = 0.5 * (np.log(v_low + tau2) + (low - mean) ** 2 / (v_low + tau2))
        return float(np.where(known, density, unknown).sum())

    return brent(loss, 0.0, HIGHEST)[0]


def tau2_with(
    bounds: Bounds, terms: StudyTerms, mean: np.ndarray, found: list[Mistaken]
) -> np.ndarray:
    """Unsmoothed tau2 (V,) given the mean (V,), searched as above where an effect is mistaken."""
    tau2: np.ndarray = TAU2_OF_MEAN.on("cpu")(
        bounds.lower, bounds.upper, terms.c, terms.v2, mean
    ).copy()
    for one in found:
        for v in one.voxels:
            lower, upper = bounds.lower[:, v], bounds.upper[:, v].copy()
            known = lower == upper
            known[one.study], upper[one.study] = False, one.upper
            tau2[v] = searched_tau2(lower, upper, terms, known, float(mean[v]))
    return tau2


def run(ledger: Ledger, imputations: int) -> None:
    """Count what the rounding foretells, and score the maps with and without it."""
    analysis = enge("bounds", permutations=1, exchange="studies", imputations=imputations)
    space, studies = analysis.space, analysis.design.dataset.studies
    same, of = foretold(studies, analysis.bounds)
    ledger.add(PART, "known effects to the last bit", float(same), f"of {of}")
    found = mistaken(studies, analysis.bounds, analysis.terms)
    fit = estimated(analysis)
    tau2 = tau2_with(analysis.bounds, analysis.terms, fit.beta[0], found)
    for one in found:
        where = analysis.design.dataset.names[one.study]
        ledger.add(PART, "voxels mistaken", float(len(one.voxels)), where)
        ledger.add(PART, "tau2 there, median", float(np.median(tau2[one.voxels])), where)
    theirs, regions = sdm_maps(space), sdm_regions(analysis, space)
    critical = critical_value(sdm_maxima()["voxel"][0], 0.05)
    plain = pooled_maps(analysis, fit, 0)
    rounded = pooled_maps(analysis, replace(fit, tau2=smooth_sdm(tau2, space)), 0)
    for region in ("whole mask", "apart 0.02", "apart 0.02 and neighbours"):
        for name in SCORED:
            before, now = (
                agreement(maps[name], theirs[name], regions[region]).r for maps in (plain, rounded)
            )
            ledger.add(PART, f"{name}, r", now, region, beside={"without": before})
    before, now = (dice(maps["z"] > critical, theirs["z"] > critical) for maps in (plain, rounded))
    ledger.add(PART, "Dice", now, "voxel, at its critical value", beside={"without": before})
