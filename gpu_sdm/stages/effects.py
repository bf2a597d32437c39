"""From t to Hedges g: effect sizes, their variance and the bounds a threshold sets.

References
----------
.. [1] Hedges (1981) Journal of Educational Statistics 6:107-128.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_sdm.data import Notice, Study, StudyTerms
from gpu_sdm.errors import SettingError
from gpu_sdm.statistics import hedges_j

FEW_OPPOSITE = 0.1  # share of peaks of the other side below which reports look one-sided


def study_terms(studies: Sequence[Study]) -> StudyTerms:
    """Collect the constants of the studies that the numerical code needs.

    Parameters
    ----------
    studies : sequence of Study
        K studies; one- and two-sample ones may be mixed.

    Returns
    -------
    StudyTerms
        Each (K,) float64; `c + v2 * g**2` is the sampling variance of g.

    Raises
    ------
    SettingError
        If a study has fewer than 3 degrees of freedom: its variance does not exist.
    """
    n1 = np.array([s.n1 for s in studies], np.float64)
    n2 = np.array([s.n2 for s in studies], np.float64)
    j, c, v2 = _constants(n1, n2)
    if all(s.averaging == 1 for s in studies):
        return StudyTerms(j, c, v2, n1, n2)
    f = np.array([s.averaging for s in studies])
    return StudyTerms(j * np.sqrt(f), c * f, v2 * f, n1, n2, f)


def _constants(n1: np.ndarray, n2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """J, c and v2 of `StudyTerms` for groups of any one shape."""
    two = n2 > 0
    df = np.where(two, n1 + n2 - 2, n1 - 1)
    if not np.all((df > 2) & (n1 >= 2) & ((n2 == 0) | (n2 >= 2))):
        raise SettingError(
            "group sizes are too small; one sample needs n1 >= 4, two samples n1, n2 >= 2 and "
            "n1 + n2 >= 5."
        )
    j = hedges_j(df)
    # np.where evaluates both branches; 1 stands in for the absent group.
    c = 1 / n1 + np.where(two, 1 / np.where(two, n2, 1.0), 0.0)
    return j, c, 1 - (df - 2) / (df * j**2)


def hedges_g(
    t: np.ndarray | float, n1: np.ndarray | int, n2: np.ndarray | int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Convert t statistics to Hedges g and its sampling variance.

    Parameters
    ----------
    t : array
        Signed t; NaN stays NaN.
    n1, n2 : int or array
        Group sizes that broadcast with `t`; n2 = 0 means one sample.

    Returns
    -------
    g, variance : arrays
        The common shape of the arguments, float64.

    Raises
    ------
    SettingError
        If a study has fewer than 3 degrees of freedom or a group of one.
    """
    size1, size2 = np.broadcast_arrays(np.asarray(n1, np.float64), np.asarray(n2, np.float64))
    j, c, v2 = _constants(size1, size2)
    g = j * np.asarray(t, np.float64) * np.sqrt(c)
    return g, c + v2 * g**2


def effect_to_bound(studies: Sequence[Study]) -> np.ndarray:
    """(K,) float64 smallest |g| that each study would have reported, J t_thr sqrt(c)."""
    terms = study_terms(studies)
    bound: np.ndarray = terms.j * np.array([s.t_threshold for s in studies]) * np.sqrt(terms.c)
    return bound


def peak_effects(study: Study, compat: bool = False) -> np.ndarray:
    """Hedges g of each peak of a study.

    Parameters
    ----------
    study : Study
        The study and its n peaks.
    compat : bool
        Take the signed number t_thr itself as g of a peak of unknown height. SDM-PSI 6.21 does so,
        a unit error; otherwise such a peak has the effect of the threshold, J t_thr sqrt(c).

    Returns
    -------
    (n,) float64
    """
    peaks = study.peaks
    g = hedges_g(peaks.t, study.n1, study.n2)[0]
    return np.where(peaks.known, g, peaks.t) if compat else g


def peaks_as_used(study: Study, compat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 3) in MNI mm and effects (n,) of the peaks of a study; none for an image."""
    # SDM-PSI 6.21 drops the decimals of coordinates; harmless where the reader already did.
    xyz = np.trunc(study.peaks.xyz_mm) if compat else study.peaks.xyz_mm
    return xyz, peak_effects(study, compat)


def one_sided_notice(studies: Sequence[Study]) -> Notice | None:
    """Warn where hardly a peak is of the other side: only a test that moves peaks can bear that.

    Parameters
    ----------
    studies : sequence of Study
        Contrasts as they were reported.
    """
    signs = np.concatenate([np.sign(s.peaks.t) for s in studies]) if studies else np.zeros(0)
    listing = sum(bool(len(s.peaks)) for s in studies)
    up, down = int((signs > 0).sum()), int((signs < 0).sum())
    if listing < 2 or min(up, down) >= FEW_OPPOSITE * (up + down):
        return None
    return Notice(
        "one_sided_reports",
        f"the {listing} studies with peaks report {up} positive and {down} negative ones: it seems "
        "that most looked at one side alone. What nobody looked for counts as not there, and this "
        "null then finds effects of that side where there are none (docs/calibration.md); use "
        "exchange peaks, or add what the studies found on the other side.",
    )
