"""Doubts about thresholds and heights: whether each t fits the study's sample size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal

import numpy as np
from scipy.special import nctdtr, ndtr, ndtri, stdtr, stdtrit

from gpu_sdm.data import Dataset, Notice, Study

# One-sided p of usual thresholds; half of each is the one-sided p of a two-sided test.
USUAL_P = (0.05, 0.025, 0.01, 0.005, 0.001, 0.0005, 0.0001, 0.00001)
TWO_SIDED_ONLY = (0.025, 0.0025, 0.0005, 0.00025, 0.00005)  # one-sided p nobody tests at
ONE_SIDED_ONLY = (0.05, 0.01, 0.001, 0.0001)
FSL_Z = (2.3, 3.1)
SAME_P = 2e-3  # relative; a t with three decimals gives p to about this
LIBERAL_P, STRICT_P = 0.0501, 1e-9
UNEQUAL = 10.0  # ratio of the largest to the smallest p of a data set's thresholds
TRUE_D = 2.0  # a standardised effect that hardly any contrast has
BEYOND = 1e-3
CEILING = 3  # peaks at exactly the largest |t|


def one_sided_p(t: float, df: int) -> float:
    """One-sided p of |t|."""
    return float(stdtr(df, -abs(t)))


def t_of_p(p: float, df: int) -> float:
    """|t| of a one-sided p."""
    return float(-stdtrit(df, p))


def _c(study: Study) -> float:
    return 1 / study.n1 + (1 / study.n2 if study.two_sample else 0)


def largest_credible_t(study: Study) -> float:
    """|t| that a study of this size passes once in 1000 voxels where its true d is 2.

    The 99.9 % point of the noncentral t with noncentrality ``2 / sqrt(c)``, c = 1/n1 or
    1/n1 + 1/n2.
    """
    from scipy.stats import nct

    return float(nct.isf(BEYOND, study.df, TRUE_D / math.sqrt(_c(study))))


def _credible(study: Study, t: float) -> bool:
    """Whether |t| is at most `largest_credible_t`, without the slow search for that point."""
    return float(nctdtr(study.df, TRUE_D / math.sqrt(_c(study)), t)) <= 1 - BEYOND


def height_doubts(studies: Iterable[Study]) -> Iterator[Notice]:
    """Heights that no study of that size finds, ceilings, and z given as t."""
    for study in studies:
        heights = np.abs(study.peaks.t[study.peaks.known])
        if not len(heights):
            continue
        largest = float(heights.max())
        where = f"{study.peaks.source}:{_line(study, largest)}: "
        if not _credible(study, largest):
            limit = largest_credible_t(study)
            many = int((heights > limit).sum())
            yield Notice(
                "implausible_height",
                f"{where}|t| = {largest:g} (d = {largest * math.sqrt(_c(study)):.1f}), {many} of "
                f"{len(heights)} heights above {limit:.1f}, which df = {study.df} hardly allows.",
            )
        equal = int((heights == largest).sum())
        if equal >= CEILING:
            yield Notice(
                "equal_heights",
                f"{where}the largest |t|, {largest:g}, is that of {equal} of {len(heights)} peaks: "
                "the limit of a conversion, a threshold, or p < P?",
            )
        yield from _z_heights(study, heights)


def _line(study: Study, height: float) -> int:
    at = np.flatnonzero(study.peaks.known & (np.abs(study.peaks.t) == height))[0]
    return int(study.peaks.lines[at])


def _z_heights(study: Study, heights: np.ndarray) -> Iterator[Notice]:
    """Heights below the threshold as t that would all pass it as z: they may be z."""
    t = study.t_threshold
    if not math.isfinite(t):
        return
    z = float(-ndtri(one_sided_p(t, study.df)))
    below = int((heights < t).sum())
    # Rounding of z to two decimals.
    if (
        len(set(heights.tolist())) >= 3 <= below
        and below >= len(heights) / 4
        and heights.min() >= z - 0.006
    ):
        yield Notice(
            "heights_may_be_z",
            f"{study.peaks.source}: {below} of {len(heights)} heights are below t_thr = {t:g}, and "
            f"all pass z = {z:.2f} of the same p.",
        )


def _near(p: float, usual: Iterable[float]) -> float | None:
    return next((u for u in usual if abs(p - u) <= SAME_P * u), None)


def _rounding(t: float) -> float:
    """Half a unit of the last decimal with which t was written."""
    return 0.5 * 10.0 ** min(0, int(Decimal(repr(float(t))).as_tuple().exponent))


def threshold_doubts(dataset: Dataset) -> Iterator[Notice]:
    """Thresholds of another df, of z, of the other number of sides, far from custom, unequal."""
    with_peaks = [s for s in dataset.studies if math.isfinite(s.t_threshold)]
    p_of = {s.name: one_sided_p(s.t_threshold, s.df) for s in with_peaks}
    for study in with_peaks:
        t, p = study.t_threshold, p_of[study.name]
        if not STRICT_P <= p <= LIBERAL_P:
            yield Notice(
                "unusual_threshold",
                f"{study.name}: t_thr = {t:g} with df = {study.df} is a one-sided p of {p:.2g}.",
            )
        if _near(p, (*USUAL_P, *TWO_SIDED_ONLY)) is None:
            yield from _threshold_elsewhere(study)
    two = {n: u for n, p in p_of.items() if (u := _near(p, TWO_SIDED_ONLY)) is not None}
    one = [n for n, p in p_of.items() if _near(p, ONE_SIDED_ONLY) is not None]
    if two and one:
        for name, p in two.items():
            yield Notice(
                "two_sided_threshold",
                f"{name}: t_thr is that of a two-sided p of {2 * p:g}, in {len(one)} other studies "
                "that of a one-sided p.",
            )
    if p_of and max(p_of.values()) > UNEQUAL * min(p_of.values()):
        low, high = min(p_of, key=p_of.__getitem__), max(p_of, key=p_of.__getitem__)
        yield Notice(
            "unequal_thresholds",
            f"the thresholds are one-sided p of {p_of[low]:.2g} ({low}) to {p_of[high]:.2g} "
            f"({high}).",
        )


def _threshold_elsewhere(study: Study) -> Iterator[Notice]:
    """Name a threshold that is no usual p at its df, but at a neighbouring df, or of z."""
    t, df = study.t_threshold, study.df
    rounding = max(_rounding(t), 1e-6)
    if rounding > 0.006:  # one decimal fits anything; FSL's two are what people type
        if t in FSL_Z and df < 200:
            p = float(ndtr(-t))
            yield Notice(
                "threshold_may_be_z",
                f"{study.name}: t_thr = {t:g} is a usual z (one-sided p {p:.2g}); as t "
                f"with df = {df} it would be {t_of_p(p, df):.4f}.",
            )
        return
    usual = (*USUAL_P, *TWO_SIDED_ONLY)
    for p in usual:
        z = float(-ndtri(p))
        if abs(t - z) <= rounding and t_of_p(p, df) - z > 4 * rounding:
            yield Notice(
                "threshold_may_be_z",
                f"{study.name}: t_thr = {t:g} is the z of a one-sided p of {p:g}; the t with df = "
                f"{df} is {t_of_p(p, df):.4f}.",
            )
            return
    if rounding > 0.0006:  # two decimals fit some usual p at some near df by chance
        return
    others = [df + i for i in (1, -1, 2, -2, 3, -3)]
    others += [n - 1 for n in (study.n1, study.n2) if study.two_sample]
    for other in (o for o in others if o > 0):
        for p in usual:
            there, here = t_of_p(p, other), t_of_p(p, df)
            if abs(t - there) <= rounding and abs(here - there) > 4 * rounding:
                n2 = f", n2 = {study.n2}" if study.two_sample else ""
                yield Notice(
                    "threshold_df",
                    f"{study.name}: t_thr = {t:g} is a one-sided p of {p:g} with df = {other}, but "
                    f"n1 = {study.n1}{n2} gives df = {df} (and {here:.4f}).",
                )
                return


def df_doubts(studies: Iterable[Study]) -> Iterator[Notice]:
    """Name studies whose column `df` contradicts n1 and n2."""
    for study in studies:
        for column in (c for c in study.covariates if c.lower() == "df"):
            value = study.covariates[column]
            if math.isfinite(value) and value != study.df:
                n2 = f", n2 = {study.n2}" if study.two_sample else ""
                yield Notice(
                    "df_mismatch",
                    f"{study.name}: column {column} is {value:g}, but n1 = {study.n1}{n2} gives "
                    f"df = {study.df}.",
                )
