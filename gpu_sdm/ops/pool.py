"""Random-effects meta-analysis of every imputation, pooled by Rubin's rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_sdm.data import Pooled
from gpu_sdm.ops import _pool_cpu as compiled
from gpu_sdm.ops._arrays import read_only
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._threads import in_pieces
from gpu_sdm.ops.pooled_q import pool_q


def weighted(w: np.ndarray, y: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, ...]:
    """Weighted least squares of each voxel: beta (V, Q), covariance (V, Q, Q), residuals (K, V)."""
    cov = np.linalg.inv(np.einsum("kv,kp,kq->vpq", w, X, X))
    beta = np.einsum("vpq,kq,kv->vp", cov, X, w * y)
    beta = beta + np.einsum("vpq,kq,kv->vp", cov, X, w * (y - X @ beta.T))  # refined once
    return beta, cov, y - X @ beta.T


def _trace(cov: np.ndarray, w: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Tr P (V,), P the residual projection with weights w (K, V)."""
    trace: np.ndarray = w.sum(0) - np.einsum("vpq,kv,kp,kq->v", cov, w * w, X, X, optimize=True)
    return trace


def _reml(y: np.ndarray, v: np.ndarray, X: np.ndarray, tol: float) -> np.ndarray:
    """tau2 (V,) by Fisher scoring of the restricted likelihood, kept between known signs."""
    hat = X @ np.linalg.pinv(X)
    t: np.ndarray = ((y - hat @ y) ** 2).sum(0) - (1 - np.diag(hat)) @ v  # Hedges-Olkin's moments
    t = np.maximum(0.0, t / (X.shape[0] - X.shape[1]))
    low, high = np.zeros(t.size), np.full(t.size, np.inf)
    live = np.arange(t.size)
    for _ in range(compiled.MAX_SCORING):
        w = 1 / (v[:, live] + t[live])
        _, cov, e = weighted(w, y[:, live], X)
        b = np.einsum("vpq,kv,kq,kr->vpr", cov, w**2, X, X, optimize=True)
        c = np.einsum("vpq,kv,kp,kq->v", cov, w**3, X, X, optimize=True)
        score = (w**2 * e**2).sum(0) - _trace(cov, w, X)
        info = (w**2).sum(0) - 2 * c + np.einsum("vpq,vqp->v", b, b)
        old = t[live]
        low[live] = np.where(score > 0, old, low[live])
        high[live] = np.where(score > 0, high[live], old)
        new = np.maximum(0.0, old + score / info)
        outside = (new < low[live]) | (new >= high[live])
        with np.errstate(invalid="ignore"):
            new = np.where(outside, 0.5 * (low[live] + high[live]), new)
        t[live] = new
        live = live[~(np.abs(new - old) <= tol)]
        if not live.size:
            break
    return t


def random_effects(
    y: np.ndarray,
    v: np.ndarray,
    X: np.ndarray,
    contrast: np.ndarray,
    method: str,
    tol: float = compiled.SCORING_TOL,
) -> tuple[np.ndarray, ...]:
    """Random-effects regression of complete effects.

    Parameters
    ----------
    y, v : (K, V) float64
        Effects and their sampling variances.
    X : (K, Q) float64
        Design.
    contrast : (Q,) float64
        What is estimated is ``contrast . beta``.
    method : {"dl", "reml"}
        Estimator of tau2: general DerSimonian-Laird, or restricted maximum likelihood.
    tol : float
        Change of tau2 at which the scoring of "reml" stops (metafor 1e-5, metansue 1e-6).

    Returns
    -------
    estimate, variance, tau2, q, i2 : (V,) float64
        `i2` is a share: ``H2 = 1 + tau2 tr(P0) / (K - Q)``, ``I2 = 1 - 1 / H2``.
    """
    k = X.shape[0] - X.shape[1]
    w = 1 / v
    _, cov, e = weighted(w, y, X)
    q, trace = (w * e * e).sum(0), _trace(cov, w, X)
    tau2 = np.maximum(0.0, (q - k) / trace) if method == "dl" else _reml(y, v, X, tol)
    beta, cov, _ = weighted(1 / (v + tau2), y, X)
    variance = np.einsum("p,vpq,q->v", contrast, cov, contrast)
    return beta @ contrast, variance, tau2, q, 1 - 1 / (1 + tau2 * trace / k)


def rubin(fits: np.ndarray, k: int) -> Pooled:
    """Pool imputations by Rubin's rules.

    Parameters
    ----------
    fits : (5, M, V) float64
        What `random_effects` gives for each imputation.
    k : int
        Degrees of freedom of Q.

    Notes
    -----
    tau2 and I2 are pooled on the scale of their square roots, Q by `pooled_q`.
    """
    estimate, variance, tau2, q, i2 = fits
    m = len(estimate)
    total = variance.mean(0)
    if m > 1:
        total = total + (1 + 1 / m) * estimate.var(0, ddof=1)
    g, se = estimate.mean(0), np.sqrt(total)
    share = np.sqrt(i2).mean(0) ** 2
    return Pooled(
        g=g,
        se=se,
        z=g / se,
        tau2=np.sqrt(tau2).mean(0) ** 2,
        i2=100 * share,
        h2=1 / (1 - share),
        q=pool_q(q, k),
    )


def pool(
    effects: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    X: np.ndarray,
    contrast: np.ndarray,
    method: str = "dl",
) -> Pooled:
    """Meta-analyse every imputation and pool them.

    Parameters
    ----------
    effects : (M, K, V) float32 or float64
        Hedges g; M = 1 for complete data.
    c, v2 : (K,) float64
        The sampling variance of an effect g is ``c + v2 g**2``.
    X : (K, Q) float64
        Design: ones and mean-centred covariates.
    contrast : (Q,) float64
        The tested combination of coefficients.
    method : {"dl", "reml"}
        Estimator of the between-study variance.

    Returns
    -------
    Pooled
        Each (V,) float64; NaN where an effect is NaN.

    References
    ----------
    .. [1] DerSimonian, Laird (1986) Meta-analysis in clinical trials. Control Clin Trials 7:177.
    .. [2] Rubin (1987) Multiple imputation for nonresponse in surveys. Wiley.
    """
    fits = []
    for one in effects:
        y = np.asarray(one, np.float64)
        fits.append(random_effects(y, c[:, None] + v2[:, None] * y * y, X, contrast, method))
    return rubin(np.stack(fits, axis=1), X.shape[0] - X.shape[1])


def _cpu(
    effects: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    X: np.ndarray,
    contrast: np.ndarray,
    method: str = "dl",
) -> Pooled:
    m, k, v = effects.shape
    out = np.empty((5, m, v))
    design = read_only(X)
    one = design.shape[1] == 1 and bool(np.all(design == 1.0))
    fit = compiled.fit_mean if one else compiled.fit_design
    data = (read_only(effects), read_only(c), read_only(v2), design, read_only(contrast))

    def blocks(first: int, last: int) -> None:
        fit(first, last, *data, method == "reml", out)

    in_pieces(blocks, -(-v // compiled.BLOCK))
    return rubin(out, k - X.shape[1])


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    m, k, v = 4, 11, 30
    n = rng.integers(8, 40, k).astype(float)
    effects = rng.normal(0.3, 0.4, (m, k, v)).astype(np.float32)
    X = np.column_stack([np.ones(k), rng.normal(size=k)])
    X[:, 1] -= X[:, 1].mean()
    return (effects, 1 / n, 0.5 / n, X, np.array([1.0, 0.0])), {"method": "dl"}


POOL = Op("pool", pool, _cpu, _sample, rtol=1e-9)
