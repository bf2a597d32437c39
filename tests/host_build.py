"""Build the CUDA kernels for the host with g++ and run them through ctypes; a fake device.

The same .cu text that NVRTC compiles is compiled here behind `tests/host/cuda_host.h`, so the
arithmetic, the indexing and (by fibers that hand over inside a pass) the logic between barriers
are tested where there is no GPU. Races of a real memory system are not.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_sdm.backend.kernels import defines, source

HEADER = Path(__file__).parent / "host" / "cuda_host.h"
ENTRY = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(')
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-shared", "-march=native", "-ffp-contract=off", "-w")

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="HOST BUILD OF THE KERNELS NOT TESTED: g++ is absent"
)


def entries(text: str) -> list[str]:
    """Names of the kernels that a text defines."""
    return ENTRY.findall(text)


@cache
def build(text: str, **knobs: int | str) -> ctypes.CDLL:
    """Compile a kernel text; the library is kept under its content hash between runs."""
    glue = "".join(
        f'extern "C" void launch_{entry}(long long grid, long long block, void** args) '
        f"{{ host::launch({entry}, grid, block, args); }}\n"
        for entry in entries(text)
    )
    head = "#define HOST_BARRIERS 1\n" if "__syncthreads()" in text else ""
    whole = head + defines(knobs) + HEADER.read_text(encoding="utf-8") + text + glue
    name = hashlib.sha256((whole + repr(FLAGS)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / "gpu-sdm-host-kernels"
    folder.mkdir(exist_ok=True)
    library = folder / f"{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made = Path(work) / "kernel.so"
            subprocess.run(
                ["g++", *FLAGS, "-x", "c++", "-", "-o", str(made)],
                input=whole,
                text=True,
                check=True,
                capture_output=True,
            )
            made.replace(library)
    return ctypes.CDLL(str(library))


class HostKernel:
    """One kernel of a host build."""

    def __init__(self, file: str, entry: str, **knobs: int | str):
        self.library = build(source(file), **knobs)
        self.entry = entry

    def __call__(self, grid: int, block: int, args: Sequence[Any], seed: int = 1) -> None:
        """Run; arrays are passed by address, numpy scalars by value."""
        self.library.schedule_seed(ctypes.c_ulonglong(seed))
        held: list[Any] = []
        for a in args:
            if isinstance(a, np.ndarray):
                if not a.flags.c_contiguous:
                    raise ValueError("a kernel takes contiguous arrays")
                held.append(ctypes.c_void_p(a.ctypes.data))
            else:
                held.append(np.ctypeslib.as_ctypes_type(a.dtype)(a.item()))
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(h) for h in held])
        getattr(self.library, f"launch_{self.entry}")(
            ctypes.c_longlong(grid), ctypes.c_longlong(block), pointers
        )

    def constant(self, name: str, values: np.ndarray) -> None:
        """Fill a constant of the kernel's file."""
        size = values.nbytes
        place = (ctypes.c_char * size).in_dll(self.library, name)
        ctypes.memmove(place, np.ascontiguousarray(values).ctypes.data, size)


class HostDevice:
    """A `gpu_sdm.backend.cuda.Device` of NumPy arrays and host-built kernels.

    Parameters
    ----------
    free : int
        Bytes it claims to have.
    failures : int
        So many allocations fail first, as where another program took the memory.
    block : int or None
        Threads per block, whatever the engine asks for; None leaves its choice.
    """

    name, processors = "host build", 2
    memory_error: tuple[type[BaseException], ...] = (MemoryError,)

    def __init__(self, free: int = 1 << 40, failures: int = 0, block: int | None = 8):
        self.free, self.failures, self.block = free, failures, block
        self.launches: list[tuple[str, int, int]] = []

    def use(self) -> None: ...

    def release(self) -> None: ...

    def free_bytes(self) -> int:
        return self.free

    def asarray(self, host: np.ndarray) -> np.ndarray:
        return np.array(host, order="C")

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def empty(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        if self.failures:
            self.failures -= 1
            raise MemoryError
        return np.full(shape, -77, dtype)

    def fill(self, array: np.ndarray, value: float) -> None:
        array[...] = value

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        np.matmul(a, b, out=out)

    def kernel(self, file: str, entry: str, **knobs: int | str) -> HostKernel:
        return HostKernel(file, entry, **knobs)

    def constant(self, compiled: HostKernel, name: str, values: np.ndarray) -> None:
        compiled.constant(name, values)

    def launch(self, compiled: HostKernel, grid: int, block: int, args: Sequence[Any]) -> None:
        self.launches.append((compiled.entry, grid, block))
        compiled(grid, self.block or block, args, seed=len(self.launches))

    def mark(self) -> int:
        return len(self.launches)

    def wait(self, mark: int) -> None: ...


class SmallDevice(HostDevice):
    """One that has no more memory than it says, and counts what is held on it."""

    def __init__(self, free: int, block: int = 8):
        super().__init__(free, block=block)
        self.held = self.peak = 0

    def _let_go(self, size: int) -> None:
        self.held -= size

    def _hold(self, array: np.ndarray) -> np.ndarray:
        self.held += array.nbytes
        weakref.finalize(array, self._let_go, array.nbytes)
        if self.held > self.free:
            raise MemoryError
        self.peak = max(self.peak, self.held)
        return array

    def free_bytes(self) -> int:
        return self.free - self.held

    def asarray(self, host: np.ndarray) -> np.ndarray:
        return self._hold(super().asarray(host))

    def empty(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return self._hold(super().empty(shape, dtype))
