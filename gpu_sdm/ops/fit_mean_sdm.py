"""The common mean as SDM-PSI 6.21 finds it, failures included: for `--search sdm-6.21` only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

from gpu_sdm.ops import _fit_mean_sdm_cpu as compiled
from gpu_sdm.ops._arrays import read_only
from gpu_sdm.ops._fit_mean_sdm_cpu import GOLDEN, MAX_EVALUATIONS, ROOT_EPS, TOLERANCE
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._threads import in_pieces
from gpu_sdm.ops.bounded_normal import FAR
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS, GRID, Limits, prepare, tau2_given


def _loss(mu: float, d: Limits, keep: np.ndarray) -> float:
    """Minus log-likelihood of the kept studies (K,) bool of one voxel at mean mu.

    Infinite where a probability is 0, and nothing guards against one that is negative: its log is
    not a number.
    """
    a, b = (d.upper - mu) / np.sqrt(d.v_upper), (d.lower - mu) / np.sqrt(d.v_lower)
    # Taken in the tail that both limits lie in, where it keeps its digits
    p = np.where(b > 0, ndtr(-b) - ndtr(-a), ndtr(a) - ndtr(b))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(d.known, 0.5 * (mu - d.y) ** 2 / d.v, -np.log(p))
    return float(terms[keep].sum())


def brent(f: Callable[[float], float], a: float, b: float) -> tuple[float, bool]:
    """Where Brent's search [1]_ for the least f between a and b ends, as SDM-PSI 6.21 does it.

    Also whether it began at a number: nothing compares as less than what is not one, and the
    search then ends where it began. `best`, `second` and `third` are the points of least value so
    far; `before` is the step before the last one.

    References
    ----------
    .. [1] Brent (1973) Algorithms for minimization without derivatives, chapter 5.
    """
    best = second = third = a + GOLDEN * (b - a)
    f_best = f_second = f_third = f(best)
    if np.isnan(f_best):
        return best, False  # no later value compares as better
    step = before = 0.0
    for _ in range(MAX_EVALUATIONS):
        middle = 0.5 * (a + b)
        tol = ROOT_EPS * abs(best) + TOLERANCE / 3
        if abs(best - middle) <= 2 * tol - 0.5 * (b - a):
            break
        p = q = last = 0.0
        if abs(before) > tol:  # a parabola through the three points
            # Infinite values give a step that is not a number, and so one of -tol
            with np.errstate(invalid="ignore"):
                r = np.float64(best - second) * (f_best - f_third)
                q = np.float64(best - third) * (f_best - f_second)
                p = (best - third) * q - (best - second) * r
                q = 2 * (q - r)
            p, q = (-p, q) if q > 0 else (p, -q)
            last, before = before, step
        if abs(p) >= abs(0.5 * q * last) or p <= q * (a - best) or p >= q * (b - best):
            before = b - best if best < middle else a - best
            step = GOLDEN * before
        else:
            step = p / q
            if best + step - a < 2 * tol or b - best - step < 2 * tol:
                step = tol if best < middle else -tol
        u = best + (step if abs(step) >= tol else (tol if step > 0 else -tol))
        f_u = f(u)
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


def _search(d: Limits, keep: np.ndarray) -> tuple[float, bool]:
    """Where the search with the kept studies of one voxel ends; whether it began at a number."""
    low, high = d.lower[keep & (d.lower > -FAR)], d.upper[keep & (d.upper < FAR)]
    if not low.size or not high.size or low.min() > high.max():
        return 0.0, True
    return brent(lambda mu: _loss(mu, d, keep), float(low.min()), float(high.max()))


def fit_mean_sdm(
    lower: np.ndarray,
    upper: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    X: np.ndarray,
    crit: np.ndarray,
    discards: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the mean and heterogeneity of each voxel by SDM-PSI 6.21's own search.

    Parameters
    ----------
    lower, upper, c, v2, discards
        As for `fit_bounds`.
    X : (K, 1) float64
        A column of ones.
    crit : (1,) float64
        Not used: the leave-one-out rule makes the absolute mean small.

    Returns
    -------
    beta : (1, V) float64
        Where the search without the dropped studies ended.
    tau2 : (V,) float64
        Heterogeneity of largest likelihood of ALL studies, given that mean; as in `fit_bounds`.
    discarded : (discards, V) int16
        The studies dropped, in order; of equal ones the first.
    converged : (V,) bool
        Whether every search that was followed began where the likelihood is a number.

    Notes
    -----
    Brent's search [1]_ begins at ``a + 0.382 (b - a)`` of [least lower, largest upper bound]. There
    the probability between the limits of a study can come out negative, as each limit has its own
    standard deviation; the likelihood is then not a number, every comparison with it is false, and
    the search ends where it began. That the original does so, and that it takes the difference in
    the tail that both limits lie in, is inferred from its maps; its tolerance and its treatment of
    infinite values hardly matter (docs/fidelity.md). The mean is 0 where no study bounds it.

    References
    ----------
    .. [1] Brent (1973) Algorithms for minimization without derivatives, chapter 5.
    """
    whole = prepare(lower, upper, np.asarray(c), np.asarray(v2))
    n_studies, n_voxels = whole.lower.shape
    beta = np.zeros((1, n_voxels))
    discarded = np.empty((discards, n_voxels), np.int16)
    converged = np.ones(n_voxels, bool)
    for v in range(n_voxels):
        d = Limits(*(a[:, v] for a in whole))
        keep = np.ones(n_studies, bool)
        if discards == 0:
            beta[0, v], converged[v] = _search(d, keep)
        for step in range(discards):
            ends = {k: _search(d, keep & (np.arange(n_studies) != k)) for k in np.flatnonzero(keep)}
            drop = min(ends, key=lambda k: abs(ends[k][0]))  # of equal ones the first
            keep[drop] = False
            discarded[step, v] = drop
            beta[0, v] = ends[drop][0]
            converged[v] &= ends[drop][1]
    return beta, tau2_given(np.ones((n_studies, 1)) @ beta, whole), discarded, converged


def _cpu(
    lower: np.ndarray,
    upper: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    X: np.ndarray,
    crit: np.ndarray,
    discards: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n_voxels = lower.shape[1]
    beta, tau2 = np.empty((1, n_voxels)), np.empty(n_voxels)
    discarded = np.empty((discards, n_voxels), np.int16)
    converged = np.empty(n_voxels, bool)
    data = (
        read_only(lower, np.float32),
        read_only(upper, np.float32),
        *(read_only(a) for a in (c, v2, GRID)),
    )

    def voxels(first: int, last: int) -> None:
        compiled.fit_mean_sdm(first, last, *data, beta, tau2, discarded, converged)

    in_pieces(voxels, n_voxels)
    return beta, tau2, discarded, converged


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (lower, upper, c, v2, X, crit, discards), _ = FIT_BOUNDS.sample(rng)
    # A study of few subjects and a high threshold opens the interval of the search; at the far
    # end three others, whose peaks are large, have limits that change places
    c[0], v2[0], c[1:4], v2[1:4] = 0.2, 0.21, 0.125, 0.1
    wide = rng.uniform(2, 10, lower.shape[1])
    lower[0], upper[0] = -0.9 * wide, wide
    peaks = rng.uniform(1, 2, (3, lower.shape[1]))
    lower[1:4], upper[1:4] = peaks, peaks + rng.uniform(0, 1, peaks.shape)
    return (lower, upper, c, v2, X[:, :1].copy(), crit[:1], discards), {}


def tau2_of_mean(
    lower: np.ndarray, upper: np.ndarray, c: np.ndarray, v2: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """Heterogeneity (V,) of largest likelihood of all studies, given the mean (V,).

    The other arguments as for `fit_bounds`, whose heterogeneity is this one.
    """
    d = prepare(lower, upper, np.asarray(c), np.asarray(v2))
    return tau2_given(np.broadcast_to(mean, d.lower.shape), d)


def _tau2_cpu(
    lower: np.ndarray, upper: np.ndarray, c: np.ndarray, v2: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    tau2 = np.empty(lower.shape[1])
    data = (
        read_only(lower, np.float32),
        read_only(upper, np.float32),
        *(read_only(a) for a in (c, v2, GRID, mean)),
    )

    def voxels(first: int, last: int) -> None:
        compiled.tau2_of_mean(first, last, *data, tau2)

    in_pieces(voxels, lower.shape[1])
    return tau2


def _tau2_sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (lower, upper, c, v2, *_), _ = _sample(rng)
    return (lower, upper, c, v2, rng.normal(0.2, 0.3, lower.shape[1])), {}


# Rounding can end a search at another point of its tolerance, here and in the twin
FIT_MEAN_SDM = Op("fit_mean_sdm", fit_mean_sdm, _cpu, _sample, rtol=5e-4)
TAU2_OF_MEAN = Op("tau2_of_mean", tau2_of_mean, _tau2_cpu, _tau2_sample, rtol=1e-7)
