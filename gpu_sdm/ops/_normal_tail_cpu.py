"""Exponentials and normal tails without a branch: LLVM then does several studies at once.

The C library's `erfc`, `exp` and `log` are calls for one number. A test holds these against scipy
and NumPy: 3e-15 relative. A loop around them needs `error_model="numpy"` to become vectors.
"""

from __future__ import annotations

import numba as nb
import numpy as np

FARTHEST = 26.0  # erfc is 5e-296 there: still a normal number, and nothing beside 1


@nb.njit(cache=True, nogil=True, inline="always", fastmath={"contract"})
def exp_below_0(x):  # type: ignore[no-untyped-def]
    """Exp of x in [-700, 0]: Taylor's series around the nearest multiple of ln 2."""
    shifted = x * 1.4426950408889634 + 6755399441055744.0  # the integer ends up in the low bits
    n = shifted - 6755399441055744.0
    r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    bits = np.float64(p).view(np.int64) + (np.float64(shifted).view(np.int64) << 52)
    return np.int64(bits).view(np.float64)


@nb.njit(cache=True, nogil=True, inline="always", fastmath={"contract"})
def tail(x):  # type: ignore[no-untyped-def]
    """Give exp(-x^2) and erfc(x) of x in [0, FARTHEST].

    exp(x^2) erfc(x) (1 + 2 x) as a polynomial of u = (x - 3) / (x + 3), which interpolates it at
    the 23 Chebyshev points of x in [0, 26.5] (Schonfelder 1978, Math Comp 32:1232, for u).
    """
    e = exp_below_0(-x * x)
    u = (x - 3.0) / (x + 3.0)
    p = -4.1207916744876265e-09
    p = p * u - 8.281143724349937e-09
    p = p * u + 3.278022966956047e-08
    p = p * u + 9.11759475217281e-08
    p = p * u - 1.312027036731067e-07
    p = p * u - 6.040877912613498e-07
    p = p * u + 3.493410385927882e-07
    p = p * u + 3.463315980240028e-06
    p = p * u - 7.279360825513857e-07
    p = p * u - 2.00963221548489e-05
    p = p * u + 4.948329599047046e-06
    p = p * u + 0.0001250980638891889
    p = p * u - 0.00010515954588835108
    p = p * u - 0.0007798320223294887
    p = p * u + 0.0018886903220791517
    p = p * u + 0.0025293917865945857
    p = p * u - 0.023770514915268666
    p = p * u + 0.0683080273459045
    p = p * u - 0.119273663415475
    p = p * u + 0.1296451587027027
    p = p * u - 0.047562294353447436
    p = p * u - 0.13562110612458067
    p = p * u + 1.2530080582697296
    return e, e * p / (1.0 + 2.0 * x)


@nb.njit(cache=True, nogil=True, inline="always", fastmath={"contract"})
def log_of(x):  # type: ignore[no-untyped-def]
    """Log of a positive normal number: the exponent, and the series of 2 artanh for the rest."""
    bits = np.float64(x).view(np.int64)
    n = (bits - 4604544271217802189) >> 52  # bits of sqrt(1/2): the rest lies around 1
    f = np.int64(bits - (n << 52)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    q = s * s
    p = 1.0 / 23.0
    p = p * q + 1.0 / 21.0
    p = p * q + 1.0 / 19.0
    p = p * q + 1.0 / 17.0
    p = p * q + 1.0 / 15.0
    p = p * q + 1.0 / 13.0
    p = p * q + 1.0 / 11.0
    p = p * q + 1.0 / 9.0
    p = p * q + 1.0 / 7.0
    p = p * q + 1.0 / 5.0
    p = p * q + 1.0 / 3.0
    k = np.float64(n)
    rest = 2.0 * s * q * p + k * 1.90821492927058770002e-10
    return k * 0.693147180369123816490 + (2.0 * s + rest)


@nb.njit(cache=True, nogil=True, inline="always", fastmath={"contract"})
def cos_turns(u):  # type: ignore[no-untyped-def]
    """Cosine of 2 pi u, u in [0, 1]: the sine series on a quarter of a turn, zeros kept exact."""
    from_zero = np.abs(u - 0.5) - 0.25  # exact; cos(2 pi u) = sin of 2 pi times it
    x = 6.283185307179586 * from_zero
    q = x * x
    p = -1.0 / 51090942171709440000.0
    p = p * q + 1.0 / 121645100408832000.0
    p = p * q - 1.0 / 355687428096000.0
    p = p * q + 1.0 / 1307674368000.0
    p = p * q - 1.0 / 6227020800.0
    p = p * q + 1.0 / 39916800.0
    p = p * q - 1.0 / 362880.0
    p = p * q + 1.0 / 5040.0
    p = p * q - 1.0 / 120.0
    p = p * q + 1.0 / 6.0
    return x - x * q * p
