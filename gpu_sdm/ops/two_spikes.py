"""SDM-PSI's law of imputed effects: a low and a high spike with a given mean and variance.

As elsewhere, a function for arrays (plain, the reference) and a compiled one for one value.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from scipy import special

from gpu_sdm.ops.bounded_normal import LOG_ROOT_2PI

N_EFF = 180.0  # neighbours that SDM-PSI's average amounts to (150-200 in its own imputations)
_CLIP_STEPS = 8


def _clipped_variance(t: np.ndarray) -> np.ndarray:
    """Variance of a standard normal clipped to [-t, t]."""
    tail = special.ndtr(-t)
    variance: np.ndarray = (
        1 - 2 * tail - 2 * t * np.exp(-0.5 * t * t - LOG_ROOT_2PI) + 2 * t * t * tail
    )
    return variance


def _clip_limit(reach: np.ndarray) -> np.ndarray:
    """Where to clip a standard normal so that, rescaled to variance 1, it ends at +-reach.

    Possible down to reach = 1, where only the two ends are left (t = 0).
    """
    t = np.array(reach, np.float64)
    for _ in range(_CLIP_STEPS):  # Newton on t / sd(t) - reach, nearly linear in t
        variance = _clipped_variance(t)
        root = np.sqrt(variance)
        slope = (1 - 2 * t * t * special.ndtr(-t) / variance) / root
        t = np.clip(t - (t / root - reach) / slope, 1e-6, reach)
    return t


def two_spikes(
    mean: np.ndarray, variance: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Constants of SDM-PSI's law with the wanted mean and variance.

    ``y = lower + w [h 1{u < m} + (1 - h) S]``, ``S = m + s clip(normal, -t, t) / sd(t)``.

    Returns
    -------
    m, h, scale, t : arrays
        `scale` is s / sd(t).
    possible : bool array
        False where no such law exists: a variance below ``w^2 m (1 - m) / (N_eff + 1)``, a mean
        too near a bound for S to stay between them, an infinite bound.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        w = upper - lower
        m = (mean - lower) / w
        spread = m * (1 - m)
        ratio, q = variance / (w * w * spread), 1 / N_EFF
        s = np.sqrt(spread * q)
        reach = np.minimum(m, 1 - m) / s
        possible = np.isfinite(w) & (ratio >= q / (1 + q)) & (ratio <= 1) & (reach > 1.0001)
        ratio, reach = np.where(possible, ratio, q), np.where(possible, reach, 10.0)
        # the larger root of h^2 + (1 - h)^2 q = ratio
        h = (q + np.sqrt(np.maximum(q * q - (1 + q) * (q - ratio), 0.0))) / (1 + q)
        t = np.where(reach < 7, _clip_limit(np.minimum(reach, 7.0)), 7.0)
        scale = s / np.sqrt(_clipped_variance(t))
    return m, h, scale, t, possible


@nb.njit(cache=True, nogil=True)
def _clipped_variance_scalar(t):  # type: ignore[no-untyped-def]
    tail = 0.5 * math.erfc(t * 0.7071067811865476)
    return 1 - 2 * tail - 2 * t * math.exp(-0.5 * t * t - LOG_ROOT_2PI) + 2 * t * t * tail


@nb.njit(cache=True, nogil=True)
def two_spikes_scalar(mean, variance, lower, upper, out):  # type: ignore[no-untyped-def]
    """Compiled twin of `two_spikes`: fills (m, h, scale, t), returns whether it is possible."""
    w = upper - lower
    if not w < np.inf:
        return False
    m = (mean - lower) / w
    spread = m * (1 - m)
    q = 1 / N_EFF
    if not spread > 0.0:
        return False
    ratio = variance / (w * w * spread)
    s = math.sqrt(spread * q)
    reach = min(m, 1 - m) / s
    if not (q / (1 + q) <= ratio <= 1.0 and reach > 1.0001):
        return False
    t = 7.0
    if reach < 7.0:
        t = reach
        for _ in range(_CLIP_STEPS):
            variance = _clipped_variance_scalar(t)
            root = math.sqrt(variance)
            tail = 0.5 * math.erfc(t * 0.7071067811865476)
            slope = (1 - 2 * t * t * tail / variance) / root
            t = min(max(t - (t / root - reach) / slope, 1e-6), reach)
    out[0] = m
    out[1] = (q + math.sqrt(max(q * q - (1 + q) * (q - ratio), 0.0))) / (1 + q)
    out[2] = s / math.sqrt(_clipped_variance_scalar(t))
    out[3] = t
    return True
