"""The likelihood on a real GPU; skipped, loudly, where there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from bounds_cases import AWKWARD, Case, awkward_case, bounds_case
from test_cuda import gpu  # noqa: F401 -- the fixture

from gpu_sdm.backend.cuda import CudaDevice
from gpu_sdm.ops._fit_bounds_cuda import DeviceFit, Fit
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS, GRID
from gpu_sdm.stages.device_fit import disagreement

pytestmark = pytest.mark.cuda


def fitted(gpu: CudaDevice, case: Case, discards: int, **launches: int) -> Fit:  # noqa: F811
    fit = DeviceFit(gpu, *case[2:], discards, GRID, case.lower.shape[1])
    fit.launches = dataclasses.replace(fit.launches, **launches)
    return fit(case.lower, case.upper)


@pytest.mark.parametrize(
    ("k", "v", "q", "discards"),
    [(2, 1_003, 1, 0), (11, 20_011, 1, 2), (50, 5_003, 1, 3), (135, 997, 1, 8), (1_000, 67, 1, 3),
     (12, 5_003, 2, 2), (50, 997, 3, 2), (30, 501, 8, 4)],
)  # fmt: skip
def test_the_gpu_fits_what_the_cpu_fits(
    gpu: CudaDevice,  # noqa: F811
    rng: np.random.Generator,
    k: int,
    v: int,
    q: int,
    discards: int,
) -> None:
    case = bounds_case(rng, k, v, q)
    found = fitted(gpu, case, discards)
    wrong, step = disagreement(found, FIT_BOUNDS.on("cpu")(*case, discards))
    # Of equal criteria (1e-7) either study may go; above 32 studies a design has one shortcut.
    assert wrong <= v / 1_000, step
    again = fitted(gpu, case, discards, passes=3, points=5, voxels=min(v, 224))
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", AWKWARD)
def test_unusual_voxels_on_the_gpu(
    gpu: CudaDevice,  # noqa: F811
    rng: np.random.Generator,
    kind: str,
) -> None:
    case = awkward_case(rng, kind)
    wrong, step = disagreement(fitted(gpu, case, 3), FIT_BOUNDS.numpy(*case, 3))
    assert wrong == 0, step
