"""SDM-PSI's rounding of known effects, and what its search of tau2 makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from fidelity_rounding import (
    HIGHEST,
    Mistaken,
    foretold,
    known_limits,
    mistaken,
    searched_tau2,
    single_j,
    tau2_with,
)

import gpu_sdm
from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.ops.fit_mean_sdm import GOLDEN, TAU2_OF_MEAN
from gpu_sdm.stages.effects import study_terms
from gpu_sdm.statistics import hedges_j

T_THRESHOLD = 30.599437671092225  # of booth2001, whose 5 subjects have peaks of t = 50


def test_j_misses_by_what_single_precision_takes_away():
    df = np.arange(4, 100)
    off = np.array([single_j(int(d)) for d in df]) / hedges_j(df) - 1
    assert 1e-6 < np.abs(off).max() < 2e-5
    assert np.abs(off[df < 12]).max() < 2e-7
    assert off[df == 66] == pytest.approx(4.2e-6, rel=0.05)  # n = 67: 4.21e-6 in its bounds


def test_limits_are_the_same_number_or_neighbours(rng):
    t = rng.uniform(3, 60, 2000)
    known = known_limits(t, 2.9, 12)
    steps = np.abs(known.upper - known.lower) / np.spacing(known.lower)
    assert steps.max() <= 3
    assert 0.02 < (steps > 0).mean() < 0.6
    booth = known_limits(np.array([50.0]), T_THRESHOLD, 5)
    assert booth.lower[0] == np.float32(17.84124)
    assert booth.upper[0] == np.nextafter(booth.lower[0], np.float32(np.inf))
    gaillard = known_limits(np.array([50.0]), 4.500199256815951, 9)
    assert gaillard.upper[0] == np.nextafter(gaillard.lower[0], np.float32(0))


def voxel(rng, known):
    """Forty studies within their thresholds and one whose effect is known: limits, terms."""
    b = rng.uniform(0.4, 1.2, 40)
    lower, upper = np.append(-b, known), np.append(b, known)
    df = np.append(rng.integers(9, 30, 40), 4.0)
    v2 = 1 - (df - 2) / (df * hedges_j(df) ** 2)
    terms = StudyTerms(hedges_j(df), 1 / (df + 1), v2, df + 1, np.zeros(41))
    return lower.astype(np.float32), upper.astype(np.float32), terms


def test_the_search_ends_where_the_rounding_lets_it(rng):
    at = known_limits(np.array([50.0]), T_THRESHOLD, 5)
    lower, upper, terms = voxel(rng, at.lower[0])
    known, mean = lower == upper, 0.3
    assert known.sum() == 1
    best = TAU2_OF_MEAN.on("cpu")(
        lower[:, None], upper[:, None], terms.c, terms.v2, np.array([mean])
    )[0]
    assert searched_tau2(lower, upper, terms, known, mean) == pytest.approx(best, abs=2e-3)
    none = np.zeros(41, bool)
    upper[-1] = at.upper[0]  # one step above: down until the probability is rounded to 0
    ends = [searched_tau2(lower, upper, terms, none, mean) for mean in np.linspace(0.2, 0.4, 21)]
    assert 3 < np.median(ends) < 12
    assert len(set(ends)) > 10  # where it ends is chance
    upper[-1] = np.nextafter(at.lower[0], np.float32(0))  # one below: no number from the start
    assert searched_tau2(lower, upper, terms, none, 0.3) == pytest.approx(GOLDEN * HIGHEST)


def test_only_the_known_effect_whose_variances_differ_is_mistaken(tmp_path):
    rows = [("booth", 5, T_THRESHOLD), ("other", 12, 4.0)]
    table = ["study\tn1\tt_thr", *("\t".join(map(str, row)) for row in rows)]
    (tmp_path / "sdm_table.txt").write_text("\n".join(table) + "\n")
    (tmp_path / "booth.other_mni.txt").write_text("-50,-36,2,50.0\n")
    (tmp_path / "other.other_mni.txt").write_text("10,20,30,8.0\n")
    studies = gpu_sdm.read(tmp_path).studies
    value = [known_limits(s.peaks.t, s.t_threshold, s.n1).lower[0] for s in studies]
    lower = np.tile(np.array([[-10.9], [-1.1]], np.float32), 6)
    upper = -lower
    for k, voxels in enumerate(([1, 2], [4])):
        lower[k, voxels] = upper[k, voxels] = value[k]
    assert foretold(studies, Bounds(lower, upper)) == (2, 2)
    (one,) = mistaken(studies, Bounds(lower, upper), study_terms(studies))
    assert (one.study, one.voxels.tolist()) == (0, [1, 2])
    lower, upper = lower.copy(), upper.copy()  # `Bounds` has frozen them
    lower[1, 4] = upper[1, 4] = np.nextafter(value[1], np.float32(0))
    assert foretold(studies, Bounds(lower, upper)) == (1, 2)


def test_only_where_it_is_mistaken_is_tau2_another(rng):
    at = known_limits(np.array([50.0]), T_THRESHOLD, 5)
    lower, upper, terms = voxel(rng, at.lower[0])
    bounds = Bounds(*(np.repeat(limit[:, None], 3, axis=1) for limit in (lower, upper)))
    mean = np.full(3, 0.3)
    plain = tau2_with(bounds, terms, mean, [])
    found = tau2_with(bounds, terms, mean, [Mistaken(40, np.array([1]), at.upper[0])])
    assert found[1] > plain[1] + 1
    assert found[[0, 2]].tolist() == plain[[0, 2]].tolist()
