"""Linear models from project to result: laws of the engine, the command, the pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from moderated import MODELS, PLACE, analysis, peak, write_moderated
from projects import write_mask

import gpu_sdm
from gpu_sdm.backend import Backend, get_backend
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.sites import point_sites
from gpu_sdm.finished import open_result
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.permute.engine import permute
from gpu_sdm.permute.study_plan import StudyPlan
from gpu_sdm.pipeline import execute
from gpu_sdm.problem import build_problem


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    home = tmp_path_factory.mktemp("model")
    return write_moderated(home / "project"), write_mask(home / "mask.nii.gz", radius=5)


@pytest.fixture(scope="module")
def whole(inputs):
    return execute(analysis(inputs, "1 + age + drug"))


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_and_threads_do_not_change_a_bit(inputs, whole, chunk):
    other = execute(analysis(inputs, "1 + age + drug", threads=1), chunk=chunk)
    for name, maxima in whole.maxima.items():
        assert np.array_equal(other.maxima[name], maxima)
    for name, values in whole.maps.items():
        assert np.array_equal(other.maps[name], values)


def test_the_order_of_the_table_changes_no_permutation(inputs, whole, tmp_path):
    project = write_moderated(tmp_path / "p")
    head, *rows = (project / "sdm_table.txt").read_text().splitlines()
    (project / "sdm_table.txt").write_text("\n".join([head, *rows[5:], *rows[:5]]) + "\n")
    other = execute(analysis(inputs, "1 + age + drug", project=project))
    np.testing.assert_allclose(other.maps["z"], whole.maps["z"], atol=1e-5)
    np.testing.assert_allclose(other.maxima["voxel"], whole.maxima["voxel"], atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tau2", ["dl", "reml"])
def test_permutation_0_is_the_observed_map(inputs, model, tau2):
    from concurrent.futures import ThreadPoolExecutor

    from gpu_sdm.permute.engine import z_tile

    prepared = analysis(inputs, *MODELS[model], tau2=tau2)
    problem, pooled, _ = build_problem(prepared, lambda *_: None, {})
    with ThreadPoolExecutor(1) as pool:
        z = z_tile(problem, prepared.plan, 0, prepared.backend, pool)
        some = np.array([3, 50, 51, 200])
        few = z_tile(problem, prepared.plan, 0, prepared.backend, pool, only=some)
    np.testing.assert_allclose(z[0], pooled.z, atol=1e-4)
    assert np.array_equal(few, z[:, some])
    assert np.abs(z[1:] - pooled.z).max() > 0.1
    moderator = model not in ("mean", "mean of a group")
    assert isinstance(prepared.plan, StudyPlan) is moderator
    assert (problem.bank is None) is moderator


def test_the_mean_beside_covariates_is_what_covariates_give(inputs):
    ours = execute(analysis(inputs, "1 + age", ()))
    settings = replace(ours.settings, formula=None, covariates=("age",))
    theirs = gpu_sdm.run(gpu_sdm.read(inputs[0]), settings, backend="cpu", threads=2)
    for name, values in theirs.maps.items():
        assert np.array_equal(ours.maps[name], values)
    assert np.array_equal(ours.maxima["tfce"], theirs.maxima["tfce"])


def test_a_constant_covariate_gives_the_mean_model_bit_for_bit(inputs):
    one, other = execute(analysis(inputs, "1 + scanner", ())), execute(analysis(inputs, "1", ()))
    plain = gpu_sdm.run(
        gpu_sdm.read(inputs[0]), replace(one.settings, formula=None), backend="cpu", threads=2
    )
    for name, values in plain.maps.items():
        assert np.array_equal(one.maps[name], values)
        assert np.array_equal(other.maps[name], values)
    assert np.array_equal(one.maxima["voxel"], plain.maxima["voxel"])
    assert one.provenance["warning_counts"]["covariate_constant"] == 1


def test_imputation_under_the_null_leaves_the_tested_term_out(inputs):
    usual, null = (analysis(inputs, "1 + age + drug", impute_under=u) for u in ("model", "null"))
    assert usual.likelihood.x.shape == (14, 3)
    assert gpu_sdm.Settings().impute_under == "null"
    assert gpu_sdm.Settings(compat="sdm-6.21").impute_under == "model"
    assert null.likelihood.x.shape == (14, 2)
    kept = analysis(inputs, "1 + drug", ())
    np.testing.assert_allclose(
        null.likelihood.x @ np.linalg.pinv(null.likelihood.x),
        kept.design.X @ np.linalg.pinv(kept.design.X),
        atol=1e-12,
    )
    assert usual.notices[-1].kind == "few_permutations"
    assert {n.kind for n in usual.notices} - {n.kind for n in null.notices} == {"liberal_moderator"}
    mine, _, _ = build_problem(null, lambda *_: None, {})
    theirs, _, _ = build_problem(analysis(inputs, "1 + drug", (), discards=0), lambda *_: None, {})
    # The same effects as those of the model without age, but for rounding of another basis.
    assert np.abs(mine.effects - theirs.effects).mean() < 1e-4
    assert mine.design.shape == (14, 3)
    result = execute(analysis(inputs, impute_under="null", permutations=60))
    assert result.maps["p_fwe_voxel"][peak(result)] <= 0.05
    alone = analysis(inputs, impute_under="null")
    assert np.array_equal(alone.likelihood.x, np.ones((14, 1)))
    found = site_effects(null, point_sites(null.space, [PLACE])).effects[:, :, 0]
    voxel = point_sites(null.space, [PLACE])[0].voxels[0]
    np.testing.assert_allclose(found, mine.effects[:, :, voxel], atol=1e-6)


def test_a_planted_slope_is_found_where_it_is_and_nowhere_else(inputs):
    result = execute(analysis(inputs, permutations=60))
    at = peak(result)
    assert result.maps["g"][at] > 0
    assert result.maps["z"][at] > 1.5
    assert result.maps["p_fwe_voxel"][at] <= 0.05
    far = np.linalg.norm(result.space.mm() - PLACE, axis=1) > 16
    assert (result.maps["p_fwe_voxel"][far] > 0.05).all()
    assert (result.maps["p_fwe_voxel_neg"] > 0.05).all()


def test_the_joint_test_has_one_side(inputs):
    result = execute(analysis(inputs, *MODELS["joint"]))
    assert result.maps["z"].min() >= 0
    assert (result.maps["p_fwe_voxel_neg"] == 1).all()
    assert (result.maps["p_fwe_tfce_neg"] == 1).all()
    assert (result.maxima["voxel"][1] == 0).all()
    assert result.maps["p_fwe_voxel"].min() < 0.2
    assert result.provenance["contrast"]["tested"] == ["age", "adult - young"]


def test_with_a_gpu_whole_studies_are_permuted_on_the_cpu_which_is_said(inputs):
    prepared = analysis(inputs)
    problem, _, _ = build_problem(prepared, lambda *_: None, {})
    said: list[str] = []
    plan, asked = prepared.plan, (37, ("voxel", "tfce"))
    card = Backend("cuda", "a card that must not be touched", 2, device=object())
    ours = permute(problem, plan, *asked, card, say=said.append)
    theirs = permute(problem, plan, *asked, prepared.backend)
    for name in asked[1]:
        assert np.array_equal(ours.maxima[name], theirs.maxima[name])
    assert said == ["Whole studies are permuted on the CPU, not on the GPU."]


def test_few_studies_are_permuted_exactly(inputs):
    prepared = analysis(inputs, "0 + group", ("adult - young",), where="age < 45", permutations=500)
    assert len(prepared.design.dataset.studies) == 11
    assert not prepared.exact
    four = analysis(inputs, where="age < 30", permutations=500)
    assert four.exact
    assert four.permutations == 24
    result = execute(four)
    assert result.maxima["voxel"].shape == (2, 24)
    assert result.provenance["exact"]


def test_a_run_is_extended_and_opened_bit_for_bit(inputs, tmp_path):
    out = tmp_path / "out"
    execute(analysis(inputs, permutations=20), out=out)
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["formula"] == "1 + age"
    assert run["null"].startswith("given the model without the tested part")
    assert run["noise_infeasible_share"] is None
    longer = execute(analysis(inputs, permutations=45), out=out)
    fresh = execute(analysis(inputs, permutations=45))
    assert np.array_equal(longer.maxima["voxel"], fresh.maxima["voxel"])
    stored = read_maxima(out / "null" / "maxima.tsv", ("voxel", "tfce"))
    assert np.array_equal(stored["tfce"], fresh.maxima["tfce"])
    again = open_result(out).analysis(get_backend("cpu", 2))
    assert np.array_equal(again.design.contrast, [[0, 1]])


def test_results_made_before_models_existed_still_open(inputs, tmp_path):
    out, dataset = tmp_path / "out", gpu_sdm.read(inputs[0])
    settings = gpu_sdm.Settings(imputations=2, voxel_size=4, permutations=3, mask=inputs[1])
    gpu_sdm.run(dataset, settings, out=out, backend="cpu")
    run = json.loads((out / "run.json").read_text())
    for name in ("formula", "contrast", "where"):
        del run["settings"][name]
    (out / "run.json").write_text(json.dumps(run))
    assert open_result(out).analysis(get_backend("cpu")).design.names == ("mean",)
    more = replace(settings, permutations=5)
    assert gpu_sdm.run(dataset, more, out=out, backend="cpu").maxima["voxel"].shape == (2, 5)
