"""The likelihood's kernels, built for the host, against the NumPy twin and foreign numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from bounds_cases import AWKWARD, Case, awkward_case, bounds_case
from host_build import HostDevice, HostKernel, build, needs_compiler
from reference_data import enge_bounds, metansue_bounds
from scipy import special

from gpu_sdm.backend.kernels import source
from gpu_sdm.errors import OutOfMemory
from gpu_sdm.ops import _fit_bounds_terms as rule
from gpu_sdm.ops import bounded_normal as bn
from gpu_sdm.ops._fit_bounds_cuda import DeviceFit, Fit
from gpu_sdm.ops._fit_bounds_plan import MAX_DOUBLINGS
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS, GRID, fit_bounds

pytestmark = needs_compiler

BLOCKS = (1, 32, 256)


def device_fit(case: Case, discards: int, device: HostDevice | None = None) -> DeviceFit:
    return DeviceFit(device or HostDevice(), *case[2:], discards, GRID, case.lower.shape[1])


def run(case: Case, discards: int, device: HostDevice | None = None) -> Fit:
    return device_fit(case, discards, device)(case.lower, case.upper)


def assert_same(found: Fit, expected: Fit) -> None:
    """To the stated agreement of the compiled version; the worst seen here is 3e-9, most 1e-13."""
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=FIT_BOUNDS.rtol * max(1, np.abs(b).max()))
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_array_equal(found[3], expected[3])
    assert found[2].dtype == np.int16
    assert found[3].dtype == bool


def assert_bits(found: Fit, expected: Fit) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def in_c(body: str, *args: np.ndarray, out: tuple[int, ...]) -> np.ndarray:
    """Run a loop over arguments through the header of the normal tails."""
    names = ", ".join(f"const double* x{i}" for i in range(len(args)))
    text = (
        source("common.cuh")
        + source("normal_tail.cuh")
        + f'extern "C" __global__ void each({names}, double* out, long long n) {{'
        + f" for (long long i = 0; i < n; ++i) {{ {body} }} }}\n"
    )
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = build(text), "each"
    result = np.zeros(out)
    kernel(1, 1, [*args, result, np.int64(len(args[0]))])
    return result


def test_tails_exponentials_and_logs_are_scipys() -> None:
    x = np.concatenate([np.linspace(0, 26, 40_001), np.geomspace(1e-300, 1, 5_000)])
    y = np.geomspace(1e-300, 1e300, x.size)
    body = "const Tail t = tail(x0[i]); out[3 * i] = t.e; out[3 * i + 1] = t.erfc;"
    e, erfc, log = in_c(body + " out[3 * i + 2] = log_of(x1[i]);", x, y, out=(x.size, 3)).T
    np.testing.assert_allclose(e, np.exp(-x * x), rtol=3e-15)
    # Beyond a few deviations scipy squares x more exactly than e^(-x x) can be.
    np.testing.assert_allclose(erfc[x < 4], special.erfc(x[x < 4]), rtol=3e-15)
    np.testing.assert_allclose(erfc, special.erfcx(x) * np.exp(-x * x), rtol=3e-15)
    np.testing.assert_allclose(log, np.log(y), rtol=3e-15, atol=3e-16)


def test_intervals_far_out_keep_their_digits(rng: np.random.Generator) -> None:
    lo = rng.uniform(-60, 60, 4_000)
    hi = lo + np.exp(rng.uniform(-8, 4, lo.size))
    found = in_c("out[i] = log_interval(x0[i], x1[i]);", lo, hi, out=lo.shape)
    error = 1e-12 + 1e-14 * (1 + np.abs(lo)) / (hi - lo)
    assert (np.abs(found - bn.log_interval(lo, hi)) <= error * np.abs(found) + error).all()
    swapped = in_c("out[i] = log_interval(x0[i], x1[i]);", hi, lo, out=lo.shape)
    assert np.isneginf(swapped).all()


@pytest.mark.parametrize(
    ("k", "v", "q", "discards"),
    [(2, 37, 1, 0), (3, 33, 1, 1), (11, 67, 1, 2), (12, 41, 1, 10), (33, 31, 1, 3), (50, 35, 1, 3),
     (135, 9, 1, 2), (12, 40, 2, 2), (20, 37, 4, 3), (30, 20, 8, 4), (50, 20, 3, 2)],
)  # fmt: skip
def test_the_kernels_are_the_twin(
    rng: np.random.Generator, k: int, v: int, q: int, discards: int
) -> None:
    case = bounds_case(rng, k, v, q)
    found = run(case, discards, HostDevice(block=1))
    assert found[3].all()
    assert_same(found, fit_bounds(*case, discards))
    for block in BLOCKS[1:]:
        assert_bits(run(case, discards, HostDevice(block=block)), found)


@pytest.mark.parametrize("kind", AWKWARD)
@pytest.mark.parametrize("columns", [1, 2])
def test_unusual_voxels_are_those_of_the_twin(
    rng: np.random.Generator, kind: str, columns: int
) -> None:
    case = awkward_case(rng, kind)
    if columns == 2:
        age = np.column_stack([np.ones(12), np.linspace(-1, 1, 12)])
        case = case._replace(X=age, crit=np.array([1.0, 0.0]))
    expected = fit_bounds(*case, 3)
    found = run(case, 3, HostDevice(block=1))
    assert_same(found, expected)
    for block in BLOCKS[1:]:
        assert_bits(run(case, 3, HostDevice(block=block)), found)
    if kind == "nothing known":
        assert not found[0].any()
        assert not found[1].any()
    if kind == "equal studies" and columns == 1:
        np.testing.assert_array_equal(found[2], np.arange(3)[:, None].repeat(33, axis=1))


def test_many_studies_need_many_words(rng: np.random.Generator) -> None:
    case = bounds_case(rng, 1_000, 3)
    fit = device_fit(case, 3)
    assert fit.launches.passes == 11
    assert_same(fit(case.lower, case.upper), FIT_BOUNDS.on("cpu")(*case, 3))


@pytest.mark.parametrize("q", [1, 3])
def test_short_launches_and_few_voxels_change_no_bit(rng: np.random.Generator, q: int) -> None:
    case = bounds_case(rng, 34, 70, q)
    whole = run(case, 3)
    for changes in ({"passes": 1}, {"points": 1}, {"voxels": 32}, {"passes": 7, "voxels": 33}):
        device = HostDevice()
        fit = device_fit(case, 3, device)
        fit.launches = dataclasses.replace(fit.launches, **changes)
        before = len(device.launches)
        assert_bits(fit(case.lower, case.upper), whole)
        assert len(device.launches) - before > 7


def test_a_voxel_does_not_depend_on_its_neighbours(rng: np.random.Generator) -> None:
    case, order = bounds_case(rng, 11, 50), np.random.default_rng(0).permutation(50)
    mixed = case._replace(lower=case.lower[:, order], upper=case.upper[:, order])
    assert_bits(run(mixed, 2), tuple(a[..., order] for a in run(case, 2)))


def test_memory_that_runs_out_halves_the_voxels(rng: np.random.Generator) -> None:
    case, device = bounds_case(rng, 11, 200), HostDevice()
    fit = device_fit(case, 2, device)
    device.failures = 2
    assert_bits(fit(case.lower, case.upper), run(case, 2))
    assert fit.launches.voxels == 50
    device.failures = 99
    with pytest.raises(OutOfMemory, match="no room for the likelihood"):
        fit(case.lower, case.upper)


def test_a_bound_that_is_not_a_number_ends(rng: np.random.Generator) -> None:
    case = bounds_case(rng, 11, 9)
    case.lower[3, 4] = case.upper[3, 4] = np.nan
    found = run(case, 2)
    others = np.delete(np.arange(9), 4)
    some = case._replace(lower=case.lower[:, others], upper=case.upper[:, others])
    assert_bits(tuple(a[..., others] for a in found), run(some, 2))


def test_the_kernels_follow_the_numbers_of_the_compiled_rule() -> None:
    text = source("fit_bounds.cu")
    for name in ("TIE", "STEP_TOL", "MAX_STEPS", "MAX_HALVINGS", "SURE_STUDIES", "SURE_SHIFTS"):
        value = getattr(rule, name)
        assert f"#define {name} " in text
        assert float(text.split(f"#define {name} ")[1].split()[0]) == value
    assert f"#define MAX_DOUBLINGS {MAX_DOUBLINGS}\n" in source("fit_tau2.cu")
    assert rule.MAX_DOUBLINGS == MAX_DOUBLINGS


@pytest.mark.parametrize("section", ["smc", "smd", "smc_complete"])
def test_metansue(metansue_reference: dict, section: str) -> None:
    """R's optimize stops at 1.2e-4: metansue's optimum of a censored likelihood is that far off."""
    lower, upper, c, v2, want = metansue_bounds(metansue_reference, section)
    case = Case(lower, upper, c, v2, np.ones((10, 1)), np.ones(1))
    beta, tau2, discarded, converged = run(case, int(want["n_discard"][0]))
    assert discarded[0, 0] + 1 == want["discarded"][0]
    assert beta[0, 0] == pytest.approx(want["mu"][0], abs=3e-5)
    assert tau2[0] == pytest.approx(want["tau2"][0], abs=1.22e-4)
    assert converged.all()


@pytest.mark.parametrize("columns", [1, 2])
def test_real_bounds_are_those_of_the_cpu(enge2021: dict, columns: int) -> None:
    lower, upper, c, v2, age = enge_bounds(enge2021, 1_000, seed=3)
    X = np.column_stack([np.ones(50), age - age.mean()])[:, :columns].copy()
    case = Case(lower, upper, c, v2, X, np.eye(columns)[0])
    found = run(case, 3)
    assert found[3].all()
    assert_same(found, FIT_BOUNDS.on("cpu")(*case, 3))
