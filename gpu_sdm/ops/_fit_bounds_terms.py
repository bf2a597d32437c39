"""What one study adds to minus the log-likelihood of its bounds (compiled)."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from gpu_sdm.data import KNOWN_WIDTH
from gpu_sdm.ops._normal_tail_cpu import FARTHEST, log_of, tail
from gpu_sdm.ops.bounded_normal import FAR, LOG_ROOT_2PI, ROOT_HALF, log_interval_scalar

STEP_TOL = 1e-9  # a smaller Newton step ends the search
# Designs of more than one column, above so many studies: a study is not solved whose absence would
# have to shift the criterion by more than so many times what one Newton step predicts. Of 24,000
# voxels of 33 to 50 made-up studies 1 lost another study by that, 17 at twice the shift; of fewer
# studies up to 2 % did at twice, so there all are solved.
SURE_STUDIES = 32
SURE_SHIFTS = 8.0
TIE = 1e-7  # leave-one-out criteria this close are equal: the first study in the table counts
MAX_STEPS = 100
MAX_HALVINGS = 40
MAX_DOUBLINGS = 60
LAST_SAFE = 28.0  # standard deviations: an interval farther out is left to logs
_ROOT_2PI_INVERSE = 0.3989422804014327


@nb.njit(cache=True, nogil=True)
def fill(lower, upper, c, v2, voxel, w):  # type: ignore[no-untyped-def]
    """Pack the studies of a voxel into w (9, K)."""
    for k in range(w.shape[1]):
        low, high = np.float64(lower[k, voxel]), np.float64(upper[k, voxel])
        w[6, k] = 1.0 if high - low < KNOWN_WIDTH else 0.0
        w[7, k] = 0.5 * (low + high) if w[6, k] > 0.0 else 0.0
        w[8, k] = c[k] + v2[k] * w[7, k] ** 2
        if low == -np.inf:
            w[0, k], w[4, k] = -FAR, 1.0
        else:
            w[0, k], w[4, k] = low, c[k] + v2[k] * low * low
        if high == np.inf:
            w[1, k], w[5, k] = FAR, 1.0
        else:
            w[1, k], w[5, k] = high, c[k] + v2[k] * high * high
        w[2, k], w[3, k] = 1.0 / math.sqrt(w[4, k]), 1.0 / math.sqrt(w[5, k])


@nb.njit(cache=True, nogil=True, inline="always")
def _limits(mu, w, k):  # type: ignore[no-untyped-def]
    """Both limits in standard deviations and their densities over the probability between."""
    a, b = (w[1, k] - mu) * w[3, k], (w[0, k] - mu) * w[2, k]
    hi, lo = (-b, -a) if b > 0.0 else (a, b)
    if hi > -LAST_SAFE:
        p = 0.5 * (math.erfc(-hi * ROOT_HALF) - math.erfc(-lo * ROOT_HALF))
        if p > 0.0:
            scale = _ROOT_2PI_INVERSE / p
            return (
                a,
                b,
                math.exp(-0.5 * a * a) * scale * w[3, k],
                math.exp(-0.5 * b * b) * scale * w[2, k],
                p,
                0.0,
            )
    log_p = log_interval_scalar(b, a)
    pa = math.exp(-0.5 * a * a - LOG_ROOT_2PI - log_p) * w[3, k]
    pb = math.exp(-0.5 * b * b - LOG_ROOT_2PI - log_p) * w[2, k]
    return a, b, pa, pb, 0.0, log_p


@nb.njit(cache=True, nogil=True)
def study_terms(mu, w, k):  # type: ignore[no-untyped-def]
    """Value, slope and curvature of study k at mean mu; infinite behind the wall."""
    if w[6, k] > 0.0:
        e = mu - w[7, k]
        return 0.5 * e * e / w[8, k], e / w[8, k], 1.0 / w[8, k]
    if (w[1, k] - mu) * w[3, k] <= (w[0, k] - mu) * w[2, k]:
        return np.inf, 0.0, 0.0
    a, b, pa, pb, p, log_p = _limits(mu, w, k)
    slope = pa - pb
    value = -math.log(p) if p > 0.0 else -log_p
    return value, slope, a * pa * w[3, k] - b * pb * w[2, k] + slope * slope


@nb.njit(cache=True, nogil=True, inline="always")
def interval(a, b):  # type: ignore[no-untyped-def]
    """Density factors exp(-a^2 / 2), exp(-b^2 / 2) and probability between b and a, both finite.

    The probability is not above 0, or means nothing, behind the wall and beyond `LAST_SAFE`.
    """
    ea, ta = tail(min(abs(a) * ROOT_HALF, FARTHEST))
    eb, tb = tail(min(abs(b) * ROOT_HALF, FARTHEST))
    # Differences are taken in the tail that both lie in
    p = tb - ta if b > 0.0 else (2.0 - ta - tb if a > 0.0 else ta - tb)
    return ea, eb, 0.5 * p


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def all_terms(mu, w, at, odd):  # type: ignore[no-untyped-def]
    """`study_terms` of all studies at means mu (K,), several at once; `odd`: where to call it.

    One loop without branches and a sum elsewhere, in the order of the studies.
    """
    for k in range(w.shape[1]):
        up, low = w[3, k], w[2, k]
        a, b = (w[1, k] - mu[k]) * up, (w[0, k] - mu[k]) * low
        ea, eb, p = interval(a, b)
        scale = _ROOT_2PI_INVERSE / p
        pa, pb = ea * scale * up, eb * scale * low
        slope = pa - pb
        e, weight = mu[k] - w[7, k], 1.0 / w[8, k]
        known = w[6, k] > 0.0
        odd[k] = (not known) & (not ((a > b) & (b < LAST_SAFE) & (a > -LAST_SAFE) & (p > 0.0)))
        at[0, k] = 0.5 * e * e * weight if known else -log_of(p)
        at[1, k] = e * weight if known else slope
        at[2, k] = weight if known else a * pa * up - b * pb * low + slope * slope


@nb.njit(cache=True, nogil=True)
def study_slope(mu, w, k):  # type: ignore[no-untyped-def]
    """Slope of study k at mean mu, and 1 behind the wall."""
    if w[6, k] > 0.0:
        return (mu - w[7, k]) / w[8, k], 0
    if (w[1, k] - mu) * w[3, k] <= (w[0, k] - mu) * w[2, k]:
        return 0.0, 1
    _, _, pa, pb, _, _ = _limits(mu, w, k)
    return pa - pb, 0


@nb.njit(cache=True, nogil=True)
def weigh(w, k):  # type: ignore[no-untyped-def]
    """Least curvature that study k is given where the Hessian is not positive."""
    return 1e-3 / (w[8, k] if w[6, k] > 0.0 else w[5, k])


@nb.njit(cache=True, nogil=True, inline="always")
def converged_step(step, size):  # type: ignore[no-untyped-def]
    """Whether a Newton step this small ends the search."""
    return step <= STEP_TOL * (1.0 + size)
