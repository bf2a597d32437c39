"""Most likely effect and heterogeneity from bounds: maximum likelihood, conservative on purpose."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpu_sdm.data import KNOWN_WIDTH
from gpu_sdm.ops import _fit_bounds_cpu as compiled
from gpu_sdm.ops._arrays import read_only
from gpu_sdm.ops._fit_bounds_terms import (
    MAX_DOUBLINGS,
    MAX_HALVINGS,
    MAX_STEPS,
    STEP_TOL,
    TIE,
)
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._threads import in_pieces
from gpu_sdm.ops.bounded_normal import FAR, LOG_ROOT_2PI, log_interval

GRID = np.concatenate([[0.0], np.geomspace(1e-4, 2.0, 45)])  # tau2 is bracketed on it


class Limits(NamedTuple):
    """What the likelihood needs, each (K, V) float64."""

    lower: np.ndarray
    upper: np.ndarray
    v_lower: np.ndarray  # sampling variance at each limit; 1 at an infinite one
    v_upper: np.ndarray
    known: np.ndarray  # bool
    y: np.ndarray  # the effect of a known study
    v: np.ndarray  # and its sampling variance

    def at(self, voxels: np.ndarray) -> Limits:
        """Give those of some voxels."""
        return Limits(*(a[:, voxels] for a in self))


def prepare(lower: np.ndarray, upper: np.ndarray, c: np.ndarray, v2: np.ndarray) -> Limits:
    """Gather what the likelihood of these bounds needs; arguments as for `fit_bounds`."""
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    c, v2 = c[:, None], v2[:, None]
    known = high - low < KNOWN_WIDTH
    y = np.zeros_like(low)
    y[known] = 0.5 * (low[known] + high[known])
    finite_low, finite_high = np.isfinite(low), np.isfinite(high)
    low = np.where(finite_low, low, -FAR)
    high = np.where(finite_high, high, FAR)
    v_low = np.where(finite_low, c + v2 * low**2, 1.0)
    v_high = np.where(finite_high, c + v2 * high**2, 1.0)
    return Limits(low, high, v_low, v_high, known, y, c + v2 * y**2)


def likelihood_terms(mu: np.ndarray, d: Limits, keep: np.ndarray) -> tuple[np.ndarray, ...]:
    """Minus log-likelihood of each study and its two derivatives in mu (K, V); 0 outside `keep`.

    Each limit has its own standard deviation, so the probability between them turns negative far
    from the optimum: the value is infinite there, a wall that the line search does not cross. Zero
    is never behind it, because effect / sd(effect) increases.
    """
    s_low, s_high = np.sqrt(d.v_lower), np.sqrt(d.v_upper)
    a, b = (d.upper - mu) / s_high, (d.lower - mu) / s_low
    log_p = log_interval(b, a)
    wall = np.isneginf(log_p)
    safe = np.where(wall, 0.0, log_p)
    with np.errstate(over="ignore", invalid="ignore"):
        pa = np.exp(-0.5 * a * a - LOG_ROOT_2PI - safe) / s_high
        pb = np.exp(-0.5 * b * b - LOG_ROOT_2PI - safe) / s_low
        slope = pa - pb
        curve = a * pa / s_high - b * pb / s_low + slope * slope
    error = mu - d.y
    out = (
        np.where(d.known, 0.5 * error**2 / d.v, -log_p),
        np.where(d.known, error / d.v, np.where(wall, 0.0, slope)),
        np.where(d.known, 1 / d.v, np.where(wall, 0.0, curve)),
    )
    return tuple(np.where(keep, x, 0.0) for x in out)


def _direction(
    grad: np.ndarray, h: np.ndarray, d: Limits, X: np.ndarray, keep: np.ndarray
) -> np.ndarray:
    """Newton step (Q, V); where the Hessian is not positive, with its negative parts raised."""
    floor = 1e-3 / np.where(d.known, d.v, d.v_upper)
    plain = np.einsum("kv,kp,kq->vpq", h, X, X)
    raised = np.einsum("kv,kp,kq->vpq", np.where(keep, np.maximum(h, floor), 0.0), X, X)
    least = 1e-4 * np.einsum("kv,kp,kq->vpq", np.where(keep, floor, 0.0), X, X)
    positive = np.linalg.eigvalsh(plain - least)[:, 0] > 0
    hess = np.where(positive[:, None, None], plain, raised)
    hess = hess + 1e-12 * np.eye(X.shape[1])  # a voxel without any study left
    return np.linalg.solve(hess, grad.T[..., None])[..., 0].T


def _newton(
    start: np.ndarray, d: Limits, X: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton from `start` (Q, V): coefficients (Q, V) and converged (V,)."""
    beta = start.copy()
    converged = np.zeros(beta.shape[1], bool)
    live = np.arange(beta.shape[1])
    for _ in range(MAX_STEPS):
        part, kept, here = d.at(live), keep[:, live], beta[:, live]
        f, g, h = likelihood_terms(X @ here, part, kept)
        step = _direction(X.T @ g, h, part, X, kept)
        f0, size = f.sum(0), np.ones(live.size)
        waiting = np.ones(live.size, bool)
        new = here.copy()
        for _ in range(MAX_HALVINGS):
            w = np.flatnonzero(waiting)
            if not w.size:
                break
            trial = here[:, w] - size[w] * step[:, w]
            ft = likelihood_terms(X @ trial, part.at(w), kept[:, w])[0].sum(0)
            good = ft <= f0[w] + 1e-12 * (1 + np.abs(f0[w]))
            new[:, w[good]] = trial[:, good]
            waiting[w[good]] = False
            size[w[~good]] *= 0.5
        beta[:, live] = new
        small = np.abs(step).max(0) <= STEP_TOL * (1 + np.abs(new).max(0))
        stuck = waiting & (np.abs(step).max(0) > 1e-6)
        converged[live[(small | waiting) & ~stuck]] = True
        live = live[~(small | waiting)]
        if not live.size:
            break
    return beta, converged


def _profile(t: np.ndarray, mu: np.ndarray, d: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Minus log-likelihood at tau2 = t (V,) and its derivative, each (V,)."""
    v_low, v_high, v = d.v_lower + t, d.v_upper + t, d.v + t
    a, b = (d.upper - mu) / np.sqrt(v_high), (d.lower - mu) / np.sqrt(v_low)
    log_p = log_interval(b, a)
    safe = np.where(np.isneginf(log_p), 0.0, log_p)
    with np.errstate(over="ignore"):
        pa = np.exp(-0.5 * a * a - LOG_ROOT_2PI - safe)
        pb = np.exp(-0.5 * b * b - LOG_ROOT_2PI - safe)
    error2 = (d.y - mu) ** 2
    f = np.where(d.known, 0.5 * (np.log(v) + error2 / v), -log_p)
    g = np.where(d.known, 0.5 * (1 - error2 / v) / v, 0.5 * (a * pa / v_high - b * pb / v_low))
    return f.sum(0), g.sum(0)


def tau2_given(mu: np.ndarray, d: Limits) -> np.ndarray:
    """tau2 (V,) of the least profile: grid, then bisection of the derivative in each valley."""
    n = mu.shape[1]
    grid = list(GRID)
    values = [_profile(np.full(n, t), mu, d)[0] for t in grid]
    falling = np.arange(n)
    for _ in range(MAX_DOUBLINGS):
        last, before = values[-1][falling], values[-2][falling]
        falling = falling[np.isinf(last) | (last < before)]
        if not falling.size:
            break
        grid.append(2 * grid[-1])
        more = np.full(n, np.inf)
        more[falling] = _profile(np.full(falling.size, grid[-1]), mu[:, falling], d.at(falling))[0]
        values.append(more)
    f, t = np.array(values), np.array(grid)
    best_f, best = f[0].copy(), np.zeros(n)
    for j in range(t.size):
        left = f[j - 1] if j else np.full(n, np.inf)
        right = f[j + 1] if j + 1 < t.size else np.full(n, np.inf)
        here = np.flatnonzero((f[j] <= left) & (f[j] < right))
        if not here.size:
            continue
        part, m = d.at(here), mu[:, here]
        middle = np.full(here.size, t[j])
        slope = _profile(middle, m, part)[1]
        lo = np.where(slope < 0, t[j], t[max(j - 1, 0)])
        hi = np.where(slope < 0, t[min(j + 1, t.size - 1)], t[j])
        for _ in range(60):
            mid = 0.5 * (lo + hi)
            down = _profile(mid, m, part)[1] < 0
            lo, hi = np.where(down, mid, lo), np.where(down, hi, mid)
        root = 0.5 * (lo + hi)
        for at, value in ((middle, f[j][here]), (root, _profile(root, m, part)[0])):
            better = value < best_f[here]
            best_f[here[better]], best[here[better]] = value[better], at[better]
    return best


def fit_bounds(
    lower: np.ndarray,
    upper: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    X: np.ndarray,
    crit: np.ndarray,
    discards: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit coefficients and heterogeneity to the bounds of each voxel.

    Parameters
    ----------
    lower, upper : (K, V) float32
        Bounds of Hedges g; less than 1e-5 apart where it is known, infinite where nothing is.
    c, v2 : (K,) float64
        The sampling variance of an effect g is ``c + v2 g**2``.
    X : (K, Q) float64
        Design.
    crit : (Q,) float64
        The leave-one-out rule makes ``|crit . beta|`` small.
    discards : int
        How many studies that rule drops, below K.

    Returns
    -------
    beta : (Q, V) float64
        Coefficients of largest likelihood without the dropped studies, tau2 left out.
    tau2 : (V,) float64
        Heterogeneity of largest likelihood of ALL studies, given beta.
    discarded : (discards, V) int16
        The studies dropped, in order; of equal ones the first.
    converged : (V,) bool
        Whether every Newton search reached its optimum.

    Notes
    -----
    A study contributes ``(y - mu)^2 / (2 v)`` where known, else
    ``-ln[Phi((u - mu) / s_u) - Phi((l - mu) / s_l)]`` with its own standard deviation at each
    limit. Per step of the rule all remaining studies are left out in turn, from the current
    optimum, and the one whose absence gives the smallest criterion is dropped for good.

    References
    ----------
    .. [1] Albajes-Eizagirre, Solanes, Radua (2018) Meta-analysis of non-statistically significant
       unreported effects. Stat Methods Med Res.
    .. [2] Albajes-Eizagirre et al. (2019) Voxel-based meta-analysis via permutation of subject
       images (PSI). NeuroImage 186:174-184.
    """
    d = prepare(lower, upper, np.asarray(c), np.asarray(v2))
    n_studies, n_voxels = d.lower.shape
    rows = np.arange(n_voxels)
    keep = np.ones((n_studies, n_voxels), bool)
    beta, converged = _newton(np.zeros((X.shape[1], n_voxels)), d, X, keep)
    discarded = np.empty((discards, n_voxels), np.int16)
    for step in range(discards):
        fits = np.empty((n_studies, *beta.shape))
        value = np.full((n_studies, n_voxels), np.inf)
        fine = np.ones((n_studies, n_voxels), bool)
        for k in range(n_studies):
            without = keep.copy()
            without[k] = False
            fits[k], fine[k] = _newton(beta, d, X, without)
            value[k, keep[k]] = np.abs(crit @ fits[k])[keep[k]]
        drop = np.argmax(value <= value.min(0) + TIE, axis=0)
        beta = fits[drop, :, rows].T.copy()
        converged &= fine[drop, rows]
        keep[drop, rows] = False
        discarded[step] = drop
    return beta, tau2_given(X @ beta, d), discarded, converged


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
    beta = np.empty((X.shape[1], n_voxels))
    tau2 = np.empty(n_voxels)
    discarded = np.empty((discards, n_voxels), np.int16)
    converged = np.empty(n_voxels, bool)
    one = X.shape[1] == 1 and bool(np.all(X == 1.0))
    fit = compiled.fit_mean if one else compiled.fit_design
    data = (
        read_only(lower, np.float32),
        read_only(upper, np.float32),
        *(read_only(a) for a in (c, v2, X, crit, GRID)),
    )

    def voxels(first: int, last: int) -> None:
        fit(first, last, *data, beta, tau2, discarded, converged)

    in_pieces(voxels, n_voxels)
    return beta, tau2, discarded, converged


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    k, v = 12, 40
    n = rng.integers(8, 40, k).astype(float)
    half = 3.2 / np.sqrt(n)[:, None]
    kernel = np.clip(rng.uniform(-0.8, 1.05, (k, v)), 0, 1)
    peak = half * rng.uniform(1, 2, (k, v)) * rng.choice([-1, 1, 1], (k, v))
    lower, upper = -half + kernel * (peak + half), half + kernel * (peak - half)
    X = np.column_stack([np.ones(k), rng.normal(size=k)])
    X[:, 1] -= X[:, 1].mean()
    args = (lower.astype(np.float32), upper.astype(np.float32), 1 / n, 0.5 / n, X)
    return (*args, np.array([1.0, 0.0]), 2), {}


FIT_BOUNDS = Op("fit_bounds", fit_bounds, _cpu, _sample, rtol=1e-7)
