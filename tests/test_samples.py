"""Contrasts of one sample as one study: whole analyses, against those of single studies."""

from __future__ import annotations

from dataclasses import replace

import image_projects
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from projects import write_bounds_project, write_mask, write_project
from sampled import CPU, assert_same, double, run, settings, with_samples

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.bias import bias, funnel
from gpu_sdm.findings.extract import extract
from gpu_sdm.findings.folds import without
from gpu_sdm.findings.peak_heights import peak_heights
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.sites import Site
from gpu_sdm.stages.effects import hedges_g, study_terms
from gpu_sdm.stages.samples import contrasts_of, merge_samples


def test_a_column_of_distinct_values_changes_nothing(tmp_path):
    plain = write_project(tmp_path / "plain", 5)
    names = gpu_sdm.read(plain).names
    numbers = with_samples(write_project(tmp_path / "numbers", 5), {
        name: str(k) for k, name in enumerate(names)
    })  # fmt: skip
    dataset = gpu_sdm.read(numbers)
    assert merge_samples(dataset) is dataset
    assert_same(run(plain, tmp_path), run(numbers, tmp_path))


def test_one_contrast_twice_is_one_study(tmp_path):
    """r = 1: nothing is learnt from it, to the last bit."""
    plain = write_project(tmp_path / "plain", 5, two_sample=2)
    twice = write_project(tmp_path / "twice", 5, two_sample=2)
    for name in ("study01", "study04"):
        double(twice, name, f"{name}_again")
    with_samples(twice, {f"{n}{e}": n for n in ("study01", "study04") for e in ("", "_again")})
    for exchange in ("subjects", "studies"):
        more = {"exchange": exchange, "permutations": 4, "covariates": ("age",)}
        one, other = run(plain, tmp_path, **more), run(
            twice, tmp_path, **more, sample_correlation=1.0
        )  # fmt: skip
        assert_same(one, other)
    merged = {row["study"]: row["study_in_model"] for row in other.studies}
    assert merged["study01_again"] == "study01"
    assert merged["study02"] == "study02"
    assert len(merged) == 7
    assert other.provenance["studies"] == 5
    assert other.provenance["subjects"] == one.provenance["subjects"]
    assert other.provenance["warning_counts"]["sample_merged"] == 2
    # Every contrast keeps its peaks, with what became of them.
    peaks = {n: [r for r in other.peaks if r["study"] == n] for n in merged}
    drop = ("study", "file")
    bare = [[{k: v for k, v in r.items() if k not in drop} for r in peaks[n]] for n in
            ("study01", "study01_again")]  # fmt: skip
    assert bare[0] == bare[1]
    assert len(bare[0]) == 4


def test_uncorrelated_contrasts_halve_the_variance(tmp_path):
    project = write_project(tmp_path / "project", 5)
    double(project, "study01", "b")
    with_samples(project, {"study01": "7", "b": "7"})
    dataset = gpu_sdm.read(project)
    alone, half = (study_terms(merge_samples(dataset, r).studies) for r in (1.0, 0.0))
    assert_array_equal(half.c[1], alone.c[1] / 2)
    assert_array_equal(half.v2[1], alone.v2[1] / 2)
    assert_array_equal(np.delete(half.c, 1), np.delete(alone.c, 1))
    assert merge_samples(dataset).names == ("study00", "7", "study02", "study03", "study04")
    assert run(project, tmp_path, sample_correlation=0.0).provenance["content"]["samples"] == (
        "7 = b + study01"
    )


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """Seven contrasts, of which two and two are of one sample each."""
    home = tmp_path_factory.mktemp("merged")
    project = write_project(home / "project", 7, negative_mm=(10, -30, 30))
    table = project / "sdm_table.txt"
    rows = [row.split("\t") for row in table.read_text().splitlines()]
    for a, b in ((2, 5), (3, 4)):  # rows of study01 and study04, study02 and study03
        rows[b][1] = rows[a][1]
    table.write_text("\n".join("\t".join(row) for row in rows) + "\n")
    with_samples(project, {"study01": "Ann", "study04": "Ann", "study02": "Bob", "study03": "Bob"})
    return home, project, prepare(gpu_sdm.read(project), settings(home), CPU)


def test_bounds_are_means(merged):
    home, project, analysis = merged
    studies = analysis.design.dataset.studies
    assert [s.name for s in studies] == ["study00", "Ann", "Bob", "study05", "study06"]
    assert [s.name for s in contrasts_of(studies)][1:3] == ["study01", "study04"]
    table = project / "sdm_table.txt"
    bare = home / "bare"
    bare.mkdir()
    for file in project.iterdir():
        (bare / file.name).write_bytes(file.read_bytes())
    text = table.read_text()
    (bare / "sdm_table.txt").write_text(
        "\n".join(row.rsplit("\t", 1)[0] for row in text.splitlines()) + "\n"
    )
    alone = prepare(gpu_sdm.read(bare), settings(home), CPU)
    for side in ("lower", "upper"):
        ours, theirs = getattr(analysis.bounds, side), getattr(alone.bounds, side)
        assert_array_equal(ours[1], theirs[[1, 4]].mean(axis=0, dtype=float).astype(np.float32))
        assert_array_equal(ours[[0, 3, 4]], theirs[[0, 5, 6]])
    assert_array_equal(analysis.reach.reached.sum(), alone.reach.reached.sum())
    ages = [s.covariates["age"] for s in alone.design.dataset.studies]
    assert studies[1].covariates["age"] == np.mean([ages[1], ages[4]])
    said = [n.message for n in analysis.notices if n.kind == "sample_merged"]
    assert len(said) == 2
    assert "study01, study04" in said[0]
    assert "age" in said[0]


def test_the_order_of_rows_does_not_matter(merged):
    home, project, analysis = merged
    dataset = gpu_sdm.read(project)
    order = [0, 4, 3, 2, 1, 5, 6]  # Ann stays second, her contrasts change places
    turned = replace(dataset, studies=tuple(dataset.studies[i] for i in order))
    again = prepare(turned, settings(home), CPU)
    assert again.design.dataset.names == analysis.design.dataset.names
    assert again.bounds.digest() == analysis.bounds.digest()
    assert again.content()["samples"] == analysis.content()["samples"]


@pytest.mark.parametrize("left", ["Ann", "study05"])
def test_a_fold_leaves_out_a_whole_sample(merged, left):
    home, project, analysis = merged
    fold = without(analysis, left)
    gone = {"Ann": ("study01", "study04")}.get(left, (left,))
    dataset = gpu_sdm.read(project)
    fresh = prepare(
        dataset.subset([n for n in dataset.names if n not in gone]), settings(home), CPU
    )
    assert fold.design.dataset.names == fresh.design.dataset.names
    assert fold.bounds.digest() == fresh.bounds.digest()
    assert_array_equal(fold.terms.c, fresh.terms.c)
    for name in ("study", "peak", "reached"):
        assert_array_equal(getattr(fold.reach, name), getattr(fresh.reach, name))
    with pytest.raises(SettingError, match="'study01' is not in the model"):
        without(analysis, "study01")


def test_tables_of_effects_show_the_merged_study(merged):
    _, _, analysis = merged
    at = site_effects(analysis, [Site("here", "point", np.array([20]), (0.0, 0.0, 0.0))])
    rows = {row["study"]: row for row in extract(at)}
    assert {"Ann", "Bob", "5 studies"} <= set(rows)
    assert "study01" not in rows
    plain = study_terms([analysis.design.dataset.studies[1].contrasts[0]])
    g = at.effects[:, 1, 0]
    expected = 0.75 * (plain.c[0] + plain.v2[0] * g**2).mean()
    assert rows["Ann"]["sampling_variance"] == pytest.approx(expected, rel=1e-12)
    sizes = {row["study"]: row["inverse_root_n"] for row in funnel(at)}
    assert sizes["Ann"] == pytest.approx(plain.n1[0] ** -0.5, rel=1e-12)


def test_t_of_a_merged_study(tmp_path):
    """Two uncorrelated contrasts of t = 1.6 are one of 1.6 sqrt(2), above a threshold of 2."""
    names, n = [f"s{k:02d}" for k in range(10)], np.full(10, 20)
    y = hedges_g(np.full(10, 1.6), n)[0] * (1 + np.repeat([0, 1e-3], 5))
    mask = write_mask(tmp_path / "mask.nii.gz", radius=1)
    project, folder = write_bounds_project(tmp_path, mask, names, n, y, y)

    def significant(**more) -> float:
        analysis = prepare(gpu_sdm.read(project), settings(tmp_path, bounds=folder, **more), CPU)
        at = site_effects(analysis, [Site("p", "point", np.array([3]), (0.0, 0.0, 0.0))])
        return bias(at)[0]["significant"]

    assert significant() == 0
    with_samples(project, {name: f"sample{k // 2}" for k, name in enumerate(names)})
    assert significant(sample_correlation=0.0) == 5
    assert significant(sample_correlation=1.0) == 0


def test_an_image_and_peaks_of_one_sample(tmp_path):
    rng = np.random.default_rng(0)
    project = write_project(tmp_path / "project", 4)
    size = gpu_sdm.read(project).studies[1].n1
    table = project / "sdm_table.txt"
    table.write_text(table.read_text() + f"map\t{size}\tNA\tNA\t30\n")
    image_projects.save(project / "map.nii.gz", image_projects.smooth_t(rng))
    with_samples(project, {"study01": "both", "map": "both"})
    analysis = prepare(gpu_sdm.read(project), settings(tmp_path), CPU)
    names = analysis.design.dataset.names
    assert names == ("study00", "both", "study02", "study03")
    width = analysis.bounds.upper - analysis.bounds.lower
    # Half of what is open about the peaks is: half of 2 b far from any.
    b = 2 * np.abs(hedges_g(gpu_sdm.read(project).studies[1].t_threshold, size)[0])
    assert width[1].max() <= b / 2 + 1e-5 < width[0].max()
    result = run(project, tmp_path)
    assert np.isfinite(result.maps["z"]).all()
    assert result.provenance["images"] == 1


def test_heights_count_a_sample_once(merged):
    _, project, _ = merged
    dataset = gpu_sdm.read(project)
    with_sample = peak_heights(dataset)[0]
    bare = [replace(s, labels={}) for s in dataset.studies]
    each = peak_heights(replace(dataset, studies=tuple(bare)))[0]
    assert len(each.studies) == 7
    assert len(with_sample.studies) == 5
    k, at = with_sample.studies.index("Ann"), [each.studies.index(f"study0{i}") for i in (1, 4)]
    assert with_sample.g[k] == pytest.approx(each.g[at].mean())
    assert with_sample.variance[k] == pytest.approx(0.75 * each.variance[at].mean(), rel=0.01)
