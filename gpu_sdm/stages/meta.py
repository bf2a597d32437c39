"""Random-effects meta-analysis of the imputed effects."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from gpu_sdm.data import Pooled, StudyTerms
from gpu_sdm.ops.pool import POOL
from gpu_sdm.spaces import Space
from gpu_sdm.stages.estimate import require_finite

BLOCK = 4096  # voxels at a time: bounds the memory for the fits of all imputations


def meta(
    effects: np.ndarray,
    terms: StudyTerms,
    x: np.ndarray,
    contrast: np.ndarray,
    method: str,
    space: Space,
    backend: str = "cpu",
) -> Pooled:
    """Meta-analyse every imputation and pool them by Rubin's rules.

    Parameters
    ----------
    effects : (M, K, V) float32
        Hedges g.
    terms : StudyTerms
        Constants of the K studies.
    x : (K, Q) float64
        Design: ones and mean-centred covariates.
    contrast : (Q,) float64
        The tested combination of coefficients.
    method : {"dl", "reml"}
        Estimator of tau2.
    space : Space
        To name a voxel in an error.
    backend : {"cpu", "numpy"}
        Which implementation; any other backend uses the compiled one.

    Returns
    -------
    Pooled
        Each (V,) float64.

    Raises
    ------
    NumericalError
        If a result is not a number.
    """
    pool = POOL.on("numpy" if backend == "numpy" else "cpu")
    parts = [
        pool(effects[:, :, start : start + BLOCK], terms.c, terms.v2, x, contrast, method=method)
        for start in range(0, effects.shape[2], BLOCK)
    ]
    names = [f.name for f in fields(Pooled)]
    pooled = Pooled(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
    for name in names:
        require_finite(getattr(pooled, name), f"The pooled {name}", space)
    return pooled
