"""Compiled `fit_mean_sdm`: the twin's search with the studies of a voxel side by side.

A voxel's studies are packed in `w` (9, K) by `fill`; `at` (5, K) is scratch.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from gpu_sdm.ops._fit_bounds_tau2 import fit_tau2
from gpu_sdm.ops._fit_bounds_terms import MAX_DOUBLINGS, fill, interval
from gpu_sdm.ops._normal_tail_cpu import log_of
from gpu_sdm.ops.bounded_normal import FAR

GOLDEN = 0.3819660112501051  # (3 - sqrt 5) / 2
ROOT_EPS = 1.49e-8  # relative tolerance: the root of the rounding unit
TOLERANCE = 1.22e-4  # absolute: its fourth root, as R's `optimize` has it
MAX_EVALUATIONS = 200


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _terms(mu, w, out):  # type: ignore[no-untyped-def]
    """Write what every study adds to minus the log-likelihood at mean mu into out (K,).

    Not a number where the limits, each in its own standard deviations, have changed places;
    infinite where nothing is left between them.
    """
    for k in range(w.shape[1]):
        _, _, p = interval((w[1, k] - mu) * w[3, k], (w[0, k] - mu) * w[2, k])
        value = -log_of(p)
        value = value if p > 0.0 else (np.nan if p < 0.0 else np.inf)
        e = mu - w[7, k]
        out[k] = 0.5 * e * e / w[8, k] if w[6, k] > 0.0 else value


@nb.njit(cache=True, nogil=True)
def _loss(mu, w, keep, skip, at):  # type: ignore[no-untyped-def]
    """Minus log-likelihood of the kept studies but `skip` at mean mu."""
    _terms(mu, w, at[0])
    total = 0.0
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            total += at[0, k]
    return total


@nb.njit(cache=True, nogil=True)
def _ends(w, keep, skip):  # type: ignore[no-untyped-def]
    """Least lower and largest upper bound of the kept studies but `skip`, infinite ones aside."""
    a, b = np.inf, -np.inf
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            if w[0, k] > -FAR:
                a = min(a, w[0, k])
            if w[1, k] < FAR:
                b = max(b, w[1, k])
    return a, b


@nb.njit(cache=True, nogil=True)
def _search(w, keep, skip, at):  # type: ignore[no-untyped-def]
    """Brent's search without study `skip`: where it ends, and whether it began at a number."""
    a, b = _ends(w, keep, skip)
    if not a <= b:
        return 0.0, True
    best = second = third = a + GOLDEN * (b - a)
    f_best = f_second = f_third = _loss(best, w, keep, skip, at)
    if math.isnan(f_best):
        return best, False  # no later value compares as better
    step = before = 0.0
    for _ in range(MAX_EVALUATIONS):
        middle = 0.5 * (a + b)
        tol = ROOT_EPS * abs(best) + TOLERANCE / 3.0
        if abs(best - middle) <= 2.0 * tol - 0.5 * (b - a):
            break
        p = q = last = 0.0
        if abs(before) > tol:
            r = (best - second) * (f_best - f_third)
            q = (best - third) * (f_best - f_second)
            p = (best - third) * q - (best - second) * r
            q = 2.0 * (q - r)
            p, q = (-p, q) if q > 0.0 else (p, -q)
            last, before = before, step
        if abs(p) >= abs(0.5 * q * last) or p <= q * (a - best) or p >= q * (b - best):
            before = b - best if best < middle else a - best
            step = GOLDEN * before
        else:
            step = p / q
            if best + step - a < 2.0 * tol or b - best - step < 2.0 * tol:
                step = tol if best < middle else -tol
        u = best + (step if abs(step) >= tol else (tol if step > 0.0 else -tol))
        f_u = _loss(u, w, keep, skip, at)
        if f_u <= f_best:
            a, b = (a, best) if u < best else (best, b)
            third, second, best = second, best, u
            f_third, f_second, f_best = f_second, f_best, f_u
        else:
            a, b = (u, b) if u < best else (a, u)
            if f_u <= f_second or second == best:
                third, f_third, second, f_second = second, f_second, u, f_u
            elif f_u <= f_third or third in (best, second):
                third, f_third = u, f_u
    return best, True


@nb.njit(cache=True, nogil=True)
def fit_mean_sdm(first, last, lower, upper, c, v2, grid, beta, tau2, discarded, converged):  # type: ignore[no-untyped-def]
    """Fit voxels `first` to `last`; fills beta (1, V), tau2 (V,), discarded (D, V), converged."""
    n = lower.shape[0]
    w, at, mu = np.empty((9, n)), np.zeros((5, n)), np.empty(n)
    keep = np.empty(n, np.bool_)
    t, f = np.empty(grid.size + MAX_DOUBLINGS), np.empty(grid.size + MAX_DOUBLINGS)
    for v in range(first, last):
        fill(lower, upper, c, v2, v, w)
        keep[:] = True
        mean, good = 0.0, True
        if discarded.shape[0] == 0:
            mean, good = _search(w, keep, n, at)
        for step in range(discarded.shape[0]):
            drop, nearest, sound = n, np.inf, True
            for k in range(n):
                if keep[k]:
                    found, fine = _search(w, keep, k, at)
                    if drop == n or abs(found) < abs(nearest):
                        drop, nearest, sound = k, found, fine
            keep[drop] = False
            discarded[step, v] = drop
            mean, good = nearest, good and sound
        mu[:] = mean
        beta[0, v], converged[v] = mean, good
        tau2[v] = fit_tau2(mu, w, grid, t, f, at)


@nb.njit(cache=True, nogil=True)
def tau2_of_mean(first, last, lower, upper, c, v2, grid, mean, tau2):  # type: ignore[no-untyped-def]
    """Fill tau2 (V,) of voxels `first` to `last`, given their mean (V,)."""
    n = lower.shape[0]
    w, at, mu = np.empty((9, n)), np.zeros((5, n)), np.empty(n)
    t, f = np.empty(grid.size + MAX_DOUBLINGS), np.empty(grid.size + MAX_DOUBLINGS)
    for v in range(first, last):
        fill(lower, upper, c, v2, v, w)
        mu[:] = mean[v]
        tau2[v] = fit_tau2(mu, w, grid, t, f, at)
