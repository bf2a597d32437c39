"""Joint test of several coefficients as a z of the same p: never negative, as it has no side."""

from __future__ import annotations

import numpy as np
from scipy import special

from gpu_sdm.ops.pooled_q import log_chi2_tail

_TINY = 1e-280  # below it probabilities are handled as logs


def chi2_to_z(chi2: np.ndarray, df: int) -> np.ndarray:
    """Give the z (same shape) whose upper tail is that of chi-squared; 0 where p is above .5.

    Parameters
    ----------
    chi2 : (..., V) float64
        NaN stays NaN.
    df : int
        Its degrees of freedom: the number of tested rows.

    Examples
    --------
    >>> chi2_to_z(np.array([3.841458820694124]), 1).round(6)
    array([1.644854])
    """
    chi2 = np.asarray(chi2, np.float64)
    tail = special.chdtrc(df, chi2)
    z = -special.ndtri(np.maximum(tail, _TINY))
    far = np.nonzero(tail < _TINY)
    if far[0].size:
        z[far] = -special.ndtri_exp(log_chi2_tail(chi2[far], df))
    return np.where(z < 0, 0.0, z)


def wald_chi2(estimates: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Pool imputations by Rubin's rules and test all rows at once.

    Parameters
    ----------
    estimates : (M, V, R) float64
        Tested combinations of coefficients.
    covariances : (M, V, R, R) float64

    Returns
    -------
    (V,) float64
        b' T^-1 b with T = mean covariance + (1 + 1/M) covariance of the estimates; under the null
        about chi-squared with R degrees of freedom.

    References
    ----------
    .. [1] Rubin DB (1987) Multiple imputation for nonresponse in surveys. Wiley, section 3.4.
    """
    m = len(estimates)
    mean, total = estimates.mean(axis=0), covariances.mean(axis=0)
    if m > 1:
        off = estimates - mean
        total = total + (1 + 1 / m) / (m - 1) * np.einsum("mvr,mvs->vrs", off, off)
    solved = np.linalg.solve(total, mean[..., None])[..., 0]
    chi2: np.ndarray = np.einsum("vr,vr->v", mean, solved)
    return chi2
