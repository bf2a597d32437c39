"""Cluster maxima and exceedance counts: kernels built for the host, compiled versions, twins."""

from __future__ import annotations

import numpy as np
import pytest
from host_build import HostKernel, build, needs_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import generate_binary_structure
from test_max_kernels import block_space, smooth, snake_space

from gpu_sdm.backend.kernels import defines, source
from gpu_sdm.ops.exceedances import EXCEEDANCES, exceedances
from gpu_sdm.ops.max_cluster import MAX_CLUSTER, box_neighbours, max_cluster
from gpu_sdm.spaces import SHAPES, Space

BLOCKS = (1, 32, 256)
UNIT = 2.0**-24  # of the mass in the kernel


def neighbours_of(space: Space, n: int) -> np.ndarray:
    return space.neighbours() if n == 6 else box_neighbours(space)


def both_sides(z: np.ndarray, neighbours: np.ndarray, threshold: float, backend: str) -> np.ndarray:
    """(2, 2, P): extent and mass, the positive side first."""
    compute = MAX_CLUSTER.on(backend)
    sides = [compute(z, neighbours, threshold, sign) for sign in (1.0, -1.0)]
    return np.stack(sides, axis=1)


def run_max_cluster(
    z: np.ndarray, neighbours: np.ndarray, threshold: float, block: int, grid: int = 2,
    seed: int = 1,
) -> np.ndarray:  # fmt: skip
    p, v = z.shape
    best = np.full((2, 2, p), -77.0)
    scratch = np.full((grid, 4 * v), -77, np.int32)
    kernel = HostKernel("max_cluster.cu", "max_cluster", NEIGHBOURS=neighbours.shape[1])
    numbers = np.float32(threshold), np.int64(p), np.int64(v)
    kernel(grid, block, [z, neighbours, best, scratch, *numbers], seed)
    return best


def check(z: np.ndarray, neighbours: np.ndarray, threshold: float) -> np.ndarray:
    twin = both_sides(z, neighbours, threshold, "numpy")
    np.testing.assert_allclose(both_sides(z, neighbours, threshold, "cpu"), twin, rtol=1e-9)
    first = run_max_cluster(z, neighbours, threshold, 1)
    np.testing.assert_array_equal(first[0], twin[0])
    np.testing.assert_allclose(first[1], twin[1], rtol=1e-12, atol=z.shape[1] * UNIT)
    for block, grid in ((32, 1), (32, 5), (256, 3)):
        found = run_max_cluster(z, neighbours, threshold, block, grid)
        np.testing.assert_array_equal(found, first)
    return twin


@pytest.mark.parametrize("n", [6, 26])
def test_neighbours_are_mutual_and_ordered(rng: np.random.Generator, n: int) -> None:
    space = block_space(rng)
    neighbours, here = neighbours_of(space, n), np.arange(space.n_voxels)[:, None]
    back, ahead = neighbours[:, : n // 2], neighbours[:, n // 2 :]
    assert (back < here).all()
    assert ((ahead > here) | (ahead < 0)).all()
    ijk = space.ijk()
    for links in (back, ahead):
        v, column = np.nonzero(links >= 0)
        apart = np.abs(ijk[v] - ijk[links[v, column]])
        assert (apart.max(axis=1) == 1).all()
        assert (apart.sum(axis=1) <= (1 if n == 6 else 3)).all()
    assert (back >= 0).sum() == (ahead >= 0).sum()


@pytest.mark.parametrize("n", [6, 26])
@pytest.mark.parametrize("threshold", [0.5, 1.25])
def test_the_twin_gives_nilearn_s_clusters(
    rng: np.random.Generator, n: int, threshold: float
) -> None:
    nilearn = pytest.importorskip("nilearn.mass_univariate._utils")
    space = block_space(rng)
    maps = [smooth(space, rng), rng.standard_normal(space.n_voxels).astype(np.float32)]
    structure = generate_binary_structure(3, 1 if n == 6 else 3)
    for z in maps:
        twin = both_sides(z[None], neighbours_of(space, n), threshold, "numpy")[:, :, 0]
        for side, sign in enumerate((1, -1)):
            volume = space.embed(sign * z).astype(np.float64)[..., None]
            size, mass = nilearn.calculate_cluster_measures(volume, threshold, structure)
            assert twin[0, side] == size[0] > 0
            assert twin[1, side] == pytest.approx(mass[0], rel=1e-9)


@needs_compiler
@pytest.mark.parametrize("n", [6, 26])
def test_max_cluster_of_noise_and_of_smooth_maps(rng: np.random.Generator, n: int) -> None:
    space = block_space(rng)
    z = np.stack([rng.standard_normal(space.n_voxels).astype(np.float32), smooth(space, rng)])
    for threshold in (0.0, 0.1, 0.7, 2.3):
        found = check(z, neighbours_of(space, n), threshold)
        assert found.any()


@needs_compiler
@pytest.mark.parametrize("n", [6, 26])
def test_max_cluster_of_plateaus_and_of_awkward_maps(rng: np.random.Generator, n: int) -> None:
    space = block_space(rng, 0.5)
    v = space.n_voxels
    flat = np.full(v, 2.5, np.float32)
    at_threshold = np.full(v, 1, np.float32)  # "above" is strict
    negative = -np.abs(rng.standard_normal(v)).astype(np.float32) - 1
    single = np.zeros(v, np.float32)
    single[v // 2] = 3
    huge = np.where(np.arange(v) % 3 == 0, np.inf, 1e20).astype(np.float32)
    z = np.stack([flat, at_threshold, negative, single, huge])
    found = check(z, neighbours_of(space, n), 1.0)
    assert (found[:, :, 1] == 0).all()
    assert found[:, 0, 2].tolist() == [0, 0]
    assert found[:, 0, 3].tolist() == [1, 2]


@needs_compiler
def test_max_cluster_of_a_snake() -> None:
    space = snake_space()
    v = space.n_voxels
    whole = np.full(v, 2, np.float32)
    cut = whole.copy()
    cut[v // 2] = 0
    found = check(np.stack([whole, cut]), space.neighbours(), 0.5)
    assert found[0, 0, 0] == v
    assert found[0, 0, 1] < v - 1


@needs_compiler
def test_max_cluster_of_one_voxel_and_of_nan(rng: np.random.Generator) -> None:
    alone = np.full((1, 6), -1, np.int32)
    check(np.array([[2.5], [-1.0], [0.0]], np.float32), alone, 0.5)
    space = block_space(rng)
    z = np.stack([smooth(space, rng)] * 2)
    z[0, 11] = np.nan
    for found in (
        both_sides(z, space.neighbours(), 0.5, "numpy"),
        both_sides(z, space.neighbours(), 0.5, "cpu"),
        *(run_max_cluster(z, space.neighbours(), 0.5, block, 1) for block in BLOCKS),
    ):
        assert np.isnan(found[:, :, 0]).all()
        assert (found[:, :, 1] > 0).all()


@needs_compiler
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([6, 26]))
def test_max_cluster_whatever_the_schedule(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPES[4], bool)
    mask[3:8, 3:8, 3:7] = rng.random((5, 5, 4)) < 0.8
    mask[3, 3, 3] = True
    space = Space(4, mask)
    z = rng.integers(-4, 5, (2, space.n_voxels)).astype(np.float32)
    neighbours = neighbours_of(space, n)
    found = run_max_cluster(z, neighbours, 0.5, 48, seed=seed)
    np.testing.assert_array_equal(found, both_sides(z, neighbours, 0.5, "numpy"))


@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("const int old = atomicCAS(parent + a, a, b);",
         "const int old = parent[a]; host::perhaps_yield(2); if (old == a) parent[a] = b;"),
        ("atomicAdd(size + root, 1);",
         "const int s = size[root]; host::perhaps_yield(2); size[root] = s + 1;"),
    ],
)  # fmt: skip
def test_the_shim_notices_a_race_here_too(rng: np.random.Generator, right: str, wrong: str) -> None:
    text = defines({"NEIGHBOURS": 6}) + source("max_cluster.cu")
    assert right in text
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = build(text.replace(right, wrong)), "max_cluster"
    space = block_space(rng, 1.0)
    # A third of the voxels: clusters hang together by single links, of which none may be lost.
    z = rng.standard_normal((8, space.n_voxels)).astype(np.float32)
    expected = both_sides(z, space.neighbours(), 0.4, "numpy")[0]
    right_one = run_max_cluster(z, space.neighbours(), 0.4, 64)[0]
    np.testing.assert_array_equal(right_one, expected)
    scratch = np.zeros((1, 4 * space.n_voxels), np.int32)
    wrong_maps = 0
    for seed in range(8):
        best = np.zeros((2, 2, 8))
        numbers = np.float32(0.4), np.int64(8), np.int64(space.n_voxels)
        kernel(1, 64, [z, space.neighbours(), best, scratch, *numbers], seed)
        wrong_maps += int((best[0] != expected).sum())
    assert wrong_maps > 0


def test_sample_of_the_op(rng: np.random.Generator) -> None:
    args, kwargs = MAX_CLUSTER.sample(rng)
    for found, twin in zip(
        MAX_CLUSTER.on("cpu")(*args, **kwargs), max_cluster(*args, **kwargs), strict=True
    ):
        np.testing.assert_allclose(found, twin, rtol=MAX_CLUSTER.rtol)


@needs_compiler
@pytest.mark.parametrize("block", BLOCKS)
def test_exceedances_are_exact(rng: np.random.Generator, block: int) -> None:
    z = np.round(rng.standard_normal((40, 333)), 1).astype(np.float32)
    z[3, 5], z[4, 6], z[5, 7] = np.nan, np.inf, -np.inf
    observed = z[11].copy()
    tolerance = 1e-4
    count = np.zeros((2, 333), np.int32)
    kernel = HostKernel("exceedances.cu", "exceedances")
    for maps in (z[:13], z[13:]):  # in two parts
        numbers = np.float32(tolerance), np.int64(len(maps)), np.int64(333)
        kernel(2, block, [maps, observed, count, *numbers])
    np.testing.assert_array_equal(count, exceedances(z, observed, tolerance))


def test_exceedances_count_ties_and_nan() -> None:
    observed = np.array([1.0, -2.0], np.float32)
    z = np.array([[1.0, -2.0], [0.99995, -1.99995], [0.9998, 5], [np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(exceedances(z, observed, 1e-4), [[3, 4], [4, 3]])
    args, _ = EXCEEDANCES.sample(np.random.default_rng(1))
    assert (EXCEEDANCES.on("cpu")(*args).sum(axis=0) >= 21).all()  # each map is on one side or both
