"""The effects of every study at chosen sites, as a forest plot needs them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_sdm.findings.refit import SiteEffects

Z95 = 1.959963984540054
SUMMARY = "pooled"  # in the column `role`


def extract(at: SiteEffects) -> list[dict[str, Any]]:
    """List the effect of each study at each site, and the pooled one.

    Parameters
    ----------
    at : SiteEffects
        Effects of the studies at the sites.

    Returns
    -------
    list of rows
        For each site a row per study (`role` "study") and one that pools them (`role` "pooled").

    Notes
    -----
    g of a study is the mean over its M imputations; its variance, that Rubin's rules give, is the
    mean sampling variance plus (1 + 1/M) times the variance of g over imputations. weight is the
    share of 1 / (variance + tau2), a mean over imputations, in percent.

    Examples
    --------
    `at` as in `gpu_sdm.findings.refit.site_effects`.

    >>> rows = extract(at)
    >>> [row["study"] for row in rows if row["role"] == "study"][:2], rows[-1]["role"]
    (['study00', 'study01'], 'pooled')
    >>> round(sum(row["weight"] for row in rows if row["role"] == "study"))
    100
    """
    pooled, v, tau2 = at.pooled(), at.variances, at.tau2()
    g, within, between = at.effects.mean(0), v.mean(0), at.imputation_variances()
    share = weights(v, tau2).mean(0)
    studies = at.analysis.design.dataset.studies
    bounds = at.analysis.bounds
    rows: list[dict[str, Any]] = []
    for s, site in enumerate(at.sites):
        for i, study in enumerate(studies):
            se = float(np.sqrt(within[i, s] + between[i, s]))
            rows.append(
                {
                    **site.row(),
                    "role": "study",
                    "study": study.name,
                    "n1": study.n1,
                    "n2": study.n2,
                    "g": g[i, s],
                    "variance": se**2,
                    "sampling_variance": within[i, s],
                    "imputation_variance": between[i, s],
                    "se": se,
                    "ci_low": g[i, s] - Z95 * se,
                    "ci_high": g[i, s] + Z95 * se,
                    "weight": share[i, s],
                    "known": bool(at.known[i, s]),
                    "lower": float(bounds.lower[i, site.voxels].mean(dtype=np.float64)),
                    "upper": float(bounds.upper[i, site.voxels].mean(dtype=np.float64)),
                }
            )
        rows.append(
            {
                **site.row(),
                "role": SUMMARY,
                "study": f"{len(studies)} studies",
                "n1": sum(study.n1 for study in studies),
                "n2": sum(study.n2 for study in studies),
                "g": pooled.g[s],
                "variance": pooled.se[s] ** 2,
                "sampling_variance": None,
                "imputation_variance": None,
                "se": pooled.se[s],
                "ci_low": pooled.g[s] - Z95 * pooled.se[s],
                "ci_high": pooled.g[s] + Z95 * pooled.se[s],
                "weight": 100.0,
                "known": None,
                "lower": None,
                "upper": None,
            }
        )
    return rows


def weights(variances: np.ndarray, tau2: np.ndarray) -> np.ndarray:
    """Share of each study in the pooling, percent.

    Parameters
    ----------
    variances : (M, K, S) float
        Sampling variances.
    tau2 : (M, S) float
        Between-study variance.

    Returns
    -------
    (M, K, S) float64
        Sums to 100 over studies.
    """
    w = 1 / (variances + tau2[:, None])
    percent: np.ndarray = 100 * w / w.sum(axis=1, keepdims=True)
    return percent


def imputations(at: SiteEffects) -> list[dict[str, Any]]:
    """List g, its sampling variance and weight of each study in each imputation, at each site."""
    v, tau2 = at.variances, at.tau2()
    share = weights(v, tau2)
    return [
        {
            "site": site.name,
            "imputation": m + 1,
            "study": name,
            "g": at.effects[m, i, s],
            "variance": v[m, i, s],
            "weight": share[m, i, s],
            "tau2": tau2[m, s],
        }
        for s, site in enumerate(at.sites)
        for m in range(len(v))
        for i, name in enumerate(at.names)
    ]
