"""Small valid files of every format, and words that mean something in them."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.data import Dataset
from gpu_sdm.io._text import number
from gpu_sdm.io.flat import read_flat
from gpu_sdm.spaces import SHAPES, grid_affine

TABLE = b"study\tn1\tn2\tt_thr\tthreshold\tage\tdrug\nana\t20\t\t3.1\tcorrected\t31\ta\n"
TABLE += b"bob\t16\t18\t3.2\tuncorrected\tNA\tb\ncyd\t25\t0\t3\t\t9999\ta\n"
SDM = (
    (TABLE, b"10 -20 30 4.5\n12,-22,32,-5\n1\t2\t3\tp\n", b"-8 4 40 n\n", b""),
    (TABLE.replace(b"\t", b","), b"\xef\xbb\xbf1.5 2 3 4\r\n", b"0 0 0 9\r1 1 1 8", b"\n"),
)
FLAT = (
    b"study,n1,n2,threshold,threshold_kind,correction,space,x,y,z,statistic,kind,sign,age\n"
    b"Smith2010,20,0,0.001,p_one_sided,uncorrected,spm_mni,-42,18,4,4.7,t,,31\n"
    b"Smith2010,,,,,,,38,20,2,4.1,z,,\n"
    b"Jones2012,16,18,3.2,t,,spm_tal,-8,4,40,12.3,f,-,45\n"
    b"Jones2012,,,,,,,10,6,38,n,,,\n"
    b"Ray2014,25,0,3.4668,t,,,,,,,,,28\n",
    b'study;n;t_thr;x;y;z;t;space;"drug; dose"\na;20;3.1;1;2;3;-4.5;MNI;"=1+1"\n'
    b"b;16;NA;;;;;;'x\nc;12;3;1;1;1;p;Brett;-y\nd;30;2.5;5;5;5;0.02;tal;\n",
    b"study\tn1\tthreshold\tthreshold_kind\tspace\tx\ty\tz\tstatistic\tkind\n"
    b"a\t20\t2.3\tcluster_z\tfsl_mni\t1\t2\t3\t0.9\tr\nb\t9\t3\t\tmni\t4\t5\t6\t1e-9\tp2\n",
)
SLEUTH = (
    b"// Reference=Talairach\n// Smith, 2010: Go > NoGo\n// Subjects=20\n10\t-20\t30\n-12 22 32\n"
    b"\n// Jones, 2011: a/b\n// second line\n//Subjects = 15\n1, 2, 3\n// Ray\n// Subjects=12\n",
    b"//Reference=MNI\r\n//a\r\n//Subjects=9\r\n1 2 3\r\n//b\r\n//Subjects=9\r\n1 2 3\r\n",
)
REGIONS = (
    b"index,name\n1,Insula_L\n2,Insula_R\n", b"1\tInsula L\n2\tInsula R\n",
    b'{"1": "Insula_L", "2": "Insula_R"}', b'value;x;label\n7;0;"a ""b"""\n',
)  # fmt: skip
MAXIMA = (
    b"permutation\tmax_z\tmax_neg_z\n0\t5.5\t4.25\n1\t3.5\t3.75\n",
    b"permutation\tmax_z\tmax_neg_z\tmax_tfce\tmax_neg_tfce\n0\t5.5\t4.25\t100.5\t1e3\n",
)
SDM_MAXIMA = (b"5.1 4.2 1000.5 900\n3.3 3.1 500 400\n", b"1\t2\t3\t4\r\n")
FORMULAS = (
    b"1 + age", b"age * C(drug)", b"0 + C(drug) + scale(age):center(dose)", b"poly(age, 2) - 1",
    b"`odd name` + C(`x') or __import__('os').system('x') or ('`)", b"(age + dose) * C(`a.b`)",
)  # fmt: skip
WHERES = (
    b"age < 40", b"drug == 'a' and not (n1 >= 20 or age in [1, -2.5])", b"study != 'a' < 'z'",
    b"threshold not in ('corrected',)", b"__import__('os').system('x') == 1",
)  # fmt: skip
CONTRASTS = (b"age", b"0,1,-1", b"drug[a] - 0.5*drug[b]", b"C(drug)", b"Intercept + 2*age - age")

TEXT_TOKENS = (
    *(w.encode() for w in ["study", "n1", "n2", "t_thr", "threshold", "image", "sample", "age",
    "nan", "NaN", "NA", "inf", "-inf", "1e999", "1e-999", "1e308", "0x10", "1_0", "٣", "−", "–",
    "p", "n", "+", "-", "p_one_sided", "p_two_sided", "cluster_", "spm_mni", "fsl_tal", "brett",
    "Talairach", "//", "//Subjects=", "//Reference=", "../../x", "/etc/passwd", "C:\\", "CON",
    "nul.txt", ".", "..", "=1+1", "@x", "'x", ";", ",", "<script>", "${x}", "%s", "%n", "{}",
    "9999", "1e5", "--1", ".5", "5.", "é", "é", "🧠", "\u202e", "\u200f", "\u2028", "\ufeff"]),
    b"\t", b"\n", b"\r\n", b"\r", b"\x00", b"\x0c", b"\x1b[2J", b"\x1a", b'"', b'""', b"\n====\n",
    b"\xff\xfe", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"9" * 400, b" " * 400, b",,,,,",
    b"1 2 3 4\n",
)  # fmt: skip
JSON_TOKENS = (
    b'"studies"', b'"contrasts"', b'"analyses"', b'"points"', b'"coordinates"', b'"values"',
    b'"metadata"', b'"sample_sizes"', b'"annotations"', b'"notes"', b'"id"', b'"name"', b'"space"',
    b'"coords"', b'"kind"', b'"t_thr"', b'"images"', b'"labels"', b'"coordinate_space"',
    b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"[]", b"{}", b"[[[[[[[[", b"]", b"}",
    b'"\\ud800"', b'"\\u0000"', b'"\\u202e"', b'"../x"', b'"' + b"9" * 400 + b'"', b"9" * 400, b",",
    b":", b"-0.0", b'"MNI"', b'"T"', b'"1":', b"\xef\xbb\xbf", b"//",
)  # fmt: skip
XML_TOKENS = (
    b"<v>", b"</v>", b"<f>1+1</f>", b't="s"', b't="n"', b't="b"', b't="e"', b't="d"', b't="str"',
    b't="inlineStr"', b"<is><t>x</t></is>", b'r="A1"', b'r="XFD1048576"', b'r="99999999999"',
    b"<row>", b"</row>", b"<c>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"&amp;", b"&#0;",
    b"<mergeCell ref=\"A1:Z9\"/>", b"-1", b"1e999", b"NaN", b"<si><t>x</t></si>", b"\n====\n",
    b'ref="A1:XFD1048576"', b"2020-01-01T00:00:00", b"\x00",
)  # fmt: skip
NIFTI_TOKENS = (
    b"n+1\x00", b"n+2\x00", b"ni1\x00", b"\x1f\x8b\x08\x00", b"\x00\x00\x80\x7f",
    b"\x00\x00\xc0\x7f",
    b"\xff\x7f", b"\x00\x80", b"\xff\xff\xff\xff", b"\x02\x00", b"\x04\x00", b"\x08\x00",
    b"\x10\x00",
    b"\x20\x00", b"\x40\x00", b"\x80\x00", b"\x00\x02", b"\x00\x03", b"\x00\x06", b"\x00\x07",
    struct.pack("<f", 352), struct.pack("<f", 1e30), struct.pack("<f", -4), struct.pack("<d",
    1e300),
    struct.pack("<4h", 3, 32767, 32767, 32767), struct.pack("<5h", 4, 6, 7, 8, 32767), bytes(8),
)  # fmt: skip
CODE_TOKENS = (
    b"__import__", b"lambda", b"if", b"None", b"True", b"C(", b"center(", b"scale(", b"poly(",
    b", 2)", b")", b"(", b"`", b"age", b"drug", b"dose", b"odd name", b"a.b", b"~", b"*", b"**",
    b":", b"+", b"-", b"0", b"1", b" in ", b" not ", b" and ", b" or ", b"==", b"!=", b"<", b"'",
    b'"', b"[", b"]", b"{", b"\\d", b"9" * 400, b"1e999", b"study", b"n1", b"f''", b":=", b"@",
    b".__class__", b"\xff", b"\n",
)  # fmt: skip


def nimads() -> list[bytes]:
    """Studysets."""
    point = {"space": "TAL", "coordinates": [1, 2.5, -3], "values": [{"kind": "Z", "value": 4.1}]}
    analyses = [
        {"id": "1", "points": [point, {"coordinates": [0, 0, 0]}], "metadata": {"t_thr": 3.1}},
        {"id": "2", "points": [], "annotations": {"x": {"age": 30}}},
    ]
    studies = [
        {"id": "s1", "name": "A", "metadata": {"sample_sizes": [20, 18]}, "analyses": analyses},
        {"id": "s2", "metadata": {"sample_size": 15}, "analyses": analyses[:1]},
    ]
    notes = [
        {"id": "x", "name": "x", "notes": [{"analysis": "1", "note": {"drug": "a", "n": True}}]}
    ]
    return [json.dumps({"id": "x", "studies": studies, "annotations": notes}).encode()]


def nimare() -> list[bytes]:
    """Datasets of NiMARE."""
    coords = {"space": "MNI", "x": [1, 2], "y": [2, 3], "z": [3, 4], "t_stat": [4.0, -4]}
    one = {"coords": coords, "metadata": {"sample_sizes": [20]}, "labels": {"w": 0.5}}
    study = {"metadata": {"authors": "x"}, "contrasts": {"1": one, "2": one}}
    return [json.dumps({"s1": study, "s2": {"contrasts": {"1": one}}}).encode()]


@cache
def workbook() -> bytes:
    """Give the first flat table as XLSX."""
    import openpyxl

    book = openpyxl.Workbook()
    for line in FLAT[0].decode().splitlines():
        cells = [number(cell) if number(cell) is not None else cell for cell in line.split(",")]
        book.active.append(cells)
    content = io.BytesIO()
    book.save(content)
    return _with_shared_texts(content.getvalue())


def _with_shared_texts(raw: bytes) -> bytes:
    """Move two texts into a table of shared ones, where Excel keeps all."""
    content = io.BytesIO()
    kind = b'"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"'
    place = b'"http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings"'
    override = b'<Override PartName="/xl/sharedStrings.xml" ContentType=' + kind + b"/></Types>"
    relation = b"<Relationship Type=" + place + b' Target="sharedStrings.xml" Id="rId9"/>'
    texts, namespace = (b"study", b"Smith2010"), b"http://schemas.openxmlformats.org/spreadsheetml"
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            part = old.read(name).replace(b"</Types>", override)
            part = part.replace(
                b"</Relationships>", relation + b"</Relationships>", name.count("workbook")
            )
            for i, text in enumerate(texts):
                inline = b't="inlineStr"><is><t>%b</t></is>' % text
                part = part.replace(inline, b't="s"><v>%d</v>' % i)
            new.writestr(name, part)
        shared = b"".join(b"<si><t>%b</t></si>" % t for t in texts)
        new.writestr(
            "xl/sharedStrings.xml", b'<sst xmlns="%b/2006/main">%b</sst>' % (namespace, shared)
        )
    return content.getvalue()


def sheet_parts() -> tuple[bytes, bytes]:
    """Give the sheet and the shared texts of `workbook`."""
    with zipfile.ZipFile(io.BytesIO(workbook())) as file:
        return file.read("xl/worksheets/sheet1.xml"), file.read("xl/sharedStrings.xml")


@cache
def parquet_tables() -> dict[str, bytes]:
    """Tables of a studyset, by file name."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        from nimare.studyset import Studyset

        Studyset(json.loads(nimads()[0])).to_parquet(scratch)
        return {p.name: p.read_bytes() for p in sorted(Path(scratch).iterdir())}


@cache
def image(version: int = 1, integers: bool = False, maps: int = 0) -> bytes:
    """Give an image of 6 x 7 x 8 voxels in the middle of the brain."""
    import nibabel

    shape = (6, 7, 8, *([maps] if maps else []))
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if integers:
        values = np.arange(values.size).reshape(shape).astype(np.int16) % 5
    affine = grid_affine(4).copy()
    affine[:3, 3] = (10, -22, 4)
    kind: Any = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    return kind(values, affine).to_bytes()


def stacks() -> list[bytes]:
    """Give maps of subjects, one and several in a file."""
    return [image(1), image(1, maps=3), image(2, True, 2)]


@cache
def template() -> bytes:
    """Give a template on the 4 mm grid, every correlation .9."""
    import nibabel

    r = np.full((*SHAPES[4], 13), 0.9, np.float32)
    return nibabel.Nifti1Image(r, grid_affine(4)).to_bytes()


@cache
def in_memory() -> Dataset:
    """Eight studies with columns of odd names, for conditions and formulas."""
    odd = "x') or __import__('os').system('x') or ('"
    lines = [f'study,n1,t_thr,space,x,y,z,t,age,dose,drug,odd name,a.b,lambda,"{odd}"']
    lines += [
        f"s{i},{20 + i},3.1,mni,1,2,3,4.5,{30 + i * i},{'' if i == 3 else i},{'ab'[i % 2]},"
        f"{i * 7 % 5},{i % 3},{i},{'xy'[i % 2]}"
        for i in range(8)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "in.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        return read_flat(path)
