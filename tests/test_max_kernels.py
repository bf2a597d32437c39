"""The maxima kernels, built for the host, against their NumPy twins; and races that must show."""

from __future__ import annotations

import numpy as np
import pytest
from host_build import HostKernel, build, needs_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from gpu_sdm.backend.kernels import source
from gpu_sdm.ops.max_tfce import max_statistic, max_tfce
from gpu_sdm.ops.tfce import STEP_SUM
from gpu_sdm.permute import launch
from gpu_sdm.spaces import SHAPES, Space

pytestmark = needs_compiler

BLOCKS = (1, 32, 256)


def run_max_statistic(z: np.ndarray, block: int) -> np.ndarray:
    best = np.full((2, len(z)), -77, np.float32)
    kernel = HostKernel("max_statistic.cu", "max_statistic")
    kernel(2, block, [z, best, np.int64(len(z)), np.int64(z.shape[1])])
    return best


@pytest.mark.parametrize("block", BLOCKS)
def test_max_statistic_is_exact(rng: np.random.Generator, block: int) -> None:
    z = rng.standard_normal((5, 1001)).astype(np.float32)
    z[1] = -np.abs(z[1]) - 1
    z[2] = 0
    z[3, 7] = np.inf
    z[4, 999] = np.nan
    found = run_max_statistic(z, block)
    np.testing.assert_array_equal(found, np.stack(max_statistic(z)))
    assert np.isnan(found[:, 4]).all()
    assert found[0, 1] < 0
    np.testing.assert_array_equal(
        run_max_statistic(z[:1, :1].copy(), block), [[z[0, 0]], [-z[0, 0]]]
    )


def run_max_tfce(
    z: np.ndarray, neighbours: np.ndarray, block: int, grid: int = 2, seed: int = 1
) -> np.ndarray:
    p, v = z.shape
    best = np.full((2, p), -77.0)
    scratch = np.full((grid, launch.scratch_words(v)), -77, np.int32)
    HostKernel("max_tfce.cu", "max_tfce")(
        grid, block,
        [z, neighbours, np.array(STEP_SUM), best, scratch, np.int64(p), np.int64(v)], seed,
    )  # fmt: skip
    return best


def check_tfce(z: np.ndarray, neighbours: np.ndarray, seed: int = 1) -> None:
    twin = np.stack([max_tfce(z, neighbours), max_tfce(z, neighbours, -1.0)])
    first = run_max_tfce(z, neighbours, 1)
    np.testing.assert_allclose(first, twin, rtol=1e-12)
    for block, grid in ((32, 1), (32, 5), (256, 3)):
        found = run_max_tfce(z, neighbours, block, grid, seed)
        np.testing.assert_array_equal(found, first)


def block_space(rng: np.random.Generator, share: float = 0.9) -> Space:
    mask = np.zeros(SHAPES[4], bool)
    mask[10:19, 12:20, 8:16] = rng.random((9, 8, 8)) < share
    return Space(4, mask)


def smooth(space: Space, rng: np.random.Generator) -> np.ndarray:
    field = gaussian_filter(rng.standard_normal(space.shape), 1.5)
    return space.extract(field / field.std()).astype(np.float32)


def test_max_tfce_of_noise_and_of_smooth_maps(rng: np.random.Generator) -> None:
    space = block_space(rng)
    z = np.stack([rng.standard_normal(space.n_voxels).astype(np.float32), smooth(space, rng)])
    check_tfce(z, space.neighbours())


def test_max_tfce_of_plateaus(rng: np.random.Generator) -> None:
    space = block_space(rng)
    steps = np.round(3 * smooth(space, rng)).astype(np.float32)
    flat = np.full_like(steps, 2.5)
    two = np.where(rng.random(space.n_voxels) < 0.5, 1.0, -1.0).astype(np.float32)
    check_tfce(np.stack([steps, flat, two]), space.neighbours())


def snake_space() -> Space:
    """One path that fills a block without touching itself."""
    mask = np.zeros(SHAPES[4], bool)
    for z in range(0, 6, 2):
        for y in range(0, 8, 2):
            mask[10:20, 10 + y, 10 + z] = True
            if y < 6:
                mask[19 if y % 4 == 0 else 10, 11 + y, 10 + z] = True
        if z < 4:
            mask[10, 10 + (6 if z % 4 == 0 else 0), 11 + z] = True
    return Space(4, mask)


def test_max_tfce_of_a_snake(rng: np.random.Generator) -> None:
    space = snake_space()
    n = space.n_voxels
    rising = np.linspace(0.1, 5, n).astype(np.float32)
    teeth = np.where(np.arange(n) % 2, 3.0, 1.0).astype(np.float32)
    check_tfce(np.stack([rising, -rising, teeth, np.full(n, 1, np.float32)]), space.neighbours())


def test_max_tfce_of_awkward_maps(rng: np.random.Generator) -> None:
    space = block_space(rng, 0.5)
    n = space.n_voxels
    negative = -np.abs(rng.standard_normal(n)).astype(np.float32) - 1
    single = np.zeros(n, np.float32)
    single[n // 2] = 3
    edges = (np.arange(n) % 101 / np.float32(100)).astype(np.float32)  # on the heights themselves
    tiny = np.float32(1e-38) * edges
    check_tfce(np.stack([negative, single, np.zeros_like(single), edges, tiny]), space.neighbours())
    assert run_max_tfce(negative[None], space.neighbours(), 32)[0, 0] == 0


def test_max_tfce_of_one_voxel() -> None:
    alone = np.full((1, 6), -1, np.int32)
    check_tfce(np.array([[2.5], [-1.0], [0.0]], np.float32), alone)


def test_max_tfce_says_nan_and_gives_0_for_infinity(rng: np.random.Generator) -> None:
    space = block_space(rng)
    z = np.stack([smooth(space, rng)] * 3)
    z[0, 11], z[1, 5] = np.nan, np.inf
    for block in BLOCKS:
        found = run_max_tfce(z, space.neighbours(), block, grid=1)
        assert np.isnan(found[:, 0]).all()
        assert found[0, 1] == 0
        np.testing.assert_allclose(found[:, 2], [max_tfce(z[2:], space.neighbours(), s)[0]
                                                 for s in (1.0, -1.0)])  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_max_tfce_whatever_the_schedule(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPES[4], bool)
    mask[3:8, 3:8, 3:7] = rng.random((5, 5, 4)) < 0.8
    mask[3, 3, 3] = True
    space = Space(4, mask)
    z = rng.integers(-values, values, (2, space.n_voxels)).astype(np.float32)
    expected = run_max_tfce(z, space.neighbours(), 1)
    np.testing.assert_allclose(expected[0], max_tfce(z, space.neighbours()), rtol=1e-12)
    np.testing.assert_array_equal(run_max_tfce(z, space.neighbours(), 48, seed=seed), expected)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("const int old = atomicCAS(parent + a, a, b);",
         "const int old = parent[a]; host::perhaps_yield(2); if (old == a) parent[a] = b;"),
        ("const int before = atomicExch(done + root, i + 1);",
         "const int before = done[root]; host::perhaps_yield(2); done[root] = i + 1;"),
        ("atomicAdd(size + root, size[a]);",
         "const int s = size[root]; host::perhaps_yield(2); size[root] = s + size[a];"),
    ],
)  # fmt: skip
def test_the_shim_notices_a_race(rng: np.random.Generator, right: str, wrong: str) -> None:
    text = source("max_tfce.cu")
    assert right in text
    library = build(text.replace(right, wrong))
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = library, "max_tfce"
    space = block_space(rng)
    z = np.stack([smooth(space, rng), rng.integers(0, 6, space.n_voxels).astype(np.float32)])
    v = z.shape[1]
    right_one = run_max_tfce(z, space.neighbours(), 64).tobytes()
    found = []
    for seed in range(8):
        best = np.zeros((2, 2))
        scratch = np.zeros((1, launch.scratch_words(v)), np.int32)
        sizes = np.int64(2), np.int64(v)
        kernel(1, 64, [z, space.neighbours(), np.array(STEP_SUM), best, scratch, *sizes], seed)
        found.append(best.tobytes())
    assert any(f != right_one for f in found)
