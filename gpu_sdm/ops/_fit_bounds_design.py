"""Newton search and leave-one-out rule of `fit_bounds` for a design of any width (compiled)."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from gpu_sdm.ops._fit_bounds_terms import (
    MAX_HALVINGS,
    MAX_STEPS,
    SURE_SHIFTS,
    SURE_STUDIES,
    TIE,
    all_terms,
    converged_step,
    study_terms,
    weigh,
)


@nb.njit(cache=True, nogil=True)
def total(beta, X, w, keep, skip, at):  # type: ignore[no-untyped-def]
    """Sum over the kept studies but `skip`; fills `at` (5, K)."""
    f = 0.0
    for k in range(w.shape[1]):
        at[3, k] = 0.0
        for p in range(X.shape[1]):
            at[3, k] += X[k, p] * beta[p]
    all_terms(at[3], w, at, at[4])
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            if at[4, k] > 0.0:
                at[0, k], at[1, k], at[2, k] = study_terms(at[3, k], w, k)
            f += at[0, k]
    return f


@nb.njit(cache=True, nogil=True)
def factor(a):  # type: ignore[no-untyped-def]
    """Cholesky factor in the lower triangle of `a`, in place; whether it is positive."""
    for i in range(a.shape[0]):
        for j in range(i + 1):
            s = a[i, j]
            for k in range(j):
                s -= a[i, k] * a[j, k]
            if i > j:
                a[i, j] = s / a[j, j]
            elif s > 0.0:
                a[i, i] = math.sqrt(s)
            else:
                return False
    return True


@nb.njit(cache=True, nogil=True)
def solve(a, b):  # type: ignore[no-untyped-def]
    """Solve for `b`, in place, with the factor of `factor`."""
    for i in range(b.size):
        for k in range(i):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    for i in range(b.size - 1, -1, -1):
        for k in range(i + 1, b.size):
            b[i] -= a[k, i] * b[k]
        b[i] /= a[i, i]


@nb.njit(cache=True, nogil=True)
def _hessian(X, w, keep, skip, at, mode, hess):  # type: ignore[no-untyped-def]
    """Fill `hess`: as it is (0), less what it must exceed (1), negative parts raised (2)."""
    q = X.shape[1]
    for i in range(q):
        for j in range(q):
            hess[i, j] = 0.0
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            h = at[2, k]
            if mode == 1:
                h -= 1e-4 * weigh(w, k)
            elif mode == 2:
                h = max(h, weigh(w, k))
            for i in range(q):
                for j in range(i + 1):
                    hess[i, j] += h * X[k, i] * X[k, j]
    if mode != 1:
        for i in range(q):
            hess[i, i] += 1e-12


@nb.njit(cache=True, nogil=True)
def direction(X, w, keep, skip, at, hess, step):  # type: ignore[no-untyped-def]
    """Newton step (Q,) from the terms in `at`."""
    for p in range(X.shape[1]):
        step[p] = 0.0
    for k in range(w.shape[1]):
        if keep[k] and k != skip:
            for p in range(X.shape[1]):
                step[p] += at[1, k] * X[k, p]
    mode = 1
    for _ in range(2):
        _hessian(X, w, keep, skip, at, mode, hess)
        mode = 0 if factor(hess) else 2
    solve(hess, step)


@nb.njit(cache=True, nogil=True)
def newton(beta, X, w, keep, skip, at):  # type: ignore[no-untyped-def]
    """Damped Newton from `beta`, in place; whether it converged. `at` ends at the optimum."""
    q = X.shape[1]
    hess, step, new = np.empty((q, q)), np.empty(q), np.empty(q)
    f = total(beta, X, w, keep, skip, at)
    for _ in range(MAX_STEPS):
        direction(X, w, keep, skip, at, hess, step)
        size = 1.0
        moved = False
        f_new = f
        for _ in range(MAX_HALVINGS):
            for p in range(q):
                new[p] = beta[p] - size * step[p]
            f_new = total(new, X, w, keep, skip, at)
            if f_new <= f + 1e-12 * (1.0 + abs(f)):
                moved = True
                break
            size *= 0.5
        longest = largest = 0.0
        for p in range(q):
            longest = max(longest, abs(step[p]))
        if not moved:
            return longest <= 1e-6
        for p in range(q):
            beta[p] = new[p]
            largest = max(largest, abs(new[p]))
        f = f_new
        if converged_step(longest, largest):
            return True
    return False


@nb.njit(cache=True, nogil=True)
def drop_study(beta, X, crit, w, keep, at, base, value, fit, fine, guess):  # type: ignore[no-untyped-def]
    """Study whose absence makes |crit . beta| smallest; its optimum is left in `fit`.

    Studies are solved in order of the criterion that one Newton step predicts. Of many studies one
    is passed over when even SURE_SHIFTS times its predicted shift could not reach the best value
    found.
    """
    n, q = X.shape
    total(beta, X, w, keep, -1, base)
    hess, step = np.empty((q, q)), np.empty(q)
    now = 0.0
    for p in range(q):
        now += crit[p] * beta[p]
    for k in range(n):
        value[k] = np.inf
        if keep[k]:
            direction(X, w, keep, k, base, hess, step)
            shift = 0.0
            for p in range(q):
                shift -= crit[p] * step[p]
            fit[k, 0] = shift
            guess[k] = abs(now + shift)
    solved = np.zeros(n, np.bool_)
    best = np.inf
    while True:
        k = -1
        for i in range(n):
            if keep[i] and not solved[i] and (k < 0 or guess[i] < guess[k]):
                k = i
        if k < 0:
            break
        solved[k] = True
        if n > SURE_STUDIES and abs(now) - SURE_SHIFTS * abs(fit[k, 0]) > best + TIE:
            continue
        for p in range(q):
            fit[k, p] = beta[p]
        fine[k] = newton(fit[k], X, w, keep, k, at)
        value[k] = 0.0
        for p in range(q):
            value[k] += crit[p] * fit[k, p]
        value[k] = abs(value[k])
        best = min(best, value[k])
    for k in range(n):
        if value[k] <= best + TIE:
            return k
    return -1
