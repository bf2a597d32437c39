"""Compiled `permuted_z` with covariates and DerSimonian and Laird's tau2, float32.

The design has orthonormal columns (`orthonormal`), so that rounding does not depend on the units
of the covariates; Q is summed over residuals, so that nothing cancels.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._lanes import WIDTH, at_least, everywhere, load, ratio, store
from gpu_sdm.ops._permuted_z_mean_cpu import (
    BLOCK,
    effect_and_weight,
    fetch_block,
    fetch_sums,
    rubin_z,
    start_imputation,
)

_ONE, _ZERO = np.float32(1), np.float32(0)


def orthonormal(design: np.ndarray, contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Design of the same column space with orthonormal columns, and the contrast in it: float32."""
    q, r = np.linalg.qr(design)
    h = np.linalg.solve(r.T, contrast)
    return np.ascontiguousarray(q, np.float32), h.astype(np.float32)


@nb.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _add(sums, o, value):  # type: ignore[no-untyped-def]
    store(sums, o * WIDTH, load(sums, o * WIDTH) + value)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _clear(sums):  # type: ignore[no-untyped-def]
    for i in range(len(sums)):
        sums[i] = _ZERO


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _solve(gram, right, beta):  # type: ignore[no-untyped-def]
    """Invert the symmetric gram (Q, Q) in place by sweeping each pivot; beta (Q) solves right."""
    n = len(right) // WIDTH
    for a in range(n):
        for b in range(a):
            store(gram, (b * n + a) * WIDTH, load(gram, (a * n + b) * WIDTH))
    for p in range(n):
        pivot = everywhere(_ONE) / load(gram, (p * n + p) * WIDTH)
        store(gram, (p * n + p) * WIDTH, pivot)
        for r in range(n):
            if r == p:
                continue
            factor = load(gram, (r * n + p) * WIDTH) * pivot
            store(gram, (r * n + p) * WIDTH, factor)
            for c in range(n):
                if c != p:
                    o = (r * n + c) * WIDTH
                    store(gram, o, load(gram, o) - factor * load(gram, (p * n + c) * WIDTH))
        for c in range(n):
            if c != p:
                o = (p * n + c) * WIDTH
                store(gram, o, everywhere(_ZERO) - load(gram, o) * pivot)
    for a in range(n):
        total = everywhere(_ZERO)
        for b in range(n):
            total = total + load(gram, (a * n + b) * WIDTH) * load(right, b * WIDTH)
        store(beta, a * WIDTH, total)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _one_set(e, d, share, table, x, h, y, gram, second, right, beta, rubin, at, new):  # type: ignore[no-untyped-def]
    """Fit one permutation and imputation; add to its sums in `rubin`.

    `new`: the first imputation, whose estimate becomes the permutation's shift.
    """
    n_studies, n_terms = x.shape
    one, zero = everywhere(_ONE), everywhere(_ZERO)
    _clear(gram)
    _clear(right)
    for k in range(n_studies):
        o = k * WIDTH
        ek = load(e, at * n_studies * WIDTH + o)
        effect, weight = effect_and_weight(ek, d, o, share[k], table[k, 3], table[k, 5])
        store(y, 2 * o, effect)
        store(y, 2 * o + WIDTH, weight)
        for a in range(n_terms):
            part = weight * everywhere(x[k, a])
            _add(right, a, part * effect)
            for b in range(a + 1):
                _add(gram, a * n_terms + b, part * everywhere(x[k, b]))
    _solve(gram, right, beta)
    _clear(second)
    squares, trace = zero, zero
    for k in range(n_studies):
        residual, weight = load(y, 2 * k * WIDTH), load(y, (2 * k + 1) * WIDTH)
        for a in range(n_terms):
            residual = residual - everywhere(x[k, a]) * load(beta, a * WIDTH)
        squares = squares + weight * residual * residual
        trace = trace + weight
        weight = weight * weight
        for a in range(n_terms):
            part = weight * everywhere(x[k, a])
            for b in range(a + 1):
                _add(second, a * n_terms + b, part * everywhere(x[k, b]))
    for a in range(n_terms):
        for b in range(a + 1):
            o = (a * n_terms + b) * WIDTH
            both = load(gram, o) * load(second, o)
            trace = trace - both
            if b < a:
                trace = trace - both
    tau2 = at_least((squares - everywhere(np.float32(n_studies - n_terms))) / trace, zero)
    _clear(gram)
    _clear(right)
    for k in range(n_studies):
        effect, weight = load(y, 2 * k * WIDTH), load(y, (2 * k + 1) * WIDTH)
        weight = ratio(weight, one + tau2 * weight)
        for a in range(n_terms):
            part = weight * everywhere(x[k, a])
            _add(right, a, part * effect)
            for b in range(a + 1):
                _add(gram, a * n_terms + b, part * everywhere(x[k, b]))
    _solve(gram, right, beta)
    estimate, variance = zero, zero
    for a in range(n_terms):
        estimate = estimate + everywhere(h[a]) * load(beta, a * WIDTH)
        for b in range(n_terms):
            variance = variance + everywhere(h[a] * h[b]) * load(gram, (a * n_terms + b) * WIDTH)
    o = 4 * at
    if new:
        store(rubin, o * WIDTH, estimate)
        for i in range(1, 4):
            store(rubin, (o + i) * WIDTH, zero)
    estimate = estimate - load(rubin, o * WIDTH)
    _add(rubin, o + 1, estimate)
    _add(rubin, o + 2, estimate * estimate)
    _add(rubin, o + 3, variance)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def design_z(sums, step, share, effects, table, x, h, z):  # type: ignore[no-untyped-def]
    """Fill z (P, V): arguments of `mean_z`, and what `orthonormal` gives."""
    n_imputations, n_studies, n_voxels = effects.shape
    n_permutations, n_terms = len(share), x.shape[1]
    g = np.zeros((n_imputations, n_studies, BLOCK), np.float32)
    e = np.zeros(n_permutations * n_studies * WIDTH, np.float32)
    d = np.zeros(n_studies * 3 * WIDTH, np.float32)
    y = np.empty(n_studies * 2 * WIDTH, np.float32)
    gram = np.empty(n_terms * n_terms * WIDTH, np.float32)
    second, right = np.empty_like(gram), np.empty(n_terms * WIDTH, np.float32)
    beta = np.empty_like(right)
    rubin = np.empty(n_permutations * 4 * WIDTH, np.float32)
    for first in range(0, n_voxels, WIDTH):
        if first % BLOCK == 0:
            fetch_block(effects, first, g)
        n = min(WIDTH, n_voxels - first)
        fetch_sums(sums, step, first, n, table, e)
        for m in range(n_imputations):
            start_imputation(g[m], first % BLOCK, table, d)
            for p in range(n_permutations):
                _one_set(
                    e, d, share[p], table, x, h, y, gram, second, right, beta, rubin, p, m == 0
                )
        rubin_z(rubin, n_imputations, first, n, z)
