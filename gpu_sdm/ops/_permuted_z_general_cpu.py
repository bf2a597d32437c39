"""Random effects by REML for `permuted_z`, with or without covariates, compiled.

Twin: `gpu_sdm.ops.pool.random_effects`.

Many voxels (lanes) at once in float64; the lanes are independent of each other.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops.permuted_effects import SMALLEST_VARIANCE

REML_STEPS = 200
REML_TOLERANCE = 1e-6
LANES = 64
_FLAGS = {"contract", "nsz"}


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _gram(x, w, out):  # type: ignore[no-untyped-def]
    """X' W X of each lane into out (Q, Q, LANES)."""
    n_studies, n_terms = x.shape
    for a in range(n_terms):
        for b in range(a + 1):
            for i in range(LANES):
                out[a, b, i] = 0.0
            for k in range(0, n_studies - 1, 2):  # half the traffic on the sums
                f, g = x[k, a] * x[k, b], x[k + 1, a] * x[k + 1, b]
                for i in range(LANES):
                    out[a, b, i] += f * w[k, i] + g * w[k + 1, i]
            if n_studies % 2:
                f = x[n_studies - 1, a] * x[n_studies - 1, b]
                for i in range(LANES):
                    out[a, b, i] += f * w[n_studies - 1, i]
    for a in range(n_terms):
        for b in range(a):
            for i in range(LANES):
                out[b, a, i] = out[a, b, i]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _invert(a):  # type: ignore[no-untyped-def]
    """Invert a symmetric positive definite (Q, Q, LANES) in place by sweeping each pivot."""
    n_terms = len(a)
    for p in range(n_terms):
        for i in range(LANES):
            a[p, p, i] = 1.0 / a[p, p, i]
        for r in range(n_terms):
            if r == p:
                continue
            for i in range(LANES):
                a[r, p, i] *= a[p, p, i]
            for c in range(n_terms):
                if c != p:
                    for i in range(LANES):
                        a[r, c, i] -= a[r, p, i] * a[p, c, i]
        for c in range(n_terms):
            if c != p:
                for i in range(LANES):
                    a[p, c, i] *= -a[p, p, i]
    # A sweep leaves the pivot column and row with opposite signs; all pivots swept restores it.


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _fit(x, y, w, cov, beta):  # type: ignore[no-untyped-def]
    """Coefficients (Q, LANES) and covariance (Q, Q, LANES)."""
    n_studies, n_terms = x.shape
    _gram(x, w, cov)
    _invert(cov)
    right, wy = np.zeros((n_terms, LANES)), np.empty((n_studies, LANES))
    for k in range(n_studies):
        for i in range(LANES):
            wy[k, i] = w[k, i] * y[k, i]
    for a in range(n_terms):
        for k in range(n_studies):
            f = x[k, a]
            for i in range(LANES):
                right[a, i] += f * wy[k, i]
    beta[:] = 0.0
    for a in range(n_terms):
        for b in range(n_terms):
            for i in range(LANES):
                beta[a, i] += cov[a, b, i] * right[b, i]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _residual_squares(x, y, w, beta, out):  # type: ignore[no-untyped-def]
    """Sum over studies of w times the squared residual."""
    fitted = np.empty(LANES)
    out[:] = 0.0
    for k in range(len(x)):
        fitted[:] = 0.0
        for a in range(x.shape[1]):
            for i in range(LANES):
                fitted[i] += x[k, a] * beta[a, i]
        for i in range(LANES):
            r = y[k, i] - fitted[i]
            out[i] += w[k, i] * r * r


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _sum(w, out):  # type: ignore[no-untyped-def]
    out[:] = 0.0
    for k in range(len(w)):
        for i in range(LANES):
            out[i] += w[k, i]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _square(w, u):  # type: ignore[no-untyped-def]
    for k in range(len(w)):
        for i in range(LANES):
            u[k, i] = w[k, i] * w[k, i]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _reml_lanes(x, y, v, w, u, cov, beta, second, t):  # type: ignore[no-untyped-def]
    n_studies, n_terms = x.shape
    third, squares = np.empty_like(second), np.empty(LANES)
    sum_w, sum_w2 = np.empty(LANES), np.empty(LANES)
    product = np.empty((n_terms, n_terms))
    moving = np.ones(LANES, np.bool_)
    for i in range(LANES):
        mean, ss, variance = 0.0, 0.0, 0.0
        for k in range(n_studies):
            mean += y[k, i] / n_studies
            variance += v[k, i] / n_studies
        for k in range(n_studies):
            ss += (y[k, i] - mean) ** 2
        start = ss / (n_studies - 1) - variance
        t[i] = 0.0 if start < 0.0 else start
    for _ in range(REML_STEPS):
        for k in range(n_studies):
            for i in range(LANES):
                w[k, i] = 1.0 / (v[k, i] + t[i])
        _fit(x, y, w, cov, beta)
        _square(w, u)
        _sum(w, sum_w)
        _sum(u, sum_w2)
        _residual_squares(x, y, u, beta, squares)
        _gram(x, u, second)
        for k in range(n_studies):
            for i in range(LANES):
                u[k, i] *= w[k, i]
        _gram(x, u, third)
        left = 0
        for i in range(LANES):
            if not moving[i]:
                continue
            trace, information = sum_w[i], sum_w2[i]
            for a in range(n_terms):
                for b in range(n_terms):
                    information -= 2 * cov[a, b, i] * third[a, b, i]
                    product[a, b] = 0.0
                    for c in range(n_terms):
                        product[a, b] += cov[a, c, i] * second[c, b, i]
                trace -= product[a, a]
            for a in range(n_terms):
                for b in range(n_terms):
                    information += product[a, b] * product[b, a]
            new = t[i] + (squares[i] - trace) / information
            new = 0.0 if new < 0.0 else new
            moving[i] = abs(new - t[i]) > REML_TOLERANCE
            t[i] = new
            left += moving[i]
        if left == 0:
            break


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _permuted(e, share, g, table, y, v):  # type: ignore[no-untyped-def]
    """Permuted effects and variances of all studies."""
    for k in range(len(table)):
        f, inverse_j, j, a, b = share[k], table[k, 0], table[k, 1], table[k, 2], table[k, 3]
        alpha, beta, gamma = table[k, 4], table[k, 5], table[k, 6]
        c, v2_j2 = table[k, 7], table[k, 8]
        for i in range(LANES):
            d = g[k, i] * inverse_j
            m1 = e[k, i] + f * d
            variance = 1.0 + alpha * d * d + m1 * (beta * m1 + gamma * d)
            variance = SMALLEST_VARIANCE if variance < SMALLEST_VARIANCE else variance
            unit = (a * m1 + b * d) / np.sqrt(variance)
            y[k, i] = j * unit
            v[k, i] = c + v2_j2 * unit * unit


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def general_z(sums, step, share, effects, table, x, h, z):  # type: ignore[no-untyped-def]
    """Z maps as `permuted_z` describes; share (P, K), step 0 reads the same sums for every p."""
    n_imputations, n_studies, n_voxels = effects.shape
    n_terms = x.shape[1]
    # Lanes past the last voxel hold 0 throughout.
    g = np.zeros((n_imputations, n_studies, LANES), np.float32)
    e = np.zeros((n_studies, LANES), np.float32)
    y, v = np.empty((n_studies, LANES)), np.empty((n_studies, LANES))
    w, u, t = np.empty_like(y), np.empty_like(y), np.empty(LANES)
    cov, second = np.empty((n_terms, n_terms, LANES)), np.empty((n_terms, n_terms, LANES))
    beta = np.empty((n_terms, LANES))
    rubin = np.empty((4, LANES))
    for first in range(0, n_voxels, LANES):
        n = min(LANES, n_voxels - first)
        g[:, :, n:] = 0.0
        g[:, :, :n] = effects[:, :, first : first + n]
        for p in range(len(share)):
            rubin[:] = 0.0
            e[:, n:] = 0.0
            e[:, :n] = sums[:, p * step, first : first + n]
            for m in range(n_imputations):
                _permuted(e, share[p], g[m], table, y, v)
                _reml_lanes(x, y, v, w, u, cov, beta, second, t)
                for k in range(n_studies):
                    for i in range(LANES):
                        w[k, i] = 1.0 / (v[k, i] + t[i])
                _fit(x, y, w, cov, beta)
                for i in range(LANES):
                    estimate, variance = 0.0, 0.0
                    for a in range(n_terms):
                        estimate += h[a] * beta[a, i]
                        for b in range(n_terms):
                            variance += h[a] * h[b] * cov[a, b, i]
                    # Differences from the first imputation: nothing cancels
                    if m == 0:
                        rubin[3, i] = estimate
                    rubin[0, i] += estimate - rubin[3, i]
                    rubin[1, i] += (estimate - rubin[3, i]) ** 2
                    rubin[2, i] += variance
            for i in range(n):
                mean = rubin[0, i] / n_imputations
                total = rubin[2, i] / n_imputations
                if n_imputations > 1:
                    between = (rubin[1, i] - mean * rubin[0, i]) / (n_imputations - 1)
                    total += (1.0 + 1.0 / n_imputations) * between
                z[p, first + i] = (rubin[3, i] + mean) / np.sqrt(total)
