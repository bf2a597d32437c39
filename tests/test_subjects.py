"""Simulated subjects: exact moments, wanted correlations, small groups, noise laws."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpu_sdm.backend import Backend
from gpu_sdm.data import Peaks, Study
from gpu_sdm.errors import SettingError
from gpu_sdm.ops.smooth_images import SMOOTH_IMAGES
from gpu_sdm.ops.subject_images import SUBJECT_IMAGES, subject_images
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.subjects import subject_bank

CPU = Backend("cpu", "", 2)


def study(name: str, n1: int, n2: int = 0) -> Study:
    nowhere = np.zeros((0, 3))
    empty = np.zeros(0)
    peaks = Peaks(nowhere, nowhere, empty, empty > 0, np.zeros(0, int), "no_peaks", "")
    return Study(name, n1, n2, 3.0, peaks)


def ball(radius: float, voxel_size: int = 4) -> Space:
    shape = np.array(SHAPES[voxel_size])
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in shape), indexing="ij"), axis=-1)
    return Space(voxel_size, ((grid - shape // 2) ** 2).sum(axis=-1) <= radius**2)


@pytest.fixture(scope="module")
def brain() -> Space:
    """A head-sized ellipsoid at 4 mm, 20,000 voxels."""
    shape = SHAPES[4]
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, s) for s in shape), indexing="ij"))
    return Space(4, (grid**2).sum(axis=0) < 0.55)


@pytest.mark.parametrize("op", [SUBJECT_IMAGES, SMOOTH_IMAGES], ids=lambda op: op.name)
def test_compiled_agrees_with_twin(op, rng):
    args, _ = op.sample(rng)
    ours, twin = op.cpu(*args), op.numpy(*args)
    if op is SUBJECT_IMAGES:
        assert ours[1] == twin[1]
        ours, twin = ours[0], twin[0]
    assert ours.dtype == twin.dtype == np.float32
    assert ours.shape == twin.shape
    assert_allclose(ours, twin, atol=op.rtol * np.abs(twin).max())


def face_correlations(images: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """(V, 3) by numpy's own formula, NaN where there is no neighbour."""
    images = images.astype(np.float64)
    z = (images - images.mean(axis=0)) / images.std(axis=0)
    found = np.stack([(z * z[:, backward[:, t]]).mean(axis=0) for t in range(3)], axis=1)
    return np.where(backward >= 0, found, np.nan)


def test_moments_are_exact_and_wanted_correlations_hold_wherever_a_sample_can_have_them(brain):
    backward = np.ascontiguousarray(brain.neighbours()[:, :3])
    for n in (12, 23):
        images, infeasible = SUBJECT_IMAGES.cpu(backward, 0.77, n, (5, 6), 0, brain.index)
        assert_allclose(images.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
        assert_allclose(images.var(axis=0, ddof=1, dtype=np.float64), 1, atol=1e-5)
        found = face_correlations(images, backward)
        with np.errstate(invalid="ignore"):
            off = np.abs(found - 0.77) > 1e-5
        assert off.any(axis=1).sum() == infeasible
        # infeasible voxels: all their correlations shrink by one factor, to positive ones
        bad = found[off.any(axis=1)]
        assert_allclose(np.nanmax(bad, axis=1), np.nanmin(bad, axis=1), rtol=1e-4)
        assert ((bad > 0) & (bad < 0.77) | np.isnan(bad)).all()
        assert 0.01 < infeasible / len(backward) < 0.04


def test_shares_and_lags_are_those_of_the_design(brain, capsys):
    """null.md: infeasible 2.6 %; its lags .78 .63 .41 .17 .03 are of z maps, which add signal."""
    bank = subject_bank([study("a", 20), study("b", 26)], brain, 1, ("scan", 0.77), None, CPU)
    profile = bank.lag_profile(brain)
    with capsys.disabled():
        print(f"\ninfeasible {bank.infeasible:.3f} (design .026)", end=", lags ")
        print(" ".join(f"{lag}: {r:.3f}" for lag, r in profile.items()), end=" ")
    assert_allclose(bank.infeasible, 0.026, atol=0.006)
    assert_allclose(list(profile.values()), [0.78, 0.63, 0.41, 0.17, 0.03], atol=0.045)


@pytest.mark.parametrize("n", range(2, 9))
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_small_groups_are_finite_with_exact_moments(n, backend):
    space = ball(3)
    backward = np.ascontiguousarray(space.neighbours()[:, :3])
    images, infeasible = SUBJECT_IMAGES.on(backend)(backward, 0.77, n, (1, 2), 0, space.index)
    assert np.isfinite(images).all()
    assert_allclose(images.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    assert_allclose(images.var(axis=0, ddof=1, dtype=np.float64), 1, atol=1e-5)
    if n == 2:  # one dimension: every voxel with a neighbour copies it
        assert infeasible == (backward >= 0).any(axis=1).sum()
    if n == 8:
        assert 0 < infeasible / len(backward) < 0.1


def test_nonsense_is_refused():
    space = ball(2)
    backward = np.ascontiguousarray(space.neighbours()[:, :3])
    args = (5, (1, 2), 0, space.index)
    with pytest.raises(ValueError, match="between 0 and 1"):
        subject_images(backward, 1.0, *args)
    with pytest.raises(ValueError, match="between 0 and 1"):
        SUBJECT_IMAGES.cpu(backward, np.nan, *args)
    with pytest.raises(ValueError, match="at least 2"):
        subject_images(backward, 0.5, 1, *args[1:])
    with pytest.raises(ValueError, match="comes after"):
        subject_images(np.ascontiguousarray(space.neighbours()[:, 3:]), 0.5, *args)


def test_draws_do_not_depend_on_the_rest_of_the_mask():
    both = np.zeros(SHAPES[4], bool)
    both[5:12, 5:12, 5:12] = both[20:27, 20:27, 20:27] = True
    alone = both.copy()
    alone[5:12] = False
    large, small = Space(4, both), Space(4, alone)
    for noise in (("scan", 0.77), ("gaussian", 8.7)):
        one = subject_bank([study("s", 9)], large, 7, noise, None, CPU).residuals[0]
        two = subject_bank([study("s", 9)], small, 7, noise, None, CPU).residuals[0]
        # the second cube is out of the kernel's reach of the first
        assert_allclose(one[:, np.isin(large.index, small.index)], two, atol=1e-6)


def test_images_depend_on_name_group_and_seed_alone():
    space = ball(4)
    law = ("scan", 0.77)
    three = [study("a", 6), study("b", 5, 7), study("c", 9)]
    bank = subject_bank(three, space, 3, law, None, CPU)
    again = subject_bank(three[::-1][:2], space, 3, law, None, Backend("cpu", "", 1))
    assert_array_equal(bank.residuals[2], again.residuals[0])
    assert_array_equal(bank.residuals[1], again.residuals[1])
    other = subject_bank(three, space, 4, law, None, CPU)
    assert not np.allclose(bank.residuals[0], other.residuals[0])
    a, b = bank.residuals[1][:5], bank.residuals[1][5:]
    assert bank.residuals[1].shape == (12, space.n_voxels)
    for group in (a, b):
        assert_allclose(group.mean(axis=0), 0, atol=1e-6)
        assert_allclose(group.var(axis=0, ddof=1), 1, atol=1e-5)
    assert not np.allclose(a, b[:5])
    assert not bank.residuals[0].flags.writeable


def test_progress_counts_subjects():
    seen: list[tuple[int, int]] = []
    studies = [study("a", 6), study("b", 5, 7)]
    subject_bank(
        studies,
        ball(2),
        0,
        ("scan", 0.5),
        None,
        CPU,
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(7, 18), (13, 18), (18, 18)]


def test_gaussian_noise_has_the_wanted_width(brain):
    """Correlation of Gaussian-smoothed white noise at distance d: exp(-d^2 / (4 sigma^2))."""
    bank = subject_bank([study("a", 40)], brain, 1, ("gaussian", 16.0), None, CPU)
    sigma = 16.0 / np.sqrt(8 * np.log(2))
    found = bank.lag_profile(brain, (1, 2, 4))
    for lag, r in found.items():
        assert_allclose(r, np.exp(-((4.0 * lag) ** 2) / (4 * sigma**2)), atol=0.02)
    assert bank.infeasible == 0
    images = bank.residuals[0]
    assert_allclose(images.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    assert_allclose(images.var(axis=0, ddof=1, dtype=np.float64), 1, atol=1e-5)


def test_template_noise_takes_r_from_the_template(rng):
    space = ball(5)
    backward = space.neighbours()[:, :3]
    r_face = rng.uniform(0.93, 0.98, (space.n_voxels, 3)).astype(np.float32)
    r_face[::50] = 0  # no links: no neighbours
    bank = subject_bank([study("a", 30)], space, 1, ("template", 12.0), r_face, CPU)
    found = face_correlations(bank.residuals[0], backward)
    linked = (backward >= 0) & (r_face > 0)
    close = np.abs(found[linked] - r_face[linked].astype(float) ** 12) < 1e-5
    assert close.mean() > 1 - 3.5 * bank.infeasible
    assert bank.infeasible < 0.06
    assert (np.abs(found[(backward >= 0) & (r_face == 0)]) < 0.95).all()
    with pytest.raises(SettingError, match="template's face correlations"):
        subject_bank([study("a", 30)], space, 1, ("template", 12.0), None, CPU)
