"""Counter-based random numbers: Philox4x32-10, a pure function of (seed, stage, name, where).

A draw depends on nothing that was drawn before it, so a smaller mask, a re-sorted table, a
left-out study, another chunk size or a resumed run never changes a remaining draw. The counter
words are used as follows, by every backend:

============  =======================  ==========  =====  =====
stage         c0                       c1          c2     c3
============  =======================  ==========  =====  =====
impute        full-grid voxel index    imputation  0      0
subjects      full-grid voxel index    subject//4  group  0
flip          permutation              subject//128  0    0
label         permutation              subject//2  0      0
exchange      permutation              0           0      0
order         permutation              0           0      0
tail          sample                   value//4    use    0
============  =======================  ==========  =====  =====

References
----------
.. [1] Salmon et al. (2011) Parallel random numbers: as easy as 1, 2, 3. SC11.
"""

from __future__ import annotations

import hashlib

import numba as nb
import numpy as np

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def stream_key(seed: int, stage: str, name: str) -> tuple[int, int]:
    """Philox key (two 32-bit words) of one stage and study.

    Examples
    --------
    >>> stream_key(0, "flip", "Smith2010") == stream_key(0, "flip", "Smith2010")
    True
    """
    digest = hashlib.sha256(f"{seed}\0{stage}\0{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def philox(
    c0: np.ndarray | int,
    c1: np.ndarray | int,
    c2: np.ndarray | int,
    c3: np.ndarray | int,
    key: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Philox4x32-10 of broadcast counters: four arrays of uint32. Twin of `philox_words`."""
    x0, x1, x2, x3 = (np.array(c, dtype=np.uint64) for c in np.broadcast_arrays(c0, c1, c2, c3))
    k0, k1 = key
    for _ in range(10):
        p0, p1 = np.uint64(_M0) * x0, np.uint64(_M1) * x2
        x0, x1, x2, x3 = (
            (p1 >> _SHIFT) ^ x1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _SHIFT) ^ x3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    w0, w1, w2, w3 = (x.astype(np.uint32) for x in (x0, x1, x2, x3))
    return w0, w1, w2, w3


def uniform(words: np.ndarray) -> np.ndarray:
    """Uniform float64 strictly inside (0, 1) from uint32 words."""
    return (np.asarray(words, np.float64) + 0.5) * 2.0**-32


@nb.njit(nb.types.UniTuple(nb.uint64, 4)(*[nb.uint64] * 6), cache=True, inline="always")
def philox_words(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """One Philox4x32-10 block as four uint64 that hold 32-bit words (compiled twin of `philox`)."""
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0 = (k0 + np.uint64(0x9E3779B9)) & low
        k1 = (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@nb.njit(nb.float64(nb.uint64), cache=True, inline="always")
def uniform_word(word):  # type: ignore[no-untyped-def]
    """Uniform float64 strictly inside (0, 1) from one 32-bit word."""
    return (np.float64(word) + 0.5) * 2.3283064365386962890625e-10


def normals(w0: np.ndarray, w1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two standard normals (float64) from two uint32 words each: Box and Muller (1958)."""
    radius = np.sqrt(-2.0 * np.log(uniform(w0)))
    angle = 2.0 * np.pi * uniform(w1)
    return radius * np.cos(angle), radius * np.sin(angle)


@nb.njit(nb.types.UniTuple(nb.float64, 2)(nb.uint64, nb.uint64), cache=True, inline="always")
def normal_pair(w0, w1):  # type: ignore[no-untyped-def]
    """Two standard normals from two 32-bit words (compiled twin of `normals`)."""
    radius = np.sqrt(-2.0 * np.log(uniform_word(w0)))
    angle = 6.283185307179586 * uniform_word(w1)
    return radius * np.cos(angle), radius * np.sin(angle)
