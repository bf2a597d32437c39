"""What a device does, measured: time by kernel, its ceilings, its clocks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.backend.kernels import OPTIONS, source

CHAINS, STEPS, BLOCK = 8, 4096, 256  # of ceilings.cu
COPIED = 1 << 28  # floats of the copy, where there is room


class StageClock:
    """A `Device` that notes when each kernel, product and copy to the device begins and ends."""

    def __init__(self, device: Device, elapsed_ms: Callable[[Any, Any], float]):
        self._device, self._elapsed = device, elapsed_ms
        self._names: dict[int, str] = {}
        self._spans: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def _noted(self, name: str, work: Callable[[], Any]) -> Any:
        begin = self._device.mark()
        found = work()
        self._spans.append((name, begin, self._device.mark()))
        return found

    def kernel(self, file: str, entry: str, **knobs: int | str) -> Any:
        """Compile, and remember the name."""
        compiled = self._device.kernel(file, entry, **knobs)
        self._names[id(compiled)] = entry
        return compiled

    def launch(self, compiled: Any, grid: int, block: int, args: Sequence[Any]) -> None:
        """Start a kernel."""
        name = self._names[id(compiled)]
        self._noted(name, lambda: self._device.launch(compiled, grid, block, args))

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """Multiply."""
        self._noted("residual products", lambda: self._device.matmul(a, b, out))

    def asarray(self, host: np.ndarray) -> Any:
        """Copy."""
        return self._noted("copies to the device", lambda: self._device.asarray(host))

    def clear(self) -> None:
        """Forget what was noted."""
        self._spans.clear()

    def totals_ms(self) -> dict[str, float]:
        """Milliseconds of each stage since the last `clear`."""
        found: dict[str, float] = {}
        for name, begin, end in self._spans:
            self._device.wait(end)
            found[name] = found.get(name, 0.0) + self._elapsed(begin, end)
        return found


def best_seconds(device: Device, work: Callable[[], None], repeats: int = 5) -> float:
    """Fastest of some repeats, after one to warm up."""
    taken = []
    for _ in range(repeats + 1):
        device.wait(device.mark())
        begin = monotonic()
        work()
        device.wait(device.mark())
        taken.append(monotonic() - begin)
    return min(taken[1:])


def ceilings_text() -> str:
    """Source of the kernels that measure the ceilings."""
    own = (Path(__file__).parent / "ceilings.cu").read_text(encoding="utf-8")
    return source("common.cuh") + own


def ceilings(device: Device) -> dict[str, float]:
    """Measured float32 and special-function operations (an FMA is one) and bytes a second."""
    import cupy

    module = cupy.RawModule(code=ceilings_text(), options=OPTIONS)
    threads = 64 * device.processors * BLOCK
    out = device.empty((threads,), np.float32)
    found = {}
    for name in ("fma_rate", "special_rate"):
        compiled = module.get_function(name), module
        args = [out, np.float32(0.999), np.int32(STEPS)]
        taken = best_seconds(
            device, lambda c=compiled, a=args: device.launch(c, threads // BLOCK, BLOCK, a)
        )
        found[name.replace("_rate", "_per_s")] = threads * CHAINS * STEPS / taken
    n = min(COPIED, device.free_bytes() // 16)
    a, b = device.empty((n,), np.float32), device.empty((n,), np.float32)
    device.fill(a, 1.0)
    copy = module.get_function("copy"), module
    blocks = 32 * device.processors
    taken = best_seconds(device, lambda: device.launch(copy, blocks, BLOCK, [a, b, np.int64(n)]))
    return found | {"copied_bytes_per_s": 8 * n / taken}


def card() -> dict[str, str]:
    """Ask `nvidia-smi` for driver, clocks, temperature and power of the first card; or {}."""
    fields = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem",
              "temperature.gpu", "power.draw")  # fmt: skip
    if shutil.which("nvidia-smi") is None:
        return {}
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    values = [v.strip() for v in done.stdout.split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}
