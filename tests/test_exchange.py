"""Permutations of the data themselves: signs of whole studies, and places of the peaks."""

from __future__ import annotations

import numpy as np
import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.analysis import limited_threads, prepare, silent
from gpu_sdm.data import Bounds
from gpu_sdm.errors import SettingError
from gpu_sdm.permute.refit import PeakPlan
from gpu_sdm.problem import build_problem
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute
from gpu_sdm.stages.meta import meta


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    write_project(folder / "project", studies=6)
    write_mask(folder / "mask.nii.gz", radius=5)
    return folder


def made(home, **changed):
    settings = {"permutations": 12, "imputations": 3, "voxel_size": 4} | changed
    chosen = gpu_sdm.Settings(mask=home / "mask.nii.gz", **settings)
    analysis = prepare(gpu_sdm.read(home / "project"), chosen, gpu_sdm.get_backend("cpu"))
    with limited_threads(analysis.backend):
        problem, pooled, _ = build_problem(analysis, silent, {})
    return analysis, problem, pooled


def test_a_flipped_study_is_fitted_again_with_its_bounds_mirrored(home):
    analysis, problem, _ = made(home, exchange="studies")
    plan, p = analysis.plan, 7
    sign = np.array([plan.flips(k, [p])[0] for k in range(plan.n_studies)])[:, None]
    assert set(sign.ravel()) == {-1, 1}
    low, high = analysis.bounds.lower, analysis.bounds.upper
    bounds = Bounds(np.where(sign > 0, low, -high), np.where(sign > 0, high, -low))
    x, space = analysis.design.X, analysis.space
    fit = estimate(bounds, analysis.terms, x, np.ones(1), analysis.discards, space, "numpy")
    names = analysis.dataset.names
    effects, _ = impute(bounds, fit, analysis.terms, x, names, analysis.settings, space, "numpy")
    z = meta(effects, analysis.terms, x, np.ones(1), "dl", space, "numpy").z
    assert np.abs(problem.refit.z(plan, p) - z).max() < 1e-4


def test_without_a_change_the_observed_map_comes_back(home):
    analysis, problem, pooled = made(home, exchange="studies")
    assert np.array_equal(problem.refit.z(analysis.plan, 0), pooled.z.astype(np.float32))


def test_peaks_move_over_the_mask_evenly_and_keep_their_offset(home):
    analysis, problem, _ = made(home, exchange="peaks")
    plan, relocation = analysis.plan, problem.refit.relocation
    assert isinstance(plan, PeakPlan)
    space = analysis.space
    inverse = np.linalg.inv(space.affine)
    mask = set(map(tuple, space.ijk().tolist()))
    before = relocation.xyz_mm
    counts = np.zeros(space.n_voxels, int)
    for p in range(1, 400):
        for k, xyz in enumerate(relocation.moved(plan, p, space)):
            moves = relocation.moves[k]
            assert np.array_equal(xyz[~moves], before[k][~moves])
            ijk = xyz[moves] @ inverse[:3, :3].T + inverse[:3, 3]
            old = before[k][moves] @ inverse[:3, :3].T + inverse[:3, 3]
            centre = ijk - (old - np.rint(old))
            assert np.allclose(centre, np.rint(centre), atol=1e-9)
            assert all(tuple(v) in mask for v in np.rint(centre).astype(int).tolist())
            np.add.at(counts, plan.places(k, p), 1)
    expected = counts.sum() / space.n_voxels
    # Chi-squared of an even spread has V - 1 degrees of freedom.
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi2 - space.n_voxels) < 5 * np.sqrt(2 * space.n_voxels)


def test_places_depend_on_seed_and_name_but_not_on_the_other_studies(home):
    analysis, problem, _ = made(home, exchange="peaks")
    first, other = analysis.plan, made(home, exchange="peaks", seed=1)[0].plan
    k = int(np.argmax(first.movable))
    assert not np.array_equal(first.places(k, 5), first.places(k, 6))
    assert not np.array_equal(first.places(k, 5), other.places(k, 5))
    here = slice(k, k + 1)
    alone = PeakPlan(0, first.names[here], (9,), (0,), "peaks", first.voxels, first.movable[here])
    assert np.array_equal(alone.places(0, 5), first.places(k, 5))
    assert problem.bank is None


@pytest.mark.parametrize("exchange", ["studies", "peaks"])
def test_the_null_does_not_depend_on_threads_or_interruption(home, exchange, tmp_path):
    data = gpu_sdm.read(home / "project")

    def run(permutations, out=None, threads=2):
        settings = gpu_sdm.Settings(
            voxel_size=4,
            mask=home / "mask.nii.gz",
            permutations=permutations,
            imputations=3,
            exchange=exchange,
        )
        return gpu_sdm.run(data, settings, backend="cpu", threads=threads, out=out)

    whole = run(7)
    assert "estimated again" in whole.provenance["null"]
    alone = run(7, threads=1)
    run(3, tmp_path / "out")
    extended = run(7, tmp_path / "out")
    for statistic, values in whole.maxima.items():
        assert np.array_equal(values, alone.maxima[statistic])
        assert np.array_equal(values, extended.maxima[statistic])


def test_what_cannot_move_is_refused(home, tmp_path):
    data = gpu_sdm.read(home / "project")
    backend = gpu_sdm.get_backend("cpu")
    far = write_project(tmp_path / "far", studies=5, effect_mm=(-60, -90, -20), noise_peaks=0)
    settings = gpu_sdm.Settings(voxel_size=4, mask=home / "mask.nii.gz", exchange="peaks")
    with pytest.raises(SettingError, match="no peak lies in the mask"):
        prepare(gpu_sdm.read(far), settings, backend)
    assert prepare(data, settings, backend).refits
