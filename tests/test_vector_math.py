"""Branch-free functions of compiled loops against scipy; pieces of work; lanes."""

from __future__ import annotations

import threading

import numba as nb
import numpy as np
import pytest
from scipy import special

from gpu_sdm.ops._lanes import WIDTH, at_least, everywhere, load, ratio, root, store
from gpu_sdm.ops._normal_tail_cpu import FARTHEST, cos_turns, exp_below_0, log_of, tail
from gpu_sdm.ops._threads import in_pieces

CLOSE = 3e-15  # relative; the worst seen: 1.6e-15 of erfc, 2.2e-16 of exp, 2.3e-16 of log


@nb.njit(error_model="numpy")
def tails(x, e, t):
    for i in range(len(x)):
        e[i], t[i] = tail(x[i])


@nb.njit(error_model="numpy")
def exps_and_logs(x, e, y, t):
    for i in range(len(x)):
        e[i] = exp_below_0(x[i])
    for i in range(len(y)):
        t[i] = log_of(y[i])


@nb.njit(error_model="numpy")
def cosines(u, c):
    for i in range(len(u)):
        c[i] = cos_turns(u[i])


def test_cosine_of_turns_against_scipy(rng):
    u = np.concatenate([rng.random(20_000), np.arange(9) / 8])
    c = np.empty_like(u)
    cosines(u, c)
    np.testing.assert_allclose(c, special.cosdg(360 * u), rtol=CLOSE, atol=2e-15)
    np.testing.assert_array_equal(c[-9::2], [1, 0, -1, 0, 1])


def test_tails_against_scipy():
    x = np.concatenate([np.linspace(0, FARTHEST, 40_001), np.geomspace(1e-300, 1, 5000)])
    e, t = np.empty_like(x), np.empty_like(x)
    tails(x, e, t)
    np.testing.assert_allclose(e, np.exp(-x * x), rtol=CLOSE)
    np.testing.assert_allclose(t, special.erfc(x), rtol=CLOSE)


def test_exp_and_log_against_numpy(rng):
    x = -np.concatenate([[0.0], np.geomspace(1e-300, 700, 20_000)])
    y = np.concatenate(
        [10.0 ** rng.uniform(-300, 300, 20_000), 1 + np.geomspace(1e-15, 0.5, 500), [1.0]]
    )
    e, t = np.empty_like(x), np.empty_like(y)
    exps_and_logs(x, e, y, t)
    np.testing.assert_allclose(e, np.exp(x), rtol=CLOSE)
    np.testing.assert_allclose(t, np.log(y), rtol=CLOSE)
    assert t[-1] == 0
    assert e[0] == 1


@nb.njit(error_model="numpy")
def one_of_each(x, y, out):
    for i in range(0, len(x), WIDTH):
        a, b = load(x, i), load(y, i)
        store(out[0], i, a + b)
        store(out[1], i, a - b)
        store(out[2], i, a * b)
        store(out[3], i, a / b)
        store(out[4], i, ratio(a, b))
        store(out[5], i, root(a))
        store(out[6], i, at_least(a, everywhere(np.float32(0.5))))


def test_lanes_against_numpy(rng):
    x, y = rng.uniform(0.01, 9, (2, 5 * WIDTH)).astype(np.float32)
    x[3], y[-2] = np.nan, np.nan
    out = np.empty((7, x.size), np.float32)
    one_of_each(x, y, out)
    exact = x.astype(float), y.astype(float)
    wanted = [exact[0] + exact[1], exact[0] - exact[1], exact[0] * exact[1]]
    wanted += 2 * [exact[0] / exact[1]] + [np.sqrt(exact[0])]
    for got, value in zip(out, wanted, strict=False):
        np.testing.assert_allclose(got, value, rtol=5e-7, atol=1e-6)  # differences cancel
        assert np.isnan(got[3])
        np.testing.assert_array_equal(np.isnan(got), np.isnan(value))
    np.testing.assert_allclose(out[3:6], wanted[3:6], rtol=5e-7)
    np.testing.assert_array_equal(out[6], np.where(x < 0.5, np.float32(0.5), x))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_pieces_cover_everything_once_and_in_order(n, threads):
    threads = min(threads, nb.config.NUMBA_NUM_THREADS)
    before, seen = nb.get_num_threads(), set()

    def work(first, last):
        seen.add(threading.get_ident())
        return list(range(first, last))

    try:
        nb.set_num_threads(threads)
        pieces = in_pieces(work, n)
    finally:
        nb.set_num_threads(before)
    assert [i for piece in pieces for i in piece] == list(range(n))
    assert all(pieces)
    assert threads > 1 or seen <= {threading.get_ident()}


def test_an_error_in_a_piece_is_raised():
    def work(first, last):
        if last == 1000:
            raise ValueError("the last piece")
        return first

    with pytest.raises(ValueError, match="the last piece"):
        in_pieces(work, 1000)
