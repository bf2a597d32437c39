"""How much studies differ at a site: Q, I2, H2, tau2 and a prediction interval."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import chdtrc, stdtrit

from gpu_sdm.findings.refit import SiteEffects

I2_CAP = 99.99  # percent; H2 is then 10,000: beyond it both are rounding


def prediction_interval(
    g: np.ndarray, se: np.ndarray, tau2: np.ndarray, df: int, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Range of the true effect of a new study.

    Parameters
    ----------
    g, se, tau2 : (n,) float
        Pooled effect, its standard error and the between-study variance.
    df : int
        Degrees of freedom: studies - 2 for a mean.
    level : float
        Coverage.

    Returns
    -------
    low, high : (n,) float64
        ``g -+ t sqrt(tau2 + se**2)``, t the quantile of Student's t with `df`.

    References
    ----------
    .. [1] Higgins JPT, Thompson SG, Spiegelhalter DJ (2009) A re-evaluation of random-effects
       meta-analysis. J R Stat Soc A 172:137-159.
    """
    half = stdtrit(df, (1 + level) / 2) * np.sqrt(np.asarray(tau2) + np.asarray(se) ** 2)
    return g - half, g + half


def heterogeneity(
    at: SiteEffects, i2_map: np.ndarray | None = None, level: float = 0.95
) -> list[dict[str, Any]]:
    """Describe the heterogeneity of every site.

    Parameters
    ----------
    at : SiteEffects
        Effects of the studies at the sites.
    i2_map : (V,) float, optional
        I2 of the result, percent.
    level : float
        Coverage of the prediction interval.

    Returns
    -------
    list of rows
        g, se, z; Q, its df and p; I2 in percent, at most 99.99 (`i2_capped` tells), H2, tau2, tau;
        the prediction interval, for a mean only; mean and largest I2 of `i2_map` in the site.

    Notes
    -----
    Pooled over imputations as in a run: at a peak these are the values of its maps. A cluster is
    one site: the effects of each study are averaged over its voxels, then pooled. Draws of
    neighbouring voxels are nearly independent and average out, the variance of a study does not
    shrink with them: Q and I2 of such a mean err low, and I2 of the voxels stands beside.

    Examples
    --------
    `at` as in `gpu_sdm.findings.refit.site_effects`.

    >>> (row,) = heterogeneity(at)
    >>> row["df"], 0 <= row["i2"] <= 99.99, bool(row["prediction_low"] < row["g"])
    (5, True, True)
    """
    pooled, design = at.pooled(), at.analysis.design
    k, q = design.X.shape
    low, high = prediction_interval(pooled.g, pooled.se, pooled.tau2, k - q - 1, level)
    if design.moderator:  # a slope or a difference is no effect that a new study could have
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    rows = []
    for s, site in enumerate(at.sites):
        capped = bool(pooled.i2[s] > I2_CAP)
        i2 = I2_CAP if capped else float(pooled.i2[s])
        rows.append(
            {
                **site.row(),
                "studies": k,
                "g": pooled.g[s],
                "se": pooled.se[s],
                "z": pooled.z[s],
                "q": pooled.q[s],
                "df": k - q,
                "p_q": float(chdtrc(k - q, pooled.q[s])) if pooled.q[s] > 0 else 1.0,
                "i2": i2,
                "i2_capped": capped,
                "h2": 1 / (1 - i2 / 100),
                "tau2": pooled.tau2[s],
                "tau": float(np.sqrt(pooled.tau2[s])),
                "i2_voxels_mean": None if i2_map is None else float(i2_map[site.voxels].mean()),
                "i2_voxels_max": None if i2_map is None else float(i2_map[site.voxels].max()),
                "prediction_low": low[s],
                "prediction_high": high[s],
            }
        )
    return rows
