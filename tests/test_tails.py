"""The fitted tail: PALM's numbers, scipy's functions, and laws whose tail is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from projects import write_mask, write_project
from scipy import stats

import gpu_sdm
from gpu_sdm.errors import NumericalError, SettingError
from gpu_sdm.findings.sites import cluster_sites
from gpu_sdm.findings.tail import BELOW, COUNTED, NO_FIT, tail_table
from gpu_sdm.finished import open_result
from gpu_sdm.tails import anderson_darling, fit_tail, goodness_of_fit, survival

# palm_pareto.m of PALM (github.com/andersonwinkler/PALM, commit 06308a0), its arithmetic run in
# Octave 7.3 on the 999 Gumbel quantiles below: number, threshold, scale, shape (sign as here), A2.
PALM_FIT = (249, 4.31234627818, 0.279478644124, -0.0434779791962, 0.01653963342)
PALM_P = {5: 0.01847000724, 5.5: 0.00227076984, 6: 0.0002262187802, 6.5: 1.742339848e-05,
          7: 9.724826008e-07}  # fmt: skip


def gumbel_quantiles() -> np.ndarray:
    i = np.arange(1, 1000)
    return 4 - 0.25 * np.log(-np.log((i - 0.5) / 999))


def test_fit_and_p_are_palms():
    fit = fit_tail(np.r_[99.0, gumbel_quantiles()])  # the observed one is left out
    n, threshold, scale, shape, a2 = PALM_FIT
    assert fit.accepted
    assert len(fit.excess) == n
    assert fit.threshold == pytest.approx(threshold, rel=1e-11)
    assert fit.scale == pytest.approx(scale, rel=1e-11)
    assert fit.shape == pytest.approx(shape, rel=1e-10)
    found = anderson_darling(fit.excess[None], np.array([fit.shape]), np.array([fit.scale]))
    assert found[0] == pytest.approx(a2, rel=1e-8)
    np.testing.assert_allclose(fit.p(np.array(list(PALM_P))), list(PALM_P.values()), rtol=1e-7)


@pytest.mark.parametrize("shape", [-0.6, -0.1, -1e-12, 0.0, 1e-12, 0.2])
def test_the_distribution_is_scipys(shape):
    y = np.linspace(0, 8, 50)
    np.testing.assert_allclose(
        survival(y, shape, 1.7), stats.genpareto.sf(y, shape, scale=1.7), rtol=1e-9, atol=1e-300
    )


def test_anderson_darling_is_scipys(rng):
    y = stats.genpareto.rvs(-0.1, scale=2, size=60, random_state=rng)
    known = {"c": -0.1, "loc": 0, "scale": 2}
    theirs = stats.goodness_of_fit(
        stats.genpareto, y, known_params=known, statistic="ad", n_mc_samples=1
    )
    found = anderson_darling(y[None], np.array([-0.1]), np.array([2.0]))
    assert found[0] == pytest.approx(theirs.statistic, rel=1e-9)


def test_a_wrong_law_is_rejected_and_the_right_one_is_not(rng):
    right = [
        goodness_of_fit(stats.genpareto.rvs(-0.15, size=200, random_state=rng), (1, r))[2]
        for r in range(60)
    ]
    # Share of p <= .1 of a calibrated test: 6 of 60; up to 14 with probability .999.
    assert sum(p <= 0.1 for p in right) <= 14
    wrong = np.abs(rng.normal(3, 0.5, 200))  # a bump away from 0
    assert goodness_of_fit(wrong, (1, 99))[2] < 0.01


LAWS = {
    "gumbel": (stats.gumbel_r(4, 0.25).ppf, stats.gumbel_r(4, 0.25).isf),
    # largest of 1,000 independent normals
    "normals": (
        lambda u: stats.norm.ppf(u ** (1 / 1000)),
        lambda p: stats.norm.ppf(np.exp(np.log1p(-p) / 1000)),
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_p_of_known_laws(law):
    """1,000 permutations, 30 nulls: the median of fitted over true p, and the coverage."""
    draw, quantile = LAWS[law]
    p = np.array([0.05, 0.01, 0.001])
    value = quantile(p)
    ratios, covered = [], []
    for r in range(30):
        fit = fit_tail(draw(np.random.default_rng(r).random(1001)), 0, str(r))
        assert fit.accepted
        ratios.append(fit.p(value) / p)
        low, high = fit.interval(value)
        assert (low <= high).all()
        covered.append((low <= p) & (p <= high))
    middle = np.median(ratios, axis=0)
    np.testing.assert_allclose(middle[:2], 1, atol=0.1)
    assert 0.5 < middle[2] < 1.5
    assert (np.mean(covered, axis=0) > 0.8).all()
    # Counting 1,000 permutations knows p = .001 to a standard error of 100 %; this is narrower.
    assert np.std(np.array(ratios)[:, 2]) < 0.75


def test_maxima_of_correlated_normals(rng):
    """The tail fitted to 1,000 maxima of a smooth field, against 80,000 maxima of it."""
    from scipy.ndimage import gaussian_filter1d

    def maxima(n: int, generator: np.random.Generator) -> np.ndarray:
        field = gaussian_filter1d(generator.standard_normal((n, 400)), 3, axis=1, mode="wrap")
        return field.max(axis=1) / np.sqrt((field**2).mean())

    truth = np.sort(np.concatenate([maxima(20_000, rng) for _ in range(4)]))
    p = np.array([0.05, 0.01, 0.001])
    value = truth[(len(truth) * (1 - p)).astype(int)]
    fits = [fit_tail(maxima(1000, np.random.default_rng(r)), 0, str(r)) for r in range(20)]
    ratio = np.median([f.p(value) / p for f in fits], axis=0)
    np.testing.assert_allclose(ratio[:2], 1, atol=0.15)
    assert 0.4 < ratio[2] < 1.6


def test_what_cannot_be_fitted_is_not(rng):
    assert fit_tail(np.full(500, 3.0)) is None
    assert fit_tail(rng.standard_normal(60)) is None  # a quarter of 59 is below 20
    assert fit_tail(np.r_[9.0, gumbel_quantiles()]).p(np.array([4.0, np.nan]))[0] != 0
    assert np.isnan(fit_tail(np.r_[9.0, gumbel_quantiles()]).p(np.array([4.0]))[0])
    with pytest.raises(NumericalError, match="NaN"):
        fit_tail(np.r_[gumbel_quantiles(), np.nan])
    two = np.where(rng.random(999) < 0.5, 3.0, 4.0)  # nothing like a tail
    fit = fit_tail(np.r_[9.0, two + 1e-3 * rng.random(999)])
    assert fit is None or not fit.accepted or fit.fit_p > 0.05


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("tail")
    project = write_project(home / "p", studies=6, seed=3)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz", radius=5), permutations=400,
        imputations=2, statistic=("voxel", "cluster-mass"), cluster_threshold=2.0,
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return home


def test_the_table_of_a_result(made):
    finished = open_result(made / "out")
    sites = [s for s in cluster_sites(finished, ["uncorrected-0.0025"]) if s.kind == "cluster"]
    rows = tail_table(finished, sites)
    assert [r["statistic"] for r in rows[:2]] == ["voxel", "cluster-mass"]
    for row in rows:
        assert row["flag"] in ("", BELOW, COUNTED, NO_FIT)
        if row["flag"] == "":
            assert row["p_low"] <= row["p_tail"] <= row["p_high"]
            # Where permutations can count, the tail agrees with them.
            if row["p_counted"] > 0.02:
                assert row["p_tail"] == pytest.approx(row["p_counted"], rel=0.4)
        if row["flag"] == BELOW:
            assert row["p_tail"] == 1 / 4000
    assert any(row["accepted"] and row["flag"] in ("", BELOW) for row in rows)
    voxel = rows[0]
    side = 0 if voxel["side"] == "positive" else 1
    maxima = finished.maxima()["voxel"][side]
    again = fit_tail(maxima, 0, f"voxel {voxel['side']}")
    assert voxel["tail_from"] == again.threshold
    assert again.permutations == 399


def test_the_command(made):
    command = [sys.executable, "-m", "gpu_sdm.cli", "tail", str(made / "out"), "--json"]
    environment = dict(os.environ, NO_COLOR="1")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    content = json.loads(done.stdout)
    lines = (made / "out" / "tail" / "tail.tsv").read_text().splitlines()
    assert len(lines) == 1 + len(content["sites"])
    assert "p tail" in done.stderr


def test_an_exact_null_has_no_tail(made):
    from dataclasses import replace

    finished = open_result(made / "out")
    with pytest.raises(SettingError, match="exact"):
        tail_table(replace(finished, run=dict(finished.run, exact=True)), [])
