"""Analyses of studies with maps: mixed with peaks, with gaps, and alone with one imputation."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from image_projects import project, save, small_space, smooth_t
from projects import write_mask, write_project
from reference_data import hedges
from scipy import stats

import gpu_sdm
from gpu_sdm import Settings
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.data import Bounds, Peaks, RandomEffects, Study
from gpu_sdm.errors import InputError, NumericalError
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.volumes import load_space
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.pipeline import run
from gpu_sdm.problem import complete_effects
from gpu_sdm.result import PEAK_COLUMNS
from gpu_sdm.spaces import SHAPES
from gpu_sdm.stages.bounds import study_bounds
from gpu_sdm.stages.effects import study_terms
from gpu_sdm.stages.images import write_covered_mask
from gpu_sdm.stages.impute import impute, known_effects
from gpu_sdm.templates import default_mask, default_template

SOURCE = sorted((Path(__file__).parents[1] / "gpu_sdm").rglob("*.py"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Four studies with peaks, two with images; the second lacks the left half."""
    rng = np.random.default_rng(5)
    home = tmp_path_factory.mktemp("mixed")
    folder = write_project(home / "project", 4, covariate=False, seed=2)
    table = (folder / "sdm_table.txt").read_text().splitlines()
    rows = [table[1], "whole\t18\t", *table[2:], "half\t15\t12\tNA"]
    (folder / "sdm_table.txt").write_text("\n".join([table[0], *rows]) + "\n")
    t = smooth_t(rng)
    save(folder / "whole.nii.gz", t)
    t = smooth_t(rng)
    t[: SHAPES[4][0] // 2] = 0
    save(folder / "half.nii.gz", t)
    return folder, write_mask(home / "mask.nii.gz", radius=6)


def test_mixed_bounds(mixed, tmp_path):
    folder, mask = mixed
    settings = Settings(voxel_size=4, mask=mask)
    space, template = load_space(settings), default_template(4)
    dataset = gpu_sdm.read(folder)
    assert [s.image is not None for s in dataset.studies] == [False, True, *[False] * 3, True]
    bounds, _, reach = study_bounds(dataset, space, template, settings)
    alone = dataset.subset([s.name for s in dataset.studies if s.image is None])
    wanted, _, where = study_bounds(alone, space, template, settings)
    peaks = [0, 2, 3, 4]
    np.testing.assert_array_equal(bounds.lower[peaks], wanted.lower)
    np.testing.assert_array_equal(bounds.upper[peaks], wanted.upper)
    np.testing.assert_array_equal(reach.study, np.array(peaks)[where.study])
    np.testing.assert_array_equal(reach.reached, where.reached)
    np.testing.assert_array_equal(bounds.lower[1], bounds.upper[1])
    left = space.ijk()[:, 0] < SHAPES[4][0] // 2
    assert np.isneginf(bounds.lower[5][left]).all() & np.isposinf(bounds.upper[5][left]).all()
    np.testing.assert_array_equal(bounds.lower[5][~left], bounds.upper[5][~left])
    # The cache goes by content: another file, another effect.
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shutil.copy(folder / "half.nii.gz", other / "whole.nii.gz")
    changed, _, _ = study_bounds(gpu_sdm.read(other), space, template, settings)
    assert np.isinf(changed.lower[1]).any()
    again, _, _ = study_bounds(dataset, space, template, settings)
    np.testing.assert_array_equal(again.lower, bounds.lower)


def test_mixed_analysis_runs_whole(mixed, tmp_path):
    folder, mask = mixed
    settings = Settings(voxel_size=4, mask=mask, imputations=4, permutations=20, seed=3)
    analysis = prepare(gpu_sdm.read(folder), settings, get_backend("cpu"))
    assert analysis.imputations == 4
    missing = int(np.isinf(analysis.bounds.lower).sum())
    assert missing > 100
    effects, counts = complete_effects(analysis, lambda *_: None, {})
    assert counts["imputation_fallbacks"] >= missing  # drawn from the plain normal
    unknown = np.isinf(analysis.bounds.lower[5])
    assert effects[:, 5][:, unknown].std(axis=0).min() > 0
    assert (effects[:, 5][:, ~unknown] == analysis.bounds.lower[5][~unknown]).all()
    result = run(gpu_sdm.read(folder), settings, out=tmp_path / "out", backend="cpu")
    assert all(np.isfinite(values).all() for values in result.maps.values())
    table = (tmp_path / "out" / "tables" / "studies.tsv").read_text().splitlines()
    rows = {r["study"]: r for r in csv.DictReader(table, delimiter="\t")}
    columns = ("n2", "t_thr", "image", "image_file", "image_resampling")
    assert [rows["half"][c] for c in columns] == ["12", "n/a", "t", "half.nii.gz", "none"]
    assert rows["half"]["image_missing_voxels"] == str(missing)
    assert rows["study00"]["image"] == "n/a"
    assert result.provenance["images"] == 2
    assert result.provenance["imputations"] == 4
    assert result.provenance["warning_counts"]["image_missing_voxels"] == 1
    assert any(name == "half.nii.gz" for name in result.provenance["content"])


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_an_unbounded_study_tells_nothing(backend, rng):
    """With a study missing everywhere the fit is that of the others, tau2 too; draws are normal."""
    k, v = 6, 40
    n = rng.integers(10, 40, k).astype(float)
    y = rng.normal(0.3, 0.5, (k, v)).astype(np.float32)
    half = (rng.random((k, v)) < 0.5) * np.float32(0.4)
    lower, upper = y - half, y + half
    c, v2, x = 1 / n, 0.5 / n, np.ones((k, 1))
    fit = FIT_BOUNDS.on(backend)
    want = fit(lower, upper, c, v2, x, np.ones(1), 0)
    ends = ((lower, -np.inf), (upper, np.inf))
    more = [np.vstack([a, np.full(v, b, np.float32)]) for a, b in ends]
    c7, v7 = np.append(c, 0.1), np.append(v2, 0.05)
    found = fit(*more, c7, v7, np.ones((k + 1, 1)), np.ones(1), 0)
    np.testing.assert_allclose(found[0], want[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found[1], want[1], rtol=1e-5, atol=1e-9)
    assert found[3].all()

    space = small_space(2)
    many = Bounds(*(np.full((2, space.n_voxels), b, np.float32) for b in (-np.inf, np.inf)))
    model = RandomEffects(
        np.full((1, space.n_voxels), 0.4), np.full(space.n_voxels, 0.03), np.zeros((0, 0)), 0
    )
    studies = gpu_sdm_studies()
    terms = study_terms(studies)
    settings = Settings(imputations=400)
    drawn, fallbacks = impute(
        many, model, terms, np.ones((2, 1)), [s.name for s in studies], settings, space, backend
    )
    assert fallbacks == 2 * space.n_voxels
    for row, own_c, own_v2 in zip(drawn.transpose(1, 0, 2), terms.c, terms.v2, strict=True):
        sd = np.sqrt(own_c + own_v2 * 0.4**2 + 0.03)
        assert stats.kstest((row.ravel() - 0.4) / sd, "norm").pvalue > 1e-3


def gpu_sdm_studies():
    return [Study(s, n, 0, np.nan, Peaks.none("image", "")) for s, n in (("a", 12), ("b", 30))]


def dersimonian_laird(y, v):
    """Written anew: estimate and its z."""
    w = 1 / v
    mean = (w * y).sum(0) / w.sum(0)
    q = (w * (y - mean) ** 2).sum(0)
    tau2 = np.maximum(0, (q - (len(y) - 1)) / (w.sum(0) - (w**2).sum(0) / w.sum(0)))
    w = 1 / (v + tau2)
    return (w * y).sum(0) / w.sum(0), (w * y).sum(0) / np.sqrt(w.sum(0)), tau2


def test_pain21_runs_whole_with_one_imputation(pain21, tmp_path):
    table = (pain21 / "samplesize.csv").read_text().splitlines()
    sizes = {r["study_id"]: int(r["n"]) for r in csv.DictReader(table)}
    folder = project(tmp_path / "p", [f"{s}\t{n}" for s, n in sizes.items()], "study\tn1")
    for name in sizes:
        (folder / f"{name}.nii.gz").symlink_to(pain21 / f"{name}_t.nii.gz")
    dataset = gpu_sdm.read(folder)
    settings = Settings(voxel_size=4, permutations=40, statistic=("voxel",))
    everywhere = prepare(dataset, settings, get_backend("cpu"))
    assert everywhere.imputations == 50
    (gaps,) = [n for n in everywhere.notices if n.kind == "image_gaps"]
    covered = write_covered_mask(dataset, tmp_path / "covered.nii.gz", settings)
    uncovered = everywhere.space.n_voxels - covered
    assert gaps.message.startswith(f"{uncovered:,} of {everywhere.space.n_voxels:,} voxels have no")
    assert 0.7 < covered / everywhere.space.n_voxels < 0.9

    settings = Settings(
        voxel_size=4, permutations=40, statistic=("voxel",), mask=tmp_path / "covered.nii.gz"
    )
    result = run(dataset, settings, out=tmp_path / "out", backend="cpu")
    assert result.space.n_voxels == covered
    assert result.provenance["imputations"] == 1
    assert result.provenance["warning_counts"]["one_imputation"] == 1
    assert "likelihood" not in result.provenance["timings_s"]
    header = (tmp_path / "out" / "tables" / "peaks.tsv").read_text()
    assert header.rstrip("\n").split("\t") == list(PEAK_COLUMNS)
    j, c, v2, _ = hedges(np.array([float(n) for n in sizes.values()]))
    t = np.stack([nib.load(p).get_fdata()[::2, ::2, ::2] for p in sorted(folder.glob("*.gz"))])
    y = (j * np.sqrt(c))[:, None] * np.stack([result.space.extract(x) for x in t])
    g, z, tau2 = dersimonian_laird(y, c[:, None] + v2[:, None] * y**2)
    np.testing.assert_allclose(result.maps["g"], g, atol=2e-6)
    np.testing.assert_allclose(result.maps["z"], z, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(result.maps["tau2"], tau2, rtol=1e-4, atol=1e-6)
    again = read_map(tmp_path / "out" / "maps" / "z.nii.gz", result.space)
    np.testing.assert_array_equal(again, result.maps["z"])


def test_known_effects_are_what_the_imputation_gives(rng):
    space = small_space(3)
    y = rng.normal(0, 0.5, (2, space.n_voxels)).astype(np.float32)
    bounds = Bounds(y - np.float32(2e-6), y + np.float32(2e-6))
    v = space.n_voxels
    model = RandomEffects(np.zeros((1, v)), np.zeros(v), np.zeros((0, 0)), 0)
    terms = study_terms(gpu_sdm_studies())
    drawn, _ = impute(bounds, model, terms, np.ones((2, 1)), "ab", Settings(), space)
    np.testing.assert_array_equal(known_effects(bounds, space), drawn)
    lower = y.copy()
    lower[1, 5] = np.nan
    with pytest.raises(NumericalError, match="A study's effect is not a number at 1 voxel"):
        known_effects(Bounds(lower, lower.copy()), space)


def test_no_image_no_covered_mask(tmp_path):
    dataset = gpu_sdm.read(write_project(tmp_path / "p", 2, covariate=False))
    with pytest.raises(InputError, match="no study has an image"):
        write_covered_mask(dataset, tmp_path / "m.nii.gz", Settings(voxel_size=4))


def test_the_page_on_images_runs(tmp_path, rng):
    page = (Path(__file__).parents[1] / "docs" / "images.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    for name in "abcde":
        t = smooth_t(rng)
        t[:, :, :14] = 0
        save(tmp_path / f"{name}.nii.gz", t)
    project(tmp_path / "project", [f"{s}\t20" for s in "abcde"], "study\tn1")
    for name in "abcde":
        (tmp_path / f"{name}.nii.gz").rename(tmp_path / "project" / f"{name}.nii.gz")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    voxels = int(default_mask(4)[:, :, 14:].sum())
    assert done.stdout == f"{voxels} voxels, 1 imputation\n"
    for kind in re.findall(r"`(image_[a-z]+|companion_unused|one_imputation)`", page):
        assert any(f'"{kind}"' in f.read_text() for f in SOURCE), kind
