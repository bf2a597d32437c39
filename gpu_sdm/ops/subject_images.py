"""Simulated subject images in scan order, each voxel with exact correlations to those before it.

The null of SDM-PSI 6.21 follows from a wanted face correlation of .77 everywhere; the template's
own .975 is infeasible at a third of the voxels and misses it.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from gpu_sdm.ops._op import Op
from gpu_sdm.rng import normal_pair, normals, philox, philox_words

_BLOCK = 256  # voxels written out together
_DEPENDENT = 1e-10  # squared norm of what is left of a unit vector that the others span
_FLAGS = {"contract", "nsz", "reassoc"}


def _checked(backward: np.ndarray, r: np.ndarray | float, n: int) -> tuple[np.ndarray, np.ndarray]:
    if n < 2:
        raise ValueError(f"a group has {n} subjects; it needs at least 2")
    if (backward >= np.arange(len(backward))[:, None]).any():
        raise ValueError("a backward neighbour comes after its voxel")
    wanted = np.ascontiguousarray(np.broadcast_to(np.asarray(r, np.float32), backward.shape))
    used = wanted[backward >= 0]
    if not ((used > 0) & (used < 1)).all():
        raise ValueError("wanted correlations must lie between 0 and 1, ends excluded")
    return np.ascontiguousarray(backward, np.int32), wanted


def subject_images(
    backward: np.ndarray,
    r: np.ndarray | float,
    n: int,
    key: tuple[int, int],
    group: int,
    voxel_index: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Build the images of one group in scan order, with exact sample correlations.

    Parameters
    ----------
    backward : (V, 3) int32
        Positions of the face neighbours -x -y -z in the mask; -1 where none.
    r : float or (V, 3) float32
        Wanted correlation over subjects with each of them, between 0 and 1.
    n : int
        Subjects, at least 2.
    key : tuple of two int
        Philox key of the study.
    group : int
        0 or 1.
    voxel_index : (V,) int32
        Full-grid index of each voxel, which decides its noise.

    Returns
    -------
    images : (n, V) float32
        Mean 0 and variance 1 (divisor n - 1) over subjects at each voxel.
    infeasible : int
        Voxels whose wanted correlations no sample can have; they keep the projection on their
        neighbours, rescaled, so that all their correlations shrink by one factor.

    Notes
    -----
    With orthonormal q_l spanning the neighbours, ``y = sum_l a_l q_l + sqrt(1 - |a|^2) q`` where
    a solves for the wanted correlations (``|a|^2 = c' S^-1 c``) and q is fresh noise orthogonal
    to the q_l and to the constant. Mean 0 leaves n - 1 dimensions: where the neighbours fill
    them there is no q, and the projection is rescaled as well.

    References
    ----------
    .. [1] Albajes-Eizagirre et al. (2019) Voxel-based meta-analysis via permutation of subject
       images (PSI): theory and implementation for SDM. NeuroImage 186:174-184.
    """
    backward, wanted = _checked(backward, r, n)
    built = np.empty((len(backward), n), np.float32)
    block = np.arange((n + 3) // 4)
    infeasible = 0
    for v, where in enumerate(voxel_index):
        basis: list[np.ndarray] = []
        a: list[float] = []
        for t in range(3):
            if backward[v, t] < 0:
                continue
            q = built[backward[v, t]].astype(np.float64)
            q /= np.sqrt(q @ q)
            c = float(wanted[v, t])
            for other, weight in zip(basis, a, strict=True):
                along = float(q @ other)
                q -= along * other
                c -= along * weight
            left = float(q @ q)
            if left >= _DEPENDENT:
                basis.append(q / np.sqrt(left))
                a.append(c / np.sqrt(left))
        words = philox(int(where), block, group, 0, key)
        pairs = (*normals(words[0], words[1]), *normals(words[2], words[3]))
        fresh = np.stack(pairs, axis=1).ravel()[:n]
        fresh -= fresh.mean()
        for q in basis:
            fresh -= (fresh @ q) * q
        squares = float(sum(x * x for x in a))
        y = np.zeros(n)
        for q, weight in zip(basis, a, strict=True):
            y += weight * q
        if len(basis) < n - 1 and squares <= 1:
            y += np.sqrt((1 - squares) / (fresh @ fresh)) * fresh
        else:
            infeasible += 1
        y -= y.mean()
        built[v] = y * np.sqrt((n - 1) / (y @ y))
    return np.ascontiguousarray(built.T), infeasible


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _draw(where, group, k0, k1, y):  # type: ignore[no-untyped-def]
    """Fill y with the standard normals of one voxel, four subjects a Philox block."""
    n = len(y)
    for b in range((n + 3) // 4):
        w0, w1, w2, w3 = philox_words(
            nb.uint64(where), nb.uint64(b), nb.uint64(group), nb.uint64(0), k0, k1
        )
        g0, g1 = normal_pair(w0, w1)
        g2, g3 = normal_pair(w2, w3)
        i = 4 * b
        y[i] = g0
        if i + 1 < n:
            y[i + 1] = g1
        if i + 2 < n:
            y[i + 2] = g2
        if i + 3 < n:
            y[i + 3] = g3


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _add(y, factor, x):  # type: ignore[no-untyped-def]
    for i in range(len(y)):
        y[i] += factor * x[i]


@nb.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLAGS)
def _centre(y):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(y)):
        total += y[i]
    total /= len(y)
    for i in range(len(y)):
        y[i] -= total


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _scan(backward, wanted, n, k0, k1, group, voxel_index, out):  # type: ignore[no-untyped-def]
    n_voxels = len(backward)
    built = np.empty((n_voxels, n), np.float32)
    basis, a = np.empty((3, n)), np.empty(3)
    fresh, y = np.empty(n), np.empty(n)
    infeasible = 0
    for v in range(n_voxels):
        m, squares = 0, 0.0
        for t in range(3):
            if backward[v, t] < 0:
                continue
            q, near = basis[m], built[backward[v, t]]
            for i in range(n):
                q[i] = near[i]
            scale = 1 / np.sqrt(_dot(q, q))
            for i in range(n):
                q[i] *= scale
            c = nb.float64(wanted[v, t])
            for other in range(m):
                along = _dot(q, basis[other])
                _add(q, -along, basis[other])
                c -= along * a[other]
            left = _dot(q, q)
            if left >= _DEPENDENT:
                scale = 1 / np.sqrt(left)
                for i in range(n):
                    q[i] *= scale
                a[m] = c * scale
                squares += a[m] * a[m]
                m += 1
        _draw(voxel_index[v], group, k0, k1, fresh)
        _centre(fresh)
        for other in range(m):
            _add(fresh, -_dot(fresh, basis[other]), basis[other])
        if m < n - 1 and squares <= 1:
            share = np.sqrt((1 - squares) / _dot(fresh, fresh))
        else:
            share = 0.0
            infeasible += 1
        for i in range(n):
            y[i] = share * fresh[i]
        for other in range(m):
            _add(y, a[other], basis[other])
        _centre(y)
        scale = np.sqrt((n - 1) / _dot(y, y))
        for i in range(n):
            built[v, i] = y[i] * scale
    for first in range(0, n_voxels, _BLOCK):
        last = min(first + _BLOCK, n_voxels)
        for i in range(n):
            for v in range(first, last):
                out[i, v] = built[v, i]
    return infeasible


def _cpu(
    backward: np.ndarray,
    r: np.ndarray | float,
    n: int,
    key: tuple[int, int],
    group: int,
    voxel_index: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Compiled version of `subject_images`: one thread, releases the GIL."""
    backward, wanted = _checked(backward, r, n)
    out = np.empty((n, len(backward)), np.float32)
    k0, k1 = (np.uint64(word) for word in key)
    return out, int(_scan(backward, wanted, n, k0, k1, group, voxel_index, out))


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Eleven subjects on a box of 8 x 7 x 6 voxels."""
    index = np.arange(8 * 7 * 6, dtype=np.int32)
    ijk = np.stack(np.unravel_index(index, (8, 7, 6), order="F"), axis=1)
    backward = np.where(ijk > 0, index[:, None] - np.array([1, 8, 56]), -1).astype(np.int32)
    key = tuple(int(word) for word in rng.integers(2**32, size=2))
    return (backward, 0.77, 11, key, 1, index), {}


# Rounding of the stored float32 travels along the scan, a little amplified.
SUBJECT_IMAGES = Op("subject_images", subject_images, _cpu, _sample, rtol=1e-4)
