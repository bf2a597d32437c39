"""Truth from images: the scores, the peaks taken from a map, and an analysis that is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pain_truth import DEFAULT, ELIGIBLE, VARIANTS, Run, halves, main, read_pain, why
from pain_truth_data import RULES, Maps, Variant
from pain_truth_scores import auc, chosen, dice_equal_size, score, sections, write_report
from scipy import stats
from sklearn.metrics import roc_auc_score

from gpu_sdm.data import Pooled
from gpu_sdm.ops.pool import POOL
from gpu_sdm.spaces import Space
from gpu_sdm.stages.effects import hedges_g
from gpu_sdm.templates import default_mask

N = 25
PLANTED = np.array([[-40.0, -4.0, 12.0], [40.0, 0.0, 12.0]])  # mm, on the 2 and the 4 mm grid


def _planted(k: int = 10) -> Maps:
    """Noisy maps of k studies: an activation on the left, a deactivation on the right."""
    rng = np.random.default_rng(3)
    coarse = Space(4, np.ones((46, 55, 46), bool))
    native, mask = (
        (np.abs(space.mm() - (0, -2, 12)) <= (60, 24, 20))
        .all(axis=1)
        .reshape(space.shape, order="F")
        for space in (Space(2, np.ones((91, 109, 91), bool)), coarse)
    )
    native, mask = Space(2, native), mask & default_mask(4)

    def pattern(space: Space) -> np.ndarray:
        far = [np.square(space.mm() - at).sum(axis=1) for at in PLANTED]
        return 8 * np.exp(-far[0] / 200) - 6 * np.exp(-far[1] / 200)

    scale = 1 + 0.1 * rng.standard_normal(k)
    t = scale[:, None] * pattern(native)
    g = hedges_g(scale[:, None] * pattern(coarse), N)[0]
    return Maps([f"s{i}" for i in range(k)], [N] * k, native, t, g, 4, mask, 4)


@pytest.fixture(scope="module")
def planted() -> Maps:
    return _planted()


def _pooled(g: np.ndarray, z: np.ndarray) -> Pooled:
    return Pooled(g, z, z, g, g, g, g)


def test_auc_is_sklearns_and_mann_whitney_with_ties(rng: np.random.Generator) -> None:
    positive = rng.random(500) < 0.2
    values = np.round(rng.standard_normal(500) + positive, 1)
    assert len(np.unique(values)) < 100
    ours = auc(values, positive)
    assert ours == pytest.approx(roc_auc_score(positive, values), abs=1e-12)
    u = stats.mannwhitneyu(values[positive], values[~positive]).statistic
    assert ours == pytest.approx(u / (positive.sum() * (~positive).sum()), abs=1e-12)
    assert np.isnan(auc(values, np.zeros(500, bool)))
    assert np.isnan(auc(values, np.ones(500, bool)))


def test_scores_are_scipys_and_perfect_for_the_truth_itself(rng: np.random.Generator) -> None:
    g = 0.3 * rng.standard_normal(2000)
    truth = _pooled(g, 8 * g)
    right = score(truth, truth)
    assert right["r"] == pytest.approx(1)
    assert right["slope"] == pytest.approx(1)
    assert right["auc_pos"] == right["auc_neg"] == right["dice"] == 1
    assert right["bias"] == right["rmse"] == 0
    half = 0.1 + 0.5 * g + 0.05 * rng.standard_normal(2000)
    found = score(_pooled(half, 8 * half), truth)
    line = stats.linregress(g, half)
    assert found["r"] == pytest.approx(line.rvalue, abs=1e-12)
    assert found["slope"] == pytest.approx(line.slope, abs=1e-12)
    assert found["bias"] == pytest.approx((half - g).mean(), abs=1e-12)
    top = np.abs(g) >= np.quantile(np.abs(g), 0.75)
    assert found["slope_top"] == pytest.approx(stats.linregress(g[top], half[top]).slope)
    assert 0.5 < found["dice"] < 1


def test_dice_takes_as_many_of_either_sign_as_the_truth_has() -> None:
    truth = np.array([4.0, 5.0, 0, 0, -4.0, 0, 0, 0])
    assert dice_equal_size(truth, truth) == 1
    # Of ours the two largest are 1 and 2, the smallest is 4: 2 of 3 are right.
    ours = np.array([0.1, 3.0, 2.0, 0, -1.0, 0, 0, 0])
    assert dice_equal_size(ours, truth) == pytest.approx(2 / 3)
    assert np.isnan(dice_equal_size(ours, np.zeros(8)))


@pytest.mark.parametrize("rule", RULES)
def test_peaks_lie_at_the_planted_maxima(rule: str, planted: Maps) -> None:
    for k, study in enumerate(planted.studies(rule)):
        peaks = study.peaks
        assert study.t_threshold == pytest.approx(stats.t.isf(RULES[rule][1], N - 1))
        assert np.all(np.abs(peaks.t) > study.t_threshold)
        highest, lowest = peaks.xyz_mm[peaks.t.argmax()], peaks.xyz_mm[peaks.t.argmin()]
        inside = planted.native.mm()
        for found, extreme in (
            (highest, planted.t[k].argmax()),
            (lowest, planted.t[k].argmin()),
        ):
            assert found.tolist() == inside[extreme].tolist()
        assert np.abs(highest - PLANTED[0]).max() <= 2
        assert np.abs(lowest - PLANTED[1]).max() <= 2


def test_small_clusters_are_not_listed_where_20_voxels_are_wanted(planted: Maps) -> None:
    t = np.zeros(planted.native.n_voxels)
    i = int(np.square(planted.native.mm() - PLANTED[0]).sum(axis=1).argmin())
    t[i] = 9.0
    listed = {rule: kind(planted.native).find(t, 3.0) for rule, (kind, _) in RULES.items()}
    assert listed["spm"].tolist() == listed["every"].tolist() == [i]
    assert listed["extent"].tolist() == []


def test_a_study_may_miss_voxels_and_the_mask_is_what_all_cover() -> None:
    one = _planted(3)
    g = one.whole_g.copy()
    gone = one.space.index[:7]
    g[1, gone] = np.nan
    cut = Maps(one.names, one.n, one.native, one.t, g, 4, one.space.mask)
    assert cut.space.n_voxels == one.space.n_voxels - 7
    assert not np.isin(gone, cut.space.index).any()


def test_all_images_are_the_truth_and_score_perfectly(planted: Maps) -> None:
    rows = list(range(5))
    truth = planted.truth(rows)
    analysis = planted.analysis(rows, Variant(), images=rows)
    found = score(planted.pooled(analysis), truth)
    assert found["r"] == pytest.approx(1)
    assert found["slope"] == pytest.approx(1)
    assert found["auc_pos"] == found["auc_neg"] == found["dice"] == 1
    terms, one = planted.terms(rows), np.ones((5, 1))
    plain = POOL.numpy(planted.g[None, rows], terms.c, terms.v2, one, np.ones(1), method="dl")
    assert np.allclose(truth.g, plain.g)
    assert np.allclose(truth.z, plain.z)


def test_only_the_asked_studies_are_images_and_peaks_find_the_pattern(planted: Maps) -> None:
    rows = [4, 1, 7, 2, 9]
    analysis = planted.analysis(rows, VARIANTS["discards 0"], images=rows[:2])
    assert analysis.design.dataset.names == ("s4", "s1", "s7", "s2", "s9")
    assert analysis.discards == 0
    assert planted.analysis(rows, Variant()).discards == 2
    lower, upper = analysis.bounds.lower, analysis.bounds.upper
    assert np.array_equal(lower[:2], planted.g[rows[:2]])
    assert np.array_equal(upper[:2], lower[:2])
    assert (upper[2:] > lower[2:] + 0.1).mean() > 0.5
    others = planted.truth([0, 3, 5, 6, 8])
    peaks, mixed = (
        score(planted.pooled(planted.analysis(rows, Variant(), images=rows[:n])), others)
        for n in (0, 3)
    )
    assert 0.6 < peaks["r"] < mixed["r"]
    assert 0.2 < peaks["slope"] < mixed["slope"] < 1.1
    assert mixed["rmse"] < peaks["rmse"]


def test_the_own_template_is_made_of_the_other_studies(planted: Maps) -> None:
    noisy = Maps(
        planted.names,
        planted.n,
        planted.native,
        planted.t,
        planted.whole_g + 0.3 * np.random.default_rng(1).standard_normal(planted.whole_g.shape),
        4,
        planted.space.mask,
    )
    one, other = (noisy.template_of(rows) for rows in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9]))
    assert one.digest() != other.digest()
    own = Variant(own_template=True)
    bounds = [
        noisy.analysis([0, 1, 2], own, others=o).bounds.digest() for o in ([3, 4, 5], [7, 8, 9])
    ]
    assert bounds[0] != bounds[1]


def test_halves_are_seeded_disjoint_and_complete() -> None:
    made = halves(21, 10)
    assert made == halves(21, 10)
    assert made[:4] == halves(21, 4)
    for half, others in made:
        assert (len(half), len(others)) == (10, 11)
        assert sorted(half + others) == list(range(21))
    assert len({tuple(others) for _, others in made}) == 10


def test_the_winner_beats_the_default_in_r_and_slope_and_has_least_rmse() -> None:
    def row(name: str, r: float, slope: float, rmse: float, images: int = 0) -> dict:
        return {"variant": name, "images": images, "r": r, "slope": slope, "rmse": rmse,
                "bias": 0, "r_top": 0, "slope_top": 0, "auc_pos": None, "auc_neg": None,
                "dice": 0}  # fmt: skip

    rows = [row("d", 0.8, 0.5, 0.2), row("a", 0.81, 0.6, 0.18), row("b", 0.82, 0.6, 0.17),
            row("c", 0.79, 0.9, 0.1), row("a", 0.9, 0.9, 0.01, images=5)]  # fmt: skip
    assert chosen(rows, "d", ["a", "b", "c"]) == "b"
    assert chosen(rows, "d", ["c"]) is None
    assert DEFAULT not in ELIGIBLE
    assert "own template" not in ELIGIBLE


def test_a_run_is_saved_continued_and_reported(planted: Maps, tmp_path: Path) -> None:
    path, doc = tmp_path / "found.json", tmp_path / "page.md"
    run = Run(planted, path, 2)
    run.content |= {"voxel_size": 4, "voxels": 1, "imputations": 4, "peaks": {"spm": [3]}}
    run.all_splits(["discards 0"])
    run.content["why"] = why(planted)
    run.whole(planted, [DEFAULT])
    run.save()
    stored = json.loads(path.read_text())
    kinds = [(r["split"], r["variant"], r["images"]) for r in stored["splits"]]
    assert kinds[:6] == [(s, DEFAULT, n) for s in (0, 1) for n in (0, 2, 5)]
    assert kinds[6] == (0, "discards 0", 0)
    again = Run(planted, path, 2)
    again.all_splits(["discards 0"])
    assert again.content["splits"] == stored["splits"]
    slopes = {row["what"]: row["slope"] for row in stored["why"]["maps"]}
    assert slopes["most likely mean, 2 discarded"] < slopes["most likely mean, 0 discarded"]
    names = sections(stored)
    doc.write_text("\n".join(f"<!-- {n} begins -->\nold\n<!-- {n} ends -->\nkept" for n in names))
    write_report(stored, doc)
    text = doc.read_text()
    assert "old" not in text
    assert text.count("kept") == len(names)
    assert "| default | 1 |" in text


def test_peaks_of_the_real_maps_are_their_maxima(pain21: Path) -> None:
    maps = read_pain(pain21, 4, studies=("pain_05", "pain_18"))
    assert maps.space.n_voxels > 15_000
    assert maps.n == (9, 12)
    for study, t in zip(maps.studies("spm"), maps.t, strict=True):
        assert study.peaks.t.max() == pytest.approx(t.max(), abs=1e-6)
    # At 4 mm every second voxel of 2 mm is picked, so g is that of t.
    first = hedges_g(maps.t[0], maps.n[0])[0]
    at = {tuple(mm): v for v, mm in enumerate(maps.native.mm().tolist())}
    picked = [at[tuple(mm)] for mm in maps.space.mm().tolist()]
    assert np.allclose(maps.g[0], first[picked], atol=1e-5)


def test_missing_data_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("pain_truth.ALL_DATA", tmp_path)
    assert main(["--out", str(tmp_path / "none.json")]) == 1
    assert "REAL DATA ABSENT" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
