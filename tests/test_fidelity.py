"""Scores of bench/fidelity*.py against numpy, scipy and counting."""

from __future__ import annotations

import json
import math

import fidelity_clusters
import numpy as np
import pytest
from fidelity_bounds import COLUMNS, score_bounds
from fidelity_scores import (
    Peak,
    agreement,
    cluster_peaks,
    dice,
    nearest,
    pull,
    reach,
    score_maps,
)
from scipy import ndimage, stats
from scipy.spatial.distance import cdist

from gpu_sdm.data import Bounds
from gpu_sdm.findings.peaks import local_maxima
from gpu_sdm.spaces import SHAPES, Space


@pytest.fixture
def space():
    mask = np.zeros(SHAPES[4], bool)
    mask[10:26, 12:27, 9:22] = True
    mask[15:18, 15:18, 15:18] = False
    return Space(4, mask)


# ---------------------------------------------------------------- maps


def test_agreement_is_numpys_and_scipys(rng):
    theirs = rng.normal(0.2, 0.3, 500)
    ours = 0.9 * theirs + rng.normal(0.05, 0.1, 500)
    keep = rng.random(500) < 0.7
    for chosen in (None, keep):
        a, b = (ours, theirs) if chosen is None else (ours[chosen], theirs[chosen])
        got = agreement(ours, theirs, chosen)
        line = stats.linregress(b, a)
        assert got.r == pytest.approx(line.rvalue, rel=1e-12)
        assert got.slope == pytest.approx(line.slope, rel=1e-12)
        assert got.bias == pytest.approx(a.mean() - b.mean(), abs=1e-14)
        assert got.rmse == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), rel=1e-12)


def test_agreement_far_from_zero_constant_and_broken(rng):
    theirs = 1e4 + rng.normal(size=300)
    ours = theirs + rng.normal(size=300)
    assert agreement(ours, theirs).r == pytest.approx(np.corrcoef(ours, theirs)[0, 1], rel=1e-9)
    flat = agreement(np.full(300, 0.1), theirs)
    assert math.isnan(flat.r)
    assert flat.slope == pytest.approx(0, abs=1e-12)
    assert math.isnan(agreement(ours, np.full(300, 0.1)).slope)
    ours[3] = np.nan
    for keep in (None, np.zeros(300, bool)):
        with pytest.raises(ValueError, match="finite"):
            agreement(ours, theirs, keep)
    assert agreement(ours, theirs, np.arange(300) != 3).r > 0.5


def test_maps_are_scored_in_every_region_that_holds_a_voxel(rng):
    ours = {"g": rng.normal(size=50), "z": rng.normal(size=50), "own": np.zeros(50)}
    theirs = {"g": rng.normal(size=50), "z": ours["z"], "tau2": np.zeros(50)}
    half = np.arange(50) < 25
    got = score_maps(ours, theirs, {"all": half | True, "half": half, "none": half & False})
    assert set(got) == {(m, r) for m in ("g", "z") for r in ("all", "half")}
    assert got["g", "half"].r == pytest.approx(stats.pearsonr(ours["g"][:25], theirs["g"][:25])[0])
    assert got["z", "all"] == pytest.approx((1, 1, 0, 0))


# ---------------------------------------------------------------- voxels and peaks


def test_dice_counts():
    a, b = np.array([1, 1, 1, 0, 0], bool), np.array([0, 1, 1, 1, 0], bool)
    assert dice(a, b) == pytest.approx(2 * 2 / 6)
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0
    assert math.isnan(dice(a & False, a & False))


def test_peaks_of_clusters_are_scipys(space, rng):
    z = ndimage.gaussian_filter(rng.normal(size=space.shape), 1.2)
    flat = space.extract(z)
    passing = flat > 0.15
    got = cluster_peaks(flat, passing, space, 4)
    labels, n = ndimage.label(space.embed(passing) > 0, np.ones((3, 3, 3)))
    sizes = ndimage.sum_labels(np.ones(space.shape), labels, np.arange(1, n + 1))
    where = ndimage.maximum_position(z, labels, np.arange(1, n + 1))
    mm = {
        tuple(space.affine[:3, :3] @ at + space.affine[:3, 3]): (z[at], size)
        for at, size in zip(where, sizes, strict=True)
        if size >= 4
    }
    assert len(got) > 3
    assert {p.mm for p in got} == set(mm)
    for peak in got:
        assert (peak.z, peak.voxels) == pytest.approx(mm[peak.mm])
    assert [p.voxels for p in got] == sorted((p.voxels for p in got), reverse=True)
    assert cluster_peaks(flat, flat > 9, space, 1) == []


def test_local_maxima_by_looking_around(space, rng):
    values = ndimage.gaussian_filter(rng.normal(size=space.shape), 1.0).astype(np.float32)
    flat = space.extract(values)
    got = sorted(local_maxima(flat, np.flatnonzero(flat > 0.05), space).tolist())
    ijk = space.ijk()
    wanted = []
    for v in np.flatnonzero(flat > 0.05):
        beside = np.abs(ijk - ijk[v]).max(axis=1) <= 1
        if flat[v] == flat[beside].max():
            wanted.append(v)
    assert len(wanted) > 10
    assert got == wanted


def test_nearest_is_the_least_of_all_distances(rng):
    a, b = rng.normal(size=(7, 3)), rng.normal(size=(20, 3))
    far, which = nearest(a, b)
    np.testing.assert_allclose(far, cdist(a, b).min(axis=1))
    np.testing.assert_array_equal(which, cdist(a, b).argmin(axis=1))
    far, which = nearest(a, np.empty((0, 3)))
    assert np.isinf(far).all()
    assert (which == -1).all()


def test_rows_of_peaks(space):
    real = [Peak((50.0, -78.0, -36.0), 7.0, 90)]
    z = np.arange(space.n_voxels, dtype=float)
    mine = [Peak((50.0, -74.0, -36.0), 6.5, 80), Peak((30.0, -50.0, 0.0), 9.0, 70)]
    row = fidelity_clusters.peak_rows(
        real, mine, np.array([[50.0, -78.0, -33.0]]), z, space, np.array([6.0])
    )[0]
    assert (row["cluster_peak_mm"], row["cluster_peak_z"]) == (4.0, 6.5)
    assert (row["local_peak_mm"], row["local_peak_z"]) == (3.0, 6.0)
    here = np.flatnonzero((space.mm() == (50, -78, -36)).all(axis=1))
    assert row["z_ours_there"] == z[here[0]]
    alone = fidelity_clusters.peak_rows(real, [], np.empty((0, 3)), z, space, np.empty(0))[0]
    assert alone["cluster_peak_mm"] is None
    assert alone["local_peak_mm"] is None


# ---------------------------------------------------------------- bounds


def test_bounds_of_each_study(rng):
    b = np.array([0.5, 0.8, 0.3])
    kernels = rng.random((3, 400)) * (rng.random((3, 400)) < 0.4)
    kernels[2] = 0  # no peak in reach

    def bounds(k):
        lower, upper = -b[:, None] + k * (b[:, None] + 0.6), b[:, None] + k * (0.6 - b[:, None])
        return Bounds(lower.astype(np.float32), upper.astype(np.float32))

    other = np.where(rng.random((3, 400)) < 0.1, 0, kernels) ** 1.1
    ours, theirs = bounds(other), bounds(kernels)
    rows = score_bounds(ours, theirs, ("a", "b", "c"), b)
    for k in (0, 1):
        r = stats.pearsonr(ours.lower[k].astype(float), theirs.lower[k].astype(float))[0]
        assert rows[k]["lower_r"] == pytest.approx(r)
        assert rows[k]["kernel_r"] == pytest.approx(stats.pearsonr(other[k], kernels[k])[0])
        both = 2 * ((other[k] > 0) & (kernels[k] > 0)).sum()
        wanted = both / ((other[k] > 0).sum() + (kernels[k] > 0).sum())
        assert rows[k]["reach_dice"] == pytest.approx(wanted)
    assert rows[2]["reach_dice"] is None
    assert rows[2]["kernel_r"] is None
    assert set(rows[0]) == {"study", *COLUMNS}
    json.dumps(rows, allow_nan=False)


def test_reach_and_pull_of_an_untouched_study():
    edge = np.full(5, 0.7, np.float32)
    assert not reach(-edge, edge, 0.7).any()
    np.testing.assert_allclose(pull(-edge, edge, 0.7), 0, atol=1e-6)
    # The kernel's last value, 2^-9, moves a bound.
    k = 2.0**-9
    assert reach(-edge + k * 1.5, edge + k * 0.1, 0.7).all()
    assert pull(np.full(2, 0.9), np.full(2, 0.9), 0.7) == pytest.approx(1)
