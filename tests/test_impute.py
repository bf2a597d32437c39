"""Imputation: bounds, wanted mean and variance, draws that depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gpu_sdm.config import CONSTRAINTS, Settings
from gpu_sdm.data import Bounds, RandomEffects, StudyTerms
from gpu_sdm.errors import NumericalError
from gpu_sdm.ops import bounded_normal as bn
from gpu_sdm.ops.impute import IMPUTE
from gpu_sdm.ops.two_spikes import N_EFF, two_spikes
from gpu_sdm.rng import philox, stream_key, uniform
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.impute import impute

C, V2 = 0.05, 0.03
# lower, upper, mu, tau2 of a study with the constants above; sd = sqrt(.05 + .03 mu^2 + tau2)
CASES = {
    "wide": (-0.8, 0.8, 0.2, 0.05),
    "one-sided": (0.1, 1.5, 0.0, 0.01),
    "narrow": (0.30, 0.31, 0.2, 0.0),
    "skewed": (-0.2, 2.5, -0.3, 0.02),
    "12 sd above": (2.7, 3.4, 0.0, 0.0),
    "12 sd below": (-3.4, -2.7, 0.0, 0.0),
    "around 12 sd wide": (-2.7, 2.7, 0.0, 0.0),
    "around 18 sd wide": (-4.0, 4.0, 0.0, 0.0),  # less variance than w^2 m (1 - m) / (N_eff + 1)
    "22 sd above": (5.0, 9.0, 0.0, 0.0),  # the mean hugs the bound
    "far end open": (2.7, np.inf, 0.0, 0.0),
    "missing": (-np.inf, np.inf, 0.4, 0.03),
}
TWO_SPIKES_IMPOSSIBLE = {"around 18 sd wide", "22 sd above", "far end open", "missing"}


def with_law(sample, law):
    return (*sample[0][:-1], law)


@pytest.mark.parametrize("law", CONSTRAINTS["imputation"].values)
def test_compiled_equals_twin(rng, law):
    args = with_law(IMPUTE.sample(rng), law)
    twin, cpu = IMPUTE.numpy(*args), IMPUTE.cpu(*args)
    np.testing.assert_allclose(cpu[0], twin[0], rtol=IMPUTE.rtol, atol=1e-6)
    assert cpu[1] == twin[1]


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("law", CONSTRAINTS["imputation"].values)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_draws_lie_in_their_bounds_and_known_effects_stay(backend, law, seed):
    args = with_law(IMPUTE.sample(np.random.default_rng(seed)), law)
    lower, upper = args[:2]
    effects, fallbacks = IMPUTE.on(backend)(*args)
    assert effects.dtype == np.float32
    assert np.isfinite(effects).all()
    assert (effects >= lower).all()
    assert (effects <= upper).all()
    known = lower == upper
    assert known.any()
    assert (effects[:, known] == lower[known]).all()
    missing = np.isinf(lower).sum()
    assert fallbacks >= missing if law == "sdm" else fallbacks == 0


@pytest.mark.parametrize("law", CONSTRAINTS["imputation"].values)
@pytest.mark.parametrize("case", CASES)
def test_mean_and_variance(case, law):
    """20,000 draws; five standard errors, against scipy's truncated normal."""
    low, high, mu, tau2 = CASES[case]
    n_voxels, m = 400, 50
    lower = np.full((1, n_voxels), low, np.float32)
    upper = np.full((1, n_voxels), high, np.float32)
    effects, fallbacks = IMPUTE.cpu(
        lower, upper, np.full((1, n_voxels), mu), np.full(n_voxels, tau2), np.array([C]),
        np.array([V2]), np.array([stream_key(0, "impute", case)], np.uint32),
        np.arange(n_voxels, dtype=np.int32), 0, m, law,
    )  # fmt: skip
    impossible = law == "sdm" and case in TWO_SPIKES_IMPOSSIBLE
    assert fallbacks == (n_voxels if impossible else 0)
    sd = np.sqrt(C + V2 * mu**2 + tau2)
    low, high = float(lower[0, 0]), float(upper[0, 0])
    exact = stats.truncnorm((low - mu) / sd, (high - mu) / sd, mu, sd)
    y = effects.ravel().astype(np.float64)
    mean, variance = bn.truncated_moments_scalar(mu, sd, low, high)
    assert mean == pytest.approx(exact.mean(), rel=1e-6, abs=1e-9)
    assert y.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / y.size))
    kurtosis_error = np.sqrt(max((y - y.mean()).__pow__(4).mean() / y.var() ** 2 - 1, 0.1) / y.size)
    assert y.var() == pytest.approx(variance, rel=5 * kurtosis_error + 1e-4)
    if law == "truncated-normal" or impossible:
        assert stats.kstest(y, exact.cdf).pvalue > 1e-4


@settings(max_examples=200, deadline=None)
@given(
    low=st.floats(-3, 3), width=st.floats(0.001, 4), mu=st.floats(-1.5, 1.5),
    tau2=st.floats(0, 1),
)  # fmt: skip
def test_two_spike_law_has_the_wanted_moments_exactly(low, width, mu, tau2):
    """Moments of the law itself, its clipped normal integrated numerically."""
    sd = np.sqrt(C + V2 * mu**2 + tau2)
    mean, variance = bn.truncated_moments(mu, sd, low, low + width)
    m, h, scale, t, possible = (
        x.item() for x in two_spikes(mean, variance, np.float64(low), np.float64(low + width))
    )
    ratio = variance / (width**2 * m * (1 - m))
    if not possible:
        reach = min(m, 1 - m) / np.sqrt(m * (1 - m) / N_EFF)
        assert ratio < 1 / (N_EFF + 1) or reach <= 1.0001
        return
    x = np.linspace(-t, t, 20_001)
    inner = np.trapezoid(x**2 * stats.norm.pdf(x), x) + 2 * t * t * stats.norm.sf(t)
    s_variance = scale**2 * inner
    assert s_variance == pytest.approx(m * (1 - m) / N_EFF, rel=1e-6)
    assert 0 <= h <= 1
    wanted = h * h + (1 - h) ** 2 * s_variance / (m * (1 - m))
    assert wanted == pytest.approx(ratio, rel=1e-6)
    assert m - scale * t >= -1e-9  # S stays in [0, 1], so y in its bounds
    assert m + scale * t <= 1 + 1e-9


def test_words_of_the_table_in_rng_are_used(rng):
    """The spike follows w0 of the block (voxel, imputation, 0, 0), the truncated normal w3."""
    args = with_law(IMPUTE.sample(rng), "truncated-normal")
    lower, upper, mu, tau2, c, v2, keys, index, start, stop, _ = args
    effects, _ = IMPUTE.cpu(*args)
    k = 3
    sd = np.sqrt(c[k] + v2[k] * mu[k] ** 2 + tau2)
    key = tuple(int(x) for x in keys[k])
    for row, m in enumerate(range(start, stop)):
        u = uniform(philox(index, m, 0, 0, key)[3])
        want = stats.truncnorm.ppf(u, (lower[k] - mu[k]) / sd, (upper[k] - mu[k]) / sd, mu[k], sd)
        np.testing.assert_allclose(effects[row, k], want, atol=2e-6)


@pytest.mark.parametrize("law", CONSTRAINTS["imputation"].values)
def test_draws_depend_on_nothing_but_their_place(rng, law):
    """Smaller mask, other order of studies, other ranges of imputations: the same bits."""
    args = with_law(IMPUTE.sample(rng), law)
    lower, upper, mu, tau2, c, v2, keys, index, start, stop, _ = args
    whole, _ = IMPUTE.cpu(*args)
    v = np.arange(7, 50, 3)
    k = np.array([4, 0, 2])
    at = np.ix_(k, v)
    part, _ = IMPUTE.cpu(
        lower[at], upper[at], mu[at], tau2[v], c[k], v2[k], keys[k], index[v], start, stop, law
    )
    assert part.tobytes() == np.ascontiguousarray(whole[:, k][:, :, v]).tobytes()
    pieces = [IMPUTE.cpu(*args[:8], a, a + 1, law)[0] for a in range(start, stop)]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


@pytest.fixture
def project(rng):
    mask = np.zeros(SHAPES[4], bool)
    mask[20:26, 20:25, 20:22] = True
    space = Space(4, mask)
    (lower, upper, _, tau2, c, v2, *_), _ = IMPUTE.sample(rng)
    lower[0], upper[0] = 0.2, 0.2
    fit = RandomEffects(rng.normal(0.2, 0.1, (1, 60)), tau2, np.zeros((0, 60), np.int16), 0)
    terms = StudyTerms(np.ones(5), c, v2, 1 / c, np.zeros(5))
    return Bounds(lower, upper), fit, terms, np.ones((5, 1)), ["a", "b", "c", "d", "e"], space


def test_stage_follows_names_and_counts(project):
    bounds, fit, terms, x, names, space = project
    run = Settings(imputations=3, seed=4)
    seen = []
    effects, fallbacks = impute(
        bounds, fit, terms, x, names, run, space, "cpu", lambda *a: seen.append(a)
    )
    assert effects.shape == (3, 5, 60)
    assert fallbacks >= 5
    assert seen == [(60, 60)]
    turned = slice(None, None, -1)
    back = StudyTerms(*(getattr(terms, n)[turned].copy() for n in ("j", "c", "v2", "n1", "n2")))
    other, _ = impute(
        Bounds(bounds.lower[turned].copy(), bounds.upper[turned].copy()), fit, back, x,
        names[turned], run, space, "cpu",
    )  # fmt: skip
    np.testing.assert_array_equal(other[:, turned], effects)
    twin, _ = impute(bounds, fit, terms, x, names, run, space, "numpy")
    np.testing.assert_allclose(twin, effects, atol=1e-6)
    reseeded, _ = impute(bounds, fit, terms, x, names, Settings(imputations=3, seed=5), space)
    unknown = bounds.lower != bounds.upper
    assert (reseeded[:, unknown] != effects[:, unknown]).mean() > 0.99


def test_complete_data_need_one_imputation(project):
    _, fit, terms, x, names, space = project
    complete = Bounds(np.ones((5, 60), np.float32), np.ones((5, 60), np.float32))
    effects, fallbacks = impute(complete, fit, terms, x, names, Settings(), space)
    assert effects.shape == (1, 5, 60)
    assert (effects == 1).all()
    assert fallbacks == 0


def test_nan_is_an_error_with_its_place(project):
    bounds, fit, terms, x, names, space = project
    tau2 = fit.tau2.copy()
    tau2[0] = np.nan
    broken = RandomEffects(fit.beta.copy(), tau2, fit.discarded.copy(), 0)
    with pytest.raises(NumericalError, match=r"MNI \(10, -46, 8\) mm"):
        impute(bounds, broken, terms, x, names, Settings(imputations=2), space)
