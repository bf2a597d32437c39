"""The score test of the mean: its parts, its flips, and what it refuses."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from command_line import invoke
from projects import write_mask, write_project
from scipy import stats

import gpu_sdm
from gpu_sdm.analysis import limited_threads, prepare, silent
from gpu_sdm.data import Bounds
from gpu_sdm.errors import SettingError
from gpu_sdm.ops.mean_score import MEAN_SCORE
from gpu_sdm.permute.engine import permute, z_tile
from gpu_sdm.permute.plan import TILE
from gpu_sdm.permute.scores import Scores
from gpu_sdm.problem import build_problem

SCORE = {"exchange": "studies", "test": "score"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    write_project(folder / "project", studies=6, negative_mm=(-30, -10, 20))
    write_mask(folder / "mask.nii.gz", radius=5)
    return folder


def settings_of(home, **changed):
    plain = {"permutations": 12, "imputations": 3, "voxel_size": 4} | SCORE
    return gpu_sdm.Settings(mask=home / "mask.nii.gz", **(plain | changed))


def made(home, **changed):
    data = gpu_sdm.read(home / "project")
    analysis = prepare(data, settings_of(home, **changed), gpu_sdm.get_backend("cpu"))
    with limited_threads(analysis.backend):
        problem, pooled, _ = build_problem(analysis, silent, {})
    return analysis, problem, pooled


def likelihood(mu, lower, upper, c, v2):
    """Log-likelihood of one study's bounds, by scipy alone."""
    if upper - lower < 1e-5:
        y = (lower + upper) / 2
        return stats.norm.logpdf(y, mu, np.sqrt(c + v2 * y**2))
    high, low = (
        stats.norm.cdf(b, mu, np.sqrt(c + v2 * b**2)) if np.isfinite(b) else float(b > 0)
        for b in (upper, lower)
    )
    return np.log(high - low)


@pytest.mark.parametrize("version", ["numpy", "cpu"])
def test_a_part_is_the_slope_of_scipys_likelihood_over_the_root_of_its_curvature(version, rng):
    k, v, step = 5, 40, 1e-4
    middle = rng.normal(0, 0.3, (k, v))
    width = np.where(rng.random((k, v)) < 0.3, 0, rng.uniform(0.2, 1, (k, v)))
    lower, upper = (middle - width).astype(np.float32), (middle + width).astype(np.float32)
    lower[0], upper[0] = -np.inf, np.inf
    c, v2 = 1 / rng.uniform(8, 40, k), rng.uniform(0.02, 0.1, k)
    got = getattr(MEAN_SCORE, version)(lower, upper, c, v2)
    slope, curvature = np.zeros((2, k, v))
    for i, j in itertools.product(range(k), range(v)):
        at = [
            likelihood(mu, float(lower[i, j]), float(upper[i, j]), c[i], v2[i])
            for mu in (-step, 0.0, step)
        ]
        slope[i, j] = (at[2] - at[0]) / (2 * step)
        curvature[i, j] = (2 * at[1] - at[0] - at[2]) / step**2
    np.testing.assert_allclose(got, slope / np.sqrt(curvature.clip(0).sum(axis=0)), atol=2e-5)
    assert not got[0].any()


def test_nothing_known_pulls_nowhere():
    nothing = np.full((3, 2), np.inf, np.float32)
    for version in (MEAN_SCORE.numpy, MEAN_SCORE.cpu):
        assert not version(-nothing, nothing, np.full(3, 0.1), np.zeros(3)).any()


def test_a_flipped_study_is_scored_as_if_its_bounds_were_mirrored(home):
    analysis, problem, _ = made(home)
    plan, low, high = analysis.plan, analysis.bounds.lower, analysis.bounds.upper
    z = tile(problem, plan, analysis.backend)
    for p in range(12):
        sign = np.array([plan.flips(k, [p])[0] for k in range(plan.n_studies)])[:, None]
        bounds = Bounds(np.where(sign > 0, low, -high), np.where(sign > 0, high, -low))
        again = MEAN_SCORE.numpy(bounds.lower, bounds.upper, analysis.terms.c, analysis.terms.v2)
        np.testing.assert_allclose(z[p], again.sum(axis=0, dtype=np.float64), atol=1e-5)


def tile(problem, plan, backend, only=None, start=0):
    from concurrent.futures import ThreadPoolExecutor

    with limited_threads(backend), ThreadPoolExecutor(2) as pool:
        return z_tile(problem, plan, start, backend, pool, only)


def test_permutation_0_is_the_observed_map_and_a_part_has_the_bits_of_the_whole(home):
    analysis, problem, pooled = made(home, permutations=64)
    whole = tile(problem, analysis.plan, analysis.backend, start=TILE)
    assert np.array_equal(tile(problem, analysis.plan, analysis.backend)[0], problem.observed_z)
    assert not np.allclose(problem.observed_z, pooled.z, atol=0.1)
    only = np.arange(3, problem.space.n_voxels, 7)
    assert np.array_equal(
        tile(problem, analysis.plan, analysis.backend, only, TILE), whole[:, only]
    )


def test_all_flips_of_few_studies_give_the_p_that_counting_gives(home):
    analysis, problem, _ = made(home, permutations=1000)
    assert analysis.exact
    assert analysis.permutations == 64
    with limited_threads(analysis.backend):
        null = permute(problem, analysis.plan, 64, ("voxel",), analysis.backend)
    parts = problem.scores.parts.astype(np.float64)
    every = np.array([s @ parts for s in itertools.product((1, -1), repeat=6)])
    np.testing.assert_allclose(
        np.sort(null.maxima["voxel"][0]), np.sort(every.max(axis=1)), atol=1e-5
    )
    assert np.array_equal(*(np.sort(side).round(4) for side in null.maxima["voxel"]))


@pytest.mark.parametrize("exchange", ["studies", "peaks"])
def test_the_null_does_not_depend_on_threads_or_interruption(home, exchange, tmp_path):
    data = gpu_sdm.read(home / "project")

    def run(permutations, out=None, threads=2):
        settings = settings_of(home, exchange=exchange, permutations=permutations)
        return gpu_sdm.run(data, settings, backend="cpu", threads=threads, out=out)

    whole, alone = run(7), run(7, threads=1)
    run(3, tmp_path / "out")
    extended = run(7, tmp_path / "out")
    for statistic, values in whole.maxima.items():
        assert np.array_equal(values, alone.maxima[statistic])
        assert np.array_equal(values, extended.maxima[statistic])
    assert np.array_equal(whole.maps["score"].max(), whole.maxima["voxel"][0, 0])
    p = whole.maps["p_fwe_voxel"][np.argmax(whole.maps["score"])]
    assert p == np.float32((whole.maxima["voxel"][0] >= whole.maxima["voxel"][0, 0]).mean())


def test_peaks_that_move_are_scored_without_an_estimate(home):
    analysis, problem, _ = made(home, exchange="peaks")
    assert problem.scores is None
    assert analysis.refits
    moved = problem.refit.permuted(analysis.plan, 4)
    wanted = Scores.of(moved, analysis.terms, "numpy").parts.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(problem.refit.z(analysis.plan, 4), wanted, atol=1e-5)


def test_z_and_effects_are_those_of_any_other_null(home):
    _, _, scored = made(home)
    _, _, plain = made(home, exchange="subjects", test="z")
    assert np.array_equal(scored.z, plain.z)
    assert np.array_equal(scored.g, plain.g)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"exchange": "subjects"}, "exchange studies"),
        ({"covariates": ("age",)}, "has covariates"),
        ({"formula": "1 + age"}, "has covariates or a formula"),
        ({"test": "t"}, "test"),
    ],
)
def test_what_a_score_cannot_test_is_refused(changed, says):
    with pytest.raises(SettingError, match=says):
        gpu_sdm.Settings(**(SCORE | changed))


def test_reports_of_one_side_are_doubted(home, tmp_path):
    write_project(tmp_path / "one", studies=6, noise_peaks=0)
    backend = gpu_sdm.get_backend("cpu")

    def kinds(project, **changed):
        found = prepare(gpu_sdm.read(project), settings_of(home, **changed), backend).notices
        return {n.kind: n.message for n in found}

    said = kinds(tmp_path / "one", test="z")["one_sided_reports"]
    assert "positive and 0 negative ones" in said
    assert "use exchange peaks" in said
    assert "one_sided_reports" not in kinds(tmp_path / "one", exchange="peaks")
    assert "one_sided_reports" not in kinds(home / "project")


def test_command_report_and_further_commands_know_the_score(home, tmp_path):
    write_project(tmp_path / "one", studies=6, noise_peaks=0)
    pages = []
    for project in (home / "project", tmp_path / "one"):
        out = tmp_path / f"out-{len(pages)}"
        done = invoke(
            "permute", project, "--out", out, "--mask", home / "mask.nii.gz",
            "--voxel-size", 4, "--imputations", 3, "-n", 64, "--exchange", "studies",
            "--test", "score",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        run = json.loads((out / "run.json").read_text())
        assert run["settings"]["test"] == "score"
        assert "not of z" in run["null"]
        assert (out / "maps" / "score.nii.gz").is_file()
        pages.append((out / "report.html").read_text())
        assert "score of the mean effect at zero" in pages[-1]
        assert "Voxelwise score" in pages[-1]
        assert "What is tested is the score" in pages[-1]
    assert ["Reports of one side" in page for page in pages] == [False, True]


def test_a_result_of_before_the_setting_is_one_of_z(home):
    settings = settings_of(home, exchange="studies", test="z")
    stored = settings.as_dict()
    del stored["test"]
    assert not settings.differences(stored)
    assert replace(settings, test="score").differences(stored) == [
        "test is 'score', there it is 'z'"
    ]
