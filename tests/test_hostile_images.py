"""Damaged and hostile NIfTI files: one sentence, little memory, no wait."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_data import hedges

from gpu_sdm.errors import InputError
from gpu_sdm.io import read
from gpu_sdm.spaces import SHAPES, Space, grid_affine
from gpu_sdm.stages.images import image_effects

MIB = 2**20


def good(version: int = 1) -> bytes:
    values = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    affine = grid_affine(4).copy()
    affine[:3, 3] = (10, -22, 4)
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    return kind(values, affine).to_bytes()


def patched(*fields: tuple[int, str, object]) -> bytes:
    """The good image with values written over its header: (byte, struct format, values)."""
    raw = bytearray(good())
    for at, form, value in fields:
        struct.pack_into("<" + form, raw, at, *(value if isinstance(value, tuple) else (value,)))
    return bytes(raw)


def dims(*sizes: int) -> tuple[int, str, object]:
    return 40, f"{len(sizes) + 1}h", (len(sizes), *sizes)


NAN, INF = float("nan"), float("inf")
SFORM = (280, "12f")
EMPTY_ROW = (-4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0)
CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a NIfTI image; give a"),
    "text": (b"x y z t\n" * 100, "is not a NIfTI image"),
    "pair": (patched((344, "4s", b"ni1\0")), "is not a NIfTI image"),
    "header only": (good()[:352], r"holds 0 bytes of data where its header announces 1,344"),
    "cut short": (good()[:-5], r"holds 1,339 bytes of data where its header announces 1,344"),
    "gzip cut short": (gzip.compress(good())[:-30], "cannot be unpacked"),
    "gzip damaged": (gzip.compress(good())[:40] + b"\xff" * 400, "cannot be unpacked"),
    "gzip header only": (b"\x1f\x8b", "cannot be unpacked"),
    "no axes": (patched((40, "h", 0)), "claims 0 axes"),
    "nine axes": (patched((40, "h", 9)), r"claims \d+ axes; its header is damaged"),
    "two axes": (patched(dims(6, 7)), r"has the size \(6, 7\); a map has three axes"),
    "size zero": (patched(dims(6, 0, 8)), r"\(6, 0, 8\), so it holds no voxel"),
    "size negative": (patched(dims(6, -7, 8)), r"\(6, -7, 8\), so it holds no voxel"),
    "volumes": (patched(dims(6, 7, 4, 2)), r"2 volumes; a study has one map"),
    "more axes": (patched(dims(6, 7, 2, 1, 2, 2)), r"4 volumes; a study has one map"),
    "gigantic": (patched(dims(32767, 32767, 32767)), r"more than the 67,108,864 of a head at 0\.5"),
    "gigantic volumes": (patched(dims(9, 9, 9, *[32767] * 4)), "volumes; a study has one map"),
    "complex": (patched((70, "h", 32)), "holds complex64 values; a map holds plain real numbers"),
    "colours": (patched((70, "h", 128)), "holds .* values; a map holds plain real numbers"),
    "long double": (patched((70, "h", 1536)), "values; a map holds plain real|does not know"),
    "no such type": (patched((70, "h", 999)), "data type 999, which NIfTI does not know"),
    "binary": (patched((70, "h", 1)), "data type 1, which|values; a map holds plain real"),
    "no place": (patched((252, "2h", (0, 0))), "sform and qform codes are 0"),
    "affine nan": (patched((*SFORM, (NAN,) * 12)), "affine that is not a number or cannot be"),
    "affine infinite": (patched((*SFORM, (INF,) * 12)), "affine that is not a number or cannot be"),
    "affine zero": (patched((*SFORM, (0.0,) * 12)), "affine that is not a number or cannot be"),
    "affine flat": (patched((*SFORM, EMPTY_ROW)), "affine that is not a number or cannot be"),
    "qform broken": (
        patched((252, "2h", (1, 0)), (256, "3f", (9.0, 9.0, 9.0))),
        r"damaged orientation \(qform\)",
    ),
    "offset nan": (patched((108, "f", NAN)), "its data begin at byte nan"),
    "offset huge": (patched((108, "f", 1e30)), r"its data begin at byte 1e\+30"),
    "offset negative": (patched((108, "f", -8.0)), "its data begin at byte -8"),
    "slope infinite": (patched((112, "2f", (INF, 0.0))), "scales its values by inf and 0"),
    "all nan": (patched((352, "336f", (NAN,) * 336)), "holds no data in the analysis mask"),
    "all zero": (patched((352, "336f", (0.0,) * 336)), "holds no data in the analysis mask"),
    "far beyond": (
        patched((*SFORM, (-4.0, 0, 0, 1e30, 0, 4, 0, 0, 0, 0, 4, 0))),
        r"has voxels of 4 x 4 x 4 mm, the first up to 1e\+30 mm from the origin",
    ),
    "voxels too small": (
        patched((*SFORM, (-4e-9, 0, 0, 9, 0, 4e-9, 0, 0, 0, 0, 4e-9, 0))),
        "has voxels of 4e-09 x 4e-09 x 4e-09 mm",
    ),
    "far away": (
        patched((*SFORM, (-4.0, 0, 0, 9e3, 0, 4, 0, 0, 0, 0, 4, 0))),
        "holds no data in the analysis mask",
    ),
    "absurd values": (
        patched((352, "336f", (1e30,) * 336)),
        r"amounts to \|t\| = 1e\+30, which is no t statistic of a study of 12 subjects",
    ),
    "absurd scale": (patched((112, "2f", (1e30, 0.0))), r"which is no t statistic"),
}


def project(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "sdm_table.txt").write_text("study\tn1\nana\t12\nbob\t15\n")
    (folder / "ana.nii.gz").write_bytes(content)
    (folder / "bob.nii.gz").write_bytes(good())
    return folder


def load(folder: Path) -> np.ndarray:
    """All that an analysis does with the files: headers first, then the data."""
    mask = np.zeros(SHAPES[4], bool)
    mask[18:30, 24:36, 17:30] = True
    return image_effects(read(folder).studies, Space(4, mask), threads=1)[0]


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_sentence(tmp_path, case):
    content, sentence = CASES[case]
    with pytest.raises(InputError, match=sentence) as caught:
        load(project(tmp_path, content))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'ana.nii.gz'}: ")
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_good_ones_are_read(tmp_path, version, packed):
    raw = good(version)
    g = load(project(tmp_path, gzip.compress(raw) if packed else raw))
    assert np.isfinite(g).sum(axis=1).tolist() == [336, 336]
    j, c, _, _ = hedges(np.array([12.0, 15.0]))
    np.testing.assert_allclose(g[0] / (j * np.sqrt(c))[0], g[1] / (j * np.sqrt(c))[1], rtol=1e-6)


def test_integers_and_byte_order(tmp_path):
    values = np.arange(2, 338).reshape(6, 7, 8)
    affine = grid_affine(4)
    affine[:3, 3] = (10, -22, 4)
    wanted = None
    for kind, scale in ((">i2", 0.01), ("<i4", 0.01), (">f8", None), ("u1", 0.02)):
        header = nib.Nifti1Header(endianness=kind[0] if kind[0] in "<>" else "<")
        header.set_data_dtype(np.dtype(kind))
        header.set_data_shape(values.shape)
        header.set_sform(affine, 4)
        header["vox_offset"], header["magic"] = 352, b"n+1"
        stored = values // 2 + 7 if kind == "u1" else values * (0.01 if scale is None else 1)
        if scale:
            header["scl_slope"] = scale
            header["scl_inter"] = -0.14 if kind == "u1" else 0
        raw = header.binaryblock + bytes(4) + stored.astype(kind).tobytes(order="F")
        g = load(project(tmp_path, raw))[0]
        wanted = g if wanted is None else wanted
        np.testing.assert_allclose(g, wanted, atol=0.011 if kind == "u1" else 1e-6)


def test_memory_stays_bounded(tmp_path):
    """A gzip bomb of 300 MiB behind a small header, and a header that asks for 256 MiB."""
    bomb = tmp_path / "bomb"
    project(bomb, b"")
    with gzip.open(bomb / "ana.nii.gz", "wb", compresslevel=1) as file:
        file.write(good())
        for _ in range(300):
            file.write(bytes(MIB))
    large = project(tmp_path / "large", patched(dims(400, 400, 400)))
    tracemalloc.start()
    try:
        assert np.isfinite(load(bomb)[0]).sum() == 336
        with pytest.raises(InputError, match="announces 256,000,000; it is cut short"):
            load(large)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


def test_pipes_and_folders_are_no_images(tmp_path):
    folder = project(tmp_path, good())
    (folder / "ana.nii.gz").unlink()
    (folder / "ana.nii.gz").mkdir()
    with pytest.raises(InputError, match="is not a file; give a"):
        read(folder)
    (folder / "ana.nii.gz").rmdir()
    os.mkfifo(folder / "ana.nii.gz")
    with pytest.raises(InputError, match="is not a file; give a"):
        read(folder)


FILES = {
    "both suffixes": ({"ana.nii": good()}, r"two files, ana\.nii and ana\.nii\.gz"),
    "peaks too": ({"ana.spm_mni.txt": b"1 2 3 4"}, r"two files, ana\.spm_mni\.txt and ana\.nii"),
    "no error map": (
        {"sdm_table.txt": b"study\tn1\timage\nana\t12\tcontrast\nbob\t15\t\n"},
        r"'ana' has a contrast without its standard error; add ana_se\.nii\.gz",
    ),
    "unknown kind": (
        {"sdm_table.txt": b"study\tn1\timage\nana\t12\tF\nbob\t15\t\n"},
        r"sdm_table\.txt:2: study 'ana' has image = 'f'; .*one of: t, z, g, d, contrast",
    ),
    "another grid": (
        {
            "sdm_table.txt": b"study\tn1\timage\nana\t12\tg\nbob\t15\t\n",
            "ana_var.nii.gz": patched(dims(6, 7, 7)),
        },
        r"ana_var\.nii\.gz: lies on another grid than ana\.nii\.gz",
    ),
    "threshold not a number": (
        {"sdm_table.txt": b"study\tn1\tt_thr\nana\t12\thigh\nbob\t15\t\n"},
        r"study 'ana' has t_thr = 'high'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_do_not_fit(tmp_path, case):
    files, sentence = FILES[case]
    project(tmp_path, good())
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        read(tmp_path)
    assert str(caught.value).endswith(".")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=12),
    packed=st.booleans(),
    keep=st.integers(0, 1696),
    kind=st.sampled_from(["t", "z", "d"]),
    factor=st.sampled_from([1, 1e-40, 1e4, 1e38]),
)
def test_any_damage_is_ours(tmp_path, changes, packed, keep, kind, factor):
    raw = bytearray(good())
    with np.errstate(over="ignore"):
        raw[352:] = (np.frombuffer(good()[352:], "<f4") * np.float32(factor)).tobytes()
    for at, value in changes:
        raw[at] = value
    content = bytes(raw[:keep] if keep < 400 else raw)
    project(tmp_path, gzip.compress(content) if packed else content)
    table = f"study\tn1\timage\nana\t12\t{kind}\nbob\t15\t\n"
    (tmp_path / "sdm_table.txt").write_text(table)
    try:
        g = load(tmp_path)
    except InputError as error:
        said = str(error)
    else:
        said = "infinite" if np.isinf(g).any() else "fine."
    assert said.endswith(".")
    assert "\n" not in said
