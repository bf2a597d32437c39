"""The likelihood on a device: how it is cut, when it is trusted, what the pipeline makes of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from bounds_cases import bounds_case
from host_build import HostDevice, SmallDevice, needs_compiler
from test_engine import analysis, inputs  # noqa: F401

from gpu_sdm.backend import Backend
from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.errors import OutOfMemory
from gpu_sdm.ops import _fit_bounds_plan as plan
from gpu_sdm.ops.fit_bounds import GRID
from gpu_sdm.problem import build_problem
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages import device_fit
from gpu_sdm.stages.estimate import estimate

BRAIN, GB = 193_768, 10**9


@pytest.fixture
def space() -> Space:
    mask = np.zeros(SHAPES[4], bool)
    mask[20:26, 20:25, 20:24] = True
    return Space(4, mask)


def arguments(rng: np.random.Generator, space: Space, q: int = 1) -> tuple:
    case = bounds_case(rng, 12, space.n_voxels, q)
    terms = StudyTerms(np.ones(12), case.c, case.v2, 1 / case.c, np.zeros(12))
    return Bounds(case.lower, case.upper), terms, case.X, case.crit, 2


@pytest.mark.parametrize("n_studies", [2, 11, 50, 135, 1_000])
@pytest.mark.parametrize("n_terms", [1, 8])
@pytest.mark.parametrize(("free", "processors"), [(140 * GB, 132), (int(5.6 * GB), 30), (GB, 14)])
def test_a_launch_is_short_and_fits(
    n_studies: int, n_terms: int, free: int, processors: int
) -> None:
    found = plan.plan_fit(n_studies, n_terms, GRID.size, BRAIN, free, processors)
    assert 32 <= found.voxels <= plan.PER_PROCESSOR * processors
    assert found.voxels % 32 == 0
    assert found.needed <= plan.USABLE * free
    assert found.passes >= 1
    # What a multiprocessor does in one launch, short of what a thread must do before it may stop.
    assert plan.PER_PROCESSOR * found.passes * n_studies <= plan.EVALUATIONS
    at_once = found.voxels * found.points * n_studies
    assert at_once <= plan.EVALUATIONS * processors or found.points == 1


def test_a_6_gb_card_holds_a_full_turn_of_1000_studies() -> None:
    found = plan.plan_fit(1_000, 1, GRID.size, BRAIN, int(5.6 * GB), 30)
    assert found.voxels == plan.PER_PROCESSOR * 30
    assert found.needed < GB


def test_small_masks_are_done_at_once() -> None:
    found = plan.plan_fit(11, 1, GRID.size, 37, GB, 30)
    assert found.voxels == 37
    assert plan.plan_fit(11, 1, GRID.size, BRAIN, 10**6, 30).voxels == 640


def test_the_count_of_bytes_is_what_the_arrays_take() -> None:
    k, q, g = 40, 2, 46
    state = 8 * q + 8 + 8 * k * (q + 3) + 2 * 8 + 8 * (g + 60)
    assert plan.bytes_per_voxel(k, q, g) == 8 * k + state + 4 * (3 * 2 + 5)


def test_no_room_says_what_is_needed() -> None:
    with pytest.raises(OutOfMemory, match=r"50 studies needs at least 0\.1 MB .* 0\.0 MB are free"):
        plan.plan_fit(50, 1, GRID.size, BRAIN, 10_000, 30)


@needs_compiler
def test_the_device_needs_no_more_than_it_planned(rng: np.random.Generator, space: Space) -> None:
    bounds, *rest = arguments(rng, space)
    device = SmallDevice(100_000)
    fit, voxels = device_fit.on_device(device, bounds, *rest)
    assert 32 <= voxels < space.n_voxels
    found = fit(bounds.lower, bounds.upper)
    assert device.peak <= plan.USABLE * 100_000
    whole, _ = device_fit.on_device(HostDevice(), bounds, *rest)
    for a, b in zip(found, whole(bounds.lower, bounds.upper), strict=True):
        np.testing.assert_array_equal(a, b)


@needs_compiler
@pytest.mark.parametrize("q", [1, 2])
def test_estimate_on_a_device_is_that_on_the_cpu(
    rng: np.random.Generator, space: Space, q: int
) -> None:
    bounds, terms, x, crit, discards = arguments(rng, space, q)
    said: list[str] = []
    done: list[tuple[int, int]] = []
    device = HostDevice()

    def run(**more: object) -> object:
        return estimate(bounds, terms, x, crit, discards, space, "cuda", **more)

    def mark(*progress: int) -> None:
        done.append(progress)

    one = run(device=device, say=said.append, progress=mark)
    launched = len(device.launches)
    other = run()
    assert not said
    assert done[-1] == (space.n_voxels, space.n_voxels)
    assert launched >= 10
    np.testing.assert_allclose(one.beta, other.beta, rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.tau2, other.tau2, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(one.discarded, other.discarded)
    assert one.not_converged == other.not_converged == 0
    # Kept under keys of their own: the bits are not the same.
    assert (one.beta != other.beta).any()
    np.testing.assert_array_equal(run(device=device).beta, one.beta)
    assert len(device.launches) == launched


@needs_compiler
def test_a_device_that_is_wrong_is_not_used(
    rng: np.random.Generator, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds, *rest = arguments(rng, space)
    right = device_fit.DeviceFit.__call__

    def wrong(self, lower, upper):  # type: ignore[no-untyped-def]
        beta, *others = right(self, lower, upper)
        beta[0, 5:8] += 1e-3
        return beta, *others

    monkeypatch.setattr(device_fit.DeviceFit, "__call__", wrong)
    said: list[str] = []
    assert device_fit.on_device(HostDevice(), bounds, *rest, said.append) is None
    assert said == [
        "At 3 of 64 voxels tried, the GPU's likelihood is not the CPU's (they differ by up to "
        "1.0e-03), so the likelihood runs on the CPU. Please report the card and its driver."
    ]
    whole = estimate(bounds, *rest, space, keep=False, device=HostDevice(), say=said.append)
    cpu = estimate(bounds, *rest, space, keep=False)
    np.testing.assert_array_equal(whole.beta, cpu.beta)


def test_what_counts_as_disagreement() -> None:
    beta, tau2 = np.zeros((2, 5)), np.ones(5)
    dropped, converged = np.zeros((3, 5), np.int16), np.ones(5, bool)
    same = beta, tau2, dropped, converged
    assert device_fit.disagreement(same, same) == (0, 0.0)

    def changed(which: int, at: tuple, value: float) -> int:
        other = [a.copy() for a in same]
        other[which][at] = value
        return device_fit.disagreement(tuple(other), same)[0]

    assert changed(0, (1, 2), 0.9e-7) == 0
    assert changed(0, (1, 2), 1.1e-7) == 1
    assert changed(0, (0, 2), np.nan) == 1
    assert changed(1, (4,), 1.001) == 1
    assert changed(2, (2, 0), 7) == 1
    assert changed(3, (3,), False) == 1
    lost = (beta + 1.0, tau2, dropped, np.zeros(5, bool))  # converged nowhere, on neither
    assert device_fit.disagreement(lost, (beta, *lost[1:]))[0] == 0


@needs_compiler
def test_no_room_and_too_many_columns_leave_it_to_the_cpu(
    rng: np.random.Generator, space: Space
) -> None:
    bounds, *rest = arguments(rng, space)
    said: list[str] = []
    assert device_fit.on_device(HostDevice(free=1_000), bounds, *rest, said.append) is None
    assert said[0].startswith("The likelihood of 12 studies needs at least ")
    assert said[0].endswith("are free; the likelihood runs on the CPU.")
    assert device_fit.on_device(HostDevice(failures=99), bounds, *rest, said.append) is None
    assert said[1] == "The device has no room for the likelihood; the likelihood runs on the CPU."
    wide = np.ones((12, 9))
    assert device_fit.on_device(HostDevice(), bounds, rest[0], wide, *rest[2:], said.append) is None
    assert said[2] == (
        "The GPU fits at most 8 coefficients and there are 9: the likelihood runs on the CPU."
    )
    device = HostDevice()
    fit, _ = device_fit.on_device(device, bounds, *rest, said.append)
    before = fit(bounds.lower, bounds.upper)
    device.failures = 99
    after = fit(bounds.lower, bounds.upper)
    assert said[3] == "The GPU has run out of memory: the rest of the likelihood runs on the CPU."
    assert len(said) == 4
    np.testing.assert_allclose(after[0], before[0], atol=1e-9)


@needs_compiler
@pytest.mark.parametrize("changes", [{}, {"search": "sdm-6.21"}, {"exchange": "studies"}], ids=str)
def test_from_peaks_the_likelihood_is_fitted_where_it_may(
    inputs,  # noqa: F811
    changes,
    tmp_path,
    monkeypatch,
) -> None:
    monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path))  # a fit kept by another test runs nothing
    on_cpu = analysis(inputs, **changes)
    device = HostDevice()
    on_device = dataclasses.replace(on_cpu, backend=Backend("cuda", "a test", 2, device))
    said: list[str] = []
    problem, pooled, counts = build_problem(on_device, lambda *_: None, {}, say=said.append)
    expected, one, same = build_problem(on_cpu, lambda *_: None, {})
    entries = {name for name, _, _ in device.launches}
    where = {"fit_bounds_start", "fit_bounds_drop", "fit_tau2_grid", "fit_tau2_valleys"}
    # SDM-PSI's search has no kernel; where each permutation estimates again, the CPU does all.
    assert where & entries == (set() if changes else where)
    assert counts == same
    assert not said
    np.testing.assert_allclose(problem.effects, expected.effects, rtol=0, atol=1e-6)
    np.testing.assert_allclose(pooled.z, one.z, rtol=0, atol=1e-6)
