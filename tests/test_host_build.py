"""What the kernels share: Philox, reciprocals, the loader; and the host build itself."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from host_build import HostDevice, HostKernel, build, entries, needs_compiler

from gpu_sdm.backend.kernels import KERNELS, source
from gpu_sdm.rng import philox

pytestmark = needs_compiler


def test_philox_gives_the_words_of_rng() -> None:
    text = (
        source("philox.cuh")
        + 'extern "C" __global__ void words(const unsigned* c, unsigned* out, long long n) {'
        + " for (long long i = 0; i < n; ++i) { const Words x = philox(c[6 * i], c[6 * i + 1],"
        + " c[6 * i + 2], c[6 * i + 3], c[6 * i + 4], c[6 * i + 5]);"
        + " for (int j = 0; j < 4; ++j) out[4 * i + j] = x.w[j]; } }\n"
    )
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = build(text), "words"
    rng = np.random.default_rng(1)
    counters = rng.integers(0, 2**32, (50, 6), dtype=np.uint32)
    out = np.zeros((50, 4), np.uint32)
    kernel(1, 1, [counters, out, np.int64(50)])
    expected = [np.stack(philox(*map(int, c[:4]), (int(c[4]), int(c[5])))) for c in counters]
    np.testing.assert_array_equal(out, expected)


def test_reciprocals_are_within_their_bound() -> None:
    text = (
        source("common.cuh")
        + 'extern "C" __global__ void both(const float* x, float* out, long long n) {'
        + " for (long long i = 0; i < n; ++i) { out[2 * i] = reciprocal(x[i]);"
        + " out[2 * i + 1] = inverse_root(x[i]); } }\n"
    )
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = build(text), "both"
    x = np.exp(np.random.default_rng(2).uniform(-30, 30, 20_000)).astype(np.float32)
    out = np.zeros((len(x), 2), np.float32)
    kernel(1, 1, [x, out, np.int64(len(x))])
    exact = np.stack([1 / x.astype(np.float64), 1 / np.sqrt(x.astype(np.float64))], axis=1)
    # The host build misses by as much as the hardware may, 1 and 2 units, beside the rounding.
    worst = np.abs(out / exact - 1).max(axis=0) * 2.0**23
    assert (worst < [1.5, 3]).all()
    assert (worst > [0.9, 1.8]).all()
    bad = np.array([0, np.inf, np.nan], np.float32)
    out = np.zeros((3, 2), np.float32)
    kernel(1, 1, [bad, out, np.int64(3)])
    np.testing.assert_array_equal(out.T, [[np.inf, 0, np.nan]] * 2)


def _four(start: int) -> None:
    text = source("common.cuh") + (
        'extern "C" __global__ void first(const float* x, float* out, int n)'
        " { out[0] = four(x + n).x[3]; }\n"
    )
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = build(text), "first"
    out = np.zeros(1, np.float32)
    kernel(1, 1, [np.arange(8, dtype=np.float32), out, np.int32(start)])
    assert out[0] == start + 3


def test_a_read_of_four_that_no_card_can_do_is_fatal() -> None:
    _four(4)
    child = multiprocessing.get_context("spawn").Process(target=_four, args=(3,))
    child.start()
    child.join(60)
    assert child.exitcode not in (0, None)


def test_a_barrier_not_all_threads_reach_is_fatal() -> None:
    text = (
        'extern "C" __global__ void half(int* out) {'
        " if (threadIdx.x % 2) __syncthreads(); *out = 1; }\n"
    )
    build(text)
    child = multiprocessing.get_context("spawn").Process(target=_run_half, args=(text,))
    child.start()
    child.join(60)
    assert child.exitcode not in (0, None)


def _run_half(text: str) -> None:
    kernel = object.__new__(HostKernel)
    kernel.library, kernel.entry = build(text), "half"
    kernel(1, 4, [np.zeros(1, np.int32)])


def test_every_kernel_is_tested_here() -> None:
    known = {
        "permuted_z", "permuted_z_general", "max_statistic", "max_tfce", "max_cluster", "tfce_map",
        "exceedances", "permutation_weights", "permutation_share",
        "fit_bounds_start", "fit_bounds_drop", "fit_tau2_grid", "fit_tau2_valleys",
        "arrange_effects",
    }  # fmt: skip
    assert {e for p in KERNELS.glob("*.cu") for e in entries(source(p.name))} == known


def test_headers_are_inlined_once() -> None:
    text = source("permuted_z.cu")
    assert '#include "' not in text
    assert text.count("float reciprocal(float x)") == 1


def test_the_host_device_takes_only_contiguous_arrays() -> None:
    device = HostDevice()
    kernel = device.kernel("max_statistic.cu", "max_statistic")
    z = np.zeros((4, 4), np.float32)[:, ::2]
    with pytest.raises(ValueError, match="contiguous"):
        device.launch(kernel, 1, 1, [z, z, np.int64(4), np.int64(2)])
