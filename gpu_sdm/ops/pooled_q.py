"""Pool the heterogeneity statistic Q over imputations: an F ratio, back to chi-squared."""

from __future__ import annotations

import numpy as np
from scipy import special

_TINY = 1e-280  # below it probabilities are handled as logs
_LARGE_DF = 1e9  # an F with so many denominator degrees of freedom is chi-squared / df1


def _log_beta_tail(x: np.ndarray, a: np.ndarray, b: float) -> np.ndarray:
    """Log of the regularised incomplete beta I_x(a, b) for x far below its mean.

    Continued fraction (modified Lentz), all of whose digits survive where I_x underflows.
    """
    c, d = np.ones_like(x), 1 / (1 - (a + b) * x / (a + 1))
    out = d.copy()
    for i in range(1, 500):
        even = i * (b - i) * x / ((a + 2 * i - 1) * (a + 2 * i))
        d, c = 1 / (1 + even * d), 1 + even / c
        out *= d * c
        odd = -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1))
        d, c = 1 / (1 + odd * d), 1 + odd / c
        out *= d * c
        if np.all(np.abs(d * c - 1) < 1e-15):
            break
    log_tail: np.ndarray = (
        a * np.log(x) + b * np.log1p(-x) - np.log(a) - special.betaln(a, b) + np.log(out)
    )
    return log_tail


def log_chi2_tail(x: np.ndarray, k: float) -> np.ndarray:
    """Log of the upper tail of chi-squared far out: Legendre's continued fraction."""
    a, y = k / 2, x / 2
    b = y + 1 - a
    c, d = np.full_like(y, 1e300), 1 / b
    out = d.copy()
    for i in range(1, 500):
        term = -i * (i - a)
        b = b + 2
        d, c = 1 / (b + term * d), b + term / c
        out *= d * c
        if np.all(np.abs(d * c - 1) < 1e-15):
            break
    return a * np.log(y) - y - special.gammaln(a) + np.log(out)


def _chi2_of_log_tail(log_p: np.ndarray, k: float) -> np.ndarray:
    """Chi-squared whose upper tail is exp(log_p), far out: Newton on the log of the tail."""
    x = -2 * log_p
    for _ in range(100):
        tail = log_chi2_tail(x, k)
        log_density = (k / 2 - 1) * np.log(x / 2) - x / 2 - special.gammaln(k / 2) - np.log(2)
        step = (tail - log_p) / np.exp(log_density - tail)
        x = np.maximum(x + step, k + 2)
        if np.all(np.abs(step) < 1e-12 * x):
            break
    return x


def f_to_chi2(f: np.ndarray, k: float, df2: np.ndarray) -> np.ndarray:
    """Chi-squared with `k` degrees of freedom of the same p as an F with `k` and `df2`.

    Parameters
    ----------
    f, df2 : (V,) float64
        Negative F counts as 0.
    k : float

    Returns
    -------
    (V,) float64
        Finite for every finite F: extreme tails are handled in logs.

    Examples
    --------
    >>> f_to_chi2(np.array([2.0]), 10, np.array([1e12])).round(6)
    array([20.])
    """
    f = np.maximum(np.asarray(f, np.float64), 0.0)
    df2 = np.broadcast_to(np.asarray(df2, np.float64), f.shape)
    out = k * f  # the limit of many degrees of freedom; NaN stays NaN
    proper = np.flatnonzero(df2 < _LARGE_DF)
    x, d = f[proper], df2[proper]
    upper = special.fdtrc(k, d, x)
    lower = special.fdtr(k, d, x)
    # each side from the smaller probability
    chi2 = np.where(upper < lower, 2 * special.gammainccinv(k / 2, upper), 0.0)
    chi2 = np.where(upper >= lower, 2 * special.gammaincinv(k / 2, lower), chi2)
    far = np.flatnonzero(upper < _TINY)
    if far.size:
        tail = _log_beta_tail(d[far] / (d[far] + k * x[far]), d[far] / 2, k / 2)
        chi2[far] = _chi2_of_log_tail(tail, k)
    out[proper] = chi2
    return out


def pool_q(q: np.ndarray, k: int) -> np.ndarray:
    """Pool Q over imputations.

    Parameters
    ----------
    q : (M, V) float64
        Q of each imputation.
    k : int
        Its degrees of freedom, studies less regressors.

    Returns
    -------
    (V,) float64
        Q itself for one imputation, the mean where the imputations agree.

    Notes
    -----
    With r = (1 + 1/M) var(sqrt Q): F = (mean(Q)/k - (M+1)/(M-1) r) / (1+r) has k and
    (M-1) k^(-3/M) (1+1/r)^2 degrees of freedom.

    References
    ----------
    .. [1] Li, Meng, Raghunathan, Rubin (1991) Significance levels from repeated p-values with
       multiply-imputed data. Statistica Sinica 1:65-92.
    """
    m = len(q)
    mean: np.ndarray = q.mean(0)
    if m == 1:
        return mean
    r = (1 + 1 / m) * np.sqrt(q).var(0, ddof=1)
    same = r < 1e-12
    safe = np.where(same, 1.0, r)
    f = (mean / k - (m + 1) / (m - 1) * safe) / (1 + safe)
    df2 = (m - 1) * float(k) ** (-3 / m) * (1 + 1 / safe) ** 2
    return np.where(same, mean, f_to_chi2(f, k, df2))
