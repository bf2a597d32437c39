"""Compiled `permuted_z` of a common mean where the signs of whole studies flip, float32.

One complete data set has its own way (`gpu_sdm.ops._permuted_z_complete_cpu`).

A flip changes no variance: of DerSimonian and Laird's sums only S1 = sum w g differs between
permutations, and the weights are divided anew only by 1 + tau2 w. Per imputation and voxel:

    Q = S2 - S1^2 / S0,   tau2 = (Q - K + 1) / (S0 - S3 / S0),   z = sum w g r / sqrt(sum w r)

with r = 1 / (1 + tau2 w). Where S1^2 / S0 takes most of S2 the difference would cancel; there Q is
summed anew over the effects less their mean.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._lanes import WIDTH, aligned, at_least, everywhere, load, ratio, root, store
from gpu_sdm.ops._permuted_z_complete_cpu import CANCELS, complete_z, q_anew

_ONE, _ZERO = np.float32(1), np.float32(0)
TOGETHER = 4  # permutations whose S1 is summed in one pass over the studies


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _first_sums(x, signs, s1):  # type: ignore[no-untyped-def]
    """Sum S1 of all permutations, four at a time: four sums hide the latency of each other."""
    zero = everywhere(_ZERO)
    for p in range(0, len(signs), TOGETHER):
        a, b, c, d = zero, zero, zero, zero
        for k in range(signs.shape[1]):
            xk = load(x, k * WIDTH)
            a = a + everywhere(signs[p, k]) * xk
            b = b + everywhere(signs[p + 1, k]) * xk
            c = c + everywhere(signs[p + 2, k]) * xk
            d = d + everywhere(signs[p + 3, k]) * xk
        o = p * WIDTH
        store(s1, o, a)
        store(s1, o + WIDTH, b)
        store(s1, o + 2 * WIDTH, c)
        store(s1, o + 3 * WIDTH, d)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _all_q(w, g, signs, s1, sums, fresh, rubin, q, out):  # type: ignore[no-untyped-def]
    """Q of all permutations; `fresh`: the first imputation, whose means become the shifts."""
    inverse, s2 = load(sums, 0), load(sums, WIDTH)
    small = everywhere(CANCELS) * s2
    worst = everywhere(-np.float32(np.inf))
    for p in range(len(signs)):
        o = p * WIDTH
        sum_ = load(s1, o)
        if fresh:
            store(rubin, 4 * o, sum_ * inverse)
            for i in range(1, 4):
                store(rubin, 4 * o + i * WIDTH, everywhere(_ZERO))
        of = s2 - sum_ * sum_ * inverse
        store(q, o, of)
        worst = at_least(small - of, worst)
    store(out, 0, worst)
    store(out, WIDTH, small)
    cancelled = 0
    for i in range(WIDTH):
        cancelled += not out[i] < _ZERO
    if not cancelled:
        return
    for p in range(len(signs)):
        o = p * WIDTH
        store(out, 0, q_anew(w, g, signs, p, load(rubin, 4 * o), inverse))
        # A voxel's bits must not depend on those that happen to lie beside it.
        for i in range(WIDTH):
            if not q[o + i] > out[WIDTH + i]:
                q[o + i] = out[i]


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _pooled(w, g, signs, sums, q, rubin):  # type: ignore[no-untyped-def]
    """Pool the studies of one imputation in every permutation; add to the sums in `rubin`.

    Less the shift study by study: imputations differ by little, and that has to be exact.
    """
    one, n_studies = everywhere(_ONE), signs.shape[1]
    df, trace = everywhere(np.float32(n_studies - 1)), load(sums, 2 * WIDTH)
    for p in range(len(signs)):
        # A single division that may meet 0: one study with all of the weight
        tau2 = at_least((load(q, p * WIDTH) - df) / trace, everywhere(_ZERO))
        o = 4 * p * WIDTH
        shift = load(rubin, o)
        a, b = everywhere(_ZERO), everywhere(_ZERO)
        for k in range(n_studies):
            wk = load(w, k * WIDTH)
            wk = wk * ratio(one, one + tau2 * wk)
            a = a + wk
            b = b + wk * (everywhere(signs[p, k]) * load(g, k * WIDTH) - shift)
        variance = ratio(one, a)
        mean = b * variance
        o += WIDTH
        store(rubin, o, load(rubin, o) + mean)
        store(rubin, o + WIDTH, load(rubin, o + WIDTH) + mean * mean)
        store(rubin, o + 2 * WIDTH, load(rubin, o + 2 * WIDTH) + variance)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def flips_z(signs, effects, table, z):  # type: ignore[no-untyped-def]
    """Fill z (P, V). signs (P', K) of +1 and -1, effects (M, K, V), M > 1; table as `complete_z`.

    P' is P up to a multiple of `TOGETHER`; what is past P is not read from.
    """
    n_imputations, n_studies, n_voxels = effects.shape
    n_permutations = len(z)
    g = aligned(n_studies * WIDTH)
    w = aligned(n_studies * WIDTH)
    x = aligned(n_studies * WIDTH)
    sums = aligned(3 * WIDTH)  # 1 / S0, S2, S0 - S3 / S0
    s1, q = aligned(len(signs) * WIDTH), aligned(len(signs) * WIDTH)
    rubin = aligned(len(signs) * 4 * WIDTH)  # shift; sums of mean, mean^2, variance
    out = aligned(2 * WIDTH)
    per = everywhere(np.float32(1 / n_imputations))
    between = everywhere(np.float32((1 + 1 / n_imputations) / (n_imputations - 1)))
    for first in range(0, n_voxels, WIDTH):
        n = min(WIDTH, n_voxels - first)
        for m in range(n_imputations):
            a, b, c = everywhere(_ZERO), everywhere(_ZERO), everywhere(_ZERO)
            for k in range(n_studies):
                o = k * WIDTH
                for i in range(n):
                    g[o + i] = effects[m, k, first + i]
                for i in range(WIDTH):
                    w[o + i] = _ONE / (table[k, 0] + table[k, 1] * g[o + i] * g[o + i])
                    x[o + i] = w[o + i] * g[o + i]
                wk, xk = load(w, o), load(x, o)
                a = a + wk
                b = b + xk * load(g, o)
                c = c + wk * wk
            inverse = ratio(everywhere(_ONE), a)
            store(sums, 0, inverse)
            store(sums, WIDTH, b)
            store(sums, 2 * WIDTH, a - c * inverse)
            _first_sums(x, signs, s1)
            _all_q(w, g, signs, s1, sums, m == 0, rubin, q, out)
            _pooled(w, g, signs, sums, q, rubin)
        for p in range(n_permutations):
            o = 4 * p * WIDTH
            total_mean = load(rubin, o + WIDTH)
            mean = total_mean * per
            total = load(rubin, o + 3 * WIDTH) * per
            total = total + (load(rubin, o + 2 * WIDTH) - mean * total_mean) * between
            store(out, 0, (load(rubin, o) + mean) / root(total))
            for i in range(n):
                z[p, first + i] = out[i]


def flipped_z(signs: np.ndarray, effects: np.ndarray, c: np.ndarray, v2: np.ndarray) -> np.ndarray:
    """Compute the z map of each permutation.

    Parameters
    ----------
    signs : (K, P) of +1 and -1
        Sign of each study.
    effects : (M, K, V) float32
        Imputed Hedges g.
    c, v2 : (K,) float64
        Sampling variance is c + v2 g^2.

    Returns
    -------
    (P, V) float32
        NaN where an input is NaN.
    """
    n_permutations = signs.shape[1]
    z = np.empty((n_permutations, effects.shape[2]), np.float32)
    table = np.stack([c, v2], axis=1).astype(np.float32)
    if len(effects) == 1:
        complete_z(np.ascontiguousarray(signs.T, np.float32), effects[0], table, z)
        return z
    rows = np.ones((-(-n_permutations // TOGETHER) * TOGETHER, len(signs)), np.float32)
    rows[:n_permutations] = signs.T
    flips_z(rows, effects, table, z)
    return z
