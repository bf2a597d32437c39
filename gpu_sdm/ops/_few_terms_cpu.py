"""Fits of one or two terms in closed form, a mean or a slope beside it: all sums in registers.

y (K, 2, WIDTH), flat, holds residuals from unweighted least squares and variances, so that nothing
cancels in differences of sums; x (K, 2) has orthonormal columns.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._lanes import WIDTH, everywhere, load, ratio, store

_ONE, _ZERO, _TWO = np.float32(1), np.float32(0), np.float32(2)


@nb.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _solved(g00, g01, g11, r0, r1, gram, beta):  # type: ignore[no-untyped-def]
    """Write the inverse of the symmetric gram, and the coefficients."""
    inverse = everywhere(_ONE) / (g00 * g11 - g01 * g01)
    c00, c01, c11 = g11 * inverse, everywhere(_ZERO) - g01 * inverse, g00 * inverse
    store(gram, 0, c00)
    store(gram, WIDTH, c01)
    store(gram, 2 * WIDTH, c01)
    store(gram, 3 * WIDTH, c11)
    store(beta, 0, c00 * r0 + c01 * r1)
    store(beta, WIDTH, c01 * r0 + c11 * r1)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def fit_two(y, x, t, gram, beta):  # type: ignore[no-untyped-def]
    """Coefficients with tau2 = t, their covariance to `gram`."""
    zero, one = everywhere(_ZERO), everywhere(_ONE)
    g00, g01, g11, r0, r1 = zero, zero, zero, zero, zero
    for k in range(len(x)):
        o, x0, x1 = 2 * k * WIDTH, everywhere(x[k, 0]), everywhere(x[k, 1])
        effect, w = load(y, o), ratio(one, load(y, o + WIDTH) + t)
        p0, p1 = w * x0, w * x1
        g00 = g00 + p0 * x0
        g01 = g01 + p0 * x1
        g11 = g11 + p1 * x1
        r0 = r0 + p0 * effect
        r1 = r1 + p1 * effect
    _solved(g00, g01, g11, r0, r1, gram, beta)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def moments_two(y, x, gram, beta, out):  # type: ignore[no-untyped-def]
    """Q of DerSimonian and Laird and the trace of its projection to `out`."""
    zero, one = everywhere(_ZERO), everywhere(_ONE)
    g00, g01, g11, r0, r1 = zero, zero, zero, zero, zero
    h00, h01, h11, squares, trace = zero, zero, zero, zero, zero
    for k in range(len(x)):
        o, x0, x1 = 2 * k * WIDTH, everywhere(x[k, 0]), everywhere(x[k, 1])
        effect, w = load(y, o), ratio(one, load(y, o + WIDTH))
        p0, p1, we = w * x0, w * x1, w * effect
        g00 = g00 + p0 * x0
        g01 = g01 + p0 * x1
        g11 = g11 + p1 * x1
        h00 = h00 + p0 * p0
        h01 = h01 + p0 * p1
        h11 = h11 + p1 * p1
        r0 = r0 + we * x0
        r1 = r1 + we * x1
        squares = squares + we * effect
        trace = trace + w
    _solved(g00, g01, g11, r0, r1, gram, beta)
    off = load(gram, WIDTH) * h01
    store(out, 0, squares - r0 * load(beta, 0) - r1 * load(beta, WIDTH))
    store(out, WIDTH, trace - load(gram, 0) * h00 - off - off - load(gram, 3 * WIDTH) * h11)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def score_two(y, x, t, gram, beta, out):  # type: ignore[no-untyped-def]
    """Score of the restricted likelihood at tau2 = t, information, sum of the weights to `out`."""
    zero, one, two = everywhere(_ZERO), everywhere(_ONE), everywhere(_TWO)
    g00, g01, g11, r0, r1 = zero, zero, zero, zero, zero
    h00, h01, h11, s0, s2 = zero, zero, zero, zero, zero
    i00, i01, i11 = zero, zero, zero
    for k in range(len(x)):
        o, x0, x1 = 2 * k * WIDTH, everywhere(x[k, 0]), everywhere(x[k, 1])
        effect, w = load(y, o), ratio(one, load(y, o + WIDTH) + t)
        p0, p1 = w * x0, w * x1
        g00 = g00 + p0 * x0
        g01 = g01 + p0 * x1
        g11 = g11 + p1 * x1
        r0 = r0 + p0 * effect
        r1 = r1 + p1 * effect
        h00 = h00 + p0 * p0
        h01 = h01 + p0 * p1
        h11 = h11 + p1 * p1
        s0 = s0 + w
        s2 = s2 + w * w
        q0, q1 = w * p0, w * p1
        i00 = i00 + q0 * p0
        i01 = i01 + q0 * p1
        i11 = i11 + q1 * p1
    _solved(g00, g01, g11, r0, r1, gram, beta)
    c00, c01, c11 = load(gram, 0), load(gram, WIDTH), load(gram, 3 * WIDTH)
    m00, m01 = c00 * h00 + c01 * h01, c00 * h01 + c01 * h11
    m10, m11 = c01 * h00 + c11 * h01, c01 * h01 + c11 * h11
    third = c00 * i00 + two * c01 * i01 + c11 * i11
    b0, b1, squares = load(beta, 0), load(beta, WIDTH), zero
    for k in range(len(x)):
        o = 2 * k * WIDTH
        residual = load(y, o) - everywhere(x[k, 0]) * b0 - everywhere(x[k, 1]) * b1
        residual = residual * ratio(one, load(y, o + WIDTH) + t)
        squares = squares + residual * residual
    store(out, 0, squares - s0 + m00 + m11)
    store(out, WIDTH, s2 - two * third + m00 * m00 + two * m01 * m10 + m11 * m11)
    store(out, 2 * WIDTH, s0)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def mean_score(y, n_studies, t, out):  # type: ignore[no-untyped-def]
    """Score, information and trace of the weights of a common mean to `out`, in one pass."""
    zero, one, two = everywhere(_ZERO), everywhere(_ONE), everywhere(np.float32(2))
    s0, s1, s2, s3, q1, q2 = zero, zero, zero, zero, zero, zero
    for k in range(n_studies):
        o = 2 * k * WIDTH
        effect, w = load(y, o), ratio(one, load(y, o + WIDTH) + t)
        square, product = w * w, w * effect
        s0 = s0 + w
        s1 = s1 + product
        s2 = s2 + square
        s3 = s3 + square * w
        q1 = q1 + square * effect
        q2 = q2 + product * product
    inverse = ratio(one, s0)
    mean, share = s1 * inverse, s2 * inverse
    store(out, 0, q2 - mean * (two * q1 - mean * s2) - s0 + share)
    store(out, WIDTH, s2 - two * s3 * inverse + share * share)
    store(out, 2 * WIDTH, s0)
