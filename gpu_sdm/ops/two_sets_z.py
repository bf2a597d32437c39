"""z of the difference between two sets of studies, for every way of dividing them."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from gpu_sdm.ops._arrays import read_only
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._pool_cpu import _reml_mean
from gpu_sdm.ops._threads import in_pieces
from gpu_sdm.ops.pool import random_effects

LANES = 32  # voxels done together: their weights of all studies and imputations stay in cache


def two_sets_z(
    in_first: np.ndarray,
    effects: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    method: str = "dl",
) -> np.ndarray:
    """Pool two sets of studies apart and compare their means.

    Parameters
    ----------
    in_first : (P, K) int8
        1: the study is in the first set, 0: in the second; each set of at least 2.
    effects : (M, K, V) float32
        Hedges g of every imputation.
    c, v2 : (K,) float64
        The sampling variance of an effect g is ``c + v2 g**2``.
    method : {"dl", "reml"}
        Estimator of the between-study variance, one for each set.

    Returns
    -------
    (P, V) float32
        ``(g1 - g2) / sqrt(se1**2 + se2**2)``, g and se of each set by Rubin's rules; NaN where an
        effect is NaN.
    """
    n_imputations = len(effects)
    z = np.empty((len(in_first), effects.shape[2]), np.float32)
    for p, first in enumerate(in_first):
        difference, total = 0.0, 0.0
        for sign, chosen in ((1.0, first == 1), (-1.0, first != 1)):
            one = np.ones((int(chosen.sum()), 1))
            fits = []
            for y in np.asarray(effects[:, chosen], np.float64):
                v = c[chosen, None] + v2[chosen, None] * y * y
                fits.append(random_effects(y, v, one, np.ones(1), method)[:2])
            estimate, variance = np.stack(fits, axis=1)
            difference = difference + sign * estimate.mean(axis=0)
            total = total + variance.mean(axis=0)
            if n_imputations > 1:
                total = total + (1 + 1 / n_imputations) * estimate.var(axis=0, ddof=1)
        z[p] = difference / np.sqrt(total)
    return z


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _set_means(chosen, y, w, centre, reml, s, mean, variance, v, e):  # type: ignore[no-untyped-def]
    """Random effects of the chosen studies in one imputation: mean and variance (LANES,)."""
    for i in range(LANES):
        s[0, i] = s[1, i] = s[2, i] = s[3, i] = 0.0
    for k in chosen:
        for i in range(LANES):
            s[0, i] += w[k, i]
            s[1, i] += w[k, i] * y[k, i]
            s[2, i] += w[k, i] * w[k, i]
            s[3, i] += w[k, i] * y[k, i] * y[k, i]
    n = len(chosen)
    if reml:
        for j in range(n):
            for i in range(LANES):
                e[j, i] = y[chosen[j], i]
                v[j, i] = 1.0 / w[chosen[j], i]
        for i in range(LANES):
            s[4, i] = _reml_mean(v[:n], e[:n], i)
    else:
        for i in range(LANES):
            q = s[3, i] - s[1, i] * s[1, i] / s[0, i]
            t = (q - (n - 1)) / (s[0, i] - s[2, i] / s[0, i])
            s[4, i] = 0.0 if t < 0.0 else t  # NaN stays
    for i in range(LANES):
        s[0, i] = s[1, i] = 0.0
    for k in chosen:
        for i in range(LANES):
            weight = w[k, i] / (1.0 + s[4, i] * w[k, i])
            s[0, i] += weight
            s[1, i] += weight * y[k, i]
    for i in range(LANES):
        variance[i] = 1.0 / s[0, i]
        mean[i] = centre[i] + s[1, i] * variance[i]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _block(in_first, effects, c, v2, reml, z):  # type: ignore[no-untyped-def]
    n_imputations, n_studies, size = effects.shape
    y = np.zeros((n_imputations, n_studies, LANES))
    w = np.ones((n_imputations, n_studies, LANES))
    centre = np.zeros((n_imputations, LANES))
    for m in range(n_imputations):
        for k in range(n_studies):
            for i in range(size):
                g = np.float64(effects[m, k, i])
                w[m, k, i] = 1.0 / (c[k] + v2[k] * g * g)
                centre[m, i] += g / n_studies
        for k in range(n_studies):
            for i in range(size):
                y[m, k, i] = effects[m, k, i] - centre[m, i]
    s = np.empty((5, LANES))
    mean, variance = np.empty(LANES), np.empty(LANES)
    v, e = np.empty((n_studies, LANES)), np.empty((n_studies, LANES))
    rubin = np.empty((3, LANES))
    between = (1.0 + 1.0 / n_imputations) / max(n_imputations - 1, 1)
    for p in range(len(in_first)):
        difference, total = np.zeros(LANES), np.zeros(LANES)
        for side in range(2):
            chosen = np.flatnonzero(in_first[p] == 1 - side)
            rubin[:] = 0.0
            first = np.zeros(LANES)
            for m in range(n_imputations):
                _set_means(chosen, y[m], w[m], centre[m], reml, s, mean, variance, v, e)
                for i in range(LANES):
                    if m == 0:
                        first[i] = mean[i]
                    shifted = mean[i] - first[i]  # nothing cancels where imputations are alike
                    rubin[0, i] += shifted
                    rubin[1, i] += shifted * shifted
                    rubin[2, i] += variance[i]
            for i in range(LANES):
                average = rubin[0, i] / n_imputations
                difference[i] += (1 - 2 * side) * (first[i] + average)
                total[i] += rubin[2, i] / n_imputations
                if n_imputations > 1:
                    total[i] += max(rubin[1, i] - average * rubin[0, i], 0.0) * between
        for i in range(size):
            z[p, i] = difference[i] / np.sqrt(total[i])


@nb.njit(cache=True, nogil=True)
def _compiled(first, last, in_first, effects, c, v2, reml, z):  # type: ignore[no-untyped-def]
    n_voxels = effects.shape[2]
    for block in range(first, last):
        a, b = block * LANES, min(n_voxels, (block + 1) * LANES)
        _block(in_first, effects[:, :, a:b], c, v2, reml, z[:, a:b])


def _cpu(
    in_first: np.ndarray,
    effects: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    method: str = "dl",
) -> np.ndarray:
    z = np.empty((len(in_first), effects.shape[2]), np.float32)
    data = (
        read_only(in_first, np.int8),
        read_only(effects, effects.dtype),
        read_only(c),
        read_only(v2),
    )

    def blocks(first: int, last: int) -> None:
        _compiled(first, last, *data, method == "reml", z)

    in_pieces(blocks, -(-effects.shape[2] // LANES))
    return z


def sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Nine studies divided in three ways, four imputations, a ragged last block."""
    effects = rng.normal(0.3, 0.4, (4, 9, 75)).astype(np.float32)
    n = rng.integers(8, 40, 9).astype(float)
    in_first = np.array([[1] * 4 + [0] * 5, [0, 1] * 4 + [0], [1] * 7 + [0] * 2], np.int8)
    return (in_first, effects, 1 / n, 0.5 / n), {"method": "dl"}


TWO_SETS_Z = Op("two_sets_z", numpy=two_sets_z, cpu=_cpu, sample=sample, rtol=1e-6)
