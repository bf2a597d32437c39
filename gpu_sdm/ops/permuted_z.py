"""The z map of each permutation: permuted effects, random effects, Rubin's rules.

The hot loop of the whole program: P x M x K x V effects, of which none is ever written to main
memory.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from gpu_sdm.data import StudyTerms
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._permuted_z_general_cpu import general_z
from gpu_sdm.ops.permuted_effects import (
    SMALLEST_VARIANCE,
    permuted_effects,
    study_coefficients,
)
from gpu_sdm.ops.pool import random_effects

LANES = 128  # voxels done together: K x LANES effects and weights stay in the inner caches
_SMALLEST = np.float32(SMALLEST_VARIANCE)
_ONE, _ZERO = np.float32(1), np.float32(0)
# Divisions and roots may be estimated and refined; NaN and infinity keep their meaning.
_FLAGS = {"contract", "nsz", "arcp", "afn"}


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


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _effects_and_sums(e, d, share, table, shift, y, w, s):  # type: ignore[no-untyped-def]
    """Effects less `shift`, weights, and S0, S1, S2 and the sum of squared weights in s."""
    for i in range(4 * LANES):
        s[i] = _ZERO
    for k in range(len(share)):
        f, j, a, b = share[k], table[k, 1], table[k, 2], table[k, 3]
        alpha, beta, gamma = table[k, 4], table[k, 5], table[k, 6]
        c, v2_j2 = table[k, 7], table[k, 8]
        o = k * LANES
        ek, dk, yk, wk = e[o : o + LANES], d[o : o + LANES], y[o : o + LANES], w[o : o + LANES]
        for i in range(LANES):
            di = dk[i]
            m1 = ek[i] + f * di
            diff = a * m1 + b * di
            variance = _ONE + alpha * di * di + m1 * (beta * m1 + gamma * di)
            variance = _SMALLEST if variance < _SMALLEST else variance  # NaN stays
            effect = j * diff * (_ONE / np.sqrt(variance)) - shift[i]
            weight = variance / (c * variance + v2_j2 * diff * diff)
            product = weight * effect
            yk[i] = effect
            wk[i] = weight
            s[i] += weight
            s[LANES + i] += product
            s[2 * LANES + i] += product * effect
            s[3 * LANES + i] += weight * weight


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _pooled(n_studies, y, w, s, a):  # type: ignore[no-untyped-def]
    """Random effects of one imputation from `_effects_and_sums`, added to Rubin's sums in a."""
    for i in range(LANES):
        s0, s1 = s[i], s[LANES + i]
        q = s[2 * LANES + i] - s1 * s1 / s0
        tau2 = (q - np.float32(n_studies - 1)) / (s0 - s[3 * LANES + i] / s0)
        s[4 * LANES + i] = _ZERO if tau2 < _ZERO else tau2  # NaN stays
        s[i] = _ZERO
        s[LANES + i] = _ZERO
    for k in range(0, n_studies - 1, 2):  # two studies share one division
        yk, wk = y[k * LANES : (k + 2) * LANES], w[k * LANES : (k + 2) * LANES]
        for i in range(LANES):
            tau2, w1, w2 = s[4 * LANES + i], wk[i], wk[LANES + i]
            d1, d2 = _ONE + tau2 * w1, _ONE + tau2 * w2
            r = _ONE / (d1 * d2)
            w1, w2 = w1 * d2 * r, w2 * d1 * r
            s[i] += w1 + w2
            s[LANES + i] += w1 * yk[i] + w2 * yk[LANES + i]
    if n_studies % 2:
        yk, wk = y[(n_studies - 1) * LANES :], w[(n_studies - 1) * LANES :]
        for i in range(LANES):
            weight = wk[i] / (_ONE + s[4 * LANES + i] * wk[i])
            s[i] += weight
            s[LANES + i] += weight * yk[i]
    for i in range(LANES):
        variance = _ONE / s[i]
        mean = s[LANES + i] * variance
        a[LANES + i] += mean
        a[2 * LANES + i] += mean * mean
        a[3 * LANES + i] += variance


@nb.njit(nogil=True, cache=True)
def _load(source, factor, lanes):  # type: ignore[no-untyped-def]
    """Copy a row into `lanes`, padded with 0, so that every lane runs the same instructions."""
    for i in range(len(source)):
        lanes[i] = source[i] * factor
    for i in range(len(source), LANES):
        lanes[i] = _ZERO


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _mean_z(sums, step, share, effects, table, z):  # type: ignore[no-untyped-def]
    """Mean model with DerSimonian-Laird in float32; step 0 reads the same sums for every p."""
    n_imputations, n_studies, n_voxels = effects.shape
    n_permutations = len(share)
    e = np.empty((n_permutations, n_studies * LANES), np.float32)
    d = np.empty(n_studies * LANES, np.float32)
    y = np.empty(n_studies * LANES, np.float32)
    w = np.empty(n_studies * LANES, np.float32)
    s = np.empty(5 * LANES, np.float32)
    rubin = np.empty((n_permutations, 4 * LANES), np.float32)  # shift, sums of b, b^2, variance
    per = np.float32(1 / n_imputations)
    between = np.float32((1 + 1 / n_imputations) / max(n_imputations - 1, 1))
    for first in range(0, n_voxels, LANES):
        last = min(first + LANES, n_voxels)
        for p in range(n_permutations):
            for k in range(n_studies):
                _load(sums[k, p * step, first:last], _ONE, e[p, k * LANES : (k + 1) * LANES])
        for m in range(n_imputations):
            for k in range(n_studies):
                _load(effects[m, k, first:last], table[k, 0], d[k * LANES : (k + 1) * LANES])
            for p in range(n_permutations):
                a = rubin[p]
                if m == 0:
                    a[:] = _ZERO
                    _effects_and_sums(e[p], d, share[p], table, a, y, w, s)
                    for i in range(LANES):
                        a[i] = s[LANES + i] / s[i]
                _effects_and_sums(e[p], d, share[p], table, a, y, w, s)
                _pooled(n_studies, y, w, s, a)
        for p in range(n_permutations):
            a = rubin[p]
            for i in range(last - first):
                mean = a[LANES + i] * per
                total = a[3 * LANES + i] * per
                if n_imputations > 1:
                    total += (a[2 * LANES + i] - mean * a[LANES + i]) * between
                z[p, first + i] = (a[i] + mean) / np.sqrt(total)


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
    table = study_coefficients(terms, rescale_sd, sums is None)
    x, h = _model(len(table), design, contrast)
    n_permutations, n_voxels = share.shape[1], effects.shape[2]
    z = np.empty((n_permutations, n_voxels), np.float32)
    share = np.ascontiguousarray(share.T, np.float32)
    step = 1
    if sums is None:
        step, sums = 0, np.zeros((len(table), 1, n_voxels), np.float32)
    if tau2 == "dl" and _is_mean(x, h):
        _mean_z(sums, step, share, effects, table.astype(np.float32), z)
    else:
        general_z(sums, step, share, effects, table, x, h, tau2 == "reml", z)
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
