"""Conjunction and contrast of two finished results."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from projects import write_mask, write_project
from scipy import ndimage
from scipy.stats import permutation_test

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.errors import SettingError, SpaceError
from gpu_sdm.findings.common_grid import CommonGrid
from gpu_sdm.findings.conjunction import conjunction, minimum
from gpu_sdm.findings.contrast import contrast, together
from gpu_sdm.finished import open_result
from gpu_sdm.io.nifti import read_map, write_map
from gpu_sdm.ops.pool import pool
from gpu_sdm.ops.two_sets_z import TWO_SETS_Z, two_sets_z
from gpu_sdm.permute.exact import ExactPlan
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.problem import complete_effects
from gpu_sdm.spaces import SHAPES, Space

SHARED, OWN = (0, -16, 18), (-12, -10, 20)


def no_label(mm):
    return [""] * len(mm)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two results of different studies and masks: one effect in both, one in the second only."""
    home = tmp_path_factory.mktemp("two")
    ball = write_mask(home / "mask.nii.gz", radius=6)
    small = write_mask(home / "small.nii.gz", radius=5)
    for name, seed, mask, more in (
        ("a", 3, ball, {"studies": 4}),
        ("b", 8, small, {"studies": 5, "negative_mm": OWN}),
    ):
        project = write_project(home / name, effect_mm=SHARED, seed=seed, noise_peaks=1, **more)
        rename(project, name)
        chosen = gpu_sdm.Settings(voxel_size=4, mask=mask, permutations=150, imputations=3)
        gpu_sdm.run(gpu_sdm.read(project), chosen, out=home / f"out_{name}", backend="cpu")
    return home, open_result(home / "out_a"), open_result(home / "out_b")


def rename(project, letter):
    for file in project.glob("study*"):
        file.rename(file.with_name(letter + file.name))
    table = project / "sdm_table.txt"
    table.write_text(table.read_text().replace("\nstudy", f"\n{letter}study"))


def test_the_common_voxels(made):
    _, a, b = made
    grid = CommonGrid.of(a, b)
    assert np.array_equal(grid.space.mask, a.space.mask & b.space.mask)
    assert grid.space.n_voxels == b.space.n_voxels < a.space.n_voxels
    for result, mine in zip((a, b), grid.both("z"), strict=True):
        volume = result.space.embed(result.map("z"))
        assert np.array_equal(grid.space.extract(volume), mine)
    assert "in both masks" in grid.sentence()
    assert "the same mask in both" in CommonGrid.of(a, a).sentence()


def test_conjunction_is_the_minimum_with_the_larger_p(made, tmp_path):
    _, a, b = made
    found = conjunction(a, b, no_label)
    (za, zb), (pa, pb) = found.grid.both("z"), found.grid.both("p_fwe_tfce")
    assert np.array_equal(found.maps["p_fwe_tfce"], np.maximum(pa, pb))
    up, down = (za > 0) & (zb > 0), (za < 0) & (zb < 0)
    assert np.array_equal(found.maps["z"][up], np.minimum(za, zb)[up])
    assert np.array_equal(found.maps["z"][down], np.maximum(za, zb)[down])
    assert (found.maps["z"][~up & ~down] == 0).all()
    for threshold, name, alpha, z_min in (
        ("uncorrected-0.0025", "p", 0.0025, 1.0), ("fwe-voxel-0.05", "p_fwe_voxel", 0.05, 0.0),
    ):  # fmt: skip
        for side, suffix, sign in (("positive", "", 1), ("negative", "_neg", -1)):
            passing = found.maps[name + suffix] <= alpha * (1 + 1e-6)
            passing &= sign * found.maps["z"] > z_min
            label, _ = ndimage.label(found.space.embed(passing) > 0, np.ones((3, 3, 3)))
            sizes = sorted(s for s in np.bincount(label.ravel())[1:] if s >= 10)
            rows = [r for r in found.rows if r["threshold"] == threshold and r["side"] == side]
            assert sorted(r["voxels"] for r in rows) == sizes
            for row in rows:
                assert row["sdm_z"] in (row["sdm_z_first"], row["sdm_z_second"])
                assert abs(row["sdm_z"]) == min(abs(row["sdm_z_first"]), abs(row["sdm_z_second"]))
    peak = next(r for r in found.rows if r["threshold"] == "uncorrected-0.0025")
    assert np.linalg.norm(np.subtract([peak[f"{x}_mm"] for x in "xyz"], SHARED)) < 12
    out = found.save(tmp_path / "c")
    stored = read_map(out / "maps" / "p_fwe_tfce.nii.gz", found.space)
    assert np.array_equal(stored, found.maps["p_fwe_tfce"])
    assert json.loads((out / "conjunction.json").read_text())["voxels"] == found.space.n_voxels


def test_minimum_of_signs():
    z = minimum(np.array([2.0, -2, 2, -1, 0]), np.array([3.0, -1, -3, -4, 2]))
    assert z.tolist() == [2, -1, 0, -1, 0]


def test_conjunction_with_itself_is_refused_and_grids_must_agree(made):
    _, a, b = made
    with pytest.raises(SettingError, match="given twice"):
        conjunction(a, a, no_label)
    coarse = Space(2, np.ones(SHAPES[2], bool))
    with pytest.raises(SpaceError, match=r"voxels of 4 mm and .* of 2 mm"):
        CommonGrid.of(a, replace(b, space=coarse))


@pytest.mark.parametrize("method", ["dl", "reml"])
def test_the_compiled_difference_is_that_of_the_twin(rng, method):
    args, _ = TWO_SETS_Z.sample(rng)
    for effects in (args[1], args[1][:1]):
        given = (args[0], effects, *args[2:])
        twin = two_sets_z(*given, method=method)
        found = TWO_SETS_Z.on("cpu")(*given, method=method)
        np.testing.assert_allclose(found, twin, atol=1e-5 if method == "reml" else 2e-6)
    spoilt = args[1].copy()
    spoilt[0, 3, 7] = np.nan
    for backend in ("numpy", "cpu"):
        z = TWO_SETS_Z.on(backend)(args[0], spoilt, *args[2:])
        assert np.isnan(z[:, 7]).all()
        assert np.isfinite(np.delete(z, 7, axis=1)).all()


def test_every_set_is_pooled_as_a_run_pools(rng):
    (in_first, effects, c, v2), _ = TWO_SETS_Z.sample(rng)
    first = in_first[0] == 1
    one, two = (
        pool(effects[:, s], c[s], v2[s], np.ones((s.sum(), 1)), np.ones(1)) for s in (first, ~first)
    )
    expected = (one.g - two.g) / np.sqrt(one.se**2 + two.se**2)
    np.testing.assert_allclose(two_sets_z(in_first, effects, c, v2)[0], expected, rtol=1e-6)


@pytest.fixture(scope="module")
def compared(made):
    _, a, b = made
    return contrast(a, b, get_backend("cpu", 2), no_label, 126)


def test_the_observed_difference_is_that_of_the_maps(compared):
    (ga, gb), (sa, sb) = compared.grid.both("g"), compared.grid.both("se")
    z = (ga - gb) / np.sqrt(sa**2 + sb**2)
    np.testing.assert_allclose(compared.maps["z_separate"], z, atol=2e-5)
    np.testing.assert_allclose(compared.maps["g"], ga - gb, atol=1e-6)
    # Less activity in b at the place that only b reports with that sign.
    peak = int(np.argmax(compared.maps["z"]))
    assert np.linalg.norm(compared.grid.space.mm([peak])[0] - OWN) < 16
    assert compared.maps["p_permuted"][peak] <= 3 / 126
    # One mean for all draws what is unknown together.
    assert np.corrcoef(compared.maps["z"], z)[0, 1] > 0.8
    assert 0 < compared.maps["z"][peak] < z[peak]


def test_exact_p_is_that_of_every_division(made, compared):
    """C(9, 4) = 126 divisions of one table of all studies, pooled with the plain twin."""
    home, a, _ = made
    assert compared.exact
    assert compared.maxima.shape == (2, 126)
    table = []
    joint = home / "joint"
    joint.mkdir()
    for letter in "ab":
        for file in (home / letter).glob("*_mni.txt"):
            (joint / file.name).write_bytes(file.read_bytes())
        table += (home / letter / "sdm_table.txt").read_text().splitlines()[bool(table) :]
    (joint / "sdm_table.txt").write_text("\n".join(table) + "\n")
    common = compared.grid.space
    write_map(home / "common.nii.gz", np.ones(common.n_voxels), common)
    settings = replace(a.settings, mask=home / "common.nii.gz")
    analysis = prepare(gpu_sdm.read(joint), settings, get_backend("cpu", 2))
    effects, _ = complete_effects(analysis, lambda *_: None, {})
    sets = np.zeros((126, 9), np.int8)
    for row, chosen in zip(sets, itertools.combinations(range(9), 4), strict=True):
        row[list(chosen)] = 1
    z = two_sets_z(sets, effects, analysis.terms.c, analysis.terms.v2)
    np.testing.assert_allclose(compared.maps["z"], z[0], atol=1e-5)
    for side, suffix in ((1, ""), (-1, "_neg")):
        maxima = (side * z).max(axis=1)
        np.testing.assert_allclose(
            np.sort(compared.maxima[0 if side > 0 else 1]), np.sort(maxima), atol=1e-5
        )
        voxels = np.argsort(-side * z[0])[:50]
        fwe = (maxima >= side * z[0, voxels, None] - 1e-4).mean(axis=1)
        np.testing.assert_allclose(compared.maps[f"p_fwe_voxel{suffix}"][voxels], fwe, atol=1e-7)
        own = (side * z[:, voxels] >= side * z[0, voxels] - 1e-4).mean(axis=0)
        np.testing.assert_allclose(compared.maps[f"p_permuted{suffix}"][voxels], own, atol=1e-7)


def test_no_effect_depends_on_the_division(made, compared):
    """Another division of the same studies has the same effects: the test is exact."""
    _, a, b = made
    backend = get_backend("cpu", 2)
    analyses = a.analysis(backend), b.analysis(backend)
    one = together(analyses, compared.grid.space)
    two = together(analyses[::-1], compared.grid.space)
    order = [one.design.dataset.names.index(n) for n in two.design.dataset.names]
    effects = [complete_effects(x, lambda *_: None, {})[0] for x in (one, two)]
    np.testing.assert_allclose(effects[0][:, order], effects[1], atol=1e-6)


def test_exact_p_is_scipys_permutation_test(rng):
    """Complete data of one voxel: scipy divides the studies, a plain formula pools them."""
    n = rng.integers(10, 40, 8).astype(float)
    g = rng.normal(0.2, 0.3, 8) + np.repeat([0.45, 0.0], [3, 5])
    c, v2 = 1 / n, 0.5 / n

    def pooled(studies):
        y = g[studies.astype(int)]
        v = (c + v2 * g**2)[studies.astype(int)]
        w = 1 / v
        q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
        tau2 = max(0, (q - (len(y) - 1)) / (w.sum() - (w**2).sum() / w.sum()))
        w = 1 / (v + tau2)
        return (w * y).sum() / w.sum(), w.sum() ** -0.5

    def statistic(first, second):
        (a, se_a), (b, se_b) = pooled(first), pooled(second)
        return (a - b) / np.hypot(se_a, se_b)

    found = permutation_test(
        (np.arange(3.0), np.arange(3.0, 8)), statistic, alternative="greater", n_resamples=9999
    )
    in_first = ExactPlan(PermutationPlan(0, ("s",), (3,), (5,))).labels(0, np.arange(56))
    z = two_sets_z(in_first, g.astype(np.float64)[None, :, None], c, v2)[:, 0]
    assert z[0] == pytest.approx(found.statistic, abs=1e-5)
    np.testing.assert_allclose(np.sort(z), np.sort(found.null_distribution), atol=1e-5)
    assert (z >= z[0] - 1e-4).mean() == pytest.approx(found.pvalue, abs=1e-9)


def test_the_other_way_round_is_the_other_side(made, compared):
    _, a, b = made
    other = contrast(b, a, get_backend("cpu", 2), no_label, 126)
    np.testing.assert_allclose(other.maps["z"], -compared.maps["z"], atol=1e-6)
    np.testing.assert_allclose(
        other.maps["p_fwe_voxel_neg"], compared.maps["p_fwe_voxel"], atol=1e-7
    )


def test_random_divisions_begin_with_the_observed_one(made, compared):
    _, a, b = made
    found = contrast(a, b, get_backend("numpy"), no_label, 20)
    assert not found.exact
    np.testing.assert_allclose(found.maps["z"], compared.maps["z"], atol=1e-5)
    assert found.maxima[0, 0] == found.maps["z"].max()
    assert set(np.round(found.maxima[0], 4)) <= set(np.round(compared.maxima[0], 4))


def test_shared_studies_samples_and_other_models_are_refused(made, tmp_path):
    home, a, b = made
    backend = get_backend("cpu", 2)
    with pytest.raises(SettingError, match=r"4 of the studies are in both results \(astudy00"):
        contrast(a, replace(a, folder=home / "elsewhere"), backend, no_label)
    copied = write_project(tmp_path / "p", studies=4, effect_mm=SHARED, seed=3, noise_peaks=1)
    rename(copied, "z")  # the samples of `a` under other names
    chosen = replace(a.settings, mask=home / "mask.nii.gz", permutations=2)
    gpu_sdm.run(gpu_sdm.read(copied), chosen, out=tmp_path / "o", backend="cpu")
    with pytest.raises(SettingError, match=r"'zstudy00' .* sizes and findings of 'astudy00'"):
        contrast(a, open_result(tmp_path / "o"), backend, no_label)
    other = replace(b.settings, imputations=5, fwhm=25.0)
    with pytest.raises(SettingError, match=r"imputations is 3 and 5; fwhm is 20\.0 and 25\.0"):
        contrast(a, replace(b, settings=other), backend, no_label)
    with pytest.raises(SettingError, match="not the mean of its studies"):
        contrast(
            a, replace(b, settings=replace(b.settings, covariates=("age",))), backend, no_label
        )


@pytest.mark.parametrize("name", ["conjunction", "contrast"])
def test_the_commands(made, tmp_path, name):
    home, a, b = made
    command = [sys.executable, "-m", "gpu_sdm.cli", name, str(a.folder), str(b.folder), "--out",
               str(tmp_path / "o")]  # fmt: skip
    if name == "contrast":
        command += ["-n", "20"]
    environment = dict(os.environ, NO_COLOR="1")
    for _ in range(2):  # the second replaces the first
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.splitlines()[-1] == str(tmp_path / "o")
        assert "in both masks" in done.stderr
    said = json.loads((tmp_path / "o" / f"{name}.json").read_text())
    assert said["voxels"] == b.space.n_voxels
    assert (tmp_path / "o" / "maps" / "z.nii.gz").is_file()
    command[command.index(str(b.folder))] = str(home / "out_a")
    command[command.index(str(a.folder))] = str(b.folder)
    other = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert other.returncode == 1
    assert f"holds another {name}" in other.stderr
