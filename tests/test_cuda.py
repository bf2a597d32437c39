"""The CUDA engine on a real GPU; skipped, loudly, where there is none.

GPU_SDM_REQUIRE_CUDA=1 turns the skips into failures. Also wanted on a GPU, by hand:
`compute-sanitizer --tool memcheck python -m pytest tests/test_cuda.py`, then `--tool racecheck`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from test_device_engine import BOTH, N1, N2, plan_of, problem_of, terms_of

from gpu_sdm.backend import Backend
from gpu_sdm.backend.cuda import CudaDevice, probe
from gpu_sdm.errors import BackendUnavailable
from gpu_sdm.ops.max_tfce import MAX_TFCE
from gpu_sdm.ops.permuted_effects import study_coefficients
from gpu_sdm.ops.tfce import STEP_SUM
from gpu_sdm.permute import launch
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import TIE_TOLERANCE, permute
from gpu_sdm.permute.plan import TILE
from gpu_sdm.permute.scaled import Scaled
from gpu_sdm.permute.weights import DeviceWeights, HostWeights
from gpu_sdm.spaces import SHAPES, Space

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def gpu() -> CudaDevice:
    try:
        return probe()
    except BackendUnavailable as exc:
        if os.environ.get("GPU_SDM_REQUIRE_CUDA") == "1":
            pytest.fail(f"a GPU is required: {exc}")
        pytest.skip(f"CUDA ENGINE NOT RUN ON A GPU: {exc}")


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"rescale_sd": False},
        {"exchange": "studies"},
        {"exchange": "studies", "score": True},
        {"covariate": True},
        {"covariate": True, "tau2": "reml"},
    ],
    ids=str,
)
def test_the_gpu_gives_the_maxima_of_the_cpu(
    gpu: CudaDevice, rng: np.random.Generator, case: dict
) -> None:
    problem, plan = problem_of(rng, **case), plan_of(case.get("exchange", "subjects"))
    expected = permute(problem, plan, 4 * TILE, BOTH, Backend("cpu", "", 1)).maxima
    found = DeviceEngine(problem, plan, gpu, BOTH).maxima(0, 4)
    np.testing.assert_allclose(found["voxel"], expected["voxel"], atol=TIE_TOLERANCE["voxel"])
    np.testing.assert_allclose(found["tfce"], expected["tfce"], rtol=TIE_TOLERANCE["tfce"])


def test_tiles_in_flight_change_no_bit(gpu: CudaDevice, rng: np.random.Generator) -> None:
    engine = DeviceEngine(problem_of(rng), plan_of(), gpu, BOTH)
    whole = engine.maxima(0, 4)
    for name in BOTH:
        parts = [engine.maxima(t * TILE)[name] for t in range(4)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[name])


def test_weights_are_those_of_the_plan(gpu: CudaDevice) -> None:
    plan, scaled = plan_of(), Scaled.of(study_coefficients(terms_of(N1, N2)))
    weights, share = DeviceWeights(plan, scaled, gpu).tile(TILE)
    expected, expected_share = HostWeights(plan, scaled, gpu, True).tile(TILE)
    np.testing.assert_array_equal(gpu.to_host(share), gpu.to_host(expected_share))
    assert weights is not None
    assert expected is not None
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(gpu.to_host(a), gpu.to_host(b))


@pytest.mark.parametrize("block", [32, 512, 1024])
def test_max_tfce_has_no_race(gpu: CudaDevice, rng: np.random.Generator, block: int) -> None:
    mask = np.zeros(SHAPES[2], bool)
    mask[20:60, 20:60, 20:60] = rng.random((40, 40, 40)) < 0.95
    space = Space(2, mask)
    v = space.n_voxels
    z = rng.standard_normal((16, v)).astype(np.float32)
    z[8:] = np.round(2 * z[8:])  # plateaus: many voxels enter together
    expected = np.stack([MAX_TFCE.on("cpu")(z, space.neighbours(), s) for s in (1.0, -1.0)])
    kernel = gpu.kernel("max_tfce.cu", "max_tfce")
    arrays = [gpu.asarray(a) for a in (z, space.neighbours(), np.array(STEP_SUM))]
    scratch = gpu.empty((32, launch.scratch_words(v)), np.int32)
    first = None
    for _ in range(20):
        best = gpu.empty((2, 16), np.float64)
        gpu.launch(kernel, 32, block, [*arrays, best, scratch, np.int64(16), np.int64(v)])
        found = gpu.to_host(best)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        first = found if first is None else first
        np.testing.assert_array_equal(found, first)
