"""The kernel of the whole enhanced map, built for the host, against its NumPy twin."""

from __future__ import annotations

import numpy as np
import pytest
from host_build import HostDevice, HostKernel, build, needs_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device_engine import plan_of, problem_of
from test_max_kernels import block_space, run_max_tfce, smooth, snake_space

from gpu_sdm.backend.kernels import source
from gpu_sdm.ops.tfce import STEP_SUM, TFCE, tfce
from gpu_sdm.permute import launch
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.spaces import SHAPES, Space

pytestmark = needs_compiler

BLOCKS = ((1, 1), (32, 1), (32, 5), (256, 3))  # threads of a block, blocks of the grid


def run_map(
    z: np.ndarray,
    neighbours: np.ndarray,
    block: int,
    grid: int = 2,
    seed: int = 1,
    kernel: HostKernel | None = None,
) -> np.ndarray:
    p, v = z.shape
    scores = np.full((2, p, v), -77.0)
    scratch = np.full((grid, launch.scratch_words(v)), -77, np.int32)
    arrays = [z, neighbours, np.array(STEP_SUM), scores, scratch]
    kernel = kernel or HostKernel("tfce_map.cu", "tfce_map")
    kernel(grid, block, [*arrays, np.int64(p), np.int64(v)], seed)
    return scores


def twin(z: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    return np.stack([[tfce(s * row, neighbours) for row in z] for s in (1, -1)])


def check(z: np.ndarray, neighbours: np.ndarray, seed: int = 1) -> np.ndarray:
    """Equal to the twin, the compiled version and the largest scores; no bit by the threads."""
    expected = twin(z, neighbours)
    first = run_map(z, neighbours, *BLOCKS[0])
    np.testing.assert_allclose(first, expected, rtol=1e-9)
    compiled = [[TFCE.on("cpu")(s * row, neighbours) for row in z] for s in (1, -1)]
    np.testing.assert_allclose(first, compiled, rtol=1e-9)
    np.testing.assert_allclose(first.max(axis=2), run_max_tfce(z, neighbours, 32), rtol=1e-12)
    for block, grid in BLOCKS[1:]:
        np.testing.assert_array_equal(run_map(z, neighbours, block, grid, seed), first)
    return expected


def test_noise_and_smooth_maps(rng: np.random.Generator) -> None:
    space = block_space(rng)
    z = np.stack([rng.standard_normal(space.n_voxels).astype(np.float32), smooth(space, rng)])
    assert (check(z, space.neighbours()) > 0).mean() > 0.3


def test_plateaus(rng: np.random.Generator) -> None:
    space = block_space(rng)
    steps = np.round(3 * smooth(space, rng)).astype(np.float32)
    flat = np.full_like(steps, 2.5)
    two = np.where(rng.random(space.n_voxels) < 0.5, 1.0, -1.0).astype(np.float32)
    check(np.stack([steps, flat, two]), space.neighbours())


def test_a_snake_whose_clusters_hang_from_one_another() -> None:
    """Chains of roots as long as there are heights, in either direction of the scan."""
    space = snake_space()
    n = space.n_voxels
    rising = np.linspace(0.1, 5, n).astype(np.float32)
    teeth = np.where(np.arange(n) % 2, 3.0, 1.0).astype(np.float32)
    valley = np.abs(rising - 2.5)
    z = np.stack([rising, rising[::-1].copy(), teeth, valley, np.full(n, 1, np.float32)])
    check(z, space.neighbours())


def test_awkward_maps(rng: np.random.Generator) -> None:
    space = block_space(rng, 0.5)
    n = space.n_voxels
    negative = -np.abs(rng.standard_normal(n)).astype(np.float32) - 1
    single = np.zeros(n, np.float32)
    single[n // 2] = 3
    edges = (np.arange(n) % 101 / np.float32(100)).astype(np.float32)  # on the heights themselves
    tiny = np.float32(1e-38) * edges
    z = np.stack([negative, single, np.zeros_like(single), edges, tiny])
    found = check(z, space.neighbours())
    assert (found[0, 0] == 0).all()
    assert (found[:, 2] == 0).all()
    assert np.flatnonzero(found[0, 1]).tolist() == [n // 2]


def test_one_voxel() -> None:
    alone = np.full((1, 6), -1, np.int32)
    check(np.array([[2.5], [-1.0], [0.0]], np.float32), alone)


def test_nan_is_everywhere_and_infinity_nowhere(rng: np.random.Generator) -> None:
    space = block_space(rng)
    z = np.stack([smooth(space, rng)] * 3)
    z[0, 11], z[1, 5] = np.nan, np.inf
    for block, grid in BLOCKS:
        found = run_map(z, space.neighbours(), block, grid)
        assert np.isnan(found[:, 0]).all()
        assert (found[0, 1] == 0).all()
        np.testing.assert_allclose(found[:, 2], twin(z[2:], space.neighbours())[:, 0], rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_whatever_the_schedule(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPES[4], bool)
    mask[3:8, 3:8, 3:7] = rng.random((5, 5, 4)) < 0.8
    mask[3, 3, 3] = True
    space = Space(4, mask)
    z = rng.integers(-values, values, (2, space.n_voxels)).astype(np.float32)
    expected = run_map(z, space.neighbours(), 1)
    np.testing.assert_allclose(expected, twin(z, space.neighbours()), rtol=1e-9)
    np.testing.assert_array_equal(run_map(z, space.neighbours(), 48, seed=seed), expected)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("const int before = atomicExch(done + root, i + 1);",
         "const int before = done[root]; host::perhaps_yield(2); done[root] = i + 1;"),
        ("f.score[v] = double_bits(double_of(f.score[v]) + rest);\n    }\n    __syncthreads();",
         "f.score[v] = double_bits(double_of(f.score[v]) + rest);\n    }"),
    ],
    ids=["exchange", "barrier"],
)  # fmt: skip
def test_the_shim_notices_a_race(rng: np.random.Generator, right: str, wrong: str) -> None:
    text = source("tfce_map.cu")
    assert right in text
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = build(text.replace(right, wrong)), "tfce_map"
    space = block_space(rng)
    z = np.stack([smooth(space, rng), rng.integers(0, 6, space.n_voxels).astype(np.float32)])
    right_one = run_map(z, space.neighbours(), 64).tobytes()
    found = [run_map(z, space.neighbours(), 64, 1, seed, kernel).tobytes() for seed in range(8)]
    assert any(f != right_one for f in found)


def test_the_engine_enhances_maps_on_its_device(rng: np.random.Generator) -> None:
    problem = problem_of(rng)
    engine = DeviceEngine(problem, plan_of(), HostDevice(), ("voxel", "tfce"))
    z = np.stack([problem.observed_z, -problem.observed_z[::-1]])
    scores = engine.enhanced(z)
    np.testing.assert_allclose(scores, twin(z, problem.neighbours), rtol=1e-9)
    np.testing.assert_array_equal(engine.enhanced(z[:1]), scores[:, :1])
