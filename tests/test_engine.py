"""Laws of the engine: no chunk, thread, order or left-out study changes a bit."""

from __future__ import annotations

import numpy as np
import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.errors import NumericalError
from gpu_sdm.permute.engine import Problem, permute
from gpu_sdm.pipeline import execute
from gpu_sdm.problem import build_problem


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    home = tmp_path_factory.mktemp("engine")
    project = write_project(home / "project", studies=6, two_sample=2)
    return project, write_mask(home / "mask.nii.gz", radius=5)


def analysis(inputs, backend="cpu", threads=2, project=None, **changes):
    mine = {"imputations": 3, "voxel_size": 4, "permutations": 33, "mask": inputs[1]} | changes
    dataset = gpu_sdm.read(project or inputs[0], compat=mine.get("compat") is not None)
    return prepare(dataset, gpu_sdm.Settings(**mine), get_backend(backend, threads))


@pytest.fixture(scope="module")
def whole(inputs):
    return execute(analysis(inputs))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_do_not_change_a_bit(inputs, whole, chunk):
    """33 permutations leave a tail of one behind the tile of 32."""
    other = execute(analysis(inputs), chunk=chunk)
    for name, maxima in whole.maxima.items():
        assert np.array_equal(other.maxima[name], maxima)


def test_threads_do_not_change_a_bit(inputs, whole):
    other = execute(analysis(inputs, threads=1))
    for name, values in whole.maps.items():
        assert np.array_equal(other.maps[name], values)
    for name, maxima in whole.maxima.items():
        assert np.array_equal(other.maxima[name], maxima)


def test_resorted_table_changes_no_draw(inputs, whole, tmp_path):
    project = write_project(tmp_path / "p", studies=6, two_sample=2)
    head, *rows = (project / "sdm_table.txt").read_text().splitlines()
    (project / "sdm_table.txt").write_text("\n".join([head, *rows[::-1]]) + "\n")
    other = execute(analysis(inputs, project=project))
    np.testing.assert_allclose(other.maps["z"], whole.maps["z"], atol=2e-6)
    np.testing.assert_allclose(other.maxima["voxel"], whole.maxima["voxel"], atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compat": "sdm-6.21"},
        {"covariates": ("age",)},
        {"exchange": "studies"},
        {"tau2": "reml"},
        {"imputation": "truncated-normal"},
        {"noise": "gaussian:8"},
        {"noise": "template:12"},
        {"statistic": ("tfce",)},
        {"anisotropy": 0.5, "fwhm": 25.0, "discards": 0},
    ],
    ids=str,
)
def test_every_setting_runs_and_identity_is_the_observed_map(inputs, whole, changes):
    prepared = analysis(inputs, **changes)
    problem, pooled, counts = build_problem(prepared, lambda *_: None, {})
    assert counts["voxels_not_converged"] == 0
    from concurrent.futures import ThreadPoolExecutor

    from gpu_sdm.permute.engine import z_tile

    with ThreadPoolExecutor(1) as pool:
        z = z_tile(problem, prepared.plan, 0, prepared.backend, pool)
    np.testing.assert_allclose(z[0], pooled.z, atol=1e-4)
    assert np.abs(z[1:] - pooled.z).max() > 0.1
    result = execute(prepared)
    assert all(np.isfinite(m).all() for m in result.maps.values())


def test_backends_agree(inputs, whole):
    other = execute(analysis(inputs, backend="numpy"))
    np.testing.assert_allclose(other.maps["z"], whole.maps["z"], atol=1e-4)
    np.testing.assert_allclose(other.maxima["voxel"], whole.maxima["voxel"], atol=1e-4)
    np.testing.assert_allclose(other.maxima["tfce"], whole.maxima["tfce"], rtol=2e-2)
    for side in ("p_fwe_voxel", "p_fwe_voxel_neg"):
        assert np.abs(other.maps[side] - whole.maps[side]).max() <= 1 / 33 + 1e-6


def test_constant_covariate_gives_the_mean_model_bit_for_bit(inputs, whole, tmp_path):
    project = write_project(tmp_path / "p", studies=6, two_sample=2)
    lines = (project / "sdm_table.txt").read_text().splitlines()
    lines = [lines[0] + "\tscanner"] + [row + "\t3" for row in lines[1:]]
    (project / "sdm_table.txt").write_text("\n".join(lines) + "\n")
    other = execute(analysis(inputs, project=project, covariates=("scanner",)))
    for name, values in whole.maps.items():
        assert np.array_equal(other.maps[name], values)
    assert np.array_equal(other.maxima["tfce"], whole.maxima["tfce"])
    assert other.provenance["warning_counts"]["covariate_constant"] == 1


def test_leaving_a_study_out_keeps_the_other_draws(inputs, tmp_path):
    project = write_project(tmp_path / "p", studies=6, two_sample=2)
    table = project / "sdm_table.txt"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(r for r in rows if not r.startswith("study02")))
    some, full = analysis(inputs, project=project), analysis(inputs)
    (one, _, _), (all_, _, _) = (build_problem(a, lambda *_: None, {}) for a in (some, full))
    keep = [k for k, name in enumerate(full.dataset.names) if name != "study02"]
    for mine, theirs in zip(
        one.bank.residuals, [all_.bank.residuals[k] for k in keep], strict=True
    ):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(some.bounds.lower, full.bounds.lower[keep])
    numbers = np.arange(40)
    for mine, k in enumerate(keep):
        a, b = some.plan.weights(mine, numbers), full.plan.weights(k, numbers)
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])


def test_nan_is_an_error_with_its_place(inputs):
    prepared = analysis(inputs)
    problem, _, _ = build_problem(prepared, lambda *_: None, {})
    effects = problem.effects.copy()
    effects[0, 0, 5] = np.nan
    fields = {f: getattr(problem, f) for f in Problem.__dataclass_fields__}
    x, y, z = prepared.space.mm([5])[0]
    with pytest.raises(NumericalError, match=rf"MNI \({x:g}, {y:g}, {z:g}\) in permutation 1"):
        permute(
            Problem(**fields | {"effects": effects}), prepared.plan, 33, ("voxel",),
            prepared.backend,
        )  # fmt: skip


def test_repeated_permutations_repeat_their_bits(tmp_path, inputs):
    """Random flips of 5 studies repeat after a while; the observed map recurs as a tie."""
    project = write_project(tmp_path / "p", studies=5)
    prepared = analysis(inputs, project=project, exchange="studies", permutations=31)
    assert prepared.plan.distinct() == 32
    result = execute(prepared)
    z = result.maxima["voxel"][0].astype(np.float64)
    seen = {}
    for p in range(1, 31):
        flips = tuple(int(prepared.plan.flips(k, [p])[0]) for k in range(5))
        assert seen.setdefault(flips, z[p]) == z[p]
    assert len(seen) < 30
    recurrences = sum(all(prepared.plan.flips(k, [p])[0] == 1 for k in range(5)) for p in range(31))
    assert result.maps["p_fwe_voxel"].min() >= recurrences / 31 - 1e-6


def test_case_control_project_finds_both_signs(tmp_path):
    """Eight two-sample studies with one place of more and one of less activity in patients."""
    places = {"": (0, -16, 18), "_neg": (-30, -10, 20)}
    project = write_project(
        tmp_path / "p", studies=8, two_sample=8, effect_mm=places[""], negative_mm=places["_neg"]
    )
    mask = write_mask(tmp_path / "mask.nii.gz", radius=9)
    chosen = gpu_sdm.Settings(voxel_size=4, imputations=5, permutations=100, mask=mask)
    result = gpu_sdm.run(gpu_sdm.read(project), chosen)
    mm = result.space.mm()
    for side, place in places.items():
        peak = int(np.argmax(result.maps["z"] * (-1 if side else 1)))
        assert np.linalg.norm(mm[peak] - place) < 12
        for statistic in ("voxel", "tfce"):
            assert result.maps[f"p_fwe_{statistic}{side}"][peak] <= 0.05
        assert np.sign(result.maps["g"][peak]) == (-1 if side else 1)
