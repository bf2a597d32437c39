"""Heterogeneity and bias: metafor, metansue, brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import metafor_reference as metafor
import numpy as np
import pytest
from projects import write_bounds_project, write_mask, write_project
from reference_data import N1, N2, reference
from scipy import stats
from small_results import CPU, MIDDLE, known_result, small_result

import gpu_sdm
from gpu_sdm.errors import SettingError
from gpu_sdm.findings import bias as findings
from gpu_sdm.findings.bias import bias, doubts, egger, funnel
from gpu_sdm.findings.heterogeneity import I2_CAP, heterogeneity, prediction_interval
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.sites import Site, cluster_sites, point_sites
from gpu_sdm.finished import open_result
from gpu_sdm.stages.effects import hedges_g


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_result(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module", params=["dl", "reml"])
def complete(request, tmp_path_factory):
    method = request.param
    return method, known_result(tmp_path_factory.mktemp(f"complete-{method}"), method)


def test_prediction_interval_and_pooling_are_metafors(complete):
    method, analysis = complete
    at = site_effects(analysis, MIDDLE)
    (row,) = heterogeneity(at)
    found = [row[c] for c in ("g", "se", "tau2", "prediction_low", "prediction_high")]
    # Bounds are held in float32.
    np.testing.assert_allclose(found, metafor.INTERVAL[method], rtol=3e-6, atol=1e-7)
    g, se, tau2, low, high = metafor.INTERVAL[method]
    np.testing.assert_allclose(prediction_interval(g, se, tau2, 8), (low, high), rtol=1e-10)
    assert row["df"] == 9
    np.testing.assert_allclose(row["q"], 13.85397754, rtol=1e-6)  # metansue
    np.testing.assert_allclose(row["p_q"], 0.1276151643, rtol=1e-5)
    assert row["i2_capped"] is False
    assert row["h2"] == pytest.approx(1 / (1 - row["i2"] / 100))
    if method == "reml":
        np.testing.assert_allclose((row["i2"], row["h2"]), (35.2304752, 1.543935984), rtol=1e-5)


def test_i2_of_the_voxels_stands_beside_that_of_a_cluster(made):
    _, finished, analysis = made
    i2 = finished.map("i2")
    sites = cluster_sites(finished, ["uncorrected-0.0025"])
    for site, row in zip(sites, heterogeneity(site_effects(analysis, sites), i2), strict=True):
        inside = i2[site.voxels]
        assert row["i2_voxels_mean"] == pytest.approx(inside.mean())
        assert row["i2_voxels_max"] == pytest.approx(inside.max())
        if site.kind == "peak":
            assert np.float32(row["i2"]) == inside[0]


@pytest.mark.parametrize("regressor", findings.REGRESSORS)
def test_egger_is_metafors_regtest_and_metansues_metabias(complete, regressor):
    _, analysis = complete
    z, p, level, slope, _, se, tau2 = metafor.REGTEST[regressor]
    n, y = np.array(metafor.N), hedges_g(np.array(metafor.T), np.array(metafor.N))
    other = None if regressor == "se" else 1 / np.sqrt(n)
    alone = egger(y[0][None], y[1][None], np.ones((10, 1)), np.ones(1), other)
    found = (alone.z, alone.p, alone.intercept, alone.slope, alone.se, alone.tau2)
    np.testing.assert_allclose(found, (z, p, level, slope, se, tau2), rtol=1e-8)
    if regressor == "se":
        assert alone.z == pytest.approx(0.5419150011, abs=5e-9)
    (row,) = bias(site_effects(analysis, MIDDLE), regressor)
    columns = ("egger_z", "egger_p", "egger_g_at_0", "egger_slope", "egger_se", "egger_tau2")
    np.testing.assert_allclose([row[c] for c in columns], (z, p, level, slope, se, tau2), rtol=2e-5)


@pytest.mark.parametrize(("case", "n2"), [("smc", None), ("smd", N2)])
def test_egger_over_imputations_is_metansues(tmp_path, metansue_reference, case, n2):
    """metansue draws other imputations: its z is that of one seed."""
    ref = reference(metansue_reference, case)
    y, up = np.array(ref["y"]), np.array(ref["y_up"])
    missing = y == 0
    names = [f"s{k:02d}" for k in range(10)]
    mask = write_mask(tmp_path / "mask.nii.gz", radius=2)
    low, high = np.where(missing, -up, y), np.where(missing, up, y)
    project, folder = write_bounds_project(tmp_path, mask, names, N1, low, high, n2)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=mask, permutations=2, imputations=100, bounds=folder, tau2="reml",
        statistic=("voxel",), discards=1, imputation="truncated-normal",
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(project), settings, out=tmp_path / "out", backend="cpu")
    finished = open_result(tmp_path / "out")
    voxels = [Site(str(v), "point", np.array([v]), (0, 0, 0)) for v in range(4)]
    at = site_effects(finished.analysis(CPU), voxels)
    z = np.array([row["egger_z"] for row in bias(at)])
    text = metansue_reference.read_text().split(f"===== {case} ")[1]
    theirs = float(text.split("metabias z ")[1].split()[0])
    print(case, "metabias z: metansue", theirs, "ours", z.round(3))
    assert abs(z.mean() - theirs) < 0.05


def test_egger_says_where_it_cannot_be():
    y = np.linspace(0, 1, 6)[None]
    same = np.full(6, 0.3)
    assert egger(y, np.full((1, 6), 0.1), np.ones((6, 1)), np.ones(1)) is None
    assert egger(y, y + 0.1, np.ones((6, 1)), np.ones(1), same) is None
    assert egger(y[:, :2], y[:, :2] + 0.1, np.ones((2, 1)), np.ones(1)) is None


def test_excess_significance_is_metafors_tes():
    power = np.array(metafor.POWER)
    significant = np.zeros((1, 10), bool)
    significant[0, np.array(metafor.SIGNIFICANT) - 1] = True
    found = findings.excess_significance(significant, power)
    assert found.observed == metafor.OBSERVED
    numbers = (found.expected, found.p_exact, found.p_binomial, found.chi2)
    wanted = (metafor.EXPECTED, metafor.P_EXACT, metafor.P_BINOMIAL, metafor.CHI2)
    np.testing.assert_allclose(numbers, wanted, rtol=1e-10)
    assert found.p_chi2 == pytest.approx(stats.chi2.sf(metafor.CHI2, 1))
    # p of several imputations is the median of theirs
    several = np.repeat(significant, 3, axis=0)
    several[0], several[1] = False, True
    again = findings.excess_significance(several, power)
    assert (again.p_exact, again.observed) == (found.p_exact, pytest.approx(17 / 3))


def test_poisson_binomial_is_the_sum_over_all_outcomes(rng):
    chances = rng.uniform(size=7)
    law = np.zeros(8)
    for outcome in itertools.product((0, 1), repeat=7):
        law[sum(outcome)] += np.prod(np.where(outcome, chances, 1 - chances))
    for o in range(8):
        assert findings.poisson_binomial_tail(o, chances) == pytest.approx(law[o:].sum(), rel=1e-12)


def test_power_is_the_tail_of_the_noncentral_t():
    df, c = np.array([11.0, 30.0, 60.0]), np.array([1 / 12, 2 / 16, 2 / 31])
    cut = np.array([3.1, 2.0, 4.5])
    wanted = stats.nct.sf(cut, df, 0.6 / np.sqrt(c))
    np.testing.assert_allclose(findings.study_power(-0.6, df, c, cut), wanted, rtol=1e-9)
    np.testing.assert_allclose(
        findings.study_power(0.0, df, c, cut), stats.t.sf(cut, df), rtol=1e-9
    )


def test_bias_rows(made):
    _, finished, analysis = made
    sites = cluster_sites(finished, ["uncorrected-0.0025"])
    at = site_effects(analysis, sites)
    own, usual = bias(at), bias(at, "inverse-root-n", 0.05)
    pooled = at.pooled()
    thr = np.array([s.t_threshold for s in analysis.design.dataset.studies])
    t = at.effects / (analysis.terms.j * np.sqrt(analysis.terms.c))[:, None]
    for s, (site, a, b) in enumerate(zip(sites, own, usual, strict=True)):
        assert a["egger_z"] != b["egger_z"]
        if site.kind == "cluster":
            assert a["significant"] is a["expected"] is a["excess_p_exact"] is None
            continue
        beyond = (np.sign(pooled.g[s]) * t[:, :, s] >= thr * (1 - 1e-6)).sum(1).mean()
        assert a["significant"] == pytest.approx(beyond)
        assert b["significant"] >= a["significant"]
        assert 0 < a["expected"] < b["expected"] < 7
    said = doubts(at, own)
    assert any("7 studies: with fewer than 10" in sentence for sentence in said)
    assert any("of every study" in sentence for sentence in said)
    lines = funnel(at)
    assert len(lines) == 7 * len(sites)
    assert lines[0]["inverse_root_n"] == pytest.approx(np.sqrt(analysis.terms.c[0]))
    with pytest.raises(SettingError, match="regressor is 'n'"):
        bias(at, "n")
    with pytest.raises(SettingError, match="significance is 2"):
        bias(at, "se", 2.0)


def test_a_peak_of_unknown_height_is_at_its_threshold(tmp_path):
    project = write_project(tmp_path / "project", 6)
    for file in project.glob("study*.spm_mni.txt"):
        file.write_text("2 -14 20 p\n")  # a voxel of the grid
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(tmp_path / "mask.nii.gz", radius=3), permutations=2,
        imputations=2,
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(project), settings, out=tmp_path / "out", backend="cpu")
    finished = open_result(tmp_path / "out")
    at = site_effects(finished.analysis(CPU), point_sites(finished.space, [(2, -14, 20)]))
    assert at.known.all()
    assert bias(at)[0]["significant"] == 6


def test_i2_is_capped_and_said(complete):
    _, analysis = complete
    at = site_effects(analysis, MIDDLE)
    terms = replace(analysis.terms, c=analysis.terms.c * 1e-7, v2=analysis.terms.v2 * 1e-7)
    (row,) = heterogeneity(replace(at, analysis=replace(analysis, terms=terms)))
    assert (row["i2"], row["i2_capped"]) == (I2_CAP, True)
    assert row["h2"] == pytest.approx(1e4)


def test_a_slope_has_no_prediction_interval_and_no_excess(tmp_path):
    project = write_project(tmp_path / "project", 6)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(tmp_path / "mask.nii.gz", radius=3), permutations=2,
        imputations=2, formula="1 + age", contrast=("age",),
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(project), settings, out=tmp_path / "out", backend="cpu")
    finished = open_result(tmp_path / "out")
    at = site_effects(finished.analysis(CPU), MIDDLE)
    assert np.float32(at.pooled().z[0]) == finished.map("z")[3]
    (row,), (other,) = heterogeneity(at), bias(at)
    assert np.isnan(row["prediction_low"])
    assert np.isnan(row["prediction_high"])
    assert other["significant"] is None
    assert other["egger_z"] is not None
