"""Compiled `fit_bounds`: same rules as the plain twin, fewer evaluations.

A voxel's studies are packed in `w` (9, K): lower, upper, 1/sd at each, variance at each, known,
effect, variance of the effect. `at` (5, K) keeps what each study adds to minus the log-likelihood
and its two derivatives, and two rows of scratch. `keep` (K,) bool marks the studies not dropped.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._fit_bounds_design import drop_study, newton
from gpu_sdm.ops._fit_bounds_tau2 import fit_tau2
from gpu_sdm.ops._fit_bounds_terms import (
    MAX_DOUBLINGS,
    MAX_HALVINGS,
    MAX_STEPS,
    TIE,
    all_terms,
    converged_step,
    fill,
    study_slope,
    study_terms,
    weigh,
)


@nb.njit(cache=True, nogil=True)
def _total(mu, w, keep, skip, at):  # type: ignore[no-untyped-def]
    """Add up the kept studies but `skip` at a common mean; fills `at` (5, K)."""
    for k in range(w.shape[1]):
        at[3, k] = mu
    all_terms(at[3], w, at, at[4])
    f = g = h = 0.0
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            if at[4, k] > 0.0:
                at[0, k], at[1, k], at[2, k] = study_terms(mu, w, k)
            f += at[0, k]
            g += at[1, k]
            h += at[2, k]
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
def _slopes(mu, w, keep, out, wall, at):  # type: ignore[no-untyped-def]
    """Slope of every kept study at mu: their sum and the number behind a wall; `at` is scratch."""
    for k in range(w.shape[1]):
        at[3, k] = mu
    all_terms(at[3], w, at, at[4])
    total, walls = 0.0, 0
    for k in range(w.shape[1]):
        if keep[k]:
            out[k], wall[k] = at[1, k], 0
            if at[4, k] > 0.0:
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
    first = n  # none; a literal, as -1, is a type of its own: all would be compiled twice
    for k in range(n):
        value[k] = -1.0  # not solved
        if keep[k]:
            rest = h - base[2, k]
            guess[k] = abs(mu - (g - base[1, k]) / rest) if rest > 0.0 else abs(mu)
            if first == n or guess[k] < guess[first]:
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
            up, walls_up = _slopes(best + TIE, w, keep, work[0], walls[0], at)
            down, walls_down = _slopes(-best - TIE, w, keep, work[1], walls[1], at)
        k = n
        for i in range(n):
            if (
                keep[i]
                and value[i] < 0.0
                and (walls_up > walls[0, i] or up - work[0, i] >= 0.0)
                and (walls_down > walls[1, i] or down - work[1, i] <= 0.0)
                and (k == n or guess[i] < guess[k])
            ):
                k = i
        if k == n:
            break
    for k in range(n):
        if keep[k] and 0.0 <= value[k] <= best + TIE:
            return k
    return first


@nb.njit(cache=True, nogil=True)
def _fit_mean(w, keep, discarded, v, at, base, value, fit, fine, work, walls):  # type: ignore[no-untyped-def]
    """Conservative common mean of one voxel: mean, converged."""
    nobody = w.shape[1]
    f, g, h = _total(0.0, w, keep, nobody, at)
    mu, good = _newton_mean(0.0, f, g, h, w, keep, nobody, at)
    for step in range(discarded.shape[0]):
        f, g, h = _total(mu, w, keep, nobody, base)
        k = _drop_from_mean(mu, f, g, h, base, w, keep, at, value, fit, fine, work, walls)
        mu, keep[k] = fit[k], False
        good = good and fine[k]
        discarded[step, v] = k
    return mu, good


@nb.njit(cache=True, nogil=True)
def fit_mean(first, last, lower, upper, c, v2, X, crit, grid, beta, tau2, discarded, converged):  # type: ignore[no-untyped-def]
    """Fit voxels `first` to `last` where the design is a column of ones.

    Fills beta (1, V), tau2 (V,), discarded (D, V), converged (V,); `X` and `crit` are not used.
    """
    n = lower.shape[0]
    w, at, base = np.empty((9, n)), np.zeros((5, n)), np.zeros((5, n))
    work, walls = np.zeros((3, n)), np.zeros((2, n), np.int64)
    keep, fine = np.empty(n, np.bool_), np.empty(n, np.bool_)
    value, fit, mu = np.empty(n), np.empty(n), np.empty(n)
    t, f = np.empty(grid.size + MAX_DOUBLINGS), np.empty(grid.size + MAX_DOUBLINGS)
    for v in range(first, last):
        fill(lower, upper, c, v2, v, w)
        keep[:] = True
        here, converged[v] = _fit_mean(
            w, keep, discarded, v, at, base, value, fit, fine, work, walls
        )
        mu[:] = here
        beta[0, v] = here
        tau2[v] = fit_tau2(mu, w, grid, t, f, at)


@nb.njit(cache=True, nogil=True)
def fit_design(first, last, lower, upper, c, v2, X, crit, grid, beta, tau2, discarded, converged):  # type: ignore[no-untyped-def]
    """Fit voxels `first` to `last` for a design of any width: as `fit_mean`, but beta (Q, V)."""
    n, q = X.shape
    w, at, base = np.empty((9, n)), np.zeros((5, n)), np.zeros((5, n))
    keep, fine = np.empty(n, np.bool_), np.empty(n, np.bool_)
    value, guess, fit, mu = np.empty(n), np.zeros(n), np.empty((n, q)), np.empty(n)
    t, f = np.empty(grid.size + MAX_DOUBLINGS), np.empty(grid.size + MAX_DOUBLINGS)
    here = np.empty(q)
    for v in range(first, last):
        fill(lower, upper, c, v2, v, w)
        keep[:] = True
        here[:] = 0.0
        good = newton(here, X, w, keep, -1, at)
        for step in range(discarded.shape[0]):
            k = drop_study(here, X, crit, w, keep, at, base, value, fit, fine, guess)
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
        tau2[v] = fit_tau2(mu, w, grid, t, f, at)
