"""Compiled z maps of permutations of whole studies: Freedman and Lane at many voxels at once.

Twin: `gpu_sdm.ops.study_permuted_z.study_permuted_z`. float64 throughout; the lanes are
independent of each other, and so are the permutations.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._permuted_z_general_cpu import LANES, _invert, _reml_lanes

_FLAGS = {"contract", "nsz"}


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _moments(x, y, v, t, square, gram, second, right, sums):  # type: ignore[no-untyped-def]
    """Sum in one pass with weights 1 / (v + t): X'WX, X'W2X, X'Wy; W, y'Wy in `sums`.

    Rows are taken as views of fixed length, so that every inner loop is a few vector instructions.
    """
    n_studies, n_terms = x.shape
    w, w2, wy = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    gram[:], right[:], sums[:] = 0.0, 0.0, 0.0
    if square:
        second[:] = 0.0
    s0, s2 = sums[0], sums[1]
    for k in range(n_studies):
        yk, vk = y[k], v[k]
        for i in range(LANES):
            w[i] = 1.0 / (vk[i] + t[i])
            wy[i] = w[i] * yk[i]
            w2[i] = w[i] * w[i]
            s0[i] += w[i]
            s2[i] += wy[i] * yk[i]
        for a in range(n_terms):
            f, to = x[k, a], right[a]
            for i in range(LANES):
                to[i] += f * wy[i]
            for b in range(a + 1):
                f, to, to2 = x[k, a] * x[k, b], gram[a, b], second[a, b]
                if square:
                    for i in range(LANES):
                        to[i] += f * w[i]
                        to2[i] += f * w2[i]
                else:
                    for i in range(LANES):
                        to[i] += f * w[i]
    for a in range(n_terms):
        for b in range(a):
            gram[b, a] = gram[a, b]
            if square:
                second[b, a] = second[a, b]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _times(cov, right, beta):  # type: ignore[no-untyped-def]
    for a in range(len(right)):
        to = beta[a]
        to[:] = 0.0
        for b in range(len(right)):
            c, r = cov[a, b], right[b]
            for i in range(LANES):
                to[i] += c[i] * r[i]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _random_effects(x, y, v, w, u, cov, beta, second, right, sums, t, reml):  # type: ignore[no-untyped-def]
    """Fill `beta` (Q, LANES) and `cov` (Q, Q, LANES) of one random-effects fit."""
    n_studies, n_terms = x.shape
    if reml:
        _reml_lanes(x, y, v, w, u, cov, beta, second, t)
    else:
        t[:] = 0.0
        _moments(x, y, v, t, True, cov, second, right, sums)
        _invert(cov)
        _times(cov, right, beta)
        for i in range(LANES):
            q, trace = sums[1, i], sums[0, i]
            for a in range(n_terms):
                q -= right[a, i] * beta[a, i]
                for b in range(n_terms):
                    trace -= cov[a, b, i] * second[a, b, i]
            estimate = (q - (n_studies - n_terms)) / trace
            t[i] = 0.0 if estimate < 0.0 else estimate  # NaN stays
    _moments(x, y, v, t, False, cov, second, right, sums)
    _invert(cov)
    _times(cov, right, beta)


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _split(g, c, v2, x, plain, reml, fitted, residual, y, v, w, u, t):  # type: ignore[no-untyped-def]
    """Fitted part and raw residuals of the reduced model of each imputation, (M, K, LANES)."""
    n_studies, n_terms = x.shape
    cov, second = np.empty((n_terms, n_terms, LANES)), np.empty((n_terms, n_terms, LANES))
    beta, right, sums = np.empty((n_terms, LANES)), np.empty((n_terms, LANES)), np.empty((2, LANES))
    for m in range(len(g)):
        for k in range(n_studies):
            for i in range(LANES):
                y[k, i] = g[m, k, i]
                v[k, i] = c[k] + v2[k] * y[k, i] * y[k, i]
        if not plain:
            _random_effects(x, y, v, w, u, cov, beta, second, right, sums, t, reml)
        for k in range(n_studies):
            for i in range(LANES):
                fitted[m, k, i] = 0.0
            if not plain:
                for a in range(n_terms):
                    for i in range(LANES):
                        fitted[m, k, i] += x[k, a] * beta[a, i]
            for i in range(LANES):
                residual[m, k, i] = y[k, i] - fitted[m, k, i]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
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


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def study_statistic(orders, effects, c, v2, x, rows, reduced, plain, own, reml, out):  # type: ignore[no-untyped-def]
    """Fill out (P, V): z of one row, chi-squared of several.

    orders (P, K), x (K, Q), rows (R, Q), reduced (K, Q - R); `plain`: the reduced model is a common
    mean, which a permutation does not change; `own`: an effect keeps the size of its own study.
    """
    n_imputations, n_studies, n_voxels = effects.shape
    n_terms, n_rows = x.shape[1], len(rows)
    # Lanes past the last voxel hold 0 throughout.
    g = np.zeros((n_imputations, n_studies, LANES), np.float32)
    fitted = np.empty((n_imputations, n_studies, LANES))
    residual = np.empty((n_imputations, n_studies, LANES))
    y, v = np.empty((n_studies, LANES)), np.empty((n_studies, LANES))
    w, u, t = np.empty_like(y), np.empty_like(y), np.empty(LANES)
    cov, second = np.empty((n_terms, n_terms, LANES)), np.empty((n_terms, n_terms, LANES))
    beta, right, sums = np.empty((n_terms, LANES)), np.empty((n_terms, LANES)), np.empty((2, LANES))
    start, mean = np.empty((n_rows, LANES)), np.empty((n_rows, LANES))
    now = np.empty((n_rows, LANES))
    within = np.empty((n_rows, n_rows, LANES))
    between = np.empty((n_rows, n_rows, LANES))
    b, total = np.empty(n_rows), np.empty((n_rows, n_rows))
    for first in range(0, n_voxels, LANES):
        n = min(LANES, n_voxels - first)
        g[:, :, n:] = 0.0
        g[:, :, :n] = effects[:, :, first : first + n]
        _split(g, c, v2, reduced, plain, reml, fitted, residual, y, v, w, u, t)
        for p in range(len(orders)):
            mean[:] = 0.0
            within[:] = 0.0
            between[:] = 0.0
            for m in range(n_imputations):
                for k in range(n_studies):
                    f, r = fitted[m, k], residual[m, orders[p, k]]
                    size = orders[p, k] if own else k
                    yk, vk, ck, v2k = y[k], v[k], c[size], v2[size]
                    for i in range(LANES):
                        yk[i] = f[i] + r[i]
                        vk[i] = ck + v2k * yk[i] * yk[i]
                _random_effects(x, y, v, w, u, cov, beta, second, right, sums, t, reml)
                now[:] = 0.0
                for r in range(n_rows):
                    for a in range(n_terms):
                        for i in range(LANES):
                            now[r, i] += rows[r, a] * beta[a, i]
                    for s in range(n_rows):
                        for a in range(n_terms):
                            for d in range(n_terms):
                                f = rows[r, a] * rows[s, d]
                                for i in range(LANES):
                                    within[r, s, i] += f * cov[a, d, i]
                # Differences from the first imputation: nothing cancels
                for r in range(n_rows):
                    for i in range(LANES):
                        if m == 0:
                            start[r, i] = now[r, i]
                        now[r, i] -= start[r, i]
                        mean[r, i] += now[r, i]
                for r in range(n_rows):
                    for s in range(n_rows):
                        for i in range(LANES):
                            between[r, s, i] += now[r, i] * now[s, i]
            for i in range(n):
                for r in range(n_rows):
                    b[r] = start[r, i] + mean[r, i] / n_imputations
                    for s in range(n_rows):
                        total[r, s] = within[r, s, i] / n_imputations
                        if n_imputations > 1:
                            spread = between[r, s, i] - mean[r, i] * mean[s, i] / n_imputations
                            total[r, s] += (
                                (1.0 + 1.0 / n_imputations) * spread / (n_imputations - 1)
                            )
                if n_rows == 1:
                    out[p, first + i] = b[0] / np.sqrt(total[0, 0])
                else:
                    out[p, first + i] = _quadratic(b, total)
