"""Compiled `permuted_z` of one complete data set whose studies flip their signs, float32.

A flip changes no variance: of DerSimonian and Laird's sums only S1 = sum w g differs between
permutations, and the weights are divided anew only by 1 + tau2 w. In each voxel:

    Q = S2 - S1^2 / S0,   tau2 = (Q - K + 1) / (S0 - S3 / S0),   z = B / sqrt(A),
    A = sum w r,   B = sum s w g r,   r = 1 / (1 + tau2 w), s the signs.

Four studies at a time are one fraction: over D(t) = prod (1 + t w), of degree 4, their share of A
is D'(t) / D(t), and their share of B a cubic over D(t). There are 8 cubics but for the sign of the
whole, one for each way in which the four signs may differ: all are tabulated once for all
permutations, and a permutation costs a division for four studies. Their constants are S1.

Where S1^2 / S0 takes most of S2 the difference would cancel; there Q is summed anew over the
effects less their mean.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._lanes import (
    WIDTH,
    aligned,
    all_above,
    at_least,
    everywhere,
    load,
    ratio,
    root,
    store,
    where_above,
)

_ONE, _ZERO = np.float32(1), np.float32(0)
CANCELS = np.float32(0.125)  # share of S2 below which Q is summed anew: it has lost 3 of 24 bits
TOGETHER = 4  # studies of a fraction: D stays far from overflow up to tau2 w of 1e9
CUBICS = 2 ** (TOGETHER - 1)
PARTS = 8  # lanes of a group that are the same for all signs: D without its 1, and D'


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _places(signs, place, lead):  # type: ignore[no-untyped-def]
    """Where in the table the cubic of each permutation and group is, and the sign it gets."""
    n_studies = signs.shape[1]
    for p in range(len(signs)):
        for j in range(place.shape[1]):
            first = signs[p, j * TOGETHER]
            at = 0
            for i in range(1, TOGETHER):
                k = j * TOGETHER + i
                at += at + (k < n_studies and signs[p, k] != first)
            place[p, j] = (j * CUBICS + at) * TOGETHER * WIDTH
            lead[p, j] = first


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _eight(cubics, o, a, b, c, d):  # type: ignore[no-untyped-def]
    """Write a +- b +- c +- d: one coefficient of the eight cubics."""
    step = TOGETHER * WIDTH
    for sign in range(2):
        if sign:
            b = everywhere(_ZERO) - b
        ab, apart, sum_ = a + b, c - d, c + d
        store(cubics, o, ab + sum_)
        store(cubics, o + step, ab + apart)
        store(cubics, o + 2 * step, ab - apart)
        store(cubics, o + 3 * step, ab - sum_)
        o += 4 * step


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _tabulate(w, x, j, parts, cubics):  # type: ignore[no-untyped-def]
    """Fill in D, D' and the cubics of the four studies of group j."""
    o = j * TOGETHER * WIDTH
    w1, w2, w3, w4 = (
        load(w, o), load(w, o + WIDTH), load(w, o + 2 * WIDTH), load(w, o + 3 * WIDTH)
    )  # fmt: skip
    x1, x2, x3, x4 = (
        load(x, o), load(x, o + WIDTH), load(x, o + 2 * WIDTH), load(x, o + 3 * WIDTH)
    )  # fmt: skip
    left, right, both, other = w1 + w2, w3 + w4, w1 * w2, w3 * w4
    e2, e3 = both + other + left * right, both * right + other * left
    e4 = both * other
    at = j * PARTS * WIDTH
    store(parts, at, left + right)
    store(parts, at + WIDTH, e2)
    store(parts, at + 2 * WIDTH, e3)
    store(parts, at + 3 * WIDTH, e4)
    store(parts, at + 4 * WIDTH, e2 + e2)
    store(parts, at + 5 * WIDTH, everywhere(np.float32(3)) * e3)
    store(parts, at + 6 * WIDTH, everywhere(np.float32(4)) * e4)
    at = j * CUBICS * TOGETHER * WIDTH
    _eight(cubics, at, x1, x2, x3, x4)
    at += WIDTH
    _eight(
        cubics, at, x1 * (w2 + right), x2 * (w1 + right), x3 * (w4 + left), x4 * (w3 + left)
    )  # fmt: skip
    at += WIDTH
    _eight(
        cubics, at, x1 * (w2 * right + other), x2 * (w1 * right + other),
        x3 * (w4 * left + both), x4 * (w3 * left + both),
    )  # fmt: skip
    at += WIDTH
    _eight(cubics, at, x1 * w2 * other, x2 * w1 * other, x3 * w4 * both, x4 * w3 * both)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def q_anew(w, g, signs, p, mean, inverse):  # type: ignore[no-untyped-def]
    """Sum Q over the effects less `mean`, which need not be theirs."""
    s1, s2 = everywhere(_ZERO), everywhere(_ZERO)
    for k in range(signs.shape[1]):
        effect = everywhere(signs[p, k]) * load(g, k * WIDTH) - mean
        product = load(w, k * WIDTH) * effect
        s1 = s1 + product
        s2 = s2 + product * effect
    return s2 - s1 * s1 * inverse


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _all_z(w, g, signs, place, lead, parts, cubics, sums, out):  # type: ignore[no-untyped-def]
    """Pool the studies in every permutation: z to `out` (P, WIDTH), flat."""
    zero, one = everywhere(_ZERO), everywhere(_ONE)
    inverse, s2, trace = load(sums, 0), load(sums, WIDTH), load(sums, 2 * WIDTH)
    df = everywhere(np.float32(signs.shape[1] - 1))
    small = everywhere(CANCELS) * s2
    for p in range(len(signs)):
        s1 = zero
        for j in range(place.shape[1]):
            s1 = s1 + everywhere(lead[p, j]) * load(cubics, place[p, j])
        mean = s1 * inverse
        q = s2 - s1 * mean
        if not all_above(q, small):
            # A voxel's bits must not depend on those that happen to lie beside it.
            q = where_above(q, small, q, q_anew(w, g, signs, p, mean, inverse))
        t = at_least((q - df) * trace, zero)
        a, b = zero, zero
        for j in range(place.shape[1]):
            o, at = j * PARTS * WIDTH, place[p, j]
            e1 = load(parts, o)
            d = load(parts, o + 2 * WIDTH) + t * load(parts, o + 3 * WIDTH)
            d = one + t * (e1 + t * (load(parts, o + WIDTH) + t * d))
            slope = load(parts, o + 5 * WIDTH) + t * load(parts, o + 6 * WIDTH)
            slope = e1 + t * (load(parts, o + 4 * WIDTH) + t * slope)
            cubic = load(cubics, at + 2 * WIDTH) + t * load(cubics, at + 3 * WIDTH)
            cubic = load(cubics, at) + t * (load(cubics, at + WIDTH) + t * cubic)
            r = ratio(one, d)
            a = a + slope * r
            b = b + cubic * (everywhere(lead[p, j]) * r)
        store(out, p * WIDTH, b / root(a))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def complete_z(signs, effects, table, z):  # type: ignore[no-untyped-def]
    """Fill z (P, V). signs (P, K) of +1 and -1, effects (K, V), table (K, 2) c and v2, float32."""
    n_studies, n_voxels = effects.shape
    n_permutations, n_groups = len(z), -(-n_studies // TOGETHER)
    place = np.empty((n_permutations, n_groups), np.int64)
    lead = np.empty((n_permutations, n_groups), np.float32)
    _places(signs, place, lead)
    # Studies past the last of a group weigh nothing; lanes past the last voxel are not read from.
    size = n_groups * TOGETHER * WIDTH
    g, w, x = aligned(size), aligned(size), aligned(size)
    sums = aligned(3 * WIDTH)  # 1 / S0, S2, 1 / (S0 - S3 / S0)
    parts, cubics = aligned(n_groups * PARTS * WIDTH), aligned(CUBICS * size)
    out = aligned(n_permutations * WIDTH)
    one = everywhere(_ONE)
    for first in range(0, n_voxels, WIDTH):
        n = min(WIDTH, n_voxels - first)
        a, b, c = everywhere(_ZERO), everywhere(_ZERO), everywhere(_ZERO)
        for k in range(n_studies):
            o = k * WIDTH
            for i in range(n):
                g[o + i] = effects[k, first + i]
            gk = load(g, o)
            wk = ratio(one, everywhere(table[k, 0]) + everywhere(table[k, 1]) * gk * gk)
            xk = wk * gk
            store(w, o, wk)
            store(x, o, xk)
            a = a + wk
            b = b + xk * gk
            c = c + wk * wk
        for j in range(n_groups):
            _tabulate(w, x, j, parts, cubics)
        inverse = ratio(one, a)
        store(sums, 0, inverse)
        store(sums, WIDTH, b)
        # A single division that may meet 0: one study with all of the weight
        store(sums, 2 * WIDTH, one / (a - c * inverse))
        _all_z(w, g, signs, place, lead, parts, cubics, sums, out)
        for p in range(n_permutations):
            for i in range(n):
                z[p, first + i] = out[p * WIDTH + i]
