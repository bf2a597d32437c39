"""Compiled random effects of one design at `WIDTH` voxels at once, float32.

Twin: `gpu_sdm.ops.pool.random_effects`. The design has orthonormal columns, so that rounding does
not depend on the units of the covariates, and every fit is of the residuals from unweighted least
squares, so that nothing cancels. y (K, 2, WIDTH), flat, holds effects and variances.

REML: the twin's scoring from Hedges and Olkin's moments, kept between known signs; once it is close
the information is that of the last two scores (a secant). Lanes that have arrived stay: the bits
of a lane do not depend on the others.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gpu_sdm.ops._few_terms_cpu import fit_two, mean_score, moments_two, score_two
from gpu_sdm.ops._lanes import (
    WIDTH,
    aligned,
    all_above,
    at_least,
    everywhere,
    load,
    ratio,
    store,
    where_above,
)

_ONE, _ZERO, _HALF = np.float32(1), np.float32(0), np.float32(0.5)
_FAR = np.float32(1e30)
STEPS = 100
# Changes of tau2 over the mean of tau2 + v: where scoring has arrived, a step of z far below 1e-4;
# and from where on secants are taken, which farther away may lead to another mode than the twin's.
ARRIVED, CLOSE = np.float32(4e-6), np.float32(0.03)
NEAR = np.float32(4)  # most by which the information may differ from the expected


@nb.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def add(sums, o, value):  # type: ignore[no-untyped-def]
    store(sums, o * WIDTH, load(sums, o * WIDTH) + value)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def clear(sums):  # type: ignore[no-untyped-def]
    for i in range(len(sums)):
        sums[i] = _ZERO


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _solve(gram, right, beta):  # type: ignore[no-untyped-def]
    """Invert the symmetric gram (Q, Q) in place by sweeping each pivot; beta (Q) solves right."""
    n = len(right) // WIDTH
    for a in range(n):
        for b in range(a):
            store(gram, (b * n + a) * WIDTH, load(gram, (a * n + b) * WIDTH))
    for p in range(n):
        pivot = everywhere(_ONE) / load(gram, (p * n + p) * WIDTH)
        store(gram, (p * n + p) * WIDTH, pivot)
        for r in range(n):
            if r == p:
                continue
            factor = load(gram, (r * n + p) * WIDTH) * pivot
            store(gram, (r * n + p) * WIDTH, factor)
            for c in range(n):
                if c != p:
                    o = (r * n + c) * WIDTH
                    store(gram, o, load(gram, o) - factor * load(gram, (p * n + c) * WIDTH))
        for c in range(n):
            if c != p:
                o = (p * n + c) * WIDTH
                store(gram, o, everywhere(_ZERO) - load(gram, o) * pivot)
    for a in range(n):
        total = everywhere(_ZERO)
        for b in range(n):
            total = total + load(gram, (a * n + b) * WIDTH) * load(right, b * WIDTH)
        store(beta, a * WIDTH, total)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _start(y, x, beta):  # type: ignore[no-untyped-def]
    """Tau2 by Hedges and Olkin's moments; the effects become residuals, fitted by `beta`."""
    n_studies, n_terms = x.shape
    for a in range(n_terms):
        total = everywhere(_ZERO)
        for k in range(n_studies):
            total = total + everywhere(x[k, a]) * load(y, 2 * k * WIDTH)
        store(beta, a * WIDTH, total)
    total = everywhere(_ZERO)
    for k in range(n_studies):
        o, leverage = 2 * k * WIDTH, _ONE
        residual = load(y, o)
        for a in range(n_terms):
            residual = residual - everywhere(x[k, a]) * load(beta, a * WIDTH)
            leverage -= x[k, a] * x[k, a]
        store(y, o, residual)
        total = total + residual * residual - everywhere(leverage) * load(y, o + WIDTH)
    per = everywhere(_ONE / np.float32(n_studies - n_terms))
    return at_least(total * per, everywhere(_ZERO))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _fit(y, x, t, grams, beta):  # type: ignore[no-untyped-def]
    """Coefficients with tau2 = t to `beta`, their covariance to the first of `grams`."""
    n_studies, n_terms = x.shape
    gram, right = grams[0], grams[4]
    if n_terms == 2:
        fit_two(y, x, t, gram, beta)
        return
    clear(gram)
    clear(right)
    for k in range(n_studies):
        o = 2 * k * WIDTH
        effect, w = load(y, o), ratio(everywhere(_ONE), load(y, o + WIDTH) + t)
        for a in range(n_terms):
            part = w * everywhere(x[k, a])
            add(right, a, part * effect)
            for b in range(a + 1):
                add(gram, a * n_terms + b, part * everywhere(x[k, b]))
    _solve(gram, right, beta)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _moments_tau2(y, x, grams, beta, out):  # type: ignore[no-untyped-def]
    """Tau2 of DerSimonian and Laird, general moments."""
    n_studies, n_terms = x.shape
    gram, second = grams[0], grams[1]
    zero, one = everywhere(_ZERO), everywhere(_ONE)
    df = everywhere(np.float32(n_studies - n_terms))
    if n_terms == 2:
        moments_two(y, x, gram, beta, out)
        return at_least((load(out, 0) - df) / load(out, WIDTH), zero)
    clear(second)
    _fit(y, x, zero, grams, beta)
    squares, trace = zero, zero
    for k in range(n_studies):
        o = 2 * k * WIDTH
        residual, weight = load(y, o), ratio(one, load(y, o + WIDTH))
        for a in range(n_terms):
            residual = residual - everywhere(x[k, a]) * load(beta, a * WIDTH)
        squares = squares + weight * residual * residual
        trace = trace + weight
        weight = weight * weight
        for a in range(n_terms):
            part = weight * everywhere(x[k, a])
            for b in range(a + 1):
                add(second, a * n_terms + b, part * everywhere(x[k, b]))
    for a in range(n_terms):
        for b in range(a + 1):
            o = (a * n_terms + b) * WIDTH
            both = load(gram, o) * load(second, o)
            trace = trace - both
            if b < a:
                trace = trace - both
    return at_least((squares - df) / trace, zero)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _score(y, x, t, grams, beta, out):  # type: ignore[no-untyped-def]
    """Score, information and trace of the weights of a design to `out`."""
    n_studies, n_terms = x.shape
    gram, second, third, product, right = grams
    if n_terms == 2:
        score_two(y, x, t, gram, beta, out)
        return
    zero, one = everywhere(_ZERO), everywhere(_ONE)
    clear(gram)
    clear(second)
    clear(third)
    clear(right)
    information, s0 = zero, zero
    for k in range(n_studies):
        o = 2 * k * WIDTH
        effect, w = load(y, o), ratio(one, load(y, o + WIDTH) + t)
        s0 = s0 + w
        information = information + w * w
        for a in range(n_terms):
            part = w * everywhere(x[k, a])
            add(right, a, part * effect)
            for b in range(a + 1):
                both = part * everywhere(x[k, b])
                add(gram, a * n_terms + b, both)
                both = both * w
                add(second, a * n_terms + b, both)
                add(third, a * n_terms + b, both * w)
    _solve(gram, right, beta)
    for a in range(n_terms):
        for b in range(a):
            store(second, (b * n_terms + a) * WIDTH, load(second, (a * n_terms + b) * WIDTH))
            store(third, (b * n_terms + a) * WIDTH, load(third, (a * n_terms + b) * WIDTH))
    clear(product)
    trace = s0
    for a in range(n_terms):
        for b in range(n_terms):
            f = load(gram, (a * n_terms + b) * WIDTH)
            information = information - (f + f) * load(third, (a * n_terms + b) * WIDTH)
            for c in range(n_terms):
                add(product, a * n_terms + c, f * load(second, (b * n_terms + c) * WIDTH))
        trace = trace - load(product, (a * n_terms + a) * WIDTH)
    for a in range(n_terms):
        for b in range(n_terms):
            f = load(product, (a * n_terms + b) * WIDTH)
            information = information + f * load(product, (b * n_terms + a) * WIDTH)
    squares = zero
    for k in range(n_studies):
        o = 2 * k * WIDTH
        residual = load(y, o)
        for a in range(n_terms):
            residual = residual - everywhere(x[k, a]) * load(beta, a * WIDTH)
        residual = residual * ratio(one, load(y, o + WIDTH) + t)
        squares = squares + residual * residual
    store(out, 0, squares - trace)
    store(out, WIDTH, information)
    store(out, 2 * WIDTH, s0)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _reml_tau2(y, x, plain, t, grams, beta, out):  # type: ignore[no-untyped-def]
    """REML from `t`; `plain`: a common mean."""
    n_studies = len(x)
    zero, one, half = everywhere(_ZERO), everywhere(_ONE), everywhere(_HALF)
    near, live = everywhere(NEAR), one
    arrived = everywhere(ARRIVED * np.float32(n_studies))
    close = everywhere(CLOSE * np.float32(n_studies))
    before, before_score = t, zero
    low, high = zero, everywhere(_FAR)
    for step in range(STEPS):
        if plain:
            mean_score(y, n_studies, t, out)
        else:
            _score(y, x, t, grams, beta, out)
        score, expected, s0 = load(out, 0), load(out, WIDTH), load(out, 2 * WIDTH)
        low = where_above(score, zero, t, low)
        high = where_above(score, zero, high, t)
        information = expected
        if step:
            # t stays where it was in lanes that are not live, and their 0 / 0 is not used
            information = at_least((before_score - score) / (t - before), expected / near)
            information = where_above(information, near * expected, near * expected, information)
            far = at_least(score, zero - score) * s0
            information = where_above(far, close * expected, expected, information)
        new = at_least(t + score / information, zero)
        middle = half * (low + high)
        new = where_above(low, new, middle, where_above(high, new, new, middle))
        change = new - t
        change = at_least(change, zero - change)
        before = t
        before_score = score
        t = where_above(live, half, new, t)
        live = where_above(change * s0, arrived, live, zero)
        if all_above(half, live):
            break
    return t


@nb.njit(nogil=True, cache=True, error_model="numpy")
def workspace(n_terms):  # type: ignore[no-untyped-def]
    """Room for a fit: four (Q, Q, WIDTH), X'Wy; beta, shift, what a score gives."""
    size = n_terms * n_terms * WIDTH
    right, beta, shift = (
        aligned(n_terms * WIDTH), aligned(n_terms * WIDTH), aligned(n_terms * WIDTH)
    )  # fmt: skip
    return (
        (aligned(size), aligned(size), aligned(size), aligned(size), right),
        beta, shift, aligned(3 * WIDTH),
    )  # fmt: skip


@nb.njit(nogil=True, cache=True, error_model="numpy")
def random_effects_at(y, x, plain, reml, work):  # type: ignore[no-untyped-def]
    """Fill coefficients and covariance of `work`; the effects of y become residuals.

    `plain`: the design is a common mean.
    """
    grams, beta, shift, out = work
    t = _start(y, x, shift)
    t = (
        _reml_tau2(y, x, plain, t, grams, beta, out)
        if reml
        else _moments_tau2(y, x, grams, beta, out)
    )
    _fit(y, x, t, grams, beta)
    for a in range(x.shape[1]):
        add(beta, a, load(shift, a * WIDTH))
