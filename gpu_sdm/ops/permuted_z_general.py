"""Random effects with covariates or REML for `permuted_z`, plain.

Model at each voxel: `y = X beta + u + e`, `var(u) = tau2`, `var(e) = v`.
"""

from __future__ import annotations

import numpy as np

REML_STEPS = 200
REML_TOLERANCE = 1e-6


def pool(
    y: np.ndarray, v: np.ndarray, x: np.ndarray, contrast: np.ndarray, tau2: str
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate one combination of coefficients in a random-effects model at each voxel.

    Parameters
    ----------
    y, v : (K, V) float64
        Effects and sampling variances.
    x : (K, Q) float64
        Design.
    contrast : (Q,) float64
        Tested combination.
    tau2 : {"dl", "reml"}
        Estimator of the between-study variance.

    Returns
    -------
    estimate, variance : (V,) float64
    """
    between = _dl(y, v, x) if tau2 == "dl" else _reml(y, v, x)
    beta, cov = _wls(y, 1 / (v + between), x)
    return beta @ contrast, np.einsum("q,vqr,r->v", contrast, cov, contrast)


def _wls(y: np.ndarray, w: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares at each voxel: coefficients (V, Q) and (X'WX)^-1 (V, Q, Q)."""
    cov = np.linalg.inv(np.einsum("kq,kv,kr->vqr", x, w, x))
    return np.einsum("vqr,kr,kv->vq", cov, x, w * y), cov


def _dl(y: np.ndarray, v: np.ndarray, x: np.ndarray) -> np.ndarray:
    w = 1 / v
    beta, cov = _wls(y, w, x)
    q = (w * (y - x @ beta.T) ** 2).sum(axis=0)
    trace = w.sum(axis=0) - np.einsum("vqr,kr,kv,kq->v", cov, x, w**2, x)
    # maximum keeps NaN
    return np.maximum(0.0, (q - (x.shape[0] - x.shape[1])) / trace)


def _reml(y: np.ndarray, v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Fisher scoring from the moment start; a voxel stops when its own step is small."""
    t = np.maximum(0.0, y.var(axis=0, ddof=1) - v.mean(axis=0))
    active = np.arange(len(t))
    for _ in range(REML_STEPS):
        ya, w = y[:, active], 1 / (v[:, active] + t[active])
        beta, cov = _wls(ya, w, x)
        squares = ((w * (ya - x @ beta.T)) ** 2).sum(axis=0)
        product = cov @ np.einsum("kq,kv,kr->vqr", x, w**2, x)
        cubes = cov @ np.einsum("kq,kv,kr->vqr", x, w**3, x)
        trace = w.sum(axis=0) - np.trace(product, axis1=1, axis2=2)
        information = (
            (w**2).sum(axis=0)
            - 2 * np.trace(cubes, axis1=1, axis2=2)
            + np.einsum("vqr,vrq->v", product, product)
        )
        new = np.maximum(0.0, t[active] + (squares - trace) / information)
        moved = np.abs(new - t[active]) > REML_TOLERANCE
        t[active] = new
        active = active[moved]
        if not len(active):
            break
    return t
