"""The z map of each permutation: permuted effects, random effects, Rubin's rules.

The hot loop of the whole program: P x M x K x V effects, of which none is ever written to main
memory.
"""

from __future__ import annotations

import math

import numpy as np

from gpu_sdm.data import StudyTerms
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._permuted_z_design_cpu import design_z, orthonormal
from gpu_sdm.ops._permuted_z_flips_cpu import flipped_z
from gpu_sdm.ops._permuted_z_mean_cpu import mean_table, mean_z
from gpu_sdm.ops.permuted_effects import permuted_effects, study_coefficients
from gpu_sdm.ops.pool import random_effects


def _is_mean(design: np.ndarray, contrast: np.ndarray) -> bool:
    return design.shape[1] == 1 and bool((design == 1).all()) and contrast[0] == 1


def _model(
    k: int, design: np.ndarray | None, contrast: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    x = np.ones((k, 1)) if design is None else np.ascontiguousarray(design, np.float64)
    h = np.eye(x.shape[1])[0] if contrast is None else np.asarray(contrast, np.float64)
    if x.shape[0] != k or h.shape != (x.shape[1],):
        raise ValueError(f"design {x.shape} or contrast {h.shape} does not fit {k} studies")
    return x, h


def permuted_z(
    sums: np.ndarray | None,
    share: np.ndarray,
    effects: np.ndarray,
    terms: StudyTerms,
    *,
    design: np.ndarray | None = None,
    contrast: np.ndarray | None = None,
    tau2: str = "dl",
    rescale_sd: bool = True,
) -> np.ndarray:
    """Compute the z map of each permutation.

    Parameters
    ----------
    sums : (K, P, V) float32 or None
        Permuted means of the unit residuals; None where whole studies are exchanged.
    share : (K, P) float32
        Mean sign, share of true patients among the labelled, or the sign of the study.
    effects : (M, K, V) float32
        Imputed Hedges g.
    terms : StudyTerms
        Constants of the studies.
    design : (K, Q) float64, optional
        Ones and mean-centred covariates; the mean alone by default.
    contrast : (Q,) float64, optional
        Tested combination of coefficients; the first by default.
    tau2 : {"dl", "reml"}
        Estimator of the between-study variance.
    rescale_sd : bool
        Re-estimate the subjects' standard deviation in each permutation; False keeps 1.

    Returns
    -------
    (P, V) float32
        NaN where an input is NaN.

    Notes
    -----
    The compiled version works in float32. DerSimonian and Laird's Q is summed there over y - c
    with one c per permutation and voxel, the pooled effect of the first imputation: Q does not
    change and nothing cancels.

    References
    ----------
    .. [1] DerSimonian R, Laird N (1986) Meta-analysis in clinical trials. Control Clin Trials 7.
    .. [2] Rubin DB (1987) Multiple imputation for nonresponse in surveys. Wiley.
    """
    table = study_coefficients(terms, rescale_sd, sums is None)
    x, h = _model(len(table), design, contrast)
    n_imputations = len(effects)
    z = np.empty((share.shape[1], effects.shape[2]), np.float32)
    for p in range(len(z)):
        coefficient = np.empty((n_imputations, z.shape[1]))
        variance = np.empty_like(coefficient)
        for m in range(n_imputations):
            y, v = permuted_effects(
                None if sums is None else sums[:, p], share[:, p], effects[m], table
            )
            coefficient[m], variance[m] = random_effects(y, v, x, h, tau2)[:2]
        total = variance.mean(axis=0)
        if n_imputations > 1:
            total += (1 + 1 / n_imputations) * coefficient.var(axis=0, ddof=1)
        z[p] = coefficient.mean(axis=0) / np.sqrt(total)
    return z


def _cpu(
    sums: np.ndarray | None,
    share: np.ndarray,
    effects: np.ndarray,
    terms: StudyTerms,
    *,
    design: np.ndarray | None = None,
    contrast: np.ndarray | None = None,
    tau2: str = "dl",
    rescale_sd: bool = True,
) -> np.ndarray:
    """Compiled version of `permuted_z`: one thread, releases the GIL."""
    x, h = _model(len(share), design, contrast)
    plain = _is_mean(x, h)
    by_moments = tau2 == "dl" and plain
    if sums is None and by_moments and (np.abs(share) == 1).all():
        return flipped_z(share, effects, terms.c, terms.v2)
    table = study_coefficients(terms, rescale_sd, sums is None)
    n_permutations, n_voxels = share.shape[1], effects.shape[2]
    z = np.empty((n_permutations, n_voxels), np.float32)
    share = np.ascontiguousarray(share.T, np.float32)
    step = 1
    if sums is None:
        step, sums = 0, np.zeros((len(table), 1, n_voxels), np.float32)
    constants = mean_table(table)
    share = (share * constants[:, 0] + constants[:, 1]).astype(np.float32)
    common = (sums, step, share, effects, constants.astype(np.float32))
    if by_moments:
        mean_z(*common, z)
    else:
        design_z(*common, *orthonormal(x, h), plain, tau2 == "reml", z)
    return z


def _sample(rng: np.random.Generator) -> tuple[tuple[object, ...], dict[str, object]]:
    """Five studies of both kinds, eight permutations of true residuals, three imputations."""
    n1, n2 = np.array([9, 12, 20, 7, 5.0]), np.array([0, 10, 0, 8, 0.0])
    df = np.where(n2 > 0, n1 + n2 - 2, n1 - 1)
    j = np.array([math.exp(math.lgamma(q / 2) - math.lgamma((q - 1) / 2)) for q in df])
    j /= np.sqrt(df / 2)
    c = 1 / n1 + np.where(n2 > 0, 1 / np.where(n2 > 0, n2, 1), 0)
    terms = StudyTerms(j=j, c=c, v2=1 - (df - 2) / (df * j**2), n1=n1, n2=n2)
    sums = (0.5 * rng.standard_normal((5, 8, 150)) / np.sqrt(n1)[:, None, None]).clip(-0.3, 0.3)
    share = np.where(n2[:, None] > 0, rng.uniform(0.2, 0.8, (5, 8)), rng.uniform(-0.5, 0.5, (5, 8)))
    effects = 0.2 * rng.standard_normal((3, 5, 150)) + 0.5 * rng.standard_normal((5, 150))
    return (
        sums.astype(np.float32),
        share.astype(np.float32),
        effects.astype(np.float32),
        terms,
    ), {}


PERMUTED_Z = Op("permuted_z", permuted_z, _cpu, _sample, rtol=1e-5)
