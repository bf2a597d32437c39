"""Opening a GPU: one sentence for each thing that can be in the way. No GPU is needed here."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_sdm.backend import cuda
from gpu_sdm.errors import BackendUnavailable


class RuntimeFailure(RuntimeError):
    def __init__(self, status: int):
        super().__init__(f"cudaError {status}")
        self.status = status


class Pool:
    limit: int | None = None

    def set_limit(self, size: int) -> None:
        self.limit = size

    def free_bytes(self) -> int:
        return 100

    def used_bytes(self) -> int:
        return 300

    freed = 0

    def free_all_blocks(self) -> None:
        self.freed += 1


def fake_cupy(
    devices: int = 1, status: int = 0, driver: int = 13000, runtime: int = 12090, nvrtc: bool = True
) -> Any:
    """As much of CuPy as `probe` and `CudaDevice` touch, on NumPy."""

    def count() -> int:
        if status:
            raise RuntimeFailure(status)
        return devices

    def version() -> tuple[int, int]:
        if not nvrtc:
            raise ImportError("libnvrtc.so.12: cannot open shared object file")
        return 12, 9

    pool, page_locked = Pool(), Pool()
    return types.SimpleNamespace(
        cuda=types.SimpleNamespace(
            runtime=types.SimpleNamespace(
                getDeviceCount=count,
                driverGetVersion=lambda: driver,
                runtimeGetVersion=lambda: runtime,
                CUDARuntimeError=RuntimeFailure,
                getDeviceProperties=lambda n: {
                    "name": b"NVIDIA H200",
                    "major": 9,
                    "minor": 0,
                    "multiProcessorCount": 132,
                },
                memGetInfo=lambda: (5_000, 9_000),
            ),
            nvrtc=types.SimpleNamespace(getVersion=version),
            Device=lambda n: types.SimpleNamespace(use=lambda: None),
            memory=types.SimpleNamespace(OutOfMemoryError=MemoryError),
        ),
        get_default_memory_pool=lambda: pool,
        get_default_pinned_memory_pool=lambda: page_locked,
        asarray=np.asarray,
        asnumpy=np.asarray,
        empty=np.empty,
        dot=np.dot,
    )


def open_gpu(cupy: Any, installed: list[str] | None = None, number: int = 0) -> cuda.CudaDevice:
    have = ["cupy-cuda12x"] if installed is None else installed
    return cuda.probe(number, load=lambda: cupy, installed=lambda: have)


@pytest.fixture(autouse=True)
def _visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        ({"status": 35, "driver": 0}, "no NVIDIA GPU answers .* use --backend cpu"),
        ({"status": 100}, "no NVIDIA GPU answers"),
        ({"devices": 0}, "no NVIDIA GPU answers"),
        ({"status": 35, "driver": 11040}, r"serves CUDA 11\.4 and .* wants 12\.9; update"),
        ({"status": 999}, "driver does not answer: cudaError 999"),
        ({"nvrtc": False}, r"no NVRTC.*pip install 'cupy-cuda12x\[ctk\]'"),
    ],
    ids=str,
)
def test_what_is_in_the_way_is_named_with_its_remedy(cupy: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendUnavailable, match=message) as caught:
        open_gpu(fake_cupy(**cupy))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"not installed; pip install 'gpu-sdm\[cuda12\]'"):
        open_gpu(fake_cupy(), [])


def test_both_cupys() -> None:
    with pytest.raises(
        BackendUnavailable, match="pip uninstall -y cupy-cuda12x cupy-cuda13x, then"
    ):
        open_gpu(fake_cupy(), ["cupy-cuda12x", "cupy-cuda13x"])


def test_installed_cupys_are_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder, name in (
        ("cupy_cuda13x-14.0.1.dist-info", "cupy-cuda13x"),
        ("cupy_cuda12x-13.6.0.dist-info", "cupy-cuda12x"),
        ("cupy_xarray-0.1.4.dist-info", "cupy-xarray"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert cuda.installed_cupys() == ["cupy-cuda12x", "cupy-cuda13x"]
    monkeypatch.setattr(sys, "path", [])
    assert cuda.installed_cupys() == []


@pytest.mark.parametrize("value", ["", " ", "-1"])
def test_hidden_gpus(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(BackendUnavailable, match="unset CUDA_VISIBLE_DEVICES"):
        open_gpu(fake_cupy())


def test_cupy_that_does_not_import() -> None:
    def load() -> Any:
        raise ImportError("libcudart.so.12")

    with pytest.raises(BackendUnavailable, match=r"does not import \(libcudart") as caught:
        cuda.probe(load=load, installed=lambda: ["cupy-cuda12x"])
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize(("devices", "have"), [(1, "only device 0"), (2, "devices 0 to 1")])
def test_a_device_that_does_not_exist(devices: int, have: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"--device 2 does not exist; .* {have}"):
        open_gpu(fake_cupy(devices), number=2)


def test_a_gpu_that_answers() -> None:
    cupy = fake_cupy()
    device = cuda.probe(0, 1_000, load=lambda: cupy, installed=lambda: ["cupy-cuda12x"])
    assert device.name == "NVIDIA H200 (sm_90)"
    assert device.processors == 132
    assert cupy.get_default_memory_pool().limit == 1_000
    assert device.free_bytes() == 700
    assert open_gpu(fake_cupy()).free_bytes() == 5_100
    device.release()
    pools = cupy.get_default_memory_pool(), cupy.get_default_pinned_memory_pool()
    assert [pool.freed for pool in pools] == [1, 1]


def test_marks_are_events_of_the_queue_in_use() -> None:
    waited: list[int] = []
    cupy = fake_cupy()
    cupy.cuda.get_current_stream = lambda: types.SimpleNamespace(
        record=lambda: types.SimpleNamespace(synchronize=lambda: waited.append(1))
    )
    device = open_gpu(cupy)
    mark = device.mark()
    assert not waited
    device.wait(mark)
    assert waited == [1]


def test_arrays_cross_contiguous_and_products_fill_what_they_are_given() -> None:
    device = open_gpu(fake_cupy())
    a = device.asarray(np.arange(12, dtype=np.float32).reshape(4, 3).T)
    assert a.flags.c_contiguous
    out = device.empty((3, 3), np.float32)
    device.matmul(a, np.ascontiguousarray(a.T), out)
    np.testing.assert_array_equal(device.to_host(out), a @ a.T)


def test_the_first_kernel_is_announced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(cuda, "kernel", lambda *a, **k: (a, k))
    device = cuda.CudaDevice(fake_cupy(), announce=said.append)
    device.kernel("max_tfce.cu", "max_tfce")
    assert device.kernel("permuted_z.cu", "permuted_z", K=3)[1] == {"K": 3}
    assert len(said) == 1
    assert "NVIDIA H200 (sm_90)" in said[0]


def test_importing_the_backend_does_not_import_cupy() -> None:
    import subprocess
    import sys

    code = "import sys, gpu_sdm.backend.cuda, gpu_sdm.permute.device; print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
