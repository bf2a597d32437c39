"""Complete the bounds: draws of every study's effect between its limits."""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np

from gpu_sdm.data import KNOWN_WIDTH
from gpu_sdm.ops._arrays import read_only
from gpu_sdm.ops._normal_tail_cpu import cos_turns, log_of
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._threads import in_pieces
from gpu_sdm.ops.bounded_normal import (
    log_interval_scalar,
    log_phi_scalar,
    truncated_moments,
    truncated_moments_scalar,
    truncated_quantile,
    truncated_quantile_scalar,
)
from gpu_sdm.ops.two_spikes import two_spikes, two_spikes_scalar
from gpu_sdm.rng import normals, philox, philox_words, uniform, uniform_word

BLOCK = 128  # voxels of one piece of work


def impute(
    lower: np.ndarray,
    upper: np.ndarray,
    mu: np.ndarray,
    tau2: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    keys: np.ndarray,
    voxel_index: np.ndarray,
    start: int,
    stop: int,
    law: str,
) -> tuple[np.ndarray, int]:
    """Draw the imputations `start` to `stop` of every study.

    Parameters
    ----------
    lower, upper : (K, V) float32
        Bounds of Hedges g; less than 1e-5 apart where it is known, infinite where nothing is.
    mu : (K, V) float64
        Most likely effect of each study.
    tau2 : (V,) float64
        Heterogeneity.
    c, v2 : (K,) float64
        The sampling variance of an effect g is ``c + v2 g**2``.
    keys : (K, 2) uint32
        Philox key of each study (`gpu_sdm.rng.stream_key`, stage "impute").
    voxel_index : (V,) int32
        Full-grid index of each voxel, the first counter word.
    start, stop : int
        Imputations, the second counter word. Draws do not depend on the range asked for.
    law : {"sdm", "truncated-normal"}
        Both have the mean and variance of a normal(mu, c + v2 mu^2 + tau2) truncated to the bounds.

    Returns
    -------
    effects : (M, K, V) float32
        Within the bounds; known effects are the same in all imputations.
    fallbacks : int
        Unknown voxels of studies for which SDM-PSI's law cannot have that mean and variance (or a
        bound is infinite), drawn from the truncated normal instead. 0 for "truncated-normal".

    Notes
    -----
    SDM-PSI's imputations have two spikes: ``y = l + w [h 1{u < m} + (1 - h) S]``, w the width, S an
    average of neighbouring indicators with mean m. S is drawn voxel by voxel as a normal, clipped
    symmetrically so that it stays in [0, 1], and rescaled to its variance m (1 - m) / 180.

    Words of a Philox block: w0 the spike, (w1, w2) the normal of S, w3 the truncated normal.
    """
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    known = high - low < KNOWN_WIDTH
    sd = np.sqrt(c[:, None] + v2[:, None] * mu**2 + tau2)
    wide_high = np.where(known, low + 1, high)  # anything proper: not used
    mean, variance = truncated_moments(mu, sd, low, wide_high)
    if law == "sdm":
        m, h, scale, t, possible = two_spikes(mean, variance, low, wide_high)
    else:
        possible = np.zeros(known.shape, bool)
    effects = np.empty((stop - start, *known.shape), np.float32)
    for k, key in enumerate(keys):
        i, known_k = possible[k], known[k]
        for row, imputation in enumerate(range(start, stop)):
            w0, w1, w2, w3 = philox(voxel_index, imputation, 0, 0, (int(key[0]), int(key[1])))
            y = truncated_quantile(uniform(w3), mu[k], sd[k], low[k], wide_high[k])
            if i.any():
                spike = uniform(w0[i]) < m[k, i]
                bell = np.clip(normals(w1[i], w2[i])[0], -t[k, i], t[k, i])
                s = m[k, i] + scale[k, i] * bell
                y[i] = low[k, i] + (high[k, i] - low[k, i]) * (h[k, i] * spike + (1 - h[k, i]) * s)
            y[known_k] = 0.5 * (low[k, known_k] + high[k, known_k])
            y = y.astype(np.float32)
            effects[row, k] = np.clip(y, lower[k], upper[k])
    fallbacks = int((~possible & ~known).sum()) if law == "sdm" else 0
    return effects, fallbacks


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _spikes(size, index, imputation, k0, k1, wall, law, y, last):  # type: ignore[no-untyped-def]
    """Draw from the two-spike law at all voxels of a block, without branches; word 3 in `last`.

    What is drawn where that is not the law means nothing.
    """
    zero = np.uint64(0)
    for i in range(size):
        w0, w1, w2, w3 = philox_words(
            np.uint64(index[i]), np.uint64(imputation), zero, zero, k0, k1
        )
        last[i] = w3
        radius = np.sqrt(-2.0 * log_of(uniform_word(w1)))
        bell = radius * cos_turns(uniform_word(w2))
        m, h, t = law[0, i], law[1, i], law[3, i]
        s = m + law[2, i] * min(max(bell, -t), t)
        spike = 1.0 if uniform_word(w0) < m else 0.0
        y[i] = wall[0, i] + (wall[1, i] - wall[0, i]) * (h * spike + (1.0 - h) * s)


@nb.njit(cache=True, nogil=True)
def _impute_piece(piece, lower, upper, mu, tau2, c, v2, keys, index, start, stop, sdm, out):  # type: ignore[no-untyped-def]
    """One block of voxels of one study: the number of fallbacks."""
    n_voxels = lower.shape[1]
    n_blocks = (n_voxels + BLOCK - 1) // BLOCK
    fallbacks = 0
    k, first = piece // n_blocks, (piece % n_blocks) * BLOCK
    size = min(BLOCK, n_voxels - first)
    kind = np.zeros(BLOCK, np.int8)  # 0 known, 1 two spikes, 2 truncated normal
    one, law = np.zeros(4), np.zeros((4, BLOCK))
    sd, y = np.zeros(BLOCK), np.empty(BLOCK)
    wall, last = np.empty((2, BLOCK)), np.empty(BLOCK, np.uint64)
    k0, k1 = np.uint64(keys[k, 0]), np.uint64(keys[k, 1])
    for i in range(size):
        v = first + i
        low, high = np.float64(lower[k, v]), np.float64(upper[k, v])
        wall[0, i], wall[1, i] = low, high
        if high - low < KNOWN_WIDTH:
            continue
        sd[i] = math.sqrt(c[k] + v2[k] * mu[k, v] * mu[k, v] + tau2[v])
        kind[i] = 2
        if sdm:
            mean, variance = truncated_moments_scalar(mu[k, v], sd[i], low, high)
            if two_spikes_scalar(mean, variance, low, high, one):
                kind[i] = 1
                for j in range(4):
                    law[j, i] = one[j]
            else:
                fallbacks += 1
        if kind[i] == 2:
            a, b = (low - mu[k, v]) / sd[i], (high - mu[k, v]) / sd[i]
            law[0, i], law[1, i] = log_phi_scalar(a), log_phi_scalar(-b)
            law[2, i] = log_interval_scalar(a, b)
    for row in range(stop - start):
        _spikes(size, index[first:], start + row, k0, k1, wall, law, y, last)
        for i in range(size):
            if kind[i] == 0:
                y[i] = 0.5 * (wall[0, i] + wall[1, i])
            elif kind[i] == 2:
                v = first + i
                y[i] = truncated_quantile_scalar(
                    uniform_word(last[i]), mu[k, v], sd[i], law[0, i], law[1, i], law[2, i]
                )
        to = out[row, k, first : first + size]
        for i in range(size):
            least, most = np.float32(wall[0, i]), np.float32(wall[1, i])
            to[i] = min(max(np.float32(y[i]), least), most)
    return fallbacks


@nb.njit(cache=True, nogil=True)
def _impute_pieces(first, last, lower, upper, mu, tau2, c, v2, keys, index, start, stop, sdm, out):  # type: ignore[no-untyped-def]
    fallbacks = 0
    for piece in range(first, last):
        fallbacks += _impute_piece(
            piece, lower, upper, mu, tau2, c, v2, keys, index, start, stop, sdm, out
        )
    return fallbacks


def _cpu(
    lower: np.ndarray,
    upper: np.ndarray,
    mu: np.ndarray,
    tau2: np.ndarray,
    c: np.ndarray,
    v2: np.ndarray,
    keys: np.ndarray,
    voxel_index: np.ndarray,
    start: int,
    stop: int,
    law: str,
) -> tuple[np.ndarray, int]:
    effects = np.empty((stop - start, *lower.shape), np.float32)
    data = (
        read_only(lower, np.float32),
        read_only(upper, np.float32),
        read_only(mu),
        read_only(tau2),
        read_only(c),
        read_only(v2),
        read_only(keys, np.uint32),
        read_only(voxel_index, np.int32),
    )

    def pieces(first: int, last: int) -> int:
        return int(_impute_pieces(first, last, *data, start, stop, law == "sdm", effects))

    n_pieces = len(lower) * -(-lower.shape[1] // BLOCK)
    return effects, sum(in_pieces(pieces, n_pieces))


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    k, v = 5, 60
    n = rng.integers(8, 40, k).astype(float)
    half = (3.2 / np.sqrt(n))[:, None] * np.ones((k, v))
    shift = rng.uniform(-0.5, 1, (k, v))
    lower = (-half + shift).astype(np.float32)
    upper = (half * rng.uniform(-0.99, 1.5, (k, v)) + shift).astype(np.float32)
    lower[0, :5] = upper[0, :5]
    lower[1, :5], upper[1, :5] = -np.inf, np.inf
    keys = rng.integers(0, 2**32, (k, 2)).astype(np.uint32)
    index = np.sort(rng.choice(900_000, v, replace=False)).astype(np.int32)
    mu, tau2 = rng.normal(0.2, 0.2, (k, v)), rng.uniform(0, 0.1, v)
    return (lower, upper, mu, tau2, 1 / n, 0.5 / n, keys, index, 3, 10, "sdm"), {}


IMPUTE = Op("impute", impute, _cpu, _sample, rtol=1e-6)
