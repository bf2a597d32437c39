"""Compiled random-effects fits of every imputation and voxel, float64.

Both functions fill `out` (5, M, V): estimate, variance, tau2, Q, I2 (a share).
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._fit_bounds_design import factor, solve

BLOCK = 64  # voxels of one piece of work
MAX_SCORING = 300
SCORING_TOL = 1e-12  # of tau2: scoring converges to the last digits


@nb.njit(cache=True, nogil=True)
def _next(t, score, info, low, high):  # type: ignore[no-untyped-def]
    """One scoring step kept inside the bracket: new tau2, low, high."""
    if score > 0.0:
        low = t
    else:
        high = t
    new = max(0.0, t + score / info)
    if new < low or new >= high:
        new = 0.5 * (low + high)
    return new, low, high


@nb.njit(cache=True, nogil=True)
def _reml_mean(v, y, i):  # type: ignore[no-untyped-def]
    """REML tau2 of a common mean; `v`, `y` (K, block), column i."""
    n = v.shape[0]
    mean = total = 0.0
    for k in range(n):
        mean += y[k, i] / n
        total += v[k, i] / n
    t = 0.0
    for k in range(n):
        t += (y[k, i] - mean) ** 2 / (n - 1)
    t = max(0.0, t - total)
    low, high = 0.0, np.inf
    for _ in range(MAX_SCORING):
        s0 = s1 = s2 = s3 = 0.0
        for k in range(n):
            w = 1.0 / (v[k, i] + t)
            s0 += w
            s1 += w * y[k, i]
            s2 += w * w
            s3 += w * w * w
        mean = s1 / s0
        quad = 0.0
        for k in range(n):
            w = 1.0 / (v[k, i] + t)
            quad += (w * (y[k, i] - mean)) ** 2
        old = t
        t, low, high = _next(t, quad - s0 + s2 / s0, s2 - 2.0 * s3 / s0 + (s2 / s0) ** 2, low, high)
        if abs(t - old) <= SCORING_TOL:
            break
    return t


@nb.njit(cache=True, nogil=True, parallel=True)
def fit_mean(effects, c, v2, X, contrast, reml, out):  # type: ignore[no-untyped-def]
    """Common mean: X is one column of ones."""
    n_imputations, n, n_voxels = effects.shape
    n_blocks = (n_voxels + BLOCK - 1) // BLOCK
    scale = contrast[0]
    for block in nb.prange(n_blocks):
        first = block * BLOCK
        size = min(BLOCK, n_voxels - first)
        v, e = np.empty((n, BLOCK)), np.empty((n, BLOCK))
        centre, t = np.empty(BLOCK), np.empty(BLOCK)
        s0, s1, s2, q = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
        for m in range(n_imputations):
            # effects are taken from their plain mean: sums of squares then do not cancel
            centre[:] = 0.0
            for k in range(n):
                for i in range(size):
                    centre[i] += effects[m, k, first + i]
            for i in range(size):
                centre[i] /= n
            s0[:], s1[:], s2[:], q[:] = 0.0, 0.0, 0.0, 0.0
            for k in range(n):
                for i in range(size):
                    y = np.float64(effects[m, k, first + i])
                    v[k, i] = c[k] + v2[k] * y * y
                    e[k, i] = y - centre[i]
                    w = 1.0 / v[k, i]
                    s0[i] += w
                    s1[i] += w * e[k, i]
                    s2[i] += w * w
                    q[i] += w * e[k, i] * e[k, i]
            for i in range(size):
                q[i] = max(q[i] - s1[i] * s1[i] / s0[i], 0.0) if q[i] >= 0.0 else np.nan
                trace = s0[i] - s2[i] / s0[i]
                if reml:
                    t[i] = _reml_mean(v, e, i)
                else:
                    t[i] = (q[i] - (n - 1)) / trace
                    t[i] = 0.0 if t[i] < 0.0 else t[i]
                out[2, m, first + i] = t[i]
                out[3, m, first + i] = q[i]
                out[4, m, first + i] = 1.0 - 1.0 / (1.0 + t[i] * trace / (n - 1))
            s0[:], s1[:] = 0.0, 0.0
            for k in range(n):
                for i in range(size):
                    w = 1.0 / (v[k, i] + t[i])
                    s0[i] += w
                    s1[i] += w * e[k, i]
            for i in range(size):
                out[0, m, first + i] = scale * (centre[i] + s1[i] / s0[i])
                out[1, m, first + i] = scale * scale / s0[i]


@nb.njit(cache=True, nogil=True)
def _regress(v, y, t, X, a, beta, e):  # type: ignore[no-untyped-def]
    """Weighted least squares at tau2 = t: fills the factor `a`, `beta` and residuals `e`."""
    n, p = X.shape
    a[:] = 0.0
    beta[:] = 0.0
    for k in range(n):
        w = 1.0 / (v[k] + t)
        for i in range(p):
            beta[i] += w * X[k, i] * y[k]
            for j in range(i + 1):
                a[i, j] += w * X[k, i] * X[k, j]
    if not factor(a):
        beta[:] = np.nan
    solve(a, beta)
    more = np.zeros(p)
    for again in range(2):  # refined once
        for k in range(n):
            e[k] = y[k]
            for i in range(p):
                e[k] -= X[k, i] * beta[i]
            if again == 0:
                for i in range(p):
                    more[i] += e[k] * X[k, i] / (v[k] + t)
        if again == 0:
            solve(a, more)
            beta += more


@nb.njit(cache=True, nogil=True)
def _traces(v, t, X, a, work, b, c):  # type: ignore[no-untyped-def]
    """Tr P and tr PP at tau2 = t; `a` is the factor of X'WX."""
    n, p = X.shape
    s1 = s2 = 0.0
    b[:] = 0.0
    c[:] = 0.0
    for k in range(n):
        w = 1.0 / (v[k] + t)
        s1 += w
        s2 += w * w
        for i in range(p):
            for j in range(p):
                b[i, j] += w * w * X[k, i] * X[k, j]
                c[i, j] += w * w * w * X[k, i] * X[k, j]
    trace_b = trace_c = trace_bb = 0.0
    for i in range(p):
        work[:] = c[:, i]
        solve(a, work)
        trace_c += work[i]
        work[:] = b[:, i]
        solve(a, work)
        trace_b += work[i]
        b[:, i] = work
    for i in range(p):
        for j in range(p):
            trace_bb += b[i, j] * b[j, i]
    return s1 - trace_b, s2 - 2.0 * trace_c + trace_bb


@nb.njit(cache=True, nogil=True)
def _start(v, y, X, plain, work):  # type: ignore[no-untyped-def]
    """Hedges-Olkin tau2 from unweighted residuals; `plain` is the factor of X'X."""
    n, p = X.shape
    beta = np.dot(X.T, y)
    solve(plain, beta)
    t = 0.0
    for k in range(n):
        work[:] = X[k]
        solve(plain, work)
        t += (y[k] - np.dot(X[k], beta)) ** 2 - (1.0 - np.dot(X[k], work)) * v[k]
    return max(0.0, t / (n - p))


@nb.njit(cache=True, nogil=True, parallel=True)
def fit_design(effects, c, v2, X, contrast, reml, out):  # type: ignore[no-untyped-def]
    """Design of any width."""
    n_imputations, n, n_voxels = effects.shape
    p = X.shape[1]
    df = n - p
    for block in nb.prange((n_voxels + BLOCK - 1) // BLOCK):
        y, v, e = np.empty(n), np.empty(n), np.empty(n)
        a, b, cc = np.empty((p, p)), np.empty((p, p)), np.empty((p, p))
        beta, work = np.empty(p), np.empty(p)
        plain = np.dot(X.T, X)
        factor(plain)
        for m in range(n_imputations):
            for voxel in range(block * BLOCK, min(n_voxels, (block + 1) * BLOCK)):
                for k in range(n):
                    y[k] = effects[m, k, voxel]
                    v[k] = c[k] + v2[k] * y[k] * y[k]
                _regress(v, y, 0.0, X, a, beta, e)
                q = 0.0
                for k in range(n):
                    q += e[k] * e[k] / v[k]
                trace, _ = _traces(v, 0.0, X, a, work, b, cc)
                if reml:
                    t = _start(v, y, X, plain, work)
                    low, high = 0.0, np.inf
                    for _ in range(MAX_SCORING):
                        _regress(v, y, t, X, a, beta, e)
                        trace_p, info = _traces(v, t, X, a, work, b, cc)
                        score = -trace_p
                        for k in range(n):
                            score += (e[k] / (v[k] + t)) ** 2
                        old = t
                        t, low, high = _next(t, score, info, low, high)
                        if abs(t - old) <= SCORING_TOL:
                            break
                else:
                    t = (q - df) / trace
                    t = 0.0 if t < 0.0 else t
                _regress(v, y, t, X, a, beta, e)
                work[:] = contrast
                solve(a, work)
                out[0, m, voxel] = np.dot(contrast, beta)
                out[1, m, voxel] = np.dot(contrast, work)
                out[2, m, voxel] = t
                out[3, m, voxel] = q
                out[4, m, voxel] = 1.0 - 1.0 / (1.0 + t * trace / df)
