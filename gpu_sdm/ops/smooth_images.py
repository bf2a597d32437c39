"""Simulated subject images as white noise under a Gaussian kernel, standardised over subjects."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from scipy import ndimage

from gpu_sdm.ops._op import Op
from gpu_sdm.rng import normal_pair, normals, philox, philox_words

TRUNCATE = 4.0  # standard deviations at which the kernel ends
SIGMAS_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


def _box(
    shape: tuple[int, int, int], voxel_index: np.ndarray, margin: int
) -> tuple[np.ndarray, tuple[int, int, int], np.ndarray]:
    """Bounding box of the mask with a margin, cut at the grid.

    Gives the full-grid indices of its voxels (z slowest), its shape (z, y, x) and the position in
    it of each voxel of the mask.
    """
    ijk = np.stack(np.unravel_index(voxel_index, shape, order="F"))
    low = np.maximum(ijk.min(axis=1) - margin, 0)
    high = np.minimum(ijk.max(axis=1) + margin + 1, shape)
    x, y, z = (np.arange(a, b) for a, b in zip(low, high, strict=True))
    index = x + shape[0] * (y[:, None] + shape[1] * z[:, None, None])
    size = (len(z), len(y), len(x))
    inside = np.ravel_multi_index(tuple((ijk - low[:, None])[::-1]), size)
    return index.ravel(), size, inside


def _standardised(images: np.ndarray) -> np.ndarray:
    images = images - images.mean(axis=0)
    scale = np.sqrt((len(images) - 1) / (images**2).sum(axis=0))
    standard: np.ndarray = (images * scale).astype(np.float32)
    return standard


def smooth_images(
    shape: tuple[int, int, int],
    sigma: float,
    n: int,
    key: tuple[int, int],
    group: int,
    voxel_index: np.ndarray,
) -> np.ndarray:
    """Build the images of one group as smooth noise.

    Parameters
    ----------
    shape : tuple of three int
        The grid (X, Y, Z).
    sigma : float
        Standard deviation of the kernel in voxels.
    n : int
        Subjects, at least 2.
    key : tuple of two int
        Philox key of the study.
    group : int
        0 or 1.
    voxel_index : (V,) int32
        Full-grid index of each voxel of the mask.

    Returns
    -------
    (n, V) float32
        Mean 0 and variance 1 (divisor n - 1) over subjects at each voxel.

    Notes
    -----
    Noise reaches as far around the mask as the kernel, or to the edge of the grid.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    index, size, inside = _box(shape, voxel_index, radius)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    along = [
        sum(t * np.eye(s, k=o) for t, o in zip(taps, range(-radius, radius + 1), strict=True))
        for s in size
    ]
    images = np.empty((n, len(inside)))
    for b in range((n + 3) // 4):
        words = philox(index, b, group, 0, key)
        four = (*normals(words[0], words[1]), *normals(words[2], words[3]))
        for i, white in zip(range(4 * b, n), four, strict=False):
            field = np.einsum("ai,bj,ck,ijk->abc", *along, white.reshape(size), optimize=True)
            images[i] = field.ravel()[inside]
    return _standardised(images)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _white(index, block, group, k0, k1, out):  # type: ignore[no-untyped-def]
    """Draw the standard normals of four subjects at every voxel of the box."""
    for v in range(len(index)):
        w0, w1, w2, w3 = philox_words(
            nb.uint64(index[v]), nb.uint64(block), nb.uint64(group), nb.uint64(0), k0, k1
        )
        out[0, v], out[1, v] = normal_pair(w0, w1)
        out[2, v], out[3, v] = normal_pair(w2, w3)


def _cpu(
    shape: tuple[int, int, int],
    sigma: float,
    n: int,
    key: tuple[int, int],
    group: int,
    voxel_index: np.ndarray,
) -> np.ndarray:
    """Compiled version of `smooth_images`: one thread, releases the GIL."""
    radius = int(TRUNCATE * sigma + 0.5)
    index, size, inside = _box(shape, voxel_index, radius)
    k0, k1 = (np.uint64(word) for word in key)
    four = np.empty((4, len(index)), np.float32)
    images = np.empty((n, len(inside)), np.float32)
    for b in range((n + 3) // 4):
        _white(index, b, group, k0, k1, four)
        for i, white in zip(range(4 * b, n), four, strict=False):
            field = ndimage.gaussian_filter(
                white.reshape(size), sigma, mode="constant", radius=radius
            )
            images[i] = field.ravel()[inside]
    return _standardised(images)


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Seven subjects on a ragged mask in a grid of 20 x 18 x 16 voxels."""
    index = np.flatnonzero(rng.random(20 * 18 * 16) < 0.1).astype(np.int32)
    key = tuple(int(word) for word in rng.integers(2**32, size=2))
    return ((20, 18, 16), 1.85, 7, key, 0, index), {}


SMOOTH_IMAGES = Op("smooth_images", smooth_images, _cpu, _sample, rtol=1e-5)
