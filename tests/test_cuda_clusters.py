"""Cluster maxima and exceedance counts on a real GPU; skipped, loudly, where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from test_cuda import gpu  # noqa: F401 -- the fixture

from gpu_sdm.backend.cuda import CudaDevice
from gpu_sdm.ops.exceedances import exceedances
from gpu_sdm.ops.max_cluster import MAX_CLUSTER, box_neighbours
from gpu_sdm.spaces import SHAPES, Space

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("n", [6, 26])
@pytest.mark.parametrize("block", [32, 512, 1024])
def test_max_cluster_has_no_race(
    gpu: CudaDevice,  # noqa: F811
    rng: np.random.Generator,
    block: int,
    n: int,
) -> None:
    mask = np.zeros(SHAPES[2], bool)
    mask[20:60, 20:60, 20:60] = rng.random((40, 40, 40)) < 0.95
    space = Space(2, mask)
    v = space.n_voxels
    neighbours = space.neighbours() if n == 6 else box_neighbours(space)
    z = rng.standard_normal((16, v)).astype(np.float32)
    sides = [MAX_CLUSTER.on("cpu")(z, neighbours, 0.6, sign) for sign in (1.0, -1.0)]
    expected = np.stack(sides, axis=1)
    kernel = gpu.kernel("max_cluster.cu", "max_cluster", NEIGHBOURS=n)
    arrays = [gpu.asarray(a) for a in (z, neighbours)]
    scratch = gpu.empty((32, 4 * v), np.int32)
    first = None
    for _ in range(10):
        best = gpu.empty((2, 2, 16), np.float64)
        numbers = np.float32(0.6), np.int64(16), np.int64(v)
        gpu.launch(kernel, 32, block, [*arrays, best, scratch, *numbers])
        found = gpu.to_host(best)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-12)
        first = found if first is None else first
        np.testing.assert_array_equal(found, first)


def test_exceedances_are_exact(gpu: CudaDevice, rng: np.random.Generator) -> None:  # noqa: F811
    z = np.round(rng.standard_normal((100, 5_003)), 2).astype(np.float32)
    z[3, 5] = np.nan
    count = gpu.asarray(np.zeros((2, 5_003), np.int32))
    kernel = gpu.kernel("exceedances.cu", "exceedances")
    arrays = gpu.asarray(z), gpu.asarray(z[11]), count
    gpu.launch(kernel, 40, 128, [*arrays, np.float32(1e-4), np.int64(100), np.int64(5_003)])
    np.testing.assert_array_equal(gpu.to_host(count), exceedances(z, z[11], 1e-4))
