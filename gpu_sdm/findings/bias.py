"""Small-study effects and an excess of significant studies, at chosen sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtrc, chdtrc, nctdtr, ndtr, stdtrit

from gpu_sdm.checks import Interval, Options
from gpu_sdm.findings.refit import SiteEffects
from gpu_sdm.ops.pool import random_effects, rubin, weighted

REGRESSORS = ("se", "inverse-root-n")
FEW_STUDIES = 10  # below it the regression has next to no power (Sterne et al. 2011)
COLLINEAR = 1e-8
ROUNDING = 1e-6  # effects are held in float32: a peak at the threshold itself counts
CONVENTIONAL = 0.05  # two-sided level of a study without a threshold of its own


@dataclass(frozen=True, slots=True)
class Egger:
    """Regression of effects on their precision at one site."""

    slope: float
    se: float
    z: float
    p: float  # two-sided
    intercept: float  # effect of an infinitely large study
    tau2: float


def egger(
    effects: np.ndarray,
    variances: np.ndarray,
    x: np.ndarray,
    contrast: np.ndarray,
    regressor: np.ndarray | None = None,
) -> Egger | None:
    """Test for small-study effects over imputations.

    Parameters
    ----------
    effects, variances : (M, K) float64
        Hedges g and its sampling variance.
    x : (K, Q) float64
        Design of the analysis.
    contrast : (Q,) float64
        What it tests; gives the intercept.
    regressor : (K,) float64, optional
        Instead of the square root of the variance, which differs between imputations.

    Returns
    -------
    Egger or None
        None where the regressor does not vary, or no degree of freedom is left.

    Notes
    -----
    In each imputation a random-effects regression with the regressor added to the design, tau2 by
    REML; coefficients pooled by Rubin's rules, z referred to the normal.

    References
    ----------
    .. [1] Egger M et al. (1997) Bias in meta-analysis detected by a simple, graphical test. BMJ
       315:629-634.
    .. [2] Sterne JAC, Egger M (2005) Regression methods to detect publication and other bias in
       meta-analysis. In: Publication bias in meta-analysis. Wiley.
    """
    k, q = x.shape
    if k - q - 1 < 1:
        return None
    rows = {"slope": np.eye(q + 1)[q], "level": np.append(contrast, 0.0)}
    fits: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in rows}
    for y, v in zip(effects[:, :, None], variances[:, :, None], strict=True):
        added = np.sqrt(v[:, 0]) if regressor is None else np.asarray(regressor, np.float64)
        left = added - x @ np.linalg.lstsq(x, added, rcond=None)[0]
        if np.linalg.norm(left) <= COLLINEAR * np.linalg.norm(added):
            return None
        design = np.column_stack([x, added])
        _, _, tau2, fixed_q, i2 = random_effects(y, v, design, rows["slope"], "reml")
        beta, cov, _ = weighted(1 / (v + tau2), y, design)
        for name, row in rows.items():
            fits[name].append((beta @ row, row @ cov @ row, tau2, fixed_q, i2))
    pooled, at_zero = (rubin(np.stack(fits[name], axis=1), k - q - 1) for name in rows)
    z = float(pooled.z[0])
    return Egger(
        float(pooled.g[0]),
        float(pooled.se[0]),
        z,
        float(2 * ndtr(-abs(z))),
        float(at_zero.g[0]),
        float(pooled.tau2[0]),
    )


def poisson_binomial_tail(observed: int, chances: np.ndarray) -> float:
    """Probability of at least `observed` successes of independent trials with unequal chances."""
    law = np.zeros(len(chances) + 1)
    law[0] = 1.0
    for i, p in enumerate(chances):
        law[1 : i + 2] = law[1 : i + 2] * (1 - p) + law[: i + 1] * p
        law[0] *= 1 - p
    return float(min(1.0, law[observed:].sum()))


@dataclass(frozen=True, slots=True)
class Excess:
    """Significant studies at one site, against those expected of their power."""

    observed: float  # mean over imputations
    expected: float
    p_exact: float  # Poisson-binomial, one-sided: as many or more
    p_binomial: float  # the same with the mean power for all
    chi2: float
    p_chi2: float  # either direction


def excess_significance(significant: np.ndarray, power: np.ndarray) -> Excess:
    """Compare the number of significant studies with the sum of their powers.

    Parameters
    ----------
    significant : (M, K) bool
        Which studies are significant, in each imputation.
    power : (K,) float64
        Their power at the pooled effect.

    Returns
    -------
    Excess
        p values and chi2 are medians over imputations.

    Notes
    -----
    chi2 = (O - E)^2/E + (O - E)^2/(K - E) on 1 degree of freedom, as published; it also answers to
    too few. The exact p answers to too many only.

    References
    ----------
    .. [1] Ioannidis JPA, Trikalinos TA (2007) An exploratory test for an excess of significant
       findings. Clin Trials 4:245-253.
    .. [2] Eekhout I, van de Wiel MA, Heymans MW (2017) Methods for significance testing of
       categorical covariates in logistic regression models after multiple imputation. BMC Med Res
       Methodol 17:129 (the median of p over imputations).
    """
    k = significant.shape[1]
    observed = significant.sum(axis=1)
    expected = float(power.sum())
    room = expected * (k - expected)
    chi2 = k * (observed - expected) ** 2 / room if room > 0 else np.zeros(len(observed))
    exact = [poisson_binomial_tail(int(o), power) for o in observed]
    mean = expected / k
    binomial = [float(bdtrc(o - 1, k, mean)) if o > 0 else 1.0 for o in observed]
    return Excess(
        float(observed.mean()),
        expected,
        float(np.median(exact)),
        float(np.median(binomial)),
        float(np.median(chi2)),
        float(np.median(chdtrc(1, chi2))),
    )


def study_power(
    effect: float, df: np.ndarray, c: np.ndarray, t_threshold: np.ndarray
) -> np.ndarray:
    """Chance of each study to find t beyond its threshold on the side of the true effect.

    Parameters
    ----------
    effect : float
        True standardised effect.
    df, c, t_threshold : (K,) float64
        Degrees of freedom, 1/n1 (+ 1/n2), and |t| wanted.

    Returns
    -------
    (K,) float64
        Upper tail of the noncentral t with noncentrality ``|effect| / sqrt(c)``.
    """
    return 1 - nctdtr(df, np.abs(effect) / np.sqrt(c), t_threshold)


def thresholds(at: SiteEffects, level: float | None = None) -> np.ndarray:
    """(K,) |t| from which a study is significant: its own, or that of a two-sided `level`."""
    studies = at.analysis.design.dataset.studies
    df = np.array([s.df for s in studies], np.float64)
    own = np.array([s.t_threshold for s in studies])
    usual = stdtrit(df, 1 - (CONVENTIONAL if level is None else level) / 2)
    return np.where(np.isfinite(own), own, usual) if level is None else usual


def bias(
    at: SiteEffects, regressor: str = "se", level: float | None = None
) -> list[dict[str, Any]]:
    """Test each site for small-study effects and for an excess of significant studies.

    Parameters
    ----------
    at : SiteEffects
        Effects of the studies at the sites.
    regressor : {"se", "inverse-root-n"}
        sqrt of the sampling variance, or sqrt(1/n1 + 1/n2) (1/sqrt(n1) of one sample), which does
        not depend on g itself.
    level : float, optional
        Two-sided level at which a study counts as significant; None: its own threshold.

    Returns
    -------
    list of rows
        One per site. No regression (None) where the regressor does not vary; no excess for a site
        of several voxels (their mean does not pass or miss a voxel's threshold) or a moderator.

    Raises
    ------
    SettingError
        If regressor or level is not one of the allowed.

    Examples
    --------
    >>> (row,) = bias(at)  # `at` as in `gpu_sdm.findings.refit.site_effects`
    >>> 0 <= row["egger_p"] <= 1
    True
    """
    Options(REGRESSORS).check("regressor", regressor)
    if level is not None:
        Interval(0, 1, closed="neither").check("significance", level)
    terms, design = at.terms, at.analysis.design
    pooled, v, contrast = at.pooled(), at.variances, at.contrast
    root = np.sqrt(terms.c / terms.factor)  # of the subjects, whatever they average
    t = at.effects / (terms.j * root)[:, None]
    cut = thresholds(at, level)
    df = np.array([s.df for s in design.dataset.studies], np.float64)
    fixed = root if regressor == "inverse-root-n" else None
    rows = []
    for s, site in enumerate(at.sites):
        found = egger(at.effects[:, :, s], v[:, :, s], design.X, contrast, fixed)
        g, many = float(pooled.g[s]), None
        # A mean over voxels does not pass or miss a voxel's threshold; a slope is no effect.
        if len(site.voxels) == 1 and not design.moderator:
            over = np.sign(g) * t[:, :, s] >= cut * (1 - ROUNDING)
            many = excess_significance(over, study_power(g, df, terms.c, cut))
        rows.append(
            {
                **site.row(),
                "studies": len(cut),
                "g": g,
                "egger_regressor": regressor,
                "egger_slope": found and found.slope,
                "egger_se": found and found.se,
                "egger_z": found and found.z,
                "egger_p": found and found.p,
                "egger_g_at_0": found and found.intercept,
                "egger_tau2": found and found.tau2,
                "significance": "own threshold" if level is None else f"two-sided p {level:g}",
                "significant": many and many.observed,
                "expected": many and many.expected,
                "excess_p_exact": many and many.p_exact,
                "excess_p_binomial": many and many.p_binomial,
                "excess_chi2": many and many.chi2,
                "excess_p_chi2": many and many.p_chi2,
            }
        )
    return rows


def doubts(at: SiteEffects, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say what limits the tests of `bias`."""
    found, k = [], len(at.names)
    if k < FEW_STUDIES:
        found.append(
            f"{k} studies: with fewer than {FEW_STUDIES} the regression has next to no power, and "
            "no asymmetry found says nothing."
        )
    if any(row["egger_z"] is None for row in rows):
        found.append("no regression where the regressor does not vary or no freedom is left.")
    design = at.analysis.design
    if design.X.shape[1] > 1 and not design.moderator:
        found.append("excess significance takes the pooled effect for the effect of every study.")
    return found


def funnel(at: SiteEffects) -> list[dict[str, Any]]:
    """List what a funnel plot shows: each study's g (mean over imputations) and its precision."""
    g = at.effects.mean(0)
    se = np.sqrt(at.variances.mean(0))
    root = np.sqrt(at.terms.c / at.terms.factor)
    pooled = at.pooled().g
    columns = ("site", "study", "g", "se", "inverse_root_n", "known", "pooled_g")
    rows = []
    for s, site in enumerate(at.sites):
        for i, name in enumerate(at.names):
            row = site.name, name, g[i, s], se[i, s], root[i], bool(at.known[i, s]), pooled[s]
            rows.append(dict(zip(columns, row, strict=True)))
    return rows
