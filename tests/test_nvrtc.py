"""Every kernel compiles for every card we name, and needs no more of it than the table says.

NVRTC needs no driver: `pip install nvidia-cuda-nvrtc-cu12`. The table is written anew, after a
deliberate change, by `python tests/test_nvrtc.py`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from host_build import entries

from gpu_sdm.backend.kernels import KERNELS, OPTIONS, defines, source
from gpu_sdm.ops._fit_bounds_cuda import design_knobs
from gpu_sdm.permute.launch import KEPT_STUDIES, general_knobs, knobs

TABLE = Path(__file__).parent / "kernel_resources.json"
CARDS = (75, 80, 86, 89, 90, 100, 120)
MAIN_VARIANTS = {
    "permuted_z K=11": ("permuted_z.cu", knobs(11, True)),
    "permuted_z K=50": ("permuted_z.cu", knobs(50, True)),
    "permuted_z K=135": ("permuted_z.cu", knobs(135, True)),
    "permuted_z_general Q=2": ("permuted_z_general.cu", general_knobs(20, 2, False, True)),
    "max_statistic": ("max_statistic.cu", {}),
    "max_tfce": ("max_tfce.cu", {}),
    "tfce_map": ("tfce_map.cu", {}),
    "max_cluster": ("max_cluster.cu", {"NEIGHBOURS": 6}),
    "exceedances": ("exceedances.cu", {}),
    "arrange_effects": ("arrange_effects.cu", {}),
    "permutation_weights": ("permutation_weights.cu", {}),
    "fit_bounds": ("fit_bounds.cu", design_knobs(np.ones((2, 1)))),
    "fit_tau2": ("fit_tau2.cu", design_knobs(np.ones((2, 1)))),
}
# Compiled for the oldest and one new card only: compiling takes its time.
MORE_VARIANTS = {
    "permuted_z K=2": ("permuted_z.cu", knobs(2, True)),
    "permuted_z K=16": ("permuted_z.cu", knobs(16, True)),
    "permuted_z K=22": ("permuted_z.cu", knobs(22, True)),
    "permuted_z K=23": ("permuted_z.cu", knobs(23, True)),
    "permuted_z K=30": ("permuted_z.cu", knobs(30, True)),
    "permuted_z K=32": ("permuted_z.cu", knobs(32, True)),
    "permuted_z K=40": ("permuted_z.cu", knobs(40, True)),
    "permuted_z K=60": ("permuted_z.cu", knobs(60, True)),
    "permuted_z K=50 unit": ("permuted_z.cu", knobs(50, True, False)),
    "permuted_z K=64": ("permuted_z.cu", knobs(64, True)),
    "permuted_z K=1000": ("permuted_z.cu", knobs(1000, True)),
    "permuted_z K=50 studies": ("permuted_z.cu", knobs(50, False)),
    "fit_bounds Q=2": ("fit_bounds.cu", design_knobs(np.zeros((3, 2)))),
    "fit_bounds Q=8": ("fit_bounds.cu", design_knobs(np.zeros((9, 8)))),
    "fit_tau2 Q=8": ("fit_tau2.cu", design_knobs(np.zeros((9, 8)))),
    "max_cluster box": ("max_cluster.cu", {"NEIGHBOURS": 26}),
    "permuted_z_general Q=2 REML": ("permuted_z_general.cu", general_knobs(20, 2, True, True)),
}
VARIANTS = MAIN_VARIANTS | MORE_VARIANTS
CASES = [(name, card) for name in MAIN_VARIANTS for card in CARDS] + [
    (name, card) for name in MORE_VARIANTS for card in (75, 90)
]


def library_path() -> Path | None:
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so*")):
            if ".alt." not in path.name:
                return path
    return None


needs_nvrtc = pytest.mark.skipif(
    library_path() is None,
    reason="KERNELS NOT COMPILED FOR ANY CARD: pip install nvidia-cuda-nvrtc-cu12",
)


@cache
def nvrtc() -> ctypes.CDLL:
    return ctypes.CDLL(str(library_path()))


def nvrtc_version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def cubin(text: str, card: int) -> tuple[bytes, str]:
    """Compile to the machine code of one card; it, and the log of ptxas."""
    lib, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    lib.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    options = [f"--gpu-architecture=sm_{card}".encode(), b"--ptxas-options=-v"]
    options += [o.encode() for o in OPTIONS]
    status = lib.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    lib.nvrtcGetCUBINSize(program, ctypes.byref(size))
    assert size.value > 0
    code = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetCUBIN(program, code)
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw, log.value.decode()


def compile_kernel(text: str, card: int) -> str:
    """Compile for one card and give the log of ptxas."""
    return cubin(text, card)[1]


def resources(log: str) -> dict[str, dict[str, int]]:
    """Registers, shared memory, stack and spills of each entry in a log."""
    found = {}
    for part in log.split("Compiling entry function")[1:]:

        def number(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match[1]) if match else 0

        found[re.search(r"'(\w+)'", part)[1]] = {  # type: ignore[index]
            "registers": number(r"Used (\d+) registers"),
            "shared": number(r"(\d+) bytes smem"),
            "stack": number(r"(\d+) bytes stack frame"),
            "spill": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        }
    return found


@cache
def compiled(name: str, card: int) -> dict[str, dict[str, int]]:
    file, chosen = VARIANTS[name]
    return resources(compile_kernel(defines(dict(chosen)) + source(file), card))


@needs_nvrtc
@pytest.mark.parametrize(("name", "card"), CASES)
def test_kernel_fits_the_card(name: str, card: int) -> None:
    found = compiled(name, card)
    file, chosen = VARIANTS[name]
    assert sorted(found) == sorted(entries(source(file)))
    table = json.loads(TABLE.read_text())
    limits = table["kernels"][name][str(card)]
    for entry, used in found.items():
        assert 0 < used["registers"] <= 255
        assert used["shared"] <= 48 << 10
        assert used["registers"] * int(chosen.get("BLOCK", 512)) <= 65536
        if file == "permuted_z.cu" and int(chosen["K"]) <= KEPT_STUDIES:
            assert used["spill"] == used["stack"] == 0
        if chosen.get("MEAN") == 1:
            assert used["spill"] == used["stack"] == 0
        if table["nvrtc"] == nvrtc_version():  # another compiler allots otherwise
            for what, limit in limits[entry].items():
                assert used[what] <= limit, f"{entry} sm_{card}: {what} {used[what]} > {limit}"


def test_the_table_covers_every_kernel_and_case() -> None:
    table = json.loads(TABLE.read_text())["kernels"]
    assert {(name, card) for name, card in CASES} == {
        (name, int(card)) for name, cards in table.items() for card in cards
    }
    assert {file for file, _ in MAIN_VARIANTS.values()} == {p.name for p in KERNELS.glob("*.cu")}


@needs_nvrtc
def test_a_kernel_with_an_error_is_noticed() -> None:
    with pytest.raises(AssertionError, match="error"):
        compile_kernel(source("max_statistic.cu").replace("long long n_maps", "long n_mops"), 90)


def write_table() -> None:
    kernels: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for name, card in CASES:
        kernels.setdefault(name, {})[str(card)] = compiled(name, card)
    whole = json.dumps({"nvrtc": nvrtc_version(), "kernels": kernels}, indent=1)
    flat = re.sub(
        r"\{\s*(\"registers\"[^}]*?)\s*\}", lambda m: "{" + " ".join(m[1].split()) + "}", whole
    )
    TABLE.write_text(flat + "\n")


if __name__ == "__main__":
    write_table()
