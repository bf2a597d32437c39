"""SDM-PSI's own search of the mean, failures included: `--search sdm-6.21`."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from projects import write_mask, write_project
from reference_data import enge_bounds
from scipy import optimize, stats

import gpu_sdm
from gpu_sdm import cache
from gpu_sdm.analysis import prepare, silent
from gpu_sdm.backend import get_backend
from gpu_sdm.config import SEARCHES
from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.findings.refit import everywhere, site_effects
from gpu_sdm.findings.sites import Site
from gpu_sdm.finished import open_result
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.fit_mean_sdm import FIT_MEAN_SDM, TAU2_OF_MEAN
from gpu_sdm.problem import build_problem
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.estimate import estimate, search_of
from gpu_sdm.stages.smoothing import smooth_in_mask

ONE = np.ones(1)
GOLDEN = (3 - np.sqrt(5)) / 2


def plain_loss(mu, low, high, c, v2):
    """Of one voxel's studies, straight from the definition, with nothing guarded."""
    s_low, s_high = np.sqrt(c + v2 * low**2), np.sqrt(c + v2 * high**2)
    a, b = (high - mu) / s_high, (low - mu) / s_low
    # Plain, 0 = 1 - 1 would hide how the limits lie
    p = np.where(b > 0, stats.norm.sf(b) - stats.norm.sf(a), stats.norm.cdf(a) - stats.norm.cdf(b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(high - low < 1e-5, 0.5 * a**2, -np.log(p)).sum()


def scipys(low, high, c, v2):
    """Scipy's bounded Brent search of the same likelihood, from the same interval."""
    with np.errstate(invalid="ignore"):  # of infinite values
        return optimize.minimize_scalar(
            plain_loss, bounds=(low.min(), high.max()), args=(low, high, c, v2),
            method="bounded", options={"xatol": 1.22e-4},
        ).x  # fmt: skip


def brute_force(lower, upper, c, v2, discards):
    """Mean and dropped studies of one voxel by scipy's search and the leave-one-out rule."""
    left, dropped, mean = list(range(len(c))), [], np.nan
    for _ in range(discards):
        ends = []
        for k in left:
            rest = [i for i in left if i != k]
            low, high = lower[rest].astype(float), upper[rest].astype(float)
            ends.append(scipys(low, high, c[rest], v2[rest]))
        best = int(np.argmin(np.abs(ends)))
        mean = ends[best]
        dropped.append(left.pop(best))
    return mean, dropped


def awkward(rng):
    """The op's sample, with known, absent, mirrored and half-open studies."""
    (lower, upper, c, v2, X, crit, discards), _ = FIT_MEAN_SDM.sample(rng)
    upper[5, 6:9] = lower[5, 6:9]
    upper[6, 8:10] = lower[6, 8:10] + np.float32(4e-6)
    lower[7:, :4], upper[7:9, :6] = -np.inf, np.inf
    lower[:, 10], upper[:, 10] = -np.inf, np.inf  # nothing is known
    lower[:, 11], upper[:, 11] = -np.inf, 1.0
    lower[:, 12] = upper[:, 12] = np.linspace(-1, 1, 12)  # all is known
    lower[1:, 13], upper[1:, 13] = -np.inf, np.inf  # one study, of extreme bounds
    lower[:, 14:20], upper[:, 14:20] = -upper[:, 14:20], -lower[:, 14:20]
    return lower, upper, c, v2, X, crit, discards


def assert_same(one, two):
    for a, b in zip(one[:2], two[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=FIT_MEAN_SDM.rtol * np.abs(b).max())
    # Rounding decides where in its tolerance a search ends at few voxels
    assert np.quantile(np.abs(one[0] - two[0]), 0.9) < 1e-8
    assert (one[2] != two[2]).sum() <= 0.05 * one[2].size
    assert (one[3] == two[3]).mean() > 0.95


@pytest.mark.parametrize("discards", [0, 1, 3])
def test_compiled_equals_twin(rng, discards):
    args = (*awkward(rng)[:6], discards)
    twin, fast = FIT_MEAN_SDM.numpy(*args), FIT_MEAN_SDM.cpu(*args)
    assert_same(twin, fast)
    assert fast[2].shape == (discards, 40)
    if discards == 0:
        assert 0.2 < fast[3].mean() < 0.9  # searches that fail, and others


def test_two_studies(rng):
    lower = rng.normal(0, 0.5, (2, 30)).astype(np.float32)
    upper = lower + rng.uniform(0, 3, (2, 30)).astype(np.float32) * (rng.random((2, 30)) < 0.7)
    args = (lower, upper, np.array([0.2, 0.05]), np.array([0.2, 0.03]), np.ones((2, 1)), ONE, 0)
    assert_same(FIT_MEAN_SDM.numpy(*args), FIT_MEAN_SDM.cpu(*args))


def test_what_nothing_bounds_is_0_and_what_one_study_knows_is_its_effect():
    lower = np.array([[-np.inf, 0.3], [-np.inf, -np.inf]], np.float32)
    upper = np.array([[np.inf, 0.3], [np.inf, np.inf]], np.float32)
    c = np.full(2, 0.05)
    for fit in (FIT_MEAN_SDM.numpy, FIT_MEAN_SDM.cpu):
        beta, tau2, _, converged = fit(lower, upper, c, c, np.ones((2, 1)), ONE, 0)
        np.testing.assert_allclose(beta[0], [0, 0.3], atol=1e-6)
        np.testing.assert_allclose(tau2, 0, atol=1e-4)
        assert converged.all()


def test_search_is_scipys(rng):
    """An independent program for the same search; where it fails both stay at the first point."""
    (lower, upper, c, v2, X, crit, _), _ = FIT_MEAN_SDM.sample(rng)
    beta, _, _, converged = FIT_MEAN_SDM.cpu(lower, upper, c, v2, X, crit, 0)
    low, high = lower.astype(float), upper.astype(float)
    a, b = low.min(axis=0), high.max(axis=0)
    first = a + GOLDEN * (b - a)
    stuck = np.array([np.isnan(plain_loss(first[v], low[:, v], high[:, v], c, v2))
                      for v in range(40)])  # fmt: skip
    np.testing.assert_array_equal(~converged, stuck)
    np.testing.assert_array_equal(beta[0, stuck], first[stuck])
    assert 4 < stuck.sum() < 36
    theirs = np.array([scipys(low[:, v], high[:, v], c, v2) for v in range(40)])
    np.testing.assert_allclose(theirs[stuck], first[stuck], atol=1e-12)
    np.testing.assert_allclose(beta[0, ~stuck], theirs[~stuck], atol=5e-4)
    assert np.median(np.abs(beta[0] - theirs)) < 1e-8


def test_leave_one_out_by_brute_force(rng):
    (lower, upper, c, v2, X, crit, discards), _ = FIT_MEAN_SDM.sample(rng)
    beta, _, discarded, _ = FIT_MEAN_SDM.cpu(lower, upper, c, v2, X, crit, discards)
    for v in range(0, 40, 8):
        mean, dropped = brute_force(lower[:, v], upper[:, v], c, v2, discards)
        assert discarded[:, v].tolist() == dropped
        assert beta[0, v] == pytest.approx(mean, abs=5e-5)


def test_tau2_of_a_mean_is_that_of_the_fit(rng):
    args = awkward(rng)
    for fit in (FIT_MEAN_SDM, FIT_BOUNDS):
        beta, tau2, _, _ = fit.cpu(*args)
        np.testing.assert_array_equal(TAU2_OF_MEAN.cpu(*args[:4], beta[0]), tau2)
    data, _ = TAU2_OF_MEAN.sample(rng)
    twin, fast = TAU2_OF_MEAN.numpy(*data), TAU2_OF_MEAN.cpu(*data)
    np.testing.assert_allclose(fast, twin, rtol=0, atol=TAU2_OF_MEAN.rtol * twin.max())
    assert (twin > 0.01).any()


def test_threads_and_blocks_do_not_change_a_bit(rng):
    args = awkward(rng)
    whole = FIT_MEAN_SDM.cpu(*args)
    before = numba.get_num_threads()
    for threads, size in ((1, 40), (1, 7), (min(2, before), 13), (min(2, before), 1)):
        numba.set_num_threads(threads)
        try:
            parts = [
                FIT_MEAN_SDM.cpu(args[0][:, s : s + size], args[1][:, s : s + size], *args[2:])
                for s in range(0, 40, size)
            ]
        finally:
            numba.set_num_threads(before)
        for a, *pieces in zip(whole, *parts, strict=True):
            np.testing.assert_array_equal(a, np.concatenate(pieces, axis=-1))


# ---------------------------------------------------------------- real bounds


@pytest.fixture(scope="module")
def some(enge2021):
    lower, upper, c, v2, _ = enge_bounds(enge2021, 60, 7)
    return lower, upper, c, v2


def test_real_bounds(some):
    """Against scipy's search, the twin and the optimum."""
    lower, upper = some[:2]
    args = (*some, np.ones((50, 1)), ONE, 3)
    beta, _, discarded, converged = FIT_MEAN_SDM.cpu(*args)
    exact = FIT_BOUNDS.cpu(*args)
    few = np.arange(0, 60, 10)
    twin = FIT_MEAN_SDM.numpy(lower[:, few], upper[:, few], *args[2:])
    np.testing.assert_allclose(twin[0][0], beta[0, few], atol=1e-6)
    for v in (4, 9):  # where both differ from the optimum
        mean, dropped = brute_force(lower[:, v], upper[:, v], *some[2:], 3)
        assert abs(mean - exact[0][0, v]) > 0.005
        assert beta[0, v] == pytest.approx(mean, abs=5e-5)
        assert discarded[:, v].tolist() == dropped
    # The tolerance where nothing fails, the median voxel; some fail.
    apart = np.abs(beta[0] - exact[0][0])
    assert np.median(apart) < 1.3e-4
    assert 0.05 < (apart > 0.02).mean() < 0.5
    # With all studies the search fails at two voxels of five; the rule follows fewer such.
    assert (~FIT_MEAN_SDM.cpu(*args[:6], 0)[3]).mean() > 0.3
    assert 0.05 < (~converged).mean() < 0.3
    # Without the study of extreme bounds nothing can fail.
    tame = np.abs(upper).max(axis=1) < 5
    rest = (*(a[tame] for a in some), np.ones((tame.sum(), 1)), ONE, 2)
    found = FIT_MEAN_SDM.cpu(*rest)
    assert found[3].all()
    assert (np.abs(found[0] - FIT_BOUNDS.cpu(*rest)[0]) < 5e-4).mean() > 0.95


# ---------------------------------------------------------------- the stage


@pytest.fixture
def stage(rng):
    mask = np.zeros(SHAPES[4], bool)
    mask[20:26, 20:25, 20:22] = True
    space = Space(4, mask)
    (lower, upper, c, v2, *_), _ = FIT_MEAN_SDM.sample(rng)
    at = rng.integers(0, 40, space.n_voxels)
    terms = StudyTerms(np.ones(12), c, v2, 1 / c, np.zeros(12))
    return Bounds(lower[:, at], upper[:, at]), terms, space


def test_only_the_mean_is_searched_so(stage):
    bounds, terms, space = stage
    ones, wide = np.ones((12, 1)), np.column_stack([np.ones(12), np.linspace(-1, 1, 12)])
    assert search_of(ones, "sdm-6.21") is FIT_MEAN_SDM
    for x, search in ((ones, "optimum"), (wide, "sdm-6.21"), (2 * ones, "sdm-6.21")):
        assert search_of(x, search) is FIT_BOUNDS
    args = (bounds, terms, ones, ONE, 2, space)
    # In this order a cache that mixed them up would give the former for the latter
    default, theirs = estimate(*args), estimate(*args, search="sdm-6.21")
    again, plain = estimate(*args, search="sdm-6.21"), estimate(*args, keep=False)
    for search, one, two in ((FIT_BOUNDS, default, plain), (FIT_MEAN_SDM, theirs, again)):
        raw = search.cpu(bounds.lower, bounds.upper, terms.c, terms.v2, ones, ONE, 2)
        for got in (one, two):
            np.testing.assert_array_equal(got.beta[0], smooth_in_mask(raw[0][0], space))
            tau2 = raw[1]
            if search is FIT_MEAN_SDM:  # which takes it given the smoothed mean
                data = bounds.lower, bounds.upper, terms.c, terms.v2
                tau2 = TAU2_OF_MEAN.cpu(*data, smooth_in_mask(raw[0][0], space))
                assert np.abs(tau2 - raw[1]).max() > 1e-4
            np.testing.assert_array_equal(got.tau2, smooth_in_mask(tau2, space))
            np.testing.assert_array_equal(got.discarded, raw[2])
            assert got.not_converged == (~raw[3]).sum()
    assert default.not_converged == 0
    assert np.abs(default.beta - theirs.beta).max() > 0.05
    both = [estimate(bounds, terms, wide, np.eye(2)[0], 2, space, search=s) for s in SEARCHES]
    np.testing.assert_array_equal(both[0].beta, both[1].beta)
    assert len([e for e in cache.entries() if e.kind == "estimate"]) >= 3


def test_a_run_and_what_begins_again_from_it(tmp_path, rng):
    """The run, a permutation of whole studies and the effects at sites search alike."""
    project = write_project(tmp_path / "project", 9, negative_mm=(10, -30, 30))
    mask = write_mask(tmp_path / "mask.nii.gz")
    asked = {"voxel_size": 4, "mask": mask, "permutations": 3, "imputations": 4,
             "exchange": "studies", "statistic": ("voxel",)}  # fmt: skip
    analyses, problems = {}, {}
    for search in SEARCHES:
        settings = gpu_sdm.Settings(**asked, compat="sdm-6.21", search=search)
        found = prepare(gpu_sdm.read(project, compat=True), settings, get_backend("cpu"))
        analyses[search], problems[search] = found, build_problem(found, silent, {})[0]
        observed = problems[search].observed_z
        np.testing.assert_array_equal(problems[search].refit.z(found.plan, 0), observed)
    z = [p.observed_z for p in problems.values()]
    assert np.abs(z[0] - z[1]).max() > 1e-6

    settings = analyses["sdm-6.21"].settings
    gpu_sdm.run(gpu_sdm.read(project, compat=True), settings, out=tmp_path / "out", backend="cpu")
    finished = open_result(tmp_path / "out")
    np.testing.assert_array_equal(finished.map("z"), z[1])
    again = finished.analysis(get_backend("cpu"))
    few = np.sort(rng.choice(finished.space.n_voxels, 20, replace=False))
    pooled = site_effects(again, [Site(str(v), "point", np.array([v]), (0, 0, 0)) for v in few])
    for name in ("g", "z", "tau2", "q"):
        np.testing.assert_array_equal(
            np.float32(getattr(pooled.pooled(), name)), finished.map(name)[few]
        )
    whole, failed = everywhere(again)
    np.testing.assert_array_equal(np.float32(whole.g), finished.map("g"))
    assert failed == finished.run["voxels_not_converged"]
