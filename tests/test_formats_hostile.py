"""Damaged input of every format ends in one of our own errors, never in a traceback."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formats_files import SLEUTH, studyset
from test_formats_flat import GOOD, NUMBERS, workbook

from gpu_sdm.errors import GpuSdmError
from gpu_sdm.io import Assumed, read

SEEDS = {
    "flat": GOOD.encode(),
    "sleuth": SLEUTH.encode(),
    "nimads": json.dumps(studyset()).encode(),
    "nimare": json.dumps(
        {"s": {"contrasts": {"1": {"coords": {"space": "MNI", "x": [1], "y": [2], "z": [3],
                                              "t_stat": [4.0]},
                                   "metadata": {"sample_sizes": [20]}}}}}
    ).encode(),
}  # fmt: skip
PIECES = [b"NaN", b"null", b"1e999", b"-", b'"', b",", b"\n", b"[", b"{", b"\xff", b"\x00", b"p",
          b"9" * 400, b"=1+1", "\u2028".encode(), b"true", b"\t"]  # fmt: skip


def attempt(path):
    try:
        read(path, assumed=Assumed(0.001))
        said = ""
    except GpuSdmError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("seed", SEEDS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 12), st.sampled_from(PIECES)), max_size=3
    )
)
def test_mutated_text(tmp_path, seed, cuts):
    content = SEEDS[seed]
    for at, length, piece in cuts:
        content = content[:at] + piece + content[at + length :]
    path = tmp_path / "in.dat"
    path.write_bytes(content)
    attempt(path)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 6000), piece=st.binary(min_size=1, max_size=6))
def test_mutated_workbooks(tmp_path, at, piece):
    path = workbook(tmp_path / "in.xlsx", NUMBERS)
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + piece + raw[at + len(piece) :])
    attempt(path)


def rezip(path, change):
    """Write a workbook again with its sheet changed."""
    import zipfile

    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, part in parts.items():
            changed = change(part) if name.endswith("sheet1.xml") else part
            assert (changed != part) == name.endswith("sheet1.xml")
            book.writestr(name, changed)
    return path


SHEETS = {
    "claims to be huge": lambda s: s.replace(b'ref="A1:K5"', b'ref="A1:XFD1048576"'),
    "a row far away": lambda s: s.replace(b'<row r="5"', b'<row r="99999999999"'),
    "a cell far away": lambda s: s.replace(b'r="B5"', b'r="XFD5"'),
    "entities": lambda s: b'<!DOCTYPE a [<!ENTITY b "bb">]>' + s.replace(b"<v>", b"<v>&b;", 1),
    "cut": lambda s: s[: len(s) // 2],
    "empty": lambda s: b"",
}


@pytest.mark.parametrize("change", SHEETS.values(), ids=SHEETS)
def test_lying_sheets_neither_hang_nor_crash(tmp_path, change):
    attempt(rezip(workbook(tmp_path / "in.xlsx", NUMBERS), change))
