"""Compiled search for the tau2 of largest likelihood given the means, of one voxel.

`w` (9, K) as in `gpu_sdm.ops._fit_bounds_cpu`, `mu` (K,), `at` (5, K) scratch.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from gpu_sdm.ops._fit_bounds_terms import LAST_SAFE, MAX_DOUBLINGS, interval
from gpu_sdm.ops._normal_tail_cpu import log_of
from gpu_sdm.ops.bounded_normal import LOG_ROOT_2PI, log_interval_scalar

_ROOT_2PI_INVERSE = 0.3989422804014327


@nb.njit(cache=True, nogil=True)
def _odd_terms(t, mu, w, k):  # type: ignore[no-untyped-def]
    """Value and slope in t of an unknown study whose interval lies far out."""
    v_up, v_low = w[5, k] + t, w[4, k] + t
    a, b = (w[1, k] - mu[k]) / math.sqrt(v_up), (w[0, k] - mu[k]) / math.sqrt(v_low)
    log_p = log_interval_scalar(b, a)
    value = -log_p
    if log_p == -np.inf:
        log_p = 0.0
    pa = math.exp(-0.5 * a * a - LOG_ROOT_2PI - log_p)
    pb = math.exp(-0.5 * b * b - LOG_ROOT_2PI - log_p)
    return value, 0.5 * (a * pa / v_up - b * pb / v_low)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _all_terms(t, mu, w, at):  # type: ignore[no-untyped-def]
    """Value and slope in t of all studies in at[0], at[1]; at[2] > 0 where they are odd."""
    for k in range(w.shape[1]):
        up, low, v = 1.0 / (w[5, k] + t), 1.0 / (w[4, k] + t), w[8, k] + t
        a, b = (w[1, k] - mu[k]) * np.sqrt(up), (w[0, k] - mu[k]) * np.sqrt(low)
        ea, eb, p = interval(a, b)
        square = (w[7, k] - mu[k]) * (w[7, k] - mu[k]) / v
        known = w[6, k] > 0.0
        at[0, k] = 0.5 * (log_of(v) + square) if known else -log_of(p)
        slope = _ROOT_2PI_INVERSE / p * (a * ea * up - b * eb * low)
        at[1, k] = 0.5 * ((1.0 - square) / v if known else slope)
        at[2, k] = (not known) & (not ((a > b) & (b < LAST_SAFE) & (a > -LAST_SAFE) & (p > 0.0)))


@nb.njit(cache=True, nogil=True)
def _profile(t, mu, w, at):  # type: ignore[no-untyped-def]
    """Minus log-likelihood at tau2 = t, and its slope."""
    _all_terms(t, mu, w, at)
    f = g = 0.0
    for k in range(w.shape[1]):
        if at[2, k] > 0.0:
            at[0, k], at[1, k] = _odd_terms(t, mu, w, k)
        f += at[0, k]
        g += at[1, k]
    return f, g


@nb.njit(cache=True, nogil=True)
def _root(lo, hi, mu, w, at):  # type: ignore[no-untyped-def]
    """Zero of the profile's slope in [lo, hi]: false position (Illinois), else bisection."""
    at_lo, at_hi = _profile(lo, mu, w, at)[1], _profile(hi, mu, w, at)[1]
    crossing = at_lo < 0.0 < at_hi
    side = 0
    t = 0.5 * (lo + hi)
    for _ in range(80):
        old = t
        t = (lo * at_hi - hi * at_lo) / (at_hi - at_lo) if crossing else 0.5 * (lo + hi)
        slope = _profile(t, mu, w, at)[1]
        if slope < 0.0:
            lo, at_lo = t, slope
            if side < 0:
                at_hi *= 0.5
            side = -1
        else:
            hi, at_hi = t, slope
            if side > 0:
                at_lo *= 0.5
            side = 1
        if slope == 0.0 or hi - lo <= 1e-12 * hi or abs(t - old) <= 1e-13 * t:
            break
    return t


@nb.njit(cache=True, nogil=True)
def fit_tau2(mu, w, grid, t, f, at):  # type: ignore[no-untyped-def]
    """tau2 of the least profile: grid doubled until it rises, then every valley refined.

    `t`, `f` are scratch for the points of the grid.
    """
    n = grid.size
    for j in range(n):
        t[j] = grid[j]
        f[j] = _profile(t[j], mu, w, at)[0]
    while n < grid.size + MAX_DOUBLINGS and (f[n - 1] == np.inf or f[n - 1] < f[n - 2]):
        t[n] = 2.0 * t[n - 1]
        f[n] = _profile(t[n], mu, w, at)[0]
        n += 1
    best, best_f = 0.0, f[0]
    for j in range(n):
        if (j == 0 or f[j] <= f[j - 1]) and (j + 1 == n or f[j] < f[j + 1]):
            if f[j] < best_f:
                best, best_f = t[j], f[j]
            if _profile(t[j], mu, w, at)[1] < 0.0:
                root = _root(t[j], t[min(j + 1, n - 1)], mu, w, at)
            elif j > 0:
                root = _root(t[j - 1], t[j], mu, w, at)
            else:
                continue
            value = _profile(root, mu, w, at)[0]
            if value < best_f:
                best, best_f = root, value
    return best
