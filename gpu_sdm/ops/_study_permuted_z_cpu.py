"""Compiled z maps of permutations of whole studies: Freedman and Lane at many voxels at once.

Twin: `gpu_sdm.ops.study_permuted_z.study_permuted_z`. float32 in lanes that are independent of
each other, as are the permutations.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._lanes import WIDTH, aligned, everywhere, load, store
from gpu_sdm.ops._random_effects_cpu import add, clear, random_effects_at, workspace

_ZERO = np.float32(0)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _put(y, k, effect, c, v2):  # type: ignore[no-untyped-def]
    """Write the effect of study k and its variance."""
    store(y, 2 * k * WIDTH, effect)
    store(y, (2 * k + 1) * WIDTH, everywhere(c) + everywhere(v2) * effect * effect)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _split(table, x, reml, work, y, fitted, residual, m):  # type: ignore[no-untyped-def]
    """Part the effects in `residual` by the reduced model: fitted part and raw residuals."""
    n_studies = len(table)
    for k in range(n_studies):
        _put(y, k, load(residual, (m * n_studies + k) * WIDTH), table[k, 0], table[k, 1])
    random_effects_at(y, x, False, reml, work)
    beta = work[1]
    for k in range(n_studies):
        o, f = (m * n_studies + k) * WIDTH, everywhere(_ZERO)
        for a in range(x.shape[1]):
            f = f + everywhere(x[k, a]) * load(beta, a * WIDTH)
        store(fitted, o, f)
        store(residual, o, load(residual, o) - f)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _quadratic(b, total):  # type: ignore[no-untyped-def]
    """Give b' total^-1 b by elimination; both are overwritten."""
    n = len(b)
    chi2 = 0.0
    for p in range(n):
        chi2 += b[p] * b[p] / total[p, p]
        for r in range(p + 1, n):
            f = total[r, p] / total[p, p]
            b[r] -= f * b[p]
            for s in range(p + 1, n):
                total[r, s] -= f * total[p, s]
    return chi2


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _add_rows(rows, beta, cov, new, now, start, mean, within, between):  # type: ignore[no-untyped-def]
    """Add the tested rows of one fit to Rubin's sums; differences from the first: none cancels."""
    n_rows, n_terms = rows.shape
    for r in range(n_rows):
        value = everywhere(_ZERO)
        for a in range(n_terms):
            value = value + everywhere(rows[r, a]) * load(beta, a * WIDTH)
        if new:
            store(start, r * WIDTH, value)
        value = value - load(start, r * WIDTH)
        store(now, r * WIDTH, value)
        add(mean, r, value)
        for s in range(r + 1):
            o, total = r * n_rows + s, everywhere(_ZERO)
            for a in range(n_terms):
                for b in range(n_terms):
                    f = everywhere(rows[r, a] * rows[s, b])
                    total = total + f * load(cov, (a * n_terms + b) * WIDTH)
            add(within, o, total)
            add(between, o, value * load(now, s * WIDTH))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def study_statistic(orders, effects, table, x, rows, reduced, plain, own, reml, out):  # type: ignore[no-untyped-def]
    """Fill out (P, V): z of one row, chi-squared of several.

    orders (P, K); float32: table (K, 2) c and v2, x (K, Q), rows (R, Q), reduced (K, Q - R).
    `plain`: the reduced model is a common mean, which a permutation does not change; `own`: an
    effect keeps the size of its own study.
    """
    n_imputations, n_studies, n_voxels = effects.shape
    n_rows = len(rows)
    full, less = workspace(x.shape[1]), workspace(reduced.shape[1])
    # Lanes past the last voxel hold 0, or what an earlier group of voxels left.
    fitted = aligned(n_imputations * n_studies * WIDTH)
    residual = aligned(n_imputations * n_studies * WIDTH)
    y = aligned(n_studies * 2 * WIDTH)
    start, mean, now = aligned(n_rows * WIDTH), aligned(n_rows * WIDTH), aligned(n_rows * WIDTH)
    within, between = aligned(n_rows * n_rows * WIDTH), aligned(n_rows * n_rows * WIDTH)
    b, total = np.empty(n_rows), np.empty((n_rows, n_rows))
    for first in range(0, n_voxels, WIDTH):
        n = min(WIDTH, n_voxels - first)
        for m in range(n_imputations):
            for k in range(n_studies):
                for i in range(n):
                    residual[(m * n_studies + k) * WIDTH + i] = effects[m, k, first + i]
            if not plain:
                _split(table, reduced, reml, less, y, fitted, residual, m)
        for p in range(len(orders)):
            clear(mean)
            clear(within)
            clear(between)
            for m in range(n_imputations):
                o = m * n_studies
                for k in range(n_studies):
                    sender = orders[p, k]
                    size = sender if own else k
                    effect = load(fitted, (o + k) * WIDTH) + load(residual, (o + sender) * WIDTH)
                    _put(y, k, effect, table[size, 0], table[size, 1])
                random_effects_at(y, x, False, reml, full)
                _add_rows(rows, full[1], full[0][0], m == 0, now, start, mean, within, between)
            for i in range(n):
                for r in range(n_rows):
                    b[r] = start[r * WIDTH + i] + mean[r * WIDTH + i] / n_imputations
                    for s in range(r + 1):
                        o = (r * n_rows + s) * WIDTH + i
                        one = within[o] / n_imputations
                        if n_imputations > 1:
                            spread = between[o] - (
                                mean[r * WIDTH + i] * mean[s * WIDTH + i] / n_imputations
                            )
                            one += (1.0 + 1.0 / n_imputations) * spread / (n_imputations - 1)
                        total[r, s] = total[s, r] = one
                if n_rows == 1:
                    out[p, first + i] = b[0] / np.sqrt(total[0, 0])
                else:
                    out[p, first + i] = _quadratic(b, total)
