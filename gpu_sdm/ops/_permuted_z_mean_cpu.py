"""Compiled `permuted_z` of a common mean with DerSimonian and Laird's tau2, float32.

With D = J diff and g = J d of `gpu_sdm.ops.permuted_effects` the cross term of the variance
vanishes, whatever the group sizes n1 and n2 (one sample: n2 infinite):

    D = J a e + (a f + b) g,      sd^2 = 1 + h (g^2 - D^2) / J^2,      h = n1 n2 / (n1 + n2) / df,
    g* = D / sd,                  1 / var(g*) = sd^2 / (c + c h / J^2 g^2 + (v2 - c h / J^2) D^2),

so of an imputation only g, A = 1 + h g^2 / J^2 and c A are needed, once for all permutations.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._lanes import WIDTH, aligned, at_least, everywhere, load, ratio, root, store
from gpu_sdm.ops.permuted_effects import COLUMNS, SMALLEST_VARIANCE

BLOCK = 128  # voxels fetched together: their effects in all studies and imputations stay in L2
_ONE, _ZERO, _LEAST = np.float32(1), np.float32(0), np.float32(SMALLEST_VARIANCE)


def mean_table(coefficients: np.ndarray) -> np.ndarray:
    """Tabulate a, b, J a, h / J^2, c, v2 - c h / J^2 of each study: (K, 6) float64.

    From the (K, 9) table of `study_coefficients`.
    """
    column = dict(zip(COLUMNS, np.asarray(coefficients, np.float64).T, strict=True))
    a, inverse_j2 = column["a"], column["inverse_j"] ** 2
    h = -column["beta"] / a**2 * inverse_j2
    v2 = column["v2_j2"] * inverse_j2
    return np.stack([a, column["b"], column["j"] * a, h, column["c"], v2 - column["c"] * h], axis=1)


@nb.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def effect_and_weight(e, d, o, share, h, q):  # type: ignore[no-untyped-def]
    """Permuted effect and weight of one study."""
    diff = e + everywhere(share) * load(d, 3 * o)
    square = diff * diff
    variance = at_least(load(d, 3 * o + WIDTH) - everywhere(h) * square, everywhere(_LEAST))
    weight = ratio(variance, load(d, 3 * o + 2 * WIDTH) + everywhere(q) * square)
    return diff * (everywhere(_ONE) / root(variance)), weight


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _one_set(e, d, share, table, y, rubin, at, fresh):  # type: ignore[no-untyped-def]
    """Pool the permuted effects of one permutation and imputation; add to its sums in `rubin`.

    `fresh`: the first imputation, whose pooled effect (tau2 = 0) becomes the permutation's shift.
    """
    n_studies = len(table)
    one, zero = everywhere(_ONE), everywhere(_ZERO)
    if fresh:
        s0, s1 = zero, zero
        for k in range(n_studies):
            o = k * WIDTH
            ek = load(e, at * n_studies * WIDTH + o)
            effect, weight = effect_and_weight(ek, d, o, share[k], table[k, 3], table[k, 5])
            s0 = s0 + weight
            s1 = s1 + weight * effect
        store(rubin, 4 * at * WIDTH, s1 / s0)
        for i in range(1, 4):
            store(rubin, (4 * at + i) * WIDTH, zero)
    shift = load(rubin, 4 * at * WIDTH)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for k in range(n_studies):
        o = k * WIDTH
        ek = load(e, at * n_studies * WIDTH + o)
        effect, weight = effect_and_weight(ek, d, o, share[k], table[k, 3], table[k, 5])
        effect = effect - shift
        store(y, 2 * o, effect)
        store(y, 2 * o + WIDTH, weight)
        product = weight * effect
        s0 = s0 + weight
        s1 = s1 + product
        s2 = s2 + product * effect
        s3 = s3 + weight * weight
    inverse = ratio(one, s0)
    q = s2 - s1 * s1 * inverse
    # A single division that may meet 0: one study with all of the weight
    tau2 = (q - everywhere(np.float32(n_studies - 1))) / (s0 - s3 * inverse)
    tau2 = at_least(tau2, zero)
    s0, s1 = zero, zero
    for k in range(n_studies):
        weight = load(y, (2 * k + 1) * WIDTH)
        weight = ratio(weight, one + tau2 * weight)
        s0 = s0 + weight
        s1 = s1 + weight * load(y, 2 * k * WIDTH)
    variance = ratio(one, s0)
    mean = s1 * variance
    o = (4 * at + 1) * WIDTH
    store(rubin, o, load(rubin, o) + mean)
    store(rubin, o + WIDTH, load(rubin, o + WIDTH) + mean * mean)
    store(rubin, o + 2 * WIDTH, load(rubin, o + 2 * WIDTH) + variance)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def fetch_block(effects, first, g):  # type: ignore[no-untyped-def]
    """Copy the effects of up to BLOCK voxels from `first` into g (M, K, BLOCK)."""
    size = min(BLOCK, effects.shape[2] - first)
    for m in range(g.shape[0]):
        for k in range(g.shape[1]):
            for i in range(size):
                g[m, k, i] = effects[m, k, first + i]


@nb.njit(nogil=True, cache=True, error_model="numpy")
def fetch_sums(sums, step, first, n, table, e):  # type: ignore[no-untyped-def]
    """Put J a times the permuted residual means of n voxels into e (P, K, WIDTH), flat."""
    n_studies = len(table)
    for p in range(len(e) // (n_studies * WIDTH)):
        for k in range(n_studies):
            o = (p * n_studies + k) * WIDTH
            for i in range(n):
                e[o + i] = sums[k, p * step, first + i] * table[k, 2]


@nb.njit(nogil=True, cache=True, error_model="numpy")
def start_imputation(g, inside, table, d):  # type: ignore[no-untyped-def]
    """Put g, A and c A of each study and lane into d, from voxel `inside` of g (K, BLOCK)."""
    for k in range(len(table)):
        gk, h, c = g[k, inside : inside + WIDTH], table[k, 3], table[k, 4]
        o = 3 * k * WIDTH
        for i in range(WIDTH):
            a = _ONE + h * gk[i] * gk[i]
            d[o + i], d[o + WIDTH + i], d[o + 2 * WIDTH + i] = gk[i], a, c * a


@nb.njit(nogil=True, cache=True, error_model="numpy")
def rubin_z(rubin, n_imputations, first, n, z):  # type: ignore[no-untyped-def]
    """Write z of n voxels from Rubin's sums (P, 4, WIDTH), flat: shift; mean, mean^2, variance."""
    per = everywhere(np.float32(1 / n_imputations))
    between = everywhere(np.float32((1 + 1 / n_imputations) / max(n_imputations - 1, 1)))
    out = np.empty(WIDTH, np.float32)
    for p in range(len(z)):
        o = 4 * p * WIDTH
        total_mean = load(rubin, o + WIDTH)
        mean = total_mean * per
        total = load(rubin, o + 3 * WIDTH) * per
        if n_imputations > 1:
            total = total + (load(rubin, o + 2 * WIDTH) - mean * total_mean) * between
        store(out, 0, (load(rubin, o) + mean) / root(total))
        for i in range(n):
            z[p, first + i] = out[i]


@nb.njit(nogil=True, cache=True, error_model="numpy")
def mean_z(sums, step, share, effects, table, z):  # type: ignore[no-untyped-def]
    """Fill z (P, V). sums (K, P, V), share a f + b (P, K), effects (M, K, V), table (K, 6) float32.

    Step 0 reads the same sums for every permutation.
    """
    n_imputations, n_studies, n_voxels = effects.shape
    n_permutations = len(share)
    # Lanes past the last voxel hold 0, or what an earlier group of voxels left.
    g = np.zeros((n_imputations, n_studies, BLOCK), np.float32)
    e = aligned(n_permutations * n_studies * WIDTH)
    d = aligned(n_studies * 3 * WIDTH)
    y = aligned(n_studies * 2 * WIDTH)  # effect less shift, weight of each study
    rubin = aligned(n_permutations * 4 * WIDTH)
    for first in range(0, n_voxels, WIDTH):
        if first % BLOCK == 0:
            fetch_block(effects, first, g)
        n = min(WIDTH, n_voxels - first)
        fetch_sums(sums, step, first, n, table, e)
        for m in range(n_imputations):
            start_imputation(g[m], first % BLOCK, table, d)
            for p in range(n_permutations):
                _one_set(e, d, share[p], table, y, rubin, p, m == 0)
        rubin_z(rubin, n_imputations, first, n, z)
