"""Blocks of voxels that come and go, and enhanced maps, on a real GPU; else skipped, loudly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_cuda import gpu  # noqa: F401 -- the fixture
from test_device_engine import BOTH, plan_of, problem_of

from gpu_sdm.backend.cuda import CudaDevice
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.permute import launch
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import Problem
from gpu_sdm.permute.plan import TILE
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.subjects import SubjectBank

pytestmark = pytest.mark.cuda


def of_voxels(rng: np.random.Generator, n_voxels: int, imputations: int) -> Problem:
    """The problem of the engine's tests, its voxels repeated: copies take longer than nothing."""
    small = problem_of(rng)
    assert small.bank is not None
    place = rng.integers(small.effects.shape[2], size=n_voxels)
    mask = np.zeros(SHAPES[2], bool)
    mask.ravel()[:n_voxels] = True
    space = Space(2, mask)
    effects = np.tile(small.effects[:, :, place], (imputations // 4, 1, 1))
    effects += rng.standard_normal(effects.shape).astype(np.float32) / 8
    bank = SubjectBank(
        tuple(r[:, place] for r in small.bank.residuals), small.bank.n1, small.bank.n2, 0.0
    )
    return dataclasses.replace(
        small, effects=effects, bank=bank, space=space, neighbours=space.neighbours()
    )


@pytest.mark.parametrize("resident", [0, 1, 3])
def test_blocks_that_come_and_go_change_no_bit(
    gpu: CudaDevice,  # noqa: F811
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    resident: int,
) -> None:
    """Copies of many blocks behind one another, several times: none may overtake the work."""
    monkeypatch.setattr(launch, "voxel_block", lambda sizes: 8192)
    problem, plan = of_voxels(rng, 60_001, 40), plan_of()
    whole = DeviceEngine(problem, plan, gpu, BOTH)
    expected = whole.maxima(0, 4)
    assert whole.launch.resident == launch.n_blocks(whole.sizes) == 8
    del whole
    real = launch.plan_launches
    monkeypatch.setattr(
        launch,
        "plan_launches",
        lambda *a, **k: dataclasses.replace(real(*a, **k), resident=resident, tiles=2),
    )
    engine = DeviceEngine(problem, plan, gpu, BOTH)
    for _ in range(3):
        found = engine.maxima(0, 4)
        for name in BOTH:
            np.testing.assert_array_equal(found[name], expected[name])


def test_the_card_s_own_limit_is_kept(
    gpu: CudaDevice,  # noqa: F811
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of what the inputs take: the plan, and a pool that cannot give more."""
    import cupy

    monkeypatch.setattr(launch, "voxel_block", lambda sizes: 8192)
    problem, plan = of_voxels(rng, 60_001, 200), plan_of()
    expected = DeviceEngine(problem, plan, gpu, ("voxel",)).maxima(0)
    gpu.release()
    limit = 180_000_000
    assert problem.effects.nbytes > limit
    small = CudaDevice(cupy, 0, limit)
    try:
        engine = DeviceEngine(problem, plan, small, ("voxel",))
        assert engine.launch.resident < launch.n_blocks(engine.sizes)
        np.testing.assert_array_equal(engine.maxima(0)["voxel"], expected["voxel"])
    finally:
        cupy.get_default_memory_pool().set_limit(size=0)


def test_enhanced_maps_are_those_of_the_cpu(gpu: CudaDevice, rng: np.random.Generator) -> None:  # noqa: F811
    problem = of_voxels(rng, 60_001, 4)
    engine = DeviceEngine(problem, plan_of(), gpu, BOTH)
    z = rng.standard_normal((6, 60_001)).astype(np.float32)
    z[3:] = np.round(2 * z[3:])  # plateaus: many voxels enter together
    expected = [[TFCE.on("cpu")(s * row, problem.neighbours) for row in z] for s in (1, -1)]
    first = engine.enhanced(z)
    np.testing.assert_allclose(first, expected, rtol=1e-9)
    for _ in range(5):
        np.testing.assert_array_equal(engine.enhanced(z), first)


def test_any_number_of_tiles_gives_the_same(gpu: CudaDevice, rng: np.random.Generator) -> None:  # noqa: F811
    problem, plan = of_voxels(rng, 20_001, 20), plan_of()
    engine = DeviceEngine(problem, plan, gpu, BOTH)
    whole = engine.maxima(0, 4)
    for name in BOTH:
        parts = [engine.maxima(t * TILE)[name] for t in range(4)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[name])
