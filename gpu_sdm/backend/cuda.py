"""The door to the GPU: the only file that imports CuPy, and only when asked to.

`probe` says in one sentence what stands between a machine and the CUDA engine, with the line
that mends it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from typing import Any, Protocol

import numpy as np

from gpu_sdm.backend.kernels import kernel
from gpu_sdm.errors import BackendUnavailable

CUPYS = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
INSTALL = "pip install 'gpu-sdm[cuda12]' (or [cuda13] for a driver of CUDA 13)"
NO_DEVICE, OLD_DRIVER = 100, 35  # cudaErrorNoDevice, cudaErrorInsufficientDriver


class Device(Protocol):
    """What the device engine asks of a GPU; the tests bring one made of NumPy and g++."""

    name: str
    processors: int
    memory_error: tuple[type[BaseException], ...]

    def use(self) -> None:
        """Make this the device of the calling thread."""

    def free_bytes(self) -> int:
        """Bytes that can still be allocated."""

    def release(self) -> None:
        """Give memory that is not in use back."""

    def asarray(self, host: np.ndarray) -> Any:
        """Copy an array to the device, behind what was started; may return before it is there."""

    def to_host(self, array: Any) -> np.ndarray:
        """Copy an array to the host; waits for what computes it."""

    def empty(self, shape: tuple[int, ...], dtype: type) -> Any:
        """Allocate; raises one of `memory_error` where it does not fit."""

    def fill(self, array: Any, value: float) -> None:
        """Set every element."""

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """float32 product of two contiguous matrices; never TF32."""

    def kernel(self, file: str, entry: str, **knobs: int | str) -> Any:
        """Compile a kernel, once."""

    def constant(self, compiled: Any, name: str, values: Any) -> None:
        """Fill a constant of a kernel's file from an array on the device."""

    def launch(self, compiled: Any, grid: int, block: int, args: Sequence[Any]) -> None:
        """Start a kernel."""

    def mark(self) -> Any:
        """Give a mark behind all that was started so far."""

    def wait(self, mark: Any) -> None:
        """Wait until the device has come to a mark."""


class CudaDevice:
    """One NVIDIA GPU through CuPy; see `Device`.

    Parameters
    ----------
    cupy : module
        The imported CuPy.
    number : int
        CUDA device number.
    limit : int, optional
        Most bytes to allocate.
    announce : callable, optional
        Called with one sentence before the first kernel is compiled.
    """

    def __init__(
        self,
        cupy: Any,
        number: int = 0,
        limit: int | None = None,
        announce: Callable[[str], None] | None = None,
    ):
        self._cupy, self._number, self._limit, self._announce = cupy, number, limit, announce
        self.use()
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        card = properties["name"]
        card = card.decode() if isinstance(card, bytes) else card
        self.name = f"{card} (sm_{properties['major']}{properties['minor']})"
        self.processors = int(properties["multiProcessorCount"])
        self.memory_error: tuple[type[BaseException], ...] = (cupy.cuda.memory.OutOfMemoryError,)
        self._pool = cupy.get_default_memory_pool()
        if limit is not None:
            self._pool.set_limit(size=limit)

    def use(self) -> None:
        """Make this the device of the calling thread."""
        self._cupy.cuda.Device(self._number).use()

    def free_bytes(self) -> int:
        """Bytes that can still be allocated."""
        free = int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(self._pool.free_bytes())
        if self._limit is not None:
            free = min(free, self._limit - int(self._pool.used_bytes()))
        return free

    def release(self) -> None:
        """Give memory that is not in use back."""
        self._pool.free_all_blocks()
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def asarray(self, host: np.ndarray) -> Any:
        """Copy an array to the device: by CuPy, through page-locked memory, without waiting."""
        return self._cupy.asarray(np.ascontiguousarray(host))

    def to_host(self, array: Any) -> np.ndarray:
        """Copy an array to the host; waits for what computes it."""
        return np.asarray(self._cupy.asnumpy(array))

    def empty(self, shape: tuple[int, ...], dtype: type) -> Any:
        """Allocate."""
        return self._cupy.empty(shape, dtype)

    def fill(self, array: Any, value: float) -> None:
        """Set every element."""
        array.fill(value)

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """float32 product of two contiguous matrices."""
        self._cupy.dot(a, b, out=out)

    def kernel(self, file: str, entry: str, **knobs: int | str) -> Any:
        """Compile a kernel, once; the first one is announced."""
        if self._announce is not None:
            self._announce(
                f"Preparing the CUDA kernels for {self.name}: seconds at the first run with this "
                "number of studies, kept on disk afterwards."
            )
            self._announce = None
        return kernel(file, entry, self._number, **knobs)

    def constant(self, compiled: Any, name: str, values: Any) -> None:
        """Fill a constant of a kernel's file from an array on the device."""
        place = compiled[1].get_global(name)
        self._cupy.ndarray(values.shape, values.dtype, place)[...] = values

    def launch(self, compiled: Any, grid: int, block: int, args: Sequence[Any]) -> None:
        """Start a kernel."""
        compiled[0]((grid,), (block,), tuple(args))

    def mark(self) -> Any:
        """Give a mark behind all that was started so far."""
        return self._cupy.cuda.get_current_stream().record()

    def wait(self, mark: Any) -> None:
        """Wait until the device has come to a mark."""
        mark.synchronize()


def installed_cupys() -> list[str]:
    """Names of the installed distributions that bring CuPy."""
    # Each by its name: to read those of everything that is installed takes a fifth of a second.
    return [name for name in CUPYS if any(True for _ in distributions(name=name))]


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _import_cupy() -> Any:
    os.environ["CUPY_TF32"] = "0"
    return importlib.import_module("cupy")


def _check_device(cupy: Any, number: int) -> None:
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as exc:
        driver, wanted = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if exc.status == OLD_DRIVER and driver:
            raise BackendUnavailable(
                f"the NVIDIA driver serves CUDA {_version(driver)} and the installed CuPy wants "
                f"{_version(wanted)}; update the driver, or {INSTALL}."
            ) from exc
        if exc.status not in (OLD_DRIVER, NO_DEVICE):
            raise BackendUnavailable(f"the CUDA driver does not answer: {exc}.") from exc
        count = 0
    if count == 0:
        raise BackendUnavailable(
            "no NVIDIA GPU answers on this machine; check that `nvidia-smi` lists one (in Docker: "
            "--gpus all), or use --backend cpu."
        )
    if not 0 <= number < count:
        have = "only device 0" if count == 1 else f"devices 0 to {count - 1}"
        raise BackendUnavailable(f"--device {number} does not exist; this machine has {have}.")


def probe(
    number: int = 0,
    limit: int | None = None,
    announce: Callable[[str], None] | None = None,
    load: Callable[[], Any] = _import_cupy,
    installed: Callable[[], list[str]] = installed_cupys,
) -> CudaDevice:
    """Open a GPU.

    Parameters
    ----------
    number : int
        CUDA device number.
    limit : int, optional
        Most bytes to allocate on it.
    announce : callable, optional
        Called with one sentence before the first kernel is compiled.
    load, installed : callable
        Give the CuPy module and the installed distributions of it.

    Raises
    ------
    BackendUnavailable
        If the CUDA engine cannot run: one sentence, with the line that mends it.
    """
    have = installed()
    if not have and importlib.util.find_spec("cupy") is None:
        raise BackendUnavailable(f"CuPy is not installed; {INSTALL}.")
    if len(have) > 1:
        raise BackendUnavailable(
            f"{' and '.join(have)} are installed together and break each other; "
            f"pip uninstall -y {' '.join(have)}, then {INSTALL}."
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        raise BackendUnavailable(
            f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides every GPU; "
            "unset CUDA_VISIBLE_DEVICES."
        )
    extra = f"pip install '{have[0] if have else 'cupy-cuda12x'}[ctk]'"
    try:
        cupy = load()
    except Exception as exc:
        raise BackendUnavailable(f"CuPy does not import ({exc}); {extra}.") from exc
    _check_device(cupy, number)
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as exc:
        raise BackendUnavailable(
            f"CuPy finds no NVRTC, the compiler of the kernels; {extra}."
        ) from exc
    return CudaDevice(cupy, number, limit, announce)
