"""Compiled `fit_bounds`: same rules as the plain twin, fewer evaluations.

A voxel's studies are packed in `w` (9, K): lower, upper, 1/sd at each, variance at each, known,
effect, variance of the effect. `at` (3, K) keeps what each study adds to minus the log-likelihood
and its two derivatives. `keep` (K,) bool marks the studies not dropped.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from gpu_sdm.ops._fit_bounds_design import drop_study, newton, weigh
from gpu_sdm.ops._fit_bounds_terms import (
    MAX_DOUBLINGS,
    MAX_HALVINGS,
    MAX_STEPS,
    TIE,
    converged_step,
    fill,
    study_slope,
    study_terms,
)
from gpu_sdm.ops.bounded_normal import LOG_ROOT_2PI, log_interval_scalar

BLOCK = 32  # voxels of one piece of work


@nb.njit(cache=True, nogil=True)
def _total(mu, w, keep, skip, at):  # type: ignore[no-untyped-def]
    """Add up the kept studies but `skip` at a common mean; fills `at`."""
    f = g = h = 0.0
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            fk, gk, hk = study_terms(mu, w, k)
            at[0, k], at[1, k], at[2, k] = fk, gk, hk
            f += fk
            g += gk
            h += hk
    return f, g, h


@nb.njit(cache=True, nogil=True)
def _newton_mean(mu, f, g, h, w, keep, skip, at):  # type: ignore[no-untyped-def]
    """Damped Newton of a common mean whose sums at the start are known: mean, converged."""
    floor = 0.0
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            floor += weigh(w, k)
    fresh = False  # whether `at` holds the terms at mu
    for _ in range(MAX_STEPS):
        if not h - 1e-4 * floor > 0.0:
            if not fresh:
                f, g, h = _total(mu, w, keep, skip, at)
            h = 0.0
            for k in range(w.shape[1]):
                if keep[k] and k != skip:
                    h += max(at[2, k], weigh(w, k))
        step = g / (h + 1e-12)
        size = 1.0
        moved = False
        new, f_new, g_new, h_new = mu, f, g, h
        for _ in range(MAX_HALVINGS):
            new = mu - size * step
            f_new, g_new, h_new = _total(new, w, keep, skip, at)
            if f_new <= f + 1e-12 * (1.0 + abs(f)):
                moved = True
                break
            size *= 0.5
        if not moved:
            return mu, abs(step) <= 1e-6
        mu, f, g, h, fresh = new, f_new, g_new, h_new, True
        if converged_step(abs(step), abs(mu)):
            return mu, True
    return mu, False


@nb.njit(cache=True, nogil=True)
def _slopes(mu, w, keep, out, wall):  # type: ignore[no-untyped-def]
    """Slope of every kept study at mu: their sum and the number behind a wall."""
    total, walls = 0.0, 0
    for k in range(w.shape[1]):
        if keep[k]:
            out[k], wall[k] = study_slope(mu, w, k)
            total += out[k]
            walls += wall[k]
    return total, walls


@nb.njit(cache=True, nogil=True)
def _drop_from_mean(mu, f, g, h, base, w, keep, at, value, fit, fine, work, walls):  # type: ignore[no-untyped-def]
    """Study whose absence brings a common mean nearest to 0, without solving for all of them.

    |mu without k| < T exactly when the slope of the others is positive at T and negative at -T
    (their sum has one valley), so two passes tell which studies can beat the best T so far.
    """
    n = w.shape[1]
    guess = work[2]
    first = -1
    for k in range(n):
        value[k] = -1.0  # not solved
        if keep[k]:
            rest = h - base[2, k]
            guess[k] = abs(mu - (g - base[1, k]) / rest) if rest > 0.0 else abs(mu)
            if first < 0 or guess[k] < guess[first]:
                first = k
    best = np.inf
    k = first
    while True:
        fit[k], fine[k] = _newton_mean(
            mu, f - base[0, k], g - base[1, k], h - base[2, k], w, keep, k, at
        )
        value[k] = abs(fit[k])
        if value[k] < best:
            best = value[k]
            up, walls_up = _slopes(best + TIE, w, keep, work[0], walls[0])
            down, walls_down = _slopes(-best - TIE, w, keep, work[1], walls[1])
        k = -1
        for i in range(n):
            if (
                keep[i]
                and value[i] < 0.0
                and (walls_up > walls[0, i] or up - work[0, i] >= 0.0)
                and (walls_down > walls[1, i] or down - work[1, i] <= 0.0)
                and (k < 0 or guess[i] < guess[k])
            ):
                k = i
        if k < 0:
            break
    for k in range(n):
        if keep[k] and 0.0 <= value[k] <= best + TIE:
            return k
    return first


@nb.njit(cache=True, nogil=True)
def _profile(t, mu, w):  # type: ignore[no-untyped-def]
    """Minus log-likelihood at tau2 = t; `mu` (K,)."""
    f = 0.0
    for k in range(w.shape[1]):
        if w[6, k] > 0.0:
            v = w[8, k] + t
            f += 0.5 * (math.log(v) + (w[7, k] - mu[k]) ** 2 / v)
        else:
            a = (w[1, k] - mu[k]) / math.sqrt(w[5, k] + t)
            b = (w[0, k] - mu[k]) / math.sqrt(w[4, k] + t)
            f -= log_interval_scalar(b, a)
    return f


@nb.njit(cache=True, nogil=True)
def _profile_slope(t, mu, w):  # type: ignore[no-untyped-def]
    """Differentiate `_profile` in t."""
    g = 0.0
    for k in range(w.shape[1]):
        if w[6, k] > 0.0:
            v = w[8, k] + t
            g += 0.5 * (1.0 - (w[7, k] - mu[k]) ** 2 / v) / v
        else:
            v_up, v_low = w[5, k] + t, w[4, k] + t
            a, b = (w[1, k] - mu[k]) / math.sqrt(v_up), (w[0, k] - mu[k]) / math.sqrt(v_low)
            log_p = log_interval_scalar(b, a)
            if log_p == -np.inf:
                log_p = 0.0
            pa = math.exp(-0.5 * a * a - LOG_ROOT_2PI - log_p)
            pb = math.exp(-0.5 * b * b - LOG_ROOT_2PI - log_p)
            g += 0.5 * (a * pa / v_up - b * pb / v_low)
    return g


@nb.njit(cache=True, nogil=True)
def _root(lo, hi, mu, w):  # type: ignore[no-untyped-def]
    """Zero of the profile's slope in [lo, hi]: false position (Illinois), else bisection."""
    at_lo, at_hi = _profile_slope(lo, mu, w), _profile_slope(hi, mu, w)
    crossing = at_lo < 0.0 < at_hi
    side = 0
    t = 0.5 * (lo + hi)
    for _ in range(80):
        old = t
        t = (lo * at_hi - hi * at_lo) / (at_hi - at_lo) if crossing else 0.5 * (lo + hi)
        slope = _profile_slope(t, mu, w)
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
def _fit_tau2(mu, w, grid, t, f):  # type: ignore[no-untyped-def]
    """tau2 of the least profile: grid doubled until it rises, then every valley refined."""
    n = grid.size
    for j in range(n):
        t[j] = grid[j]
        f[j] = _profile(t[j], mu, w)
    while n < grid.size + MAX_DOUBLINGS and (f[n - 1] == np.inf or f[n - 1] < f[n - 2]):
        t[n] = 2.0 * t[n - 1]
        f[n] = _profile(t[n], mu, w)
        n += 1
    best, best_f = 0.0, f[0]
    for j in range(n):
        if (j == 0 or f[j] <= f[j - 1]) and (j + 1 == n or f[j] < f[j + 1]):
            if f[j] < best_f:
                best, best_f = t[j], f[j]
            if _profile_slope(t[j], mu, w) < 0.0:
                root = _root(t[j], t[min(j + 1, n - 1)], mu, w)
            elif j > 0:
                root = _root(t[j - 1], t[j], mu, w)
            else:
                continue
            value = _profile(root, mu, w)
            if value < best_f:
                best, best_f = root, value
    return best


@nb.njit(cache=True, nogil=True)
def _fit_mean(w, keep, discarded, v, at, base, value, fit, fine, work, walls):  # type: ignore[no-untyped-def]
    """Conservative common mean of one voxel: mean, converged."""
    f, g, h = _total(0.0, w, keep, -1, at)
    mu, good = _newton_mean(0.0, f, g, h, w, keep, -1, at)
    for step in range(discarded.shape[0]):
        f, g, h = _total(mu, w, keep, -1, base)
        k = _drop_from_mean(mu, f, g, h, base, w, keep, at, value, fit, fine, work, walls)
        mu, keep[k] = fit[k], False
        good = good and fine[k]
        discarded[step, v] = k
    return mu, good


@nb.njit(cache=True, nogil=True)
def _fit_block(block, one, lower, upper, c, v2, X, crit, grid, beta, tau2, discarded, converged):  # type: ignore[no-untyped-def]
    """One piece of work; `one`: the design is a column of ones."""
    n, n_voxels = lower.shape
    q = X.shape[1]
    w, at, base = np.empty((9, n)), np.zeros((3, n)), np.zeros((3, n))
    work, walls = np.zeros((3, n)), np.zeros((2, n), np.int64)
    keep, fine = np.empty(n, np.bool_), np.empty(n, np.bool_)
    value, fit, mu = np.empty(n), np.empty((n, q)), np.empty(n)
    t, f = np.empty(grid.size + MAX_DOUBLINGS), np.empty(grid.size + MAX_DOUBLINGS)
    here = np.empty(q)
    for v in range(block * BLOCK, min(n_voxels, (block + 1) * BLOCK)):
        fill(lower, upper, c, v2, v, w)
        keep[:] = True
        if one:
            here[0], good = _fit_mean(
                w, keep, discarded, v, at, base, value, fit[:, 0], fine, work, walls
            )
        else:
            here[:] = 0.0
            good = newton(here, X, w, keep, -1, at)
            for step in range(discarded.shape[0]):
                k = drop_study(here, X, crit, w, keep, at, base, value, fit, fine, work[0])
                here[:] = fit[k]
                keep[k] = False
                good = good and fine[k]
                discarded[step, v] = k
        for k in range(n):
            mu[k] = 0.0
            for p in range(q):
                mu[k] += X[k, p] * here[p]
        beta[:, v] = here
        converged[v] = good
        tau2[v] = _fit_tau2(mu, w, grid, t, f)


@nb.njit(cache=True, nogil=True, parallel=True)
def fit_all(one, lower, upper, c, v2, X, crit, grid, beta, tau2, discarded, converged):  # type: ignore[no-untyped-def]
    """Every voxel; fills beta (Q, V), tau2 (V,), discarded (D, V), converged (V,)."""
    for block in nb.prange((lower.shape[1] + BLOCK - 1) // BLOCK):
        _fit_block(block, one, lower, upper, c, v2, X, crit, grid, beta, tau2, discarded, converged)
