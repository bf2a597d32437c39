"""The calibration harness: its data, its bookkeeping, and that it can reject."""

from __future__ import annotations

import json
import os
import time

import calibrate
import numpy as np
import pytest
from calibration_report import rate_interval, rates, summary_lines, write_report
from null_data import APART_MM, MAXIMA_PER_CLUSTER, Truth, null_maps, study_t, truth_bank
from null_projects import CELLS, Brain, run_project
from page import between
from scipy import ndimage, stats

from gpu_sdm.data import Peaks
from gpu_sdm.spaces import SHAPES

SMALL = {"permutations": 20, "imputations": 2}


@pytest.fixture(scope="module")
def whole() -> Brain:
    return Brain()


@pytest.fixture(scope="module")
def ball(whole: Brain) -> Brain:
    """A ball of grey matter and its surroundings."""
    grid = np.indices(SHAPES[4]).reshape(3, -1).T - (12, 30, 18)
    inside = (np.linalg.norm(grid, axis=1) <= 6).reshape(SHAPES[4]) & whole.space.mask
    return Brain(inside)


def _bank(noise: tuple[str, float], brain: Brain) -> np.ndarray:
    return truth_bank(noise, 0, brain.space, 1600)


@pytest.mark.parametrize("name", CELLS)
def test_a_project_of_every_cell_runs(name: str, ball: Brain) -> None:
    cell = CELLS[name]
    line = run_project(ball, name, 3, bank=_bank(cell.truth.noise, ball), **SMALL)
    assert json.loads(json.dumps(line)) == line
    for statistic in ("voxel", "tfce"):
        assert all(1 / 20 <= p <= 1 for p in line[f"p_{statistic}"])
    assert (line["infeasible"] is None) == (cell.exchange != "subjects")
    if name in list(CELLS)[:: len(CELLS) // 6]:  # a few of them: the same project is the same again
        again = run_project(ball, name, 3, bank=_bank(cell.truth.noise, ball), **SMALL)
        again["seconds"] = line["seconds"]
        assert again == line
    assert os.environ["GPU_SDM_CACHE"] != os.devnull


def test_cells_differ_from_the_base_as_they_say(ball: Brain) -> None:
    bank = _bank(("scan", 0.77), ball)
    lines = {
        name: run_project(ball, name, 3, bank=bank, **SMALL)
        for name in ("base", "images", "unit-sd", "k10", "k10-studies", "k10-peaks", "tau2-0.1")
    }
    assert lines["unit-sd"]["max_z"] == lines["base"]["max_z"]
    assert lines["unit-sd"]["threshold_voxel"] != lines["base"]["threshold_voxel"]
    for name in ("k10-studies", "k10-peaks"):
        assert lines[name]["max_z"] == lines["k10"]["max_z"]
        assert lines[name]["threshold_voxel"] != lines["k10"]["threshold_voxel"]
    assert lines["images"]["max_z"] != lines["base"]["max_z"]
    assert lines["tau2-0.1"]["peaks_per_study"] > 2 * lines["base"]["peaks_per_study"]


@pytest.mark.parametrize("name", ["base", "images", "two-sample"])
def test_a_planted_effect_is_found(name: str, ball: Brain) -> None:
    at = np.linalg.norm(ball.space.mm() - ball.space.mm()[ball.space.n_voxels // 2], axis=1) < 12
    line = run_project(ball, name, 5, planted=0.8 * at, bank=_bank(("scan", 0.77), ball), **SMALL)
    assert line["p_voxel"][0] == line["p_tfce"][0] == line["p_voxel"][2] == 1 / 20


def test_t_is_that_of_scipy(ball: Brain, rng: np.random.Generator) -> None:
    bank = _bank(("scan", 0.77), ball)
    signs = rng.choice(np.array([-1, 1], np.float32), 20)
    first, second = (bank[:12], signs[:12]), (2 * bank[12:20], signs[12:])
    signed = [x * s[:, None] for x, s in (first, second)]
    wanted = stats.ttest_1samp(signed[0] + 0.3, 0, axis=0).statistic
    np.testing.assert_allclose(study_t([first], 0.3), wanted, rtol=1e-4, atol=1e-4)
    wanted = stats.ttest_ind(*signed, axis=0).statistic
    np.testing.assert_allclose(study_t([first, second]), wanted, rtol=1e-4, atol=1e-4)


def test_null_data_have_the_law_they_claim(ball: Brain, rng: np.random.Generator) -> None:
    bank = _bank(("scan", 0.77), ball)
    truth = Truth(studies=40)
    sizes, t = null_maps(truth, bank, rng)
    # Share of |t| beyond the 5 % point of each study's own t: mean over voxels, then studies.
    beyond = np.abs(t) > stats.t.isf(0.025, sizes[:, :1] - 1)
    assert beyond.mean() == pytest.approx(0.05, abs=4 * beyond.mean(1).std() / np.sqrt(40))
    # With tau2 the variance of sqrt(n) times the mean is 1 + n tau2.
    _, wide = null_maps(Truth(studies=40, tau2=0.1), bank, np.random.default_rng(1))
    ratio = wide.var() / t.var()
    assert 1 + 0.1 * 12 < ratio < 1 + 0.1 * 30


def test_peaks_are_local_maxima_of_spm_clusters(whole: Brain) -> None:
    bank = truth_bank(("scan", 0.77), 7, whole.space, 40)
    t = study_t([(bank[:20], np.resize(np.array([1, -1], np.float32), 20))])
    study = whole.peaks.study("a", 20, 0, t, 0.001)
    assert isinstance(study.peaks, Peaks)
    assert study.t_threshold == pytest.approx(stats.t.isf(0.001, 19))
    links = ndimage.generate_binary_structure(3, 2)  # faces and edges: 18 neighbours
    for sign in (1, -1):
        volume = whole.space.embed(sign * t, fill=-99.0)
        above = volume > study.t_threshold
        label, clusters = ndimage.label(above, links)
        local = above & (ndimage.maximum_filter(volume, footprint=links) == volume)
        mine = study.peaks.xyz_mm[np.sign(study.peaks.t) == sign]
        ijk = np.rint((mine - whole.space.affine[:3, 3]) / np.diag(whole.space.affine)[:3])
        at = tuple(ijk.astype(int).T)
        assert local[at].all()
        np.testing.assert_allclose(
            volume[at], np.abs(study.peaks.t[np.sign(study.peaks.t) == sign]), rtol=1e-6
        )
        assert set(label[at]) == set(range(1, clusters + 1))
        for c in range(1, clusters + 1):
            of = mine[label[at] == c]
            apart = np.linalg.norm(of[:, None] - of, axis=2)[np.triu_indices(len(of), 1)]
            assert len(of) <= MAXIMA_PER_CLUSTER
            assert (apart > APART_MM).all()
            tallest = ndimage.maximum(volume, label, c)
            assert tallest in volume[at].astype(np.float32)


def test_intervals_are_exact_binomial() -> None:
    for hits, n in ((0, 57), (3, 57), (40, 812), (57, 57)):
        wanted = stats.binomtest(hits, n).proportion_ci(method="exact")
        rate, low, high = rate_interval(hits, n)
        assert rate == hits / n
        assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    # What the cells ask for is what the precision needs: +-1.5 and +-4 points at a rate of .05.
    for cell, half in (("base", 0.015), ("k10", 0.04)):
        n = 2 * CELLS[cell].projects
        assert 1.96 * np.sqrt(0.05 * 0.95 / n) == pytest.approx(half, rel=0.02)


def _line(seed: int, voxel: list[float], tfce: list[float]) -> dict[str, object]:
    return {
        "harness": calibrate.HARNESS,
        "cell": "base",
        "seed": seed,
        "p_voxel": voxel,
        "p_tfce": tfce,
        "p_shares": {"pos": [0.05, 0.01, 0.001], "neg": [0.03, 0.01, 0.003]},
        "peaks_per_study": 2.0,
        "threshold_voxel": [4.0, 4.2],
        "threshold_tfce": [3000.0, 3200.0],
        "seconds": {"all": 1.0, "cpu": 0.5},
    }


def test_rates_pool_sides_and_fill_the_page(tmp_path) -> None:
    lines = [
        _line(0, [0.05, 0.3, 0.1], [0.9, 0.9, 0.9]),
        _line(1, [0.01, 0.05, 0.005], [0.06, 1, 1]),
    ]
    assert rates(lines) == {
        "voxel": (3, 4),
        "voxel_two_sided": (1, 2),
        "tfce": (0, 4),
        "tfce_two_sided": (0, 2),
    }
    for line in lines:
        calibrate.append_line(tmp_path / "base.jsonl", line)
    results = calibrate.read_results(tmp_path)
    row = summary_lines(results)[2]
    assert row.startswith(
        "| base | 2 | .750 [.194, .994] | .500 [.013, .987] | .000 [.000, .602] |"
    )
    assert "| 0.0400 | 0.0100 | 0.0020 | 2.0 | 4.10 | 3100 |" in row
    page = tmp_path / "page.md"
    page.write_text(
        "".join(
            f"prose on {n}\n<!-- {n} begins -->\nstale\n<!-- {n} ends -->\n"
            for n in ("cells", "rates", "seeds")
        )
    )
    assert write_report(results, tmp_path, page) == page
    text = page.read_text()
    assert row in text
    assert "stale" not in text
    assert text.count("prose on ") == 3
    with pytest.raises(ValueError, match="begins"):
        between("no markers", "rates", "")


@pytest.mark.slow
def test_a_run_continues_and_workers_change_nothing(whole: Brain, tmp_path) -> None:
    sizes, never = {"permutations": 4, "imputations": 2}, float("inf")
    first, all_three = [("images", 0)], [("images", s) for s in range(3)]
    assert calibrate.calibrate(first, tmp_path, 1, sizes, time.monotonic()) == 0  # no time left
    assert calibrate.calibrate(first, tmp_path, 1, sizes, never) == 1
    path = tmp_path / "images.jsonl"
    with path.open("a") as file:
        file.write('{"harness": 1, "seed": 1, "p_vo')  # killed while it wrote
    assert calibrate.missing(all_three, tmp_path, sizes) == all_three[1:]
    assert calibrate.missing(first, tmp_path, sizes | {"permutations": 200}) == first
    assert calibrate.calibrate(all_three, tmp_path, 2, sizes, never) == 2
    assert calibrate.calibrate(all_three, tmp_path, 2, sizes, never) == 0
    found = calibrate.read_lines(path)
    assert sorted(found) == [0, 1, 2]
    for seed, line in found.items():
        wanted = run_project(whole, "images", seed, **sizes)
        assert line | {"seconds": 0} == wanted | {"seconds": 0}


def test_cells_grow_together() -> None:
    jobs = list(calibrate.precise_jobs(["base", "k10"]))
    assert jobs[:4] == [("base", 0), ("k10", 0), ("base", 1), ("k10", 1)]
    assert jobs[-1] == ("base", CELLS["base"].projects - 1)
    assert len(jobs) == CELLS["base"].projects + CELLS["k10"].projects
