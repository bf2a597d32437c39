"""Runs of ours that differ by their imputations alone, and how theirs stands among them."""

from __future__ import annotations

import numpy as np
import pytest
from fidelity_ledger import Ledger
from fidelity_maps import mean_model
from fidelity_noise import SCORED, Judge, compare, mean_of, runs_of
from projects import write_project

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.spaces import SHAPES, Space


def test_each_run_is_that_of_the_whole_analysis(tmp_path):
    project = write_project(tmp_path / "project", studies=5)
    settings = gpu_sdm.Settings(
        voxel_size=4, imputations=3, permutations=1, exchange="studies", compat="sdm-6.21"
    )
    analysis = prepare(gpu_sdm.read(project), settings, get_backend("cpu", 2))
    zero, seven = runs_of(analysis, (settings.seed, 7))
    pooled = mean_model(analysis)
    for name in SCORED:
        np.testing.assert_array_equal(zero[name], getattr(pooled, name))
    np.testing.assert_array_equal(zero["var"], pooled.se**2)
    assert not np.array_equal(zero["g"], seven["g"])
    mean = mean_of([zero, seven])
    np.testing.assert_allclose(mean["g"], (zero["g"] + seven["g"]) / 2)
    variance = (zero["var"] + seven["var"]) / 2
    np.testing.assert_allclose(mean["z"], mean["g"] / np.sqrt(variance))


@pytest.fixture
def space():
    mask = np.zeros(SHAPES[4], bool)
    mask[15:31, 15:35, 15:30] = True
    return Space(4, mask)


def noisy(space, rng, shift=0):
    """One run of a law: a hill, moved by `shift` voxels along x, under noise of its own."""
    places = space.mm() / space.voxel_size
    away = places - places.mean(axis=0) - (shift, 0, 0)
    hill = np.exp(-(away**2).sum(axis=1) / 40)
    g = 0.5 * hill + 0.01 * rng.standard_normal(space.n_voxels)
    maps = {name: g + 0.01 * rng.standard_normal(space.n_voxels) for name in ("tau2", "i2", "q")}
    return maps | {"g": g, "var": np.full(space.n_voxels, 0.0025), "z": g / 0.05}


def test_a_run_of_the_same_law_stands_among_ours_and_another_does_not(space, rng):
    ours = [noisy(space, rng) for _ in range(5)]
    judge = Judge(space, 4.0, 5.0)
    for shift, stands in ((0, True), (2, False)):
        ledger = Ledger()
        compare(ledger, noisy(space, rng, shift), ours, judge)
        found = {(row["where"], row["what"]): row["ours"] for row in ledger.rows}
        for what in ("Dice", "r(g)", "r(q)"):
            theirs = found["SDM-PSI, mean of 4 of ours: mean of 5", what]
            lowest = found["one of ours, mean of the 4 others: lowest of 5", what]
            assert (theirs > lowest - 0.005) == stands
            # The mean of runs has less noise than one of them.
            assert theirs > found["SDM-PSI, one of ours: mean of 5", what]
        near = found["SDM-PSI, one of ours: mean of 5", "peaks within 6 mm"]
        assert (near > 0.5) == stands
        assert found["two of ours: mean of 20", "peaks within 6 mm"] > 0.5


def test_no_cluster_is_no_peak(space, rng):
    judge = Judge(space, 4.0, 5.0)
    flat = judge.see(noisy(space, rng) | {"z": np.zeros(space.n_voxels)})
    other = judge.see(noisy(space, rng))
    assert flat.peaks.shape == (0, 3)
    assert np.isnan(judge.scores(flat, other)["peaks within 6 mm"])
    assert judge.scores(other, flat)["peaks within 6 mm"] == 0
