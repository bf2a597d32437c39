"""The smoothed maps of the likelihood: inside the mask, and as SDM-PSI 6.21 does it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.smoothing import smooth_in_mask, smooth_sdm, voxel_shares


def space_of(rng: np.random.Generator, share: float = 0.8) -> Space:
    mask = np.zeros(SHAPES[2], bool)
    mask[30:41, 40:53, 20:30] = rng.random((11, 13, 10)) < share
    return Space(2, mask)


def by_hand(values: np.ndarray, space: Space, in_place: bool) -> np.ndarray:
    """Voxel by voxel, as the docstring says it."""
    own = norm.cdf(1) - norm.cdf(-1)
    side = norm.cdf(3) - norm.cdf(1)
    volume = np.zeros(space.shape)
    volume[np.unravel_index(space.index, space.shape, order="F")] = values
    for axis in range(3):
        before = volume.copy()
        for at in np.ndindex(*volume.shape):
            if not (28 < at[0] < 43 and 38 < at[1] < 55 and 18 < at[2] < 32):
                continue  # nothing but 0 beyond
            step = np.zeros(3, int)
            step[axis] = 1
            earlier = volume if axis and in_place else before
            last, nxt = tuple(np.array(at) - step), tuple(np.array(at) + step)
            volume[at] = own * before[at] + side * earlier[last] + side * before[nxt]
    return space.extract(volume)


@pytest.mark.parametrize("in_place", [True, False])
def test_the_original_s_smoothing_voxel_by_voxel(rng: np.random.Generator, in_place: bool) -> None:
    space = space_of(rng)
    values = rng.standard_normal(space.n_voxels)
    # What is smoothed in place reaches on without end; beyond the box of `by_hand` it is < 1e-3.
    inner = np.all(np.abs(np.array(np.unravel_index(space.index, space.shape, order="F")).T
                          - [35, 46, 25]) < 6, axis=1)  # fmt: skip
    found = smooth_sdm(values, space, in_place)
    np.testing.assert_allclose(found[inner], by_hand(values, space, in_place)[inner], atol=1e-12)


def test_in_place_takes_more_from_before_than_from_after(rng: np.random.Generator) -> None:
    space = Space(2, np.ones(SHAPES[2], bool))
    spike = np.zeros(SHAPES[2])
    spike[40, 50, 40] = 1
    out = space.embed(smooth_sdm(space.extract(spike), space))
    assert out[39, 50, 40] == pytest.approx(out[41, 50, 40])
    # A voxel gives to the next ones what they took in place, and to the one before it once.
    for one, two, other in (((40, 51, 40), (40, 52, 40), (40, 49, 40)),
                            ((40, 50, 41), (40, 50, 42), (40, 50, 39))):  # fmt: skip
        assert out[two] / out[one] == pytest.approx(0.1573, abs=1e-4)
        assert out[one] < out[other]
    assert out.sum() == pytest.approx(0.9973 * (0.84 / 0.8427) ** 2, abs=1e-4)


def test_the_edge_shrinks_in_the_original_s_smoothing_alone(rng: np.random.Generator) -> None:
    space = space_of(rng, 1.0)
    ones = np.ones(space.n_voxels)
    np.testing.assert_allclose(smooth_in_mask(ones, space), 1, rtol=1e-13)
    shrunk = smooth_sdm(ones, space)
    assert shrunk.min() < 0.65 < 0.98 < shrunk.max() < 1


def test_shares_are_those_of_a_gaussian() -> None:
    for size in (2, 3, 4):
        own, side = voxel_shares(size)
        assert own == pytest.approx(norm.cdf(size / 2) - norm.cdf(-size / 2))
        assert side == pytest.approx(norm.cdf(1.5 * size) - norm.cdf(0.5 * size))
