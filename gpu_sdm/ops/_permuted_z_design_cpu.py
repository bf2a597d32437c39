"""Compiled `permuted_z` with covariates, or with tau2 by REML, float32."""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._lanes import WIDTH, aligned, everywhere, load, ratio, store
from gpu_sdm.ops._permuted_z_mean_cpu import (
    BLOCK,
    effect_and_weight,
    fetch_block,
    fetch_sums,
    rubin_z,
    start_imputation,
)
from gpu_sdm.ops._random_effects_cpu import add, random_effects_at, workspace

_ONE, _ZERO = np.float32(1), np.float32(0)


def orthonormal(design: np.ndarray, contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Design of the same column space with orthonormal columns, and the contrast in it: float32."""
    q, r = np.linalg.qr(design)
    h = np.linalg.solve(r.T, contrast)
    return np.ascontiguousarray(q, np.float32), h.astype(np.float32)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _effects(e, d, share, table, at, y):  # type: ignore[no-untyped-def]
    """Permuted effect and variance of each study to y (K, 2, WIDTH), flat."""
    n_studies = len(table)
    for k in range(n_studies):
        o = k * WIDTH
        ek = load(e, at * n_studies * WIDTH + o)
        effect, weight = effect_and_weight(ek, d, o, share[k], table[k, 3], table[k, 5])
        store(y, 2 * o, effect)
        store(y, 2 * o + WIDTH, ratio(everywhere(_ONE), weight))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _add_estimate(h, cov, beta, rubin, at, new):  # type: ignore[no-untyped-def]
    """Add a fit to the sums of permutation `at` in `rubin`.

    `new`: the first imputation, whose estimate becomes the permutation's shift.
    """
    n_terms = len(h)
    estimate, variance = everywhere(_ZERO), everywhere(_ZERO)
    for a in range(n_terms):
        estimate = estimate + everywhere(h[a]) * load(beta, a * WIDTH)
        for b in range(n_terms):
            variance = variance + everywhere(h[a] * h[b]) * load(cov, (a * n_terms + b) * WIDTH)
    o = 4 * at
    if new:
        store(rubin, o * WIDTH, estimate)
        for i in range(1, 4):
            store(rubin, (o + i) * WIDTH, everywhere(_ZERO))
    estimate = estimate - load(rubin, o * WIDTH)
    add(rubin, o + 1, estimate)
    add(rubin, o + 2, estimate * estimate)
    add(rubin, o + 3, variance)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def design_z(sums, step, share, effects, table, x, h, plain, reml, z):  # type: ignore[no-untyped-def]
    """Fill z (P, V): arguments of `mean_z`, what `orthonormal` gives; `plain`: a common mean."""
    n_imputations, n_studies, n_voxels = effects.shape
    n_permutations = len(share)
    g = np.zeros((n_imputations, n_studies, BLOCK), np.float32)
    e = aligned(n_permutations * n_studies * WIDTH)
    d = aligned(n_studies * 3 * WIDTH)
    y = aligned(n_studies * 2 * WIDTH)
    work = workspace(x.shape[1])
    rubin = aligned(n_permutations * 4 * WIDTH)
    for first in range(0, n_voxels, WIDTH):
        if first % BLOCK == 0:
            fetch_block(effects, first, g)
        n = min(WIDTH, n_voxels - first)
        fetch_sums(sums, step, first, n, table, e)
        for m in range(n_imputations):
            start_imputation(g[m], first % BLOCK, table, d)
            for p in range(n_permutations):
                _effects(e, d, share[p], table, p, y)
                random_effects_at(y, x, plain, reml, work)
                _add_estimate(h, work[0][0], work[1], rubin, p, m == 0)
        rubin_z(rubin, n_imputations, first, n, z)
