"""p values from maxima: against SDM-PSI's own maps, scipy and counting."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gpu_sdm.errors import NumericalError, SettingError
from gpu_sdm.inference import (
    corrected_maps,
    critical_value,
    fdr_q,
    fwe_p,
    fwe_p_two_sided,
    p_standard_error,
    permutations_notice,
    tie_tolerance,
    uncorrected_maps,
)
from gpu_sdm.io.nifti import read_map
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.spaces import Space

VALUES = st.lists(st.integers(-40, 40), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def mod1(enge2021):
    space = Space(2, np.asarray(nibabel.load(enge2021 / "sdm_mask.nii.gz").dataobj) != 0)
    folder = enge2021 / "mod1"
    maxima = np.loadtxt(folder / "maxsMinsZ.asc").T
    z = read_map(folder / "mod1_z.nii.gz", space)
    return space, folder, z, {"voxel": maxima[:2], "tfce": maxima[2:]}


def test_corrected_p_of_sdm_psi_from_its_maxima(mod1):
    space, folder, z, maxima = mod1
    neighbours = space.neighbours()
    stats_of = {
        "voxel": (z, -z),
        "tfce": (TFCE.cpu(z, neighbours), TFCE.cpu(-z, neighbours)),
    }
    for statistic, sides in stats_of.items():
        ours = corrected_maps(statistic, *sides, maxima[statistic])
        for side in ("", "_neg"):
            theirs = 1 - np.abs(read_map(folder / f"corrp_{statistic}{side}.nii.gz", space))
            found = ours[f"p_fwe_{statistic}{side}"]
            assert np.abs(found - theirs).max() <= 1e-3 + 1e-6, (statistic, side)
            if (statistic, side) != ("tfce", "_neg"):  # where nothing at all is found
                assert theirs.min() < 0.03


def test_uncorrected_p_of_sdm_psi(mod1):
    space, folder, z, _ = mod1
    maps = uncorrected_maps(z)
    for name, theirs in {"p": "uncorrp", "p_neg": "uncorrp_neg"}.items():
        np.testing.assert_allclose(
            maps[name], 1 - read_map(folder / f"{theirs}.nii.gz", space), atol=1e-6
        )


def test_published_critical_values(mod1):
    """algorithm.md 12: the 95 % of SDM-PSI's 999 permutations."""
    *_, maxima = mod1
    found = [critical_value(m[1:], 0.05) for pair in maxima.values() for m in pair]
    np.testing.assert_allclose(found[:2], [4.380, 4.409], atol=0.01)
    np.testing.assert_allclose(found[2:], [7232, 7598], rtol=0.01)


def test_uncorrected_maps_in_the_far_tail():
    z = np.array([-40.0, -1.0, 0.0, 1.6448536269514722, 12.0, 60.0])
    maps = uncorrected_maps(z)
    np.testing.assert_allclose(maps["p"], stats.norm.sf(z), rtol=1e-12)
    np.testing.assert_allclose(maps["p_neg"], stats.norm.cdf(z), rtol=1e-12)
    np.testing.assert_allclose(maps["log_p"], -stats.norm.logsf(z) / np.log(10), rtol=1e-12)
    np.testing.assert_allclose(maps["log_p_neg"], -stats.norm.logcdf(z) / np.log(10), rtol=1e-12)
    assert maps["p"][5] == 0
    assert 700 < maps["log_p"][5] < 900
    assert maps["log_p"][3] == pytest.approx(-np.log10(0.05))


@given(VALUES, VALUES, VALUES, st.integers(0, 3))
def test_fwe_p_is_a_count(stat, maxima, maxima_neg, gamma):
    p = fwe_p(np.array(stat), np.array(maxima), gamma)
    np.testing.assert_array_equal(
        p, [sum(m >= s - gamma for m in maxima) / len(maxima) for s in stat]
    )
    n = min(len(maxima), len(maxima_neg))
    pairs = list(zip(maxima[:n], maxima_neg[:n], strict=True))
    two = fwe_p_two_sided(np.array(stat), np.array(maxima[:n]), np.array(maxima_neg[:n]), gamma)
    np.testing.assert_array_equal(
        two, [sum(max(pair) >= abs(s) - gamma for pair in pairs) / n for s in stat]
    )


@given(VALUES, VALUES)
def test_a_larger_statistic_never_has_a_larger_p(stat, maxima):
    ordered = np.sort(np.array(stat))
    assert (np.diff(fwe_p(ordered, np.array(maxima))) <= 0).all()


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_no_p_is_zero_and_both_sides_cost_at_most_their_sum(permutations, seed):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((permutations, 30))
    top, top_neg = z.max(axis=1), -z.min(axis=1)
    maps = corrected_maps("voxel", z[0], -z[0], np.stack([top, top_neg]))
    one, neg, two = (maps[f"p_fwe_voxel{s}"] for s in ("", "_neg", "_two_sided"))
    assert min(one.min(), neg.min(), two.min()) >= 1 / permutations
    nearer = np.where(z[0] > 0, one, neg)
    assert (two >= nearer).all()
    # A permutation counts for both sides where it counts for either.
    either = fwe_p(np.abs(z[0]), top) + fwe_p(np.abs(z[0]), top_neg)
    assert (two <= either + 1e-12).all()


def test_ties_are_settled_by_the_tolerance():
    maxima = np.array([[3.0, 3.0 - 1e-7, 1.0, 0.5], [0.5, 0.5, 0.5, 0.5]])
    z = np.array([3.0])
    assert corrected_maps("voxel", z, -z, maxima)["p_fwe_voxel"] == 1 / 4
    assert corrected_maps("voxel", z, -z, maxima, 1e-6)["p_fwe_voxel"] == 2 / 4
    scores = np.array([1e4, 0.0])
    found = corrected_maps("tfce", scores, scores[::-1], maxima * 1e4 / 3, 1e-6)
    np.testing.assert_array_equal(found["p_fwe_tfce"], [2 / 4, 1])
    np.testing.assert_allclose(tie_tolerance(np.array([-2.0, 0.0]), 1e-3), [2e-3, 0])


def test_what_exceeds_the_critical_value_is_significant(rng):
    maxima = rng.standard_normal(1000)
    limit = critical_value(maxima, 0.05)
    above, at = np.nextafter(limit, np.inf), limit
    np.testing.assert_array_equal(fwe_p(np.array([above, at]), maxima), [0.050, 0.051])
    assert critical_value(maxima[:10], 0.05) == np.inf
    assert critical_value(maxima[:20], 0.05) == maxima[:20][np.argsort(maxima[:20])[-2]]
    for alpha in (0, 1, -0.1, np.nan):
        with pytest.raises(SettingError, match=r"alpha is .* must lie in \(0, 1\)"):
            critical_value(maxima, alpha)


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40)
def test_q_is_scipy_s(n, seed, ties):
    p = np.random.default_rng(seed).beta(0.5, 2, n)
    p = p.round(1) if ties else p
    q = fdr_q(p)
    np.testing.assert_allclose(q, stats.false_discovery_control(p, method="bh"), rtol=1e-12)
    assert (q >= p - 1e-15).all()
    # What passes at q <= .05 is what the step-up procedure rejects.
    ranked = np.sort(p)
    below = np.flatnonzero(ranked <= 0.05 * np.arange(1, n + 1) / n + 1e-15)
    assert (q <= 0.05 + 1e-15).sum() == (below[-1] + 1 if len(below) else 0)


def test_q_of_what_is_no_p_is_refused():
    for bad in (np.nan, -0.1, 1.2):
        with pytest.raises(NumericalError, match="at 1 voxels"):
            fdr_q(np.array([0.1, bad]))


def test_nan_is_an_error():
    good, bad = np.array([1.0, 2.0]), np.array([1.0, np.nan])
    with pytest.raises(NumericalError, match="1 voxels"):
        fwe_p(bad, good)
    for maxima in (bad, bad[::-1]):
        with pytest.raises(NumericalError, match="maximum"):
            fwe_p(good, maxima)
        with pytest.raises(NumericalError, match="maximum"):
            fwe_p_two_sided(good, good, maxima)
    with pytest.raises(SettingError, match="no permutation"):
        fwe_p(good, np.array([]))


def test_a_small_null_is_said_to_be_small():
    assert permutations_notice(100) is None
    notice = permutations_notice(50)
    assert notice is not None
    assert notice.kind == "few_permutations"
    assert "smallest corrected p is 0.02" in notice.message
    assert "standard error 0.031" in notice.message
    draws = np.random.default_rng(3).binomial(1000, 0.05, 20000) / 1000
    assert p_standard_error(0.05, 1000) == pytest.approx(draws.std(), rel=0.03)
