"""The normal distribution between two limits, accurate far out in its tails.

Every function exists twice: for NumPy arrays (plain, the reference) and, with `_scalar` in its
name, compiled for one value. Differences of the distribution function are taken in the lower tail
and in logs, so that limits 12 or 1,000 standard deviations away keep their digits.
"""

from __future__ import annotations

import itertools
import math

import numba as nb
import numpy as np
from scipy import special

LOG_ROOT_2PI = 0.9189385332046727
ROOT_HALF = 0.7071067811865476
FAR = 1e10  # an infinite limit, in standard deviations

# Gauss-Legendre panels on [0, 1] for the moments of narrow or far-away intervals: the weight is
# concentrated near 0 when the interval lies in a tail.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_EDGES = np.array([0.0, 0.1, 0.35, 1.0])
_AT = np.concatenate([lo + (hi - lo) * (_NODES + 1) / 2 for lo, hi in itertools.pairwise(_EDGES)])
_BY = np.concatenate([w * _WEIGHTS / 2 for w in np.diff(_EDGES)])
_REACH = 45.0  # exp(-45) of the density is nothing beside its start


def log_interval(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Log of Phi(hi) - Phi(lo); -inf where hi <= lo, NaN where either is NaN."""
    flip = lo > 0
    low, high = np.where(flip, -hi, lo), np.where(flip, -lo, hi)
    with np.errstate(divide="ignore", invalid="ignore"):
        top = special.log_ndtr(high)
        out = top + np.log(-np.expm1(np.minimum(special.log_ndtr(low) - top, 0.0)))
    return np.where(hi <= lo, -np.inf, out)


@nb.njit(nb.float64(nb.float64), cache=True, nogil=True)
def log_phi_scalar(x):  # type: ignore[no-untyped-def]
    """Log of Phi(x)."""
    if x > 0.0:
        return math.log1p(-0.5 * math.erfc(x * ROOT_HALF))
    if x > -37.0:
        return math.log(0.5 * math.erfc(-x * ROOT_HALF))
    if x == -np.inf:
        return -np.inf
    s = 1.0 / (x * x)
    series = -s * (1.0 - s * (3.0 - s * (15.0 - s * (105.0 - s * 945.0))))
    return -0.5 * x * x - math.log(-x) - LOG_ROOT_2PI + math.log1p(series)


@nb.njit(nb.float64(nb.float64, nb.float64), cache=True, nogil=True)
def log_interval_scalar(lo, hi):  # type: ignore[no-untyped-def]
    """Log of Phi(hi) - Phi(lo), compiled twin of `log_interval`."""
    if hi <= lo:
        return -np.inf
    if lo > 0.0:
        lo, hi = -hi, -lo
    if hi > -28.0:  # nothing underflows here: one log instead of two
        p = 0.5 * (math.erfc(-hi * ROOT_HALF) - math.erfc(-lo * ROOT_HALF))
        if not p <= 0.0:
            return math.log(p)
    top, low = log_phi_scalar(hi), log_phi_scalar(lo)
    return top + math.log(-math.expm1(low - top)) if low < top else -np.inf


def truncated_moments(
    mean: np.ndarray, sd: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a normal between two limits.

    Parameters
    ----------
    mean, sd, lower, upper : arrays that broadcast
        Of the untruncated normal; the limits may be infinite, lower < upper.

    Returns
    -------
    mean, variance : arrays
        Relative error below 1e-10 of the variance and of the distance to the nearer limit, also
        for intervals far in a tail or much narrower than the standard deviation.

    Notes
    -----
    The closed formula cancels for narrow and for far-away intervals; there the density is
    integrated numerically from the limit with the larger density.

    Examples
    --------
    >>> m, v = truncated_moments(0.0, 1.0, 0.0, np.inf)
    >>> round(float(m), 6), round(float(v), 6)
    (0.797885, 0.36338)
    """
    shape = np.broadcast_shapes(*map(np.shape, (mean, sd, lower, upper)))
    mean, sd, lower, upper = (
        np.broadcast_to(np.asarray(x, np.float64), shape).reshape(-1)
        for x in (mean, sd, lower, upper)
    )
    a, b = np.clip((lower - mean) / sd, -FAR, FAR), np.clip((upper - mean) / sd, -FAR, FAR)
    flip = a + b < 0
    near, width = np.where(flip, -b, a), b - a
    closed = (near < 5) & (width > 1)
    log_z = log_interval(np.where(closed, a, 0.0), np.where(closed, b, 1.0))
    pa = np.exp(-0.5 * a * a - LOG_ROOT_2PI - log_z)
    pb = np.exp(-0.5 * b * b - LOG_ROOT_2PI - log_z)
    shift = pa - pb
    spread = 1 + a * pa - b * pb - shift * shift
    if not closed.all():
        part = ~closed
        n, w = near[part][..., None], width[part][..., None]
        reach = np.minimum(w, _REACH / np.maximum(n, 1.0))
        y = reach * _AT
        density = _BY * np.exp(-n * y - 0.5 * y * y)
        total = density.sum(-1)
        first = (density * y).sum(-1) / total
        second = (density * (y - first[..., None]) ** 2).sum(-1) / total
        shift[part] = np.where(flip[part], -1, 1) * (n[..., 0] + first)
        spread[part] = second
    return (mean + sd * shift).reshape(shape), (sd * sd * spread).reshape(shape)


@nb.njit(
    nb.types.UniTuple(nb.float64, 2)(nb.float64, nb.float64, nb.float64, nb.float64),
    cache=True,
    nogil=True,
)
def truncated_moments_scalar(mean, sd, lower, upper):  # type: ignore[no-untyped-def]
    """Mean and variance of a normal between two limits, compiled twin of `truncated_moments`."""
    a = min(max((lower - mean) / sd, -FAR), FAR)
    b = min(max((upper - mean) / sd, -FAR), FAR)
    near, sign = (-b, -1.0) if a + b < 0 else (a, 1.0)
    width = b - a
    if near < 5 and width > 1:
        log_z = log_interval_scalar(a, b)
        pa = math.exp(-0.5 * a * a - LOG_ROOT_2PI - log_z)
        pb = math.exp(-0.5 * b * b - LOG_ROOT_2PI - log_z)
        shift = pa - pb
        return mean + sd * shift, sd * sd * (1 + a * pa - b * pb - shift * shift)
    reach = min(width, _REACH / max(near, 1.0))
    total = first = second = 0.0
    for i in range(_AT.size):
        y = reach * _AT[i]
        p = _BY[i] * math.exp(-near * y - 0.5 * y * y)
        total += p
        first += p * y
    first /= total
    for i in range(_AT.size):
        y = reach * _AT[i]
        second += _BY[i] * math.exp(-near * y - 0.5 * y * y) * (y - first) ** 2
    return mean + sd * sign * (near + first), sd * sd * second / total


def truncated_quantile(
    u: np.ndarray, mean: np.ndarray, sd: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Value below which a share `u` of a normal between two limits lies, clamped to the limits.

    Examples
    --------
    >>> float(truncated_quantile(0.5, 0.0, 1.0, -np.inf, np.inf))
    0.0
    """
    lo, hi = (lower - mean) / sd, (upper - mean) / sd
    log_z = log_interval(lo, hi)
    # from whichever end the wanted value is the rarer, so that neither tail loses digits
    below = np.logaddexp(special.log_ndtr(lo), np.log(u) + log_z)
    above = np.logaddexp(special.log_ndtr(-hi), np.log1p(-u) + log_z)
    z = np.where(below < above, special.ndtri_exp(below), -special.ndtri_exp(above))
    y: np.ndarray = np.clip(mean + sd * z, lower, upper)
    return y


@nb.njit(nb.float64(nb.float64), cache=True, nogil=True)
def quantile_of_log_scalar(log_p):  # type: ignore[no-untyped-def]
    """Give the standard normal quantile of exp(log_p), log_p <= log(1/2), to 1e-15 (AS 241).

    References
    ----------
    .. [1] Wichura (1988) Algorithm AS 241: the percentage points of the normal distribution.
       Applied Statistics 37:477-484.
    """
    if log_p > -2.590267165445827:  # p > 0.075
        q = math.exp(log_p) - 0.5
        r = 0.180625 - q * q
        top = 2.5090809287301226727e3 * r + 3.3430575583588128105e4
        top = (top * r + 6.7265770927008700853e4) * r + 4.5921953931549871457e4
        top = (top * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3
        top = (top * r + 1.3314166789178437745e2) * r + 3.3871328727963666080e0
        low = 5.2264952788528545610e3 * r + 2.8729085735721942674e4
        low = (low * r + 3.9307895800092710610e4) * r + 2.1213794301586595867e4
        low = (low * r + 5.3941960214247511077e3) * r + 6.8718700749205790830e2
        low = (low * r + 4.2313330701600911252e1) * r + 1.0
        return q * top / low
    r = math.sqrt(-log_p)
    if r <= 5.0:
        r -= 1.6
        top = 7.74545014278341407640e-4 * r + 2.27238449892691845833e-2
        top = (top * r + 2.41780725177450611770e-1) * r + 1.27045825245236838258e0
        top = (top * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0
        top = (top * r + 4.63033784615654529590e0) * r + 1.42343711074968357734e0
        low = 1.05075007164441684324e-9 * r + 5.47593808499534494600e-4
        low = (low * r + 1.51986665636164571966e-2) * r + 1.48103976427480074590e-1
        low = (low * r + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0
        low = (low * r + 2.05319162663775882187e0) * r + 1.0
        return -top / low
    if r <= 26.0:
        r -= 5.0
        top = 2.01033439929228813265e-7 * r + 2.71155556874348757815e-5
        top = (top * r + 1.24266094738807843860e-3) * r + 2.65321895265761230930e-2
        top = (top * r + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0
        top = (top * r + 5.46378491116411436990e0) * r + 6.65790464350110377720e0
        low = 2.04426310338993978564e-15 * r + 1.42151175831644588870e-7
        low = (low * r + 1.84631831751005468180e-5) * r + 7.86869131145613259100e-4
        low = (low * r + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1
        low = (low * r + 5.99832206555887937690e-1) * r + 1.0
        return -top / low
    x = -math.sqrt(-2.0 * (log_p + LOG_ROOT_2PI) - math.log(-2.0 * log_p))
    for _ in range(4):  # Newton on log Phi, whose slope far out is -x
        value = log_phi_scalar(x)
        x -= (value - log_p) / math.exp(-0.5 * x * x - LOG_ROOT_2PI - value)
    return x


@nb.njit(nb.float64(nb.float64, nb.float64), cache=True, nogil=True, inline="always")
def log_sum_scalar(x, y):  # type: ignore[no-untyped-def]
    """Log of exp(x) + exp(y), at most one of them -inf."""
    high, low = (x, y) if x > y else (y, x)
    return high + math.log1p(math.exp(low - high))


@nb.njit(nb.float64(*[nb.float64] * 6), cache=True, nogil=True)
def truncated_quantile_scalar(u, mean, sd, log_below, log_above, log_z):  # type: ignore[no-untyped-def]
    """Compiled twin of `truncated_quantile`, without the clamp.

    `log_below`, `log_above` and `log_z` are the logs of the normal probability below the lower
    limit, above the upper limit and between them: the same for all draws.
    """
    below = log_sum_scalar(log_below, math.log(u) + log_z)
    above = log_sum_scalar(log_above, math.log1p(-u) + log_z)
    if below < above:
        return mean + sd * quantile_of_log_scalar(below)
    return mean - sd * quantile_of_log_scalar(above)
