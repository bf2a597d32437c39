"""A whole analysis with its permutations on a device, against the same on the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from host_build import HostDevice, needs_compiler
from test_engine import analysis, inputs  # noqa: F401

from gpu_sdm.backend import Backend
from gpu_sdm.permute.engine import TIE_TOLERANCE
from gpu_sdm.pipeline import execute

pytestmark = needs_compiler


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exchange": "studies"},
        {"exchange": "studies", "test": "score"},
        {"tau2": "reml"},
        {"compat": "sdm-6.21"},
        {"permutations": 75, "statistic": ("voxel",)},
    ],
    ids=str,
)
def test_the_whole_analysis_is_that_of_the_cpu(inputs, changes):  # noqa: F811
    on_cpu = analysis(inputs, **changes)
    device = HostDevice()
    on_device = dataclasses.replace(on_cpu, backend=Backend("cuda", "a test", 2, device))
    expected, found = execute(on_cpu), execute(on_device)
    # Whole studies of peaks are estimated again each time, on the CPU.
    assert ("max_statistic" in {name for name, _, _ in device.launches}) != on_cpu.refits
    for name, maxima in expected.maxima.items():
        tolerance = TIE_TOLERANCE[name]
        kind = {"atol": tolerance} if name == "voxel" else {"rtol": tolerance}
        np.testing.assert_allclose(found.maxima[name], maxima, **kind)
    for name, values in expected.maps.items():
        if name.startswith("p_fwe"):
            # Equal up to ties: no voxel's p moves by more than one permutation, few move at all.
            moved = np.abs(found.maps[name] - values) * on_cpu.settings.permutations
            assert moved.max() < 1.01
            assert (moved > 0.5).mean() < 0.02
        else:
            # Float32 of what the likelihood's kernels give to 1e-13; some p and masks are exact.
            np.testing.assert_allclose(found.maps[name], values, rtol=1e-5, atol=1e-6)
