"""How SDM-PSI 6.21 searches the likelihood of the bounds, failure included. Only for comparisons.

Its one-dimensional Brent search starts at a + 0.382 (b - a) of [least lower, largest upper bound].
There the probability between the limits of a study can be negative, each limit having its own
standard deviation; the likelihood is then not a number and the search stops where it stands.
Described in Brent (1973) Algorithms for minimization without derivatives, chapter 5.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

GOLDEN = 0.3819660112501051
ROOT_EPS = 1.49e-8
TOLERANCE = 1.22e-4


@nb.njit(cache=True)
def _loss(mu, low, high, v_low, v_high, keep, skip):
    total = 0.0
    for k in range(low.size):
        if keep[k] and k != skip:
            if high[k] - low[k] < 1e-5:
                total += 0.5 * (high[k] - mu) ** 2 / v_high[k]
                continue
            a = (high[k] - mu) / math.sqrt(2 * v_high[k])
            b = (low[k] - mu) / math.sqrt(2 * v_low[k])
            p = 0.5 * (math.erfc(-a) - math.erfc(-b))
            if p < 0:
                return np.nan
            total -= math.log(p) if p > 0 else -np.inf
    return total


@nb.njit(cache=True)
def _ends(low, high, keep, skip):
    a, b = np.inf, -np.inf
    for k in range(low.size):
        if keep[k] and k != skip:
            a, b = min(a, low[k]), max(b, high[k])
    return a, b


@nb.njit(cache=True)
def _brent(low, high, v_low, v_high, keep, skip):
    a, b = _ends(low, high, keep, skip)
    x = w = v = a + GOLDEN * (b - a)
    fx = fw = fv = _loss(x, low, high, v_low, v_high, keep, skip)
    if np.isnan(fx):
        return x  # no later point compares as better
    if math.isnan(fx):
        return x  # no later value compares as better: the search ends where it began
    step = before = 0.0
    for _ in range(200):
        middle = 0.5 * (a + b)
        tol = ROOT_EPS * abs(x) + TOLERANCE / 3
        if abs(x - middle) <= 2 * tol - 0.5 * (b - a):
            break
        p = q = old = 0.0
        if abs(before) > tol:
            r = (x - w) * (fx - fv)
            q = (x - v) * (fx - fw)
            p = (x - v) * q - (x - w) * r
            q = 2 * (q - r)
            p, q = (-p, q) if q > 0 else (p, -q)
            old, before = before, step
        if abs(p) >= abs(0.5 * q * old) or p <= q * (a - x) or p >= q * (b - x):
            before = b - x if x < middle else a - x
            step = GOLDEN * before
        else:
            step = p / q
            if x + step - a < 2 * tol or b - x - step < 2 * tol:
                step = tol if x < middle else -tol
        u = x + step if abs(step) >= tol else x + (tol if step > 0 else -tol)
        fu = _loss(u, low, high, v_low, v_high, keep, skip)
        if fu <= fx:
            a, b = (a, x) if u < x else (x, b)
            v, w, x = w, x, u
            fv, fw, fx = fw, fx, fu
        else:
            a, b = (u, b) if u < x else (a, u)
            if fu <= fw or w == x:
                v, fv, w, fw = w, fw, u, fu
            elif fu <= fv or v in (x, w):
                v, fv = u, fu
    return x


@nb.njit(cache=True)
def _after_discards(low, high, v_low, v_high, discards):
    """Mean at the end of the leave-one-out rule, every search being this one."""
    keep = np.ones(low.size, np.bool_)
    if discards == 0:
        return _brent(low, high, v_low, v_high, keep, -1)
    mean = np.inf
    for _ in range(discards):
        best, mean = -1, np.inf
        for k in range(low.size):
            if keep[k]:
                mu = _brent(low, high, v_low, v_high, keep, k)
                if best < 0 or abs(mu) < abs(mean):
                    best, mean = k, mu
        keep[best] = False
    return mean


@nb.njit(cache=True, parallel=True)
def emulated_means(lower, upper, c, v2, discards):
    """Mean (V,) that SDM-PSI's search ends at, after every discard, at every voxel."""
    out = np.empty(lower.shape[1])
    for voxel in nb.prange(lower.shape[1]):
        low, high = lower[:, voxel].astype(np.float64), upper[:, voxel].astype(np.float64)
        out[voxel] = _after_discards(low, high, c + v2 * low * low, c + v2 * high * high, discards)
    return out


@nb.njit(cache=True, parallel=True)
def stuck_means(lower, upper, c, v2, discards):
    """Mean (V,) as `emulated_means`, but NaN where the first point with all studies is sound.

    Cheaper, and misses the voxels where only a search without one of the studies fails.
    """
    n, n_voxels = lower.shape
    out = np.full(n_voxels, np.nan)
    for voxel in nb.prange(n_voxels):
        low, high = lower[:, voxel].astype(np.float64), upper[:, voxel].astype(np.float64)
        v_low, v_high = c + v2 * low * low, c + v2 * high * high
        keep = np.ones(n, np.bool_)
        a, b = _ends(low, high, keep, -1)
        if not np.isfinite(_loss(a + GOLDEN * (b - a), low, high, v_low, v_high, keep, -1)):
            out[voxel] = _after_discards(low, high, v_low, v_high, discards)
    return out
