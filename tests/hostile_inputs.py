"""Malformed inputs by kind, each with a word of the sentence that must come of it."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import test_bad_inputs
import test_hostile_images as images
from test_formats_files import SLEUTH, studyset
from test_formats_flat import GOOD as FLAT
from test_formats_flat import HEADER, NUMBERS, workbook

Make = Callable[[Path], Path]
HEAD, *ROWS = FLAT.splitlines()


def one(content: str | bytes | dict, name: str = "in.csv") -> Make:
    """Make a file."""

    def make(folder: Path) -> Path:
        data = json.dumps(content) if isinstance(content, dict) else content
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder / name

    return make


def project(**files: str | bytes | None) -> Make:
    """Make an SDM project of two studies, some of its files others."""
    return lambda folder: test_bad_inputs.write(
        folder, {name.replace("__", "."): content for name, content in files.items()}
    )


def named(name: str) -> Make:
    """Make a flat table in which a study has this name."""
    rows = "\n".join(r.replace("a,", f'"{name}",', 1) if r[0] == "a" else r for r in ROWS)
    return one(f"{HEAD}\n{rows}\n")


def cell(column: str, value: str) -> Make:
    """Make a flat table with one cell of its first row changed."""
    cells = ROWS[0].split(",")
    cells[HEADER.split(",").index(column)] = value
    return one("\n".join([HEAD, ",".join(cells), *ROWS[1:]]) + "\n")


def book(change: Callable[[dict[str, bytes]], None]) -> Make:
    """Make a workbook with some of its parts changed."""

    def make(folder: Path) -> Path:
        path = workbook(folder / "in.xlsx", NUMBERS)
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        change(parts)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new:
            for name, part in parts.items():
                new.writestr(name, part)
        path.write_bytes(content.getvalue())
        return path

    return make


SHEET = "xl/worksheets/sheet1.xml"
LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(12)
) + b"]>"  # fmt: skip


def laughing(part: bytes) -> bytes:
    """Put entities before the first element that grow to 10^12 letters, and use them."""
    end = part.index(b"?>") + 2 if part.startswith(b"<?xml") else 0
    return part[:end] + LAUGHS + part[end:].replace(b"<t>", b"<t>&m;", 1)


def link(target: str, name: str = "in.csv") -> Make:
    """Make a symbolic link."""

    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def pipe(name: str) -> Make:
    """Make a project in which one file is a named pipe."""

    def make(folder: Path) -> Path:
        made = test_bad_inputs.write(folder, {name: None} if name != "in.csv" else {})
        os.mkfifo(folder / name)
        return folder / name if name == "in.csv" else made

    return make


def nimads(**changes: object) -> Make:
    """Make a studyset with a change in its first study."""
    content = studyset()
    content["studies"][0].update(changes)
    return one(content, "in.json")


def deep(depth: int) -> str:
    """JSON of so many lists in each other where a study should be."""
    return '{"studies": [{"id": "a", "analyses": ' + "[" * depth + "]" * depth + "}]}"


TEXT = {
    "empty file": (one(""), "is not an SDM project"),
    "only blanks": (one(" \n\t\n"), "is not an SDM project"),
    "binary": (one(bytes(range(256))), "is not an SDM project"),
    "latin-1": (one(FLAT.replace("b,", "Müller,").encode("latin-1")), "is not UTF-8 text (byte"),
    "utf-16": (one(FLAT.encode("utf-16")), "is not UTF-8 text (byte 1)"),
    "utf-16 without mark": (project(sdm_table__txt=test_bad_inputs.TABLE.encode("utf-16-le")),
                            "holds the control character '\\x00', as UTF-16 has"),
    "escape": (cell("age", "\x1b]0;x\x07"), "holds the control character '\\x1b'"),
    "a header alone": (one(HEAD + "\n"), "holds no study"),
    "no separator": (one(FLAT.replace(",", "|")), "is not an SDM project"),
    "mixed separators": (one(FLAT.replace(ROWS[0], ROWS[0].replace(",", ";"))), "space is empty"),
    "open quote": (cell("age", '"31'), "cannot be split into cells"),
    "a cell of 200,000": (cell("age", "9" * 200_000), "field larger than field limit"),
    "2,011 columns": (one("\n".join([",".join([HEAD, *(f"c{i}" for i in range(2000))]), *ROWS])),
                      "has 2,011 columns, more than 1,000"),
    "too many cells": (one(FLAT + "d,1,1,1,1,1,1,1,1,1,1,1\n"), "was a decimal comma split"),
    "decimal comma": (cell("x", '"3,5"'), "write 3.5"),
    "coordinate nan": (cell("x", "nan"), "column x holds 'nan'"),
    "coordinate infinite": (cell("x", "inf"), "column x holds 'inf'"),
    "coordinate huge": (cell("x", "1e300"), "outside the box"),
    "coordinate digits": (cell("x", "9" * 5000), "column x holds '999"),
    "coordinate of other digits": (cell("x", "٣"), "column x holds '٣'"),
    "height infinite": (cell("statistic", "1e999"), "column statistic holds '1e999'"),
    "height absurd": (cell("statistic", "1e99"), "amount to a |t| of at most 10000"),
    "kind of statistic": (cell("kind", "chi2"), "column kind holds 'chi2'"),
    "space": (cell("space", "Narnia"), "column space holds 'Narnia'"),
    "n1 of code": (cell("n1", "__import__('os')"), "must be a whole number"),
    "n1 infinite": (cell("n1", "1e999"), "must be a whole number"),
    "n1 huge": (cell("n1", "9" * 400), "must be a whole number"),
    "threshold of code": (cell("threshold", "=1+2"), "has a threshold of '=1+2'"),
    "one study": (one("\n".join([HEAD, *ROWS[:2]])), "holds 1 usable study"),
}  # fmt: skip
NAMES = {
    "../../x": "path separator", "/etc/passwd": "path separator", "C:\\x": "path separator",
    ".": "is that of a folder", "..": "is that of a folder", "CON": "device on Windows",
    "nul.txt": "device on Windows", "Lpt9": "device on Windows", "x" * 300: "has 300 bytes",
    "é" * 150: "has 300 bytes", "=cmd|'!A0": "begins with =", "@SUM(1)": "begins with @",
    "+1": "begins with +", "-2": "begins with -", "a\u202eb": "control character",
    "a\u200bb": "control character", "a\u2028b": "control character", "a\x85b": "control char",
}  # fmt: skip
TEXT |= {f"name {name[:12]!r}": (named(name), said) for name, said in NAMES.items()}
TEXT |= {
    "names by case": (one(FLAT.replace("c,25", "B,25")), "only by upper and lower case"),
    "names in two spellings": (project(sdm_table__txt=test_bad_inputs.TABLE.replace("ana", "é")
                                       .replace("bob", "e\u0301")), "is already in line 2"),
}  # fmt: skip
SLEUTHS = {
    "foci, no space": (one(SLEUTH.split("\n", 1)[1], "in.txt"), "does not say its space"),
    "foci, no n": (one(SLEUTH.replace("// Subjects=20\n", ""), "in.txt"), "without // Subjects"),
    "foci, two numbers": (one(SLEUTH.replace("-12 22 32", "-12 22"), "in.txt"), "a row is x, y, z"),
    "foci, n of code": (one(SLEUTH.replace("=20", "=os"), "in.txt"), "must be a whole number"),
    "foci, no study": (one("// Reference=MNI\n", "in.txt"), "holds no study"),
}
JSON = {
    "json cut": (one(json.dumps(studyset())[:200], "in.json"), "is not valid JSON"),
    "json deep": (one(deep(100_000), "in.json"), "too deep"),
    "json less deep": (one(deep(900), "in.json"), "is a list and not an object"),
    "json key twice": (one('{"studies": [], "studies": []}', "in.json"), "the key 'studies' twice"),
    "json huge number": (one('{"studies": ' + "9" * 5000 + "}", "in.json"), "too long a number"),
    "json infinity": (nimads(metadata={"sample_sizes": [float("inf")]}), "whole number"),
    "json nan": (nimads(metadata={"sample_sizes": [float("nan")]}), "whole number"),
    "json latin-1": (one('{"studies": "é"}'.encode("latin-1"), "in.json"), "is not UTF-8 text"),
    "json of ids": (one('{"studies": ["a", "b"]}', "in.json"), "is 'a' and not an object"),
    "json analyses": (nimads(analyses=7), "analyses is no list"),
    "json of nothing": (one('{"studies": []}', "in.json"), "holds no study that can be used"),
    "json contrasts": (one('{"contrasts": {}}', "in.json"), "in.json: "),
    "json both": (one('{"studies": [], "contrasts": []}', "in.json"), "leave in it what"),
}
XLSX = {
    "workbook cut": (lambda f: _cut(workbook(f / "in.xlsx", NUMBERS)), "is not an SDM project"),
    "no sheet": (book(lambda p: p.pop(SHEET) and None), "holds no sheet with cells"),
    "sheet of nothing": (book(lambda p: p.update({SHEET: b""})), "no readable XLSX workbook"),
    "laughs in the sheet": (book(lambda p: p.update({SHEET: laughing(p[SHEET])})), "a DOCTYPE"),
    "laughs in the styles": (
        book(lambda p: p.update({"xl/styles.xml": laughing(p["xl/styles.xml"])})), "a DOCTYPE",
    ),
    "entity of a file": (
        book(lambda p: p.update({SHEET: b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
                                 + p[SHEET]})), "a DOCTYPE",
    ),
    "zip that claims a bomb": (lambda f: _claims(f), "unpacks to 629,"),
    "zip bomb in the styles": (book(lambda p: p.update({"xl/styles.xml": bytes(70 << 20)})),
                               "besides its sheets unpacks to 73,"),
    "texts as a sheet": (book(lambda p: p.update({"xl/worksheets/x.xml": b"<sst/>"})), "no sheet"),
    "a formula": (book(lambda p: p.update({SHEET: p[SHEET].replace(b"<v>", b"<f>1+1</f><v>", 1)})),
                  "holds a formula"),
}  # fmt: skip


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:1500])
    return path


def _claims(folder: Path) -> Path:
    path = workbook(folder / "in.xlsx", NUMBERS)
    raw = bytearray(path.read_bytes())
    at = raw.index(SHEET.encode(), raw.index(b"PK\x01\x02")) - 46
    struct.pack_into("<I", raw, at + 24, 600 << 20)
    path.write_bytes(raw)
    return path


PLACES = {
    "absent": (lambda f: f / "absent", "does not exist"),
    "link to nothing": (link("absent"), "does not exist"),
    "link to itself": (link("in.csv"), "does not exist"),
    "a folder": (lambda f: f, "is not an SDM project"),
    "a long name": (lambda f: f / ("x" * 300), "cannot be read (File name too long)"),
    "null device": (lambda f: Path("/dev/null"), "is not an SDM project"),
    "zero device": (lambda f: Path("/dev/zero"), "is not an SDM project"),
    "a pipe": (pipe("in.csv"), "is not an SDM project"),
    "a pipe for the table": (pipe("sdm_table.txt"), "is a pipe or a device"),
    "a pipe for the peaks": (pipe("ana.spm_mni.txt"), "is a pipe or a device"),
    "endless peaks": (lambda f: _endless(f), "is a pipe or a device"),
    "peaks are a folder": (lambda f: _folder(f), "Is a directory"),
}


def _endless(folder: Path) -> Path:
    test_bad_inputs.write(folder, {"ana.spm_mni.txt": None})
    (folder / "ana.spm_mni.txt").symlink_to("/dev/zero")
    return folder


def _folder(folder: Path) -> Path:
    test_bad_inputs.write(folder, {"ana.spm_mni.txt": None})
    (folder / "ana.spm_mni.txt").mkdir()
    return folder


PARQUET = {
    "parquet of text": (
        lambda f: [(f / n).write_bytes(b"PAR1 no") for n in ("studies.parquet", "analyses.parquet")]
        and f, "NiMARE",
    ),
}  # fmt: skip
GZIP = gzip.compress(images.good())
# What only the data say, so that `check` and `convert`, which read headers, cannot know it.
DATA = {
    "header only", "cut short", "all nan", "all zero", "far away", "absurd values", "absurd scale",
    "gzip checksum", "gzip cut short", "gzip damaged",
}  # fmt: skip
IMAGES = {name: (content, words) for name, (content, words) in images.CASES.items()} | {
    "gzip checksum": (GZIP[:-8] + bytes(4) + GZIP[-4:], "CRC check failed"),
    "data type rgba": (images.patched((70, "h", 2304)), "a map holds plain real numbers"),
    "offset beyond the end": (images.patched((108, "f", 9000.0)), "it is cut short"),
    "a template": (images.patched((40, "5h", (4, 6, 7, 8, 13))), "13 volumes; a study has one map"),
    "version 2, size 2^40": (
        struct.pack("<i8s", 540, b"n+2\0\r\n\x1a\n") + struct.pack("<hh", 16, 32)
        + struct.pack("<8q", 3, 2**40, 2**40, 2**40, 1, 1, 1, 1) + bytes(540),
        "more than the 67,108,864 of a head",
    ),
}  # fmt: skip
DATA |= {"offset beyond the end"}
