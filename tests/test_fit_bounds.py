"""Likelihood of the bounds: optimum, leave-one-out rule, heterogeneity; metansue's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_data import N1, N2, enge_bounds, hedges, metansue_bounds
from scipy import optimize, special, stats

from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.errors import NumericalError
from gpu_sdm.ops import bounded_normal as bn
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.estimate import default_discards, estimate
from gpu_sdm.stages.smoothing import smooth_in_mask

ONE = np.ones(1)


def negative_log_likelihood(mu, low, high, c, v2, tau2=None):
    """Of one voxel's studies, straight from the definition with scipy's normal."""
    t = tau2 or 0.0
    total = 0.0
    for lo, hi, ck, vk in zip(low, high, c, v2, strict=True):
        if hi - lo < 1e-5:
            v = ck + vk * hi * hi + t
            total += 0.5 * (hi - mu) ** 2 / v + (0.0 if tau2 is None else 0.5 * np.log(v))
        else:
            a = (hi - mu) / np.sqrt(ck + vk * hi * hi + t)
            b = (lo - mu) / np.sqrt(ck + vk * lo * lo + t)
            a, b = (a, b) if b < 0 else (-b, -a)
            p = stats.norm.cdf(a) - stats.norm.cdf(b)
            total -= np.log(p) if p > 0 else -np.inf
    return total


def assert_same(one, two):
    for a, b in zip(one[:2], two[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=FIT_BOUNDS.rtol * np.abs(b).max())
    np.testing.assert_array_equal(one[2], two[2])
    assert one[3].all()
    assert two[3].all()


@pytest.mark.parametrize("columns", [1, 2])
def test_compiled_equals_twin(rng, columns):
    (lower, upper, c, v2, X, crit, discards), _ = FIT_BOUNDS.sample(rng)
    lower[:3, :4], upper[1:5, :6] = -np.inf, np.inf  # what an image does not cover
    upper[5, 6:9] = lower[5, 6:9]
    args = (lower, upper, c, v2, X[:, :columns].copy(), crit[:columns], discards)
    assert_same(FIT_BOUNDS.numpy(*args), FIT_BOUNDS.cpu(*args))


def test_a_design_of_one_constant_that_is_not_one_only_rescales(rng):
    (lower, upper, c, v2, *_), _ = FIT_BOUNDS.sample(rng)
    ones = FIT_BOUNDS.cpu(lower, upper, c, v2, np.ones((12, 1)), ONE, 2)
    twos = FIT_BOUNDS.cpu(lower, upper, c, v2, np.full((12, 1), 2.0), ONE, 2)
    np.testing.assert_allclose(2 * twos[0], ones[0], atol=1e-9)
    np.testing.assert_allclose(twos[1], ones[1], atol=1e-9)
    np.testing.assert_array_equal(twos[2], ones[2])


def test_leave_one_out_equals_brute_force(rng):
    (lower, upper, c, v2, *_), _ = FIT_BOUNDS.sample(rng)
    beta, _, discarded, _ = FIT_BOUNDS.cpu(lower, upper, c, v2, np.ones((12, 1)), ONE, 2)
    for v in range(0, 40, 8):
        keep = list(range(12))
        for step in range(2):
            fits = []
            for k in keep:
                rest = [i for i in keep if i != k]
                part = [np.float64(a[rest, v]) for a in (lower, upper)]
                found = optimize.minimize_scalar(
                    negative_log_likelihood,
                    bounds=(-2, 3),
                    method="bounded",
                    args=(*part, c[rest], v2[rest]),
                    options={"xatol": 1e-9},
                )
                fits.append(found.x)
            best = int(np.argmin(np.abs(fits)))
            assert discarded[step, v] == keep[best]
            mu = fits[best]
            keep.pop(best)
        assert beta[0, v] == pytest.approx(mu, abs=2e-6)


def test_equal_studies_the_first_is_dropped():
    half = np.full((6, 3), 0.7, np.float32)
    _, _, discarded, converged = FIT_BOUNDS.cpu(
        -half, half, np.full(6, 0.05), np.full(6, 0.02), np.ones((6, 1)), ONE, 3
    )
    np.testing.assert_array_equal(discarded, np.array([[0] * 3, [1] * 3, [2] * 3]))
    assert converged.all()


@pytest.mark.parametrize("columns", [1, 2])
def test_infinite_bounds_are_an_absent_study(rng, columns):
    (lower, upper, c, v2, X, crit, _), _ = FIT_BOUNDS.sample(rng)
    lower[4], upper[4] = -np.inf, np.inf
    X, crit = X[:, :columns].copy(), crit[:columns]
    with_it = FIT_BOUNDS.cpu(lower, upper, c, v2, X, crit, 0)
    rest = np.arange(12) != 4
    without = FIT_BOUNDS.cpu(lower[rest], upper[rest], c[rest], v2[rest], X[rest].copy(), crit, 0)
    np.testing.assert_allclose(with_it[0], without[0], atol=1e-9)
    np.testing.assert_allclose(with_it[1], without[1], atol=1e-9)
    nothing = FIT_BOUNDS.cpu(
        np.full_like(lower, -np.inf), np.full_like(upper, np.inf), c, v2, X, crit, 2
    )
    assert (nothing[0] == 0).all()
    assert (nothing[1] == 0).all()
    assert nothing[3].all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mirrored_bounds_mirror_the_fit(seed):
    (lower, upper, c, v2, X, crit, discards), _ = FIT_BOUNDS.sample(np.random.default_rng(seed))
    one = FIT_BOUNDS.cpu(lower, upper, c, v2, X, crit, discards)
    two = FIT_BOUNDS.cpu(-upper, -lower, c, v2, X, crit, discards)
    np.testing.assert_allclose(one[0], -two[0], atol=1e-8)
    np.testing.assert_allclose(one[1], two[1], atol=1e-7)
    np.testing.assert_array_equal(one[2], two[2])


@pytest.fixture(scope="module")
def real(enge2021):
    return enge_bounds(enge2021, 1500, seed=3)


def optimum_and_grid(lower, upper, c, v2):
    """Hold the optimum against a dense grid; give it with the profile and what is known."""
    beta, tau2, _, converged = FIT_BOUNDS.cpu(lower, upper, c, v2, np.ones((50, 1)), ONE, 0)
    print(f"\nnot converged: {(~converged).sum()} of {converged.size}")
    assert converged.all()
    low, high = lower.astype(float), upper.astype(float)
    known = high - low < 1e-5
    c, v2 = c[:, None], v2[:, None]

    def at(mu, t, voxels=slice(None)):
        lo, hi, sure = low[:, voxels], high[:, voxels], known[:, voxels]
        v_low, v_high = c + v2 * lo**2 + t, c + v2 * hi**2 + t
        log_p = bn.log_interval((lo - mu) / np.sqrt(v_low), (hi - mu) / np.sqrt(v_high))
        logs = 0.5 * np.log(v_high) * (np.max(t) > 0)
        return np.where(sure, 0.5 * (hi - mu) ** 2 / v_high + logs, -log_p).sum(0)

    here = at(beta[0], 0.0)
    grid = np.arange(-2, 2.0001, 0.02)
    values = np.array([at(g, 0.0) for g in grid])
    assert (here <= values.min(0) + 1e-9).all()
    assert np.abs(grid[values.argmin(0)] - beta[0]).max() <= 0.0201
    return beta[0], tau2, at


@pytest.mark.slow
def test_optimum_of_10000_voxels_equals_a_dense_grid(enge2021):
    lower, upper, c, v2, _ = enge_bounds(enge2021, 10_000, seed=4)
    optimum_and_grid(lower, upper, c, v2)


def test_real_optimum_equals_a_dense_grid(real):
    lower, upper, c, v2, _ = real
    mean, tau2, at = optimum_and_grid(lower, upper, c, v2)

    few = np.arange(0, 1500, 5)
    mu, tau2 = mean[few], tau2[few]
    grid = np.concatenate([[1e-300], np.geomspace(1e-5, 8, 300)])  # the log of a variance is kept
    values = np.array([at(mu, t, few) for t in grid])
    here = at(mu, np.maximum(tau2, 1e-300), few)
    assert (here <= values.min(0) + 1e-8).all()
    assert (tau2 > 0).any()
    assert (tau2 == 0).any()


@pytest.mark.parametrize("columns", [1, 2])
def test_real_compiled_equals_twin(real, columns):
    """4,000 voxels were compared once, for one and for two columns: no study differed."""
    lower, upper, c, v2, age = real
    X = np.column_stack([np.ones(50), age - age.mean()])[:, :columns].copy()
    args = (lower[:, ::15], upper[:, ::15], c, v2, X, np.eye(columns)[0], 3)
    assert_same(FIT_BOUNDS.numpy(*args), FIT_BOUNDS.cpu(*args))


@pytest.mark.parametrize("section", ["smc", "smd", "smc_complete"])
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_metansue(metansue_reference, section, backend):
    """metansue gives the lower limit the upper limit's SD: the same where bounds are symmetric."""
    lower, upper, c, v2, want = metansue_bounds(metansue_reference, section)
    j = hedges(N1, N2 if section == "smd" else None)[0]
    np.testing.assert_allclose(j, want["J"], rtol=1e-9)
    y = np.array(want["y"])
    np.testing.assert_allclose((c + v2 * y**2)[y != 0], np.array(want["var"])[y != 0], rtol=1e-9)
    fit = FIT_BOUNDS.on(backend)
    args = (lower, upper, c, v2, np.ones((10, 1)), ONE)
    # R's optimize stops at 1.2e-4: metansue's optimum of a censored likelihood is that far off
    digits = 3e-5 if (y == 0).any() else 1e-6
    whole = fit(*args, 0)[0][0, 0]
    assert whole == pytest.approx(want["mu_no_discard"][0], abs=digits)
    beta, tau2, discarded, converged = fit(*args, int(want["n_discard"][0]))
    assert discarded[0, 0] + 1 == want["discarded"][0]
    assert beta[0, 0] == pytest.approx(want["mu"][0], abs=digits)
    assert tau2[0] == pytest.approx(want["tau2"][0], abs=1.22e-4)
    assert converged.all()
    rest = np.arange(10) != discarded[0, 0]
    part = [a[rest, 0] for a in (lower, upper)]
    assert negative_log_likelihood(beta[0, 0], *part, c[rest], v2[rest]) <= (
        negative_log_likelihood(want["mu"][0], *part, c[rest], v2[rest]) + 1e-9
    )
    low, high = lower[:, 0], upper[:, 0]
    assert negative_log_likelihood(beta[0, 0], low, high, c, v2, tau2[0]) <= (
        negative_log_likelihood(beta[0, 0], low, high, c, v2, want["tau2"][0]) + 1e-9
    )


def test_default_discards():
    """One more than metansue's count, at the ends of its steps."""
    for k, metansue in [(30, 1), (31, 2), (50, 2), (59, 2), (60, 3), (77, 3), (78, 4), (94, 4)]:
        assert default_discards(k) == metansue + 1
    assert default_discards(95) == 6
    assert default_discards(135) == 8


@pytest.fixture
def small_space():
    mask = np.zeros(SHAPES[4], bool)
    mask[20:26, 20:25, 20:24] = True
    return Space(4, mask)


def _terms(c, v2):
    return StudyTerms(np.ones(len(c)), c.copy(), v2.copy(), 1 / c, np.zeros(len(c)))


def test_estimate_smooths_caches_and_limits_discards(rng, small_space):
    (lower, upper, c, v2, *_), _ = FIT_BOUNDS.sample(rng)
    at = rng.integers(0, 40, small_space.n_voxels)
    bounds, terms, X = Bounds(lower[:, at], upper[:, at]), _terms(c, v2), np.ones((12, 1))
    calls = []
    args = (bounds, terms, X, ONE, 40, small_space, "cpu", lambda *x: calls.append(x))
    one, two = estimate(*args), estimate(*args)
    assert calls[-1] == (small_space.n_voxels, small_space.n_voxels)
    assert one.discarded.shape[0] == 12 - 1 - 1
    assert one.not_converged == 0
    np.testing.assert_array_equal(one.beta, two.beta)
    raw = FIT_BOUNDS.cpu(bounds.lower, bounds.upper, c, v2, X, ONE, 10)
    np.testing.assert_array_equal(one.beta[0], smooth_in_mask(raw[0][0], small_space))
    assert one.beta.std() < raw[0].std()
    np.testing.assert_allclose(smooth_in_mask(np.full(len(at), 0.3), small_space), 0.3, rtol=1e-13)


def test_nan_bound_is_an_error_with_its_place(rng, small_space):
    lower = np.full((5, small_space.n_voxels), -1, np.float32)
    upper = -lower
    lower[2, 0] = np.nan
    with pytest.raises(NumericalError, match=r"MNI \(10, -46, 8\) mm"):
        estimate(
            Bounds(lower, upper), _terms(np.ones(5), np.ones(5)), np.ones((5, 1)), ONE, 0,
            small_space,
        )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    a=st.floats(-60, 60), width=st.floats(1e-4, 50), mean=st.floats(-3, 3), sd=st.floats(0.05, 5)
)
def test_truncated_normal_against_50_digits(a, width, mean, sd):
    import mpmath as mp

    with mp.workdps(60):
        lo, hi = mp.mpf(a), mp.mpf(a) + mp.mpf(width)
        z = mp.ncdf(-lo) - mp.ncdf(-hi) if a > 0 else mp.ncdf(hi) - mp.ncdf(lo)
        pa, pb = mp.npdf(lo) / z, mp.npdf(hi) / z
        want_log, shift = float(mp.log(z)), pa - pb
        want_var = float(1 + lo * pa - hi * pb - shift**2)
        shift = float(shift)
    got = bn.log_interval(np.array(a), np.array(a + width)), bn.log_interval_scalar(a, a + width)
    # a difference of two nearly equal limits cannot be better than their own rounding
    np.testing.assert_allclose(got, want_log, rtol=1e-13, atol=1e-14 * (1 + abs(a)) / width)
    lower, upper = mean + sd * a, mean + sd * (a + width)
    for m, v in (
        bn.truncated_moments(mean, sd, lower, upper),
        bn.truncated_moments_scalar(mean, sd, lower, upper),
    ):
        assert m == pytest.approx(mean + sd * shift, rel=1e-12, abs=1e-12)
        assert v == pytest.approx(sd * sd * want_var, rel=1e-9)


def test_quantile_of_a_log_probability():
    log_p = -np.geomspace(0.6931472, 5000, 500)
    got = [bn.quantile_of_log_scalar(x) for x in log_p]
    np.testing.assert_allclose(got, special.ndtri_exp(log_p), rtol=1e-14, atol=1e-14)
