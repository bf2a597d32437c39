"""Compiled random-effects fits of every imputation and voxel, float64.

Both functions fill `out` (5, M, V): estimate, variance, tau2, Q, I2 (a share).
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._fit_bounds_design import factor, solve

BLOCK = 64  # voxels of one piece of work
MAX_SCORING = 300
FIXED, SCORING, LAST = 0, 1, 2
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


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _mean_block(block, effects, c, v2, scale, reml, out):  # type: ignore[no-untyped-def]
    n_imputations, n, n_voxels = effects.shape
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
                y = effects[m, k, first + i]
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
def fit_mean(first, last, effects, c, v2, X, contrast, reml, out):  # type: ignore[no-untyped-def]
    """Fit a common mean in blocks `first` to `last` of voxels: X is one column of ones."""
    for block in range(first, last):
        _mean_block(block, effects, c, v2, contrast[0], reml, out)


@nb.njit(cache=True, nogil=True)
def _regress(v, y, t, X, a, beta, e):  # type: ignore[no-untyped-def]
    """Weighted least squares at tau2 = t: fills the factor `a`, `beta` and residuals `e`."""
    n, p = X.shape
    for i in range(p):
        beta[i] = 0.0
        for j in range(p):
            a[i, j] = 0.0
    for k in range(n):
        w = 1.0 / (v[k] + t)
        for i in range(p):
            beta[i] += w * X[k, i] * y[k]
            for j in range(i + 1):
                a[i, j] += w * X[k, i] * X[k, j]
    factor(a)
    solve(a, beta)
    for k in range(n):
        e[k] = y[k]
        for i in range(p):
            e[k] -= X[k, i] * beta[i]


@nb.njit(cache=True, nogil=True)
def _traces(v, t, X, a, work, b, c):  # type: ignore[no-untyped-def]
    """Tr P and tr PP at tau2 = t; `a` is the factor of X'WX."""
    n, p = X.shape
    s1 = s2 = 0.0
    for i in range(p):
        for j in range(p):
            b[i, j] = c[i, j] = 0.0
    for k in range(n):
        w = 1.0 / (v[k] + t)
        s1 += w
        s2 += w * w
        for i in range(p):
            for j in range(p):
                b[i, j] += w * w * X[k, i] * X[k, j]
                c[i, j] += w * w * w * X[k, i] * X[k, j]
    trace_b = trace_c = trace_bb = 0.0
    for column in range(2 * p):  # the first p: inv(X'WX) X'W3X, then inv(X'WX) X'W2X
        i = column % p
        for j in range(p):
            work[j] = c[j, i] if column < p else b[j, i]
        solve(a, work)
        if column < p:
            trace_c += work[i]
            continue
        trace_b += work[i]
        for j in range(p):
            b[j, i] = work[j]
    for i in range(p):
        for j in range(p):
            trace_bb += b[i, j] * b[j, i]
    return s1 - trace_b, s2 - 2.0 * trace_c + trace_bb


@nb.njit(cache=True, nogil=True)
def _start(v, y, X, plain, work):  # type: ignore[no-untyped-def]
    """Hedges-Olkin tau2 from unweighted residuals; `plain` is the factor of X'X."""
    n, p = X.shape
    beta = np.zeros(p)
    for k in range(n):
        for i in range(p):
            beta[i] += X[k, i] * y[k]
    solve(plain, beta)
    t = 0.0
    for k in range(n):
        for i in range(p):
            work[i] = X[k, i]
        solve(plain, work)
        e = y[k]
        leverage = 0.0
        for i in range(p):
            e -= X[k, i] * beta[i]
            leverage += X[k, i] * work[i]
        t += e * e - (1.0 - leverage) * v[k]
    return max(0.0, t / (n - p))


@nb.njit(cache=True, nogil=True)
def _design_block(block, effects, c, v2, X, contrast, reml, out):  # type: ignore[no-untyped-def]
    n_imputations, n, n_voxels = effects.shape
    p = X.shape[1]
    df = n - p
    y, v, e = np.empty(n), np.empty(n), np.empty(n)
    a, b, cc = np.empty((p, p)), np.empty((p, p)), np.empty((p, p))
    beta, work = np.empty(p), np.empty(p)
    plain = np.zeros((p, p))
    for k in range(n):
        for i in range(p):
            for j in range(p):
                plain[i, j] += X[k, i] * X[k, j]
    factor(plain)
    for m in range(n_imputations):
        for voxel in range(block * BLOCK, min(n_voxels, (block + 1) * BLOCK)):
            for k in range(n):
                y[k] = effects[m, k, voxel]
                v[k] = c[k] + v2[k] * y[k] * y[k]
            t = q = trace = 0.0
            low, high = 0.0, np.inf
            # one loop for the fixed-effect fit, the scoring and the last fit: each function is
            # then compiled in once
            stage = FIXED
            for _ in range(MAX_SCORING + 2):
                _regress(v, y, t, X, a, beta, e)
                if stage == LAST:
                    break
                trace_p, info = _traces(v, t, X, a, work, b, cc)
                if stage == FIXED:
                    trace = trace_p
                    for k in range(n):
                        q += e[k] * e[k] / v[k]
                    if reml:
                        stage = SCORING
                        t = _start(v, y, X, plain, work)
                    else:
                        stage = LAST
                        t = (q - df) / trace
                        t = 0.0 if t < 0.0 else t
                    continue
                score = -trace_p
                for k in range(n):
                    score += (e[k] / (v[k] + t)) ** 2
                old = t
                t, low, high = _next(t, score, info, low, high)
                if abs(t - old) <= SCORING_TOL:
                    stage = LAST
            for i in range(p):
                work[i] = contrast[i]
            solve(a, work)
            out[0, m, voxel], out[1, m, voxel] = 0.0, 0.0
            for i in range(p):
                out[0, m, voxel] += contrast[i] * beta[i]
                out[1, m, voxel] += contrast[i] * work[i]
            out[2, m, voxel] = t
            out[3, m, voxel] = q
            out[4, m, voxel] = 1.0 - 1.0 / (1.0 + t * trace / df)


@nb.njit(cache=True, nogil=True)
def fit_design(first, last, effects, c, v2, X, contrast, reml, out):  # type: ignore[no-untyped-def]
    """Fit a design of any width in blocks `first` to `last` of voxels."""
    for block in range(first, last):
        _design_block(block, effects, c, v2, X, contrast, reml, out)
