"""Random-effects meta-analysis of the imputed effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from gpu_sdm.data import Pooled, StudyTerms
from gpu_sdm.ops.pool import POOL
from gpu_sdm.ops.study_permuted_z import STUDY_PERMUTED_Z
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


def joint(
    pooled: Pooled,
    effects: np.ndarray,
    terms: StudyTerms,
    x: np.ndarray,
    rows: np.ndarray,
    method: str,
    backend: str = "cpu",
) -> Pooled:
    """Replace z by that of the joint test of several rows; g and se stay those of the first.

    Parameters
    ----------
    pooled : Pooled
        Of the first row.
    effects, terms, x, method, backend
        As for `meta`.
    rows : (R, Q) float64
        Tested combinations of coefficients.
    """
    compute = STUDY_PERMUTED_Z.on("numpy" if backend == "numpy" else "cpu")
    same = np.arange(len(x))[None]
    parts = [
        compute(
            same,
            np.ascontiguousarray(effects[:, :, start : start + BLOCK]),
            terms,
            design=x,
            rows=rows,
            tau2=method,
        )[0]
        for start in range(0, effects.shape[2], BLOCK)
    ]
    return replace(pooled, z=np.concatenate(parts).astype(np.float64))


def coefficients(
    effects: np.ndarray,
    terms: StudyTerms,
    x: np.ndarray,
    contrasts: Sequence[np.ndarray],
    method: str,
) -> list[Pooled]:
    """Pool several combinations of coefficients, each (Q,), at a few voxels; see `meta`."""
    return [POOL.numpy(effects, terms.c, terms.v2, x, h, method=method) for h in contrasts]
