"""Connectivity maps of a user, and where they meet co-activation."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import special, stats

from gpu_sdm.decode.coactivation import Coactivation
from gpu_sdm.decode.connectivity import conjunction, read_connectivity
from gpu_sdm.errors import InputError, SettingError, SpaceError
from gpu_sdm.spaces import SHAPES, Space, grid_affine


@pytest.fixture
def space() -> Space:
    mask = np.zeros(SHAPES[4], bool)
    mask[20:30, 20:30, 20:30] = True
    return Space(4, mask)


def write(path, volume, affine=None):
    nib.save(
        nib.Nifti1Image(volume.astype(np.float32), grid_affine(4) if affine is None else affine),
        path,
    )
    return path


def test_fisher_z_and_its_test(space, tmp_path, rng):
    r = rng.uniform(-0.9, 0.9, space.n_voxels).astype(np.float32)
    r[0] = 1
    path = write(tmp_path / "r.nii.gz", space.embed(r))
    found = read_connectivity(path, space)
    assert found.z is None
    np.testing.assert_allclose(found.fisher_z[1:], np.arctanh(r[1:].astype(float)), rtol=1e-6)
    assert 7 < found.fisher_z[0] < 8  # the seed itself: 1 has no Fisher z
    np.testing.assert_array_equal(found.passes, r > 0.2)
    tested = read_connectivity(path, space, 0.2, n=20)
    np.testing.assert_allclose(tested.z, found.fisher_z * np.sqrt(17))
    q = stats.false_discovery_control(2 * special.ndtr(-np.abs(tested.z)))
    np.testing.assert_array_equal(tested.passes, (r > 0.2) & (q <= 0.05))
    assert 0 < tested.passes.sum() < found.passes.sum()


def test_another_grid_is_interpolated(space, tmp_path):
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = (-90, -126, -72)
    mm = np.indices((61, 73, 61)).reshape(3, -1).T * 3.0 + affine[:3, 3]
    volume = (0.3 + mm @ np.array([0.001, -0.002, 0.0005])).reshape(61, 73, 61)
    found = read_connectivity(write(tmp_path / "r.nii.gz", volume, affine), space)
    wanted = 0.3 + space.mm() @ np.array([0.001, -0.002, 0.0005])
    np.testing.assert_allclose(np.tanh(found.fisher_z), wanted, atol=1e-6)


def test_holes_do_not_connect(space, tmp_path):
    volume = np.full(SHAPES[4], 0.6)
    volume[25:] = np.nan
    found = read_connectivity(write(tmp_path / "r.nii.gz", volume), space, n=50)
    assert found.passes.sum() == space.n_voxels / 2
    assert not np.isnan(found.z).any()


def test_the_conjunction_is_the_smaller_z_of_both(space, tmp_path, rng):
    n = space.n_voxels
    z, q = rng.normal(2, 2, n), rng.uniform(0, 0.1, n)
    counts = np.zeros(n, np.int32)
    coactive = Coactivation(30, 300, z, q, z.copy(), counts, counts.copy())
    r = rng.uniform(-0.2, 0.8, n).astype(np.float32)
    path = write(tmp_path / "r.nii.gz", space.embed(r))
    alone, tested = read_connectivity(path, space), read_connectivity(path, space, n=30)
    both = (q <= 0.05) & (z > 0) & (r > 0.2)
    np.testing.assert_array_equal(conjunction(coactive, alone, 0.05), np.where(both, z, 0))
    joint = conjunction(coactive, tested, 0.05)
    both &= tested.passes
    np.testing.assert_array_equal(joint, np.where(both, np.minimum(z, tested.z), 0))
    assert (joint[both] < z[both]).any()
    assert (joint[both] == z[both]).any()


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (3.1, InputError, "holds 3.1; correlations lie between"),
        (0.0, SpaceError, "0 or without data in the whole mask"),
        (np.nan, SpaceError, "0 or without data in the whole mask"),
    ],
)
def test_what_is_no_map_of_r_is_refused(space, tmp_path, value, error, words):
    path = write(tmp_path / "r.nii.gz", np.full(SHAPES[4], value))
    with pytest.raises(error, match=words):
        read_connectivity(path, space)


def test_too_few_observations(space, tmp_path):
    with pytest.raises(SettingError, match="--n is 3"):
        read_connectivity(tmp_path / "r.nii.gz", space, n=3)
