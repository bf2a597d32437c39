"""TFCE and its maximum: against labelling, nilearn, arithmetic and SDM-PSI's numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, generate_binary_structure

from gpu_sdm.io.nifti import read_map
from gpu_sdm.ops.max_tfce import MAX_TFCE, max_statistic
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.spaces import SHAPES, Space


def _block(*shape: int) -> Space:
    mask = np.zeros(SHAPES[4], bool)
    mask[5 : 5 + shape[0], 6 : 6 + shape[1], 7 : 7 + shape[2]] = True
    return Space(4, mask)


def _snake() -> Space:
    """One voxel wide, back and forth: every cluster is a piece of the path."""
    mask = np.zeros(SHAPES[4], bool)
    mask[2:42, 2:40:2, 10] = True
    mask[41, 3:40:4, 10] = True
    mask[2, 5:40:4, 10] = True
    return Space(4, mask)


def _cases() -> dict[str, tuple[Space, np.ndarray]]:
    rng = np.random.default_rng(5)
    block, snake, single = _block(14, 13, 12), _snake(), _block(1, 1, 1)
    white = rng.standard_normal(block.n_voxels)
    smooth = block.extract(gaussian_filter(rng.standard_normal(block.shape), 1.5))
    holes = Space(4, block.mask & (rng.random(block.shape) < 0.6))
    one = np.full(block.n_voxels, -1.0)
    one[700] = 2.5
    return {
        "white noise": (block, white),
        "smooth noise": (block, smooth),
        "mask with holes": (holes, rng.standard_normal(holes.n_voxels)),
        "plateaus": (block, np.round(white)),
        "plateaus at the heights themselves": (block, np.round(25 * smooth / smooth.max()) / 25),
        "one height": (block, np.full(block.n_voxels, 3.0)),
        "one voxel above zero": (block, one),
        "one voxel far above a field": (block, np.where(np.arange(len(white)) == 9, 400.0, white)),
        "a snake": (snake, rng.standard_normal(snake.n_voxels)),
        "a slope along a snake": (snake, np.linspace(0.1, 4, snake.n_voxels)),
        "all negative": (block, -1 - np.abs(white)),
        "zeros": (block, np.zeros(block.n_voxels)),
        "one voxel in the mask": (single, np.array([1.7])),
    }


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_equals_labelling(name, dtype):
    space, z = CASES[name]
    z, neighbours = z.astype(dtype), space.neighbours()
    twin, twin_neg = TFCE.numpy(z, neighbours), TFCE.numpy(-z, neighbours)
    assert (name in ("all negative", "zeros")) == (twin.max() == 0)
    np.testing.assert_allclose(TFCE.cpu(z, neighbours), twin, rtol=1e-9)
    both = MAX_TFCE.cpu(np.stack([z, -z]), neighbours)
    np.testing.assert_allclose(both, [twin.max(), twin_neg.max()], rtol=1e-9)
    np.testing.assert_array_equal(MAX_TFCE.cpu(np.stack([-z, z]), neighbours, -1.0), both)


@given(st.lists(st.integers(-3, 6), min_size=27, max_size=27), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_any_small_map_agrees(heights, scale):
    space = _block(3, 3, 3)
    z = np.array(heights, np.float32) * np.float32(scale)
    twin = TFCE.numpy(z, space.neighbours())
    np.testing.assert_allclose(TFCE.cpu(z, space.neighbours()), twin, rtol=1e-9)
    np.testing.assert_allclose(MAX_TFCE.cpu(z[None], space.neighbours()), twin.max(), rtol=1e-9)


def test_the_sample_of_each_op_holds_its_stated_error(rng):
    for op in (TFCE, MAX_TFCE):
        args, kwargs = op.sample(rng)
        plain = op.on("numpy")(*args, **kwargs)
        fast = op.on("cpu")(*args, **kwargs)
        assert np.abs(fast - plain).max() <= op.rtol * plain.max()


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_scores_by_hand(backend):
    """Two neighbours at 1 and .5 and a lone voxel at .25: sums of squares with 1, 2, 1 voxels."""
    mask = np.zeros(SHAPES[4], bool)
    mask[5, 5, 5] = mask[6, 5, 5] = mask[20, 20, 20] = True
    space = Space(4, mask)
    squares = np.cumsum(np.arange(100) ** 2) / 100**2
    # .5 = 50 dh is not above height 50, .25 = 25 dh not above height 25.
    pair = np.sqrt(2) * squares[49]
    wanted = [pair + squares[99] - squares[49], pair, squares[24]]
    z = np.array([1.0, 0.5, 0.25])
    np.testing.assert_allclose(TFCE.on(backend)(z, space.neighbours()), wanted, rtol=1e-12)
    largest = MAX_TFCE.on(backend)(z[None], space.neighbours())
    np.testing.assert_allclose(largest, wanted[0], rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_nan_is_never_swallowed_and_infinity_scores_nothing(backend):
    space, z = CASES["white noise"]
    z, neighbours = z.astype(np.float32), space.neighbours()
    for place in (0, 1000, len(z) - 1):
        broken = z.copy()
        broken[place] = np.nan
        assert np.isnan(TFCE.on(backend)(broken, neighbours)).all()
        found = MAX_TFCE.on(backend)(np.stack([z, broken, z]), neighbours)
        assert np.isnan(found).tolist() == [False, True, False]
        assert np.isnan(max_statistic(np.stack([z, broken]))).tolist() == [[False, True]] * 2
    infinite = z.copy()
    infinite[4] = np.inf
    assert MAX_TFCE.on(backend)(infinite[None], neighbours) == 0
    assert not TFCE.on(backend)(infinite, neighbours).any()


def test_max_statistic_takes_each_side(rng):
    z = rng.standard_normal((4, 50)).astype(np.float32)
    top, top_neg = max_statistic(z)
    assert top.dtype == top_neg.dtype == np.float32
    np.testing.assert_array_equal(top, [max(row) for row in z])
    np.testing.assert_array_equal(top_neg, [max(-row) for row in z])


def test_threads_and_batches_do_not_change_a_bit():
    space, _ = CASES["smooth noise"]
    rng = np.random.default_rng(1)
    z = rng.standard_normal((12, space.n_voxels)).astype(np.float32)
    neighbours = space.neighbours()
    at_once = MAX_TFCE.cpu(z, neighbours)
    with ThreadPoolExecutor(4) as pool:
        singly = list(pool.map(lambda row: MAX_TFCE.cpu(row[None], neighbours)[0], z))
    np.testing.assert_array_equal(at_once, singly)


def test_against_nilearn():
    """nilearn takes z >= h and its hundredth step, the maximum itself: one square there."""
    from nilearn.mass_univariate._utils import calculate_tfce

    space, z = CASES["smooth noise"]
    volume = np.zeros(space.shape)
    volume[space.mask] = space.embed(z)[space.mask].astype(np.float64)
    z = space.extract(volume)
    theirs = calculate_tfce(
        volume[..., None], generate_binary_structure(3, 1), two_sided_test=False
    )
    theirs = space.extract(theirs[..., 0]) - np.where(z == z.max(), z.max() ** 2, 0)
    assert theirs.max() > 0
    np.testing.assert_allclose(TFCE.numpy(z, space.neighbours()), theirs, rtol=1e-9, atol=1e-12)


def test_against_sdm_psi(enge2021):
    mask = np.asarray(nibabel.load(enge2021 / "sdm_mask.nii.gz").dataobj) != 0
    space = Space(2, mask)
    z, neighbours = read_map(enge2021 / "mod1" / "mod1_z.nii.gz", space), space.neighbours()
    observed = np.loadtxt(enge2021 / "mod1" / "maxsMinsZ.asc", max_rows=1)
    assert observed[2:].tolist() == [87097.484375, 821.288086]
    for sign, wanted in zip((1.0, -1.0), observed[2:], strict=True):
        assert MAX_TFCE.cpu(z[None], neighbours, sign)[0] == pytest.approx(wanted, rel=1e-5)
        assert TFCE.cpu(sign * z, neighbours).max() == pytest.approx(wanted, rel=1e-5)
    assert TFCE.numpy(z, neighbours).max() == pytest.approx(observed[2], rel=1e-5)
    np.testing.assert_allclose([z.max(), -z.min()], observed[:2], atol=1e-6)
