"""From the observed maps and the null's maxima to p values."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtr

from gpu_sdm.data import Notice
from gpu_sdm.errors import NumericalError, SettingError
from gpu_sdm.ops.max_cluster import cluster_maps

FEW_PERMUTATIONS = 100


def fwe_p(stat: np.ndarray, maxima: np.ndarray, gamma: float | np.ndarray = 0.0) -> np.ndarray:
    """Family-wise error corrected p of one side.

    Parameters
    ----------
    stat : (V,) float
        Observed statistic of that side (z, -z, or a TFCE score).
    maxima : (P,) float
        Largest statistic of each permutation, the observed one (permutation 0) included.
    gamma : float or (V,) float
        Tie tolerance: a maximum counts from `stat - gamma` on. See `tie_tolerance`.

    Returns
    -------
    (V,) float64
        #{maxima >= stat - gamma} / P, never below 1 / P where `stat` does not exceed its own
        maximum.

    Raises
    ------
    NumericalError
        If a statistic or a maximum is NaN.
    """
    stat, ranked = np.asarray(stat, np.float64), np.sort(np.asarray(maxima, np.float64))
    if ranked.size == 0:
        raise SettingError("The null holds no permutation; at least permutation 0 is needed.")
    if np.isnan(ranked[-1]):
        raise NumericalError("A maximum of the null is NaN; the null cannot be used.")
    if np.isnan(stat).any():
        raise NumericalError(f"The statistic is NaN at {int(np.isnan(stat).sum())} voxels.")
    below = np.searchsorted(ranked, stat - gamma, side="left")
    return (ranked.size - below) / ranked.size


def fwe_p_two_sided(
    stat: np.ndarray,
    maxima: np.ndarray,
    maxima_neg: np.ndarray,
    gamma: float | np.ndarray = 0.0,
) -> np.ndarray:
    """Family-wise error corrected p of both sides at once.

    Parameters
    ----------
    stat : (V,) float
        Observed statistic of either sign; its absolute value is tested. For TFCE pass the larger
        of the two sides' scores.
    maxima, maxima_neg : (P,) float
        Largest statistic of each permutation on either side.
    gamma : float or (V,) float
        Tie tolerance.

    Returns
    -------
    (V,) float64
        #{max(maxima, maxima_neg) >= |stat| - gamma} / P.
    """
    return fwe_p(np.abs(stat), np.maximum(maxima, maxima_neg), gamma)


def tie_tolerance(stat: np.ndarray, rtol: float) -> np.ndarray:
    """Tolerance (V,) within which two statistics count as equal.

    Parameters
    ----------
    stat : (V,) float
        Observed statistic.
    rtol : float
        The backend's stated relative error of that statistic.
    """
    return rtol * np.abs(np.asarray(stat, np.float64))


def uncorrected_p(z: np.ndarray) -> np.ndarray:
    """One-sided p (V,) of z (V,) under the standard normal; pass -z for the negative side."""
    return ndtr(-np.asarray(z, np.float64))


def uncorrected_log_p(z: np.ndarray) -> np.ndarray:
    """-log10 of `uncorrected_p`, finite where p itself underflows."""
    return log_ndtr(-np.asarray(z, np.float64)) / -math.log(10)


def critical_value(maxima: np.ndarray, alpha: float) -> float:
    """Value that a statistic must exceed for a corrected p of at most `alpha`.

    Parameters
    ----------
    maxima : (P,) float
        Largest statistic of each permutation.
    alpha : float
        Error rate, between 0 and 1.

    Returns
    -------
    float
        Infinite where `alpha` is below 1 / P: no statistic can be significant.

    Raises
    ------
    SettingError
        If alpha is outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise SettingError(f"alpha is {alpha!r}; it must lie in (0, 1).")
    ranked = np.sort(np.asarray(maxima, np.float64))[::-1]
    # The tolerance lets 0.05 * 1000 be 50 whatever its last bit.
    allowed = math.floor(alpha * ranked.size * (1 + 1e-9))
    return float(ranked[allowed]) if allowed > 0 else math.inf


def p_standard_error(p: float, permutations: int) -> float:
    """Monte Carlo standard error of a p estimated from `permutations` permutations."""
    return math.sqrt(p * (1 - p) / permutations)


def permutations_notice(permutations: int, distinct: int | None = None) -> Notice | None:
    """Warn of a null too small for a p near .05 to be trusted; None if it is large enough.

    Parameters
    ----------
    permutations : int
        How many are run.
    distinct : int, optional
        How many there are; where that is no more, p has no Monte Carlo error but is coarse.
    """
    if permutations >= FEW_PERMUTATIONS:
        return None
    if distinct is not None and distinct <= permutations:
        return Notice(
            "few_permutations",
            f"Only {permutations} distinct permutations exist, and each is used once: the "
            f"smallest corrected p is {1 / permutations:.3g}, whatever the effect.",
        )
    error = p_standard_error(0.05, permutations)
    return Notice(
        "few_permutations",
        f"Only {permutations} permutations: the smallest corrected p is {1 / permutations:.3g} "
        f"and a p near .05 has standard error {error:.3f}; 1000 or more are usual.",
    )


def fdr_q(p: np.ndarray) -> np.ndarray:
    """Smallest false discovery rate at which each voxel is found (Benjamini-Hochberg).

    Parameters
    ----------
    p : (V,) float
        Uncorrected p of one side, every voxel tested.

    Returns
    -------
    (V,) float64
        q: voxels with q <= .05 are found at a false discovery rate of .05. Monotone in p, never
        below it.

    Raises
    ------
    NumericalError
        If a p is NaN or outside [0, 1].

    Notes
    -----
    Valid for independent and for positively dependent tests, as smooth maps are. It is the
    expected share of voxels, not of clusters, that are falsely found, and one large true effect
    lets more false voxels through elsewhere: it locates less surely than a corrected p.

    References
    ----------
    .. [1] Benjamini Y, Hochberg Y (1995) Controlling the false discovery rate. J R Stat Soc B
       57:289-300.
    .. [2] Chumbley JR, Friston KJ (2009) False discovery rate revisited: FDR and topological
       inference using Gaussian random fields. NeuroImage 44:62-70.
    """
    p = np.asarray(p, np.float64)
    wrong = int((~((p >= 0) & (p <= 1))).sum())
    if wrong:
        raise NumericalError(f"p is NaN or outside [0, 1] at {wrong} voxels; no q follows from it.")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return q


def uncorrected_maps(z: np.ndarray) -> dict[str, np.ndarray]:
    """Give the maps `p p_neg log_p log_p_neg`, each (V,) float64, of z (V,)."""
    return {
        "p": uncorrected_p(z),
        "p_neg": uncorrected_p(-z),
        "log_p": uncorrected_log_p(z),
        "log_p_neg": uncorrected_log_p(-z),
    }


def cluster_statistic(
    z: np.ndarray, neighbours: np.ndarray, threshold: float, tolerance: float
) -> dict[str, np.ndarray]:
    """Give each voxel the extent and the mass of its cluster, ties settled.

    Parameters
    ----------
    z : (V,) float
        Statistic map; pass -z for the negative side.
    neighbours : (V, 6) or (V, 26) int32
        What joins voxels to clusters.
    threshold : float
        Forming threshold; strict.
    tolerance : float
        Stated error of a permuted z. A permuted map that is the observed one up to this error
        has a cluster at least as large as that of the threshold raised by it: the value to
        compare the null with.

    Returns
    -------
    dict of str to (V,) float64
        "cluster-extent" and "cluster-mass"; 0 outside clusters.
    """
    cluster = cluster_maps(z, neighbours, threshold)[2]
    raised = cluster_maps(z, neighbours, threshold + tolerance)[:2]
    found = {}
    for name, values in zip(("cluster-extent", "cluster-mass"), raised, strict=True):
        largest = np.zeros(len(values))
        np.maximum.at(largest, cluster, values)
        found[name] = largest[cluster]
    return found


def corrected_maps(
    statistic: str,
    stat: np.ndarray,
    stat_neg: np.ndarray,
    maxima: np.ndarray,
    tolerance: float = 0.0,
) -> dict[str, np.ndarray]:
    """Corrected p of one statistic: each side and both.

    Parameters
    ----------
    statistic : {"voxel", "tfce", "cluster-extent", "cluster-mass"}
        Which statistic; names the maps.
    stat, stat_neg : (V,) float
        Observed statistic of each side: z and -z, the two TFCE maps, or what `cluster_statistic`
        gives of either.
    maxima : (2, P) float
        Its largest values in each permutation, positive and negative side.
    tolerance : float
        Tie tolerance: absolute for z, relative to the score for TFCE.

    Returns
    -------
    dict of str to (V,) float64
        `p_fwe_S`, `p_fwe_S_neg` and `p_fwe_S_two_sided`, hyphens of S as underscores.
    """
    top, top_neg = maxima
    either = np.maximum(stat, stat_neg)

    def gamma(of: np.ndarray) -> float | np.ndarray:
        return tolerance if statistic == "voxel" else tie_tolerance(of, tolerance)

    name = f"p_fwe_{statistic.replace('-', '_')}"
    return {
        name: fwe_p(stat, top, gamma(stat)),
        f"{name}_neg": fwe_p(stat_neg, top_neg, gamma(stat_neg)),
        f"{name}_two_sided": fwe_p_two_sided(either, top, top_neg, gamma(either)),
    }
