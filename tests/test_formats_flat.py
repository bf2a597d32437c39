"""One table with a row per peak: CSV, TSV and XLSX, and what is wrong with them, in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpu_sdm.coordinates import to_mni
from gpu_sdm.errors import InputError
from gpu_sdm.io import Assumed, format_of, read

HEADER = "study,n1,n2,threshold,space,x,y,z,statistic,kind,age"
GOOD = f"""{HEADER}
a,20,,3.1,spm_mni,10,-20,30,4.5,t,31
a,,,,,12,-22,32,-5,t,
b,16,18,3.2,Talairach,-8,4,40,n,,45
c,25,0,3.0,,,,,,,
"""


def write(tmp_path, text, name="in.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_table_becomes_studies(tmp_path):
    a, b, c = read(write(tmp_path, GOOD)).studies
    assert [(s.name, s.n1, s.n2, s.t_threshold) for s in (a, b, c)] == [
        ("a", 20, 0, 3.1), ("b", 16, 18, 3.2), ("c", 25, 0, 3.0),
    ]  # fmt: skip
    assert a.peaks.xyz_mm.tolist() == [[10, -20, 30], [12, -22, 32]]
    assert a.peaks.t.tolist() == [4.5, -5]
    assert a.peaks.lines.tolist() == [2, 3]
    assert a.peaks.kinds == ()  # all t: nothing was converted
    assert b.peaks.space == "other_tal"
    assert np.array_equal(b.peaks.xyz_mm, to_mni([[-8, 4, 40]], "other_tal"))
    assert b.peaks.t.tolist() == [-3.2]
    assert not b.peaks.known.any()
    assert len(c.peaks) == 0
    assert (a.covariates["age"], b.covariates["age"]) == (31, 45)
    assert np.isnan(c.covariates["age"])


TOLERATED = {
    "bom": GOOD.encode("utf-8-sig"),
    "windows": GOOD.replace("\n", "\r\n"),
    "old mac": GOOD.replace("\n", "\r"),
    "tabs": GOOD.replace(",", "\t"),
    "semicolons": GOOD.replace(",", ";"),
    "blank rows": GOOD.replace("\n", "\n,,,,,,,,,,\n\n"),
    "spreadsheet's empty columns": GOOD.replace("\n", ",,\n"),
    "quotes": GOOD.replace("a,20", '"a","20"'),
    "capitals": GOOD.replace(HEADER, HEADER.upper().replace("AGE", "age")),
    "other names": GOOD.replace("n1,n2,threshold", "n,n2,t_thr"),
    "typographic minus": GOOD.replace(",-", ",−"),
    "not contiguous": "\n".join([HEADER, *(GOOD.splitlines()[i] for i in (1, 3, 2, 4))]),
}


@pytest.mark.parametrize("text", TOLERATED.values(), ids=TOLERATED)
def test_tolerated(tmp_path, text):
    found = read(write(tmp_path, text))
    wanted = read(write(tmp_path, GOOD, "plain.csv"))
    for one, other in zip(found.studies, wanted.studies, strict=True):
        assert (one.name, one.n1, one.n2, one.t_threshold, one.peaks.space) == (
            other.name, other.n1, other.n2, other.t_threshold, other.peaks.space,
        )  # fmt: skip
        assert np.array_equal(one.peaks.xyz_mm, other.peaks.xyz_mm)
        assert np.array_equal(one.peaks.t, other.peaks.t)
        np.testing.assert_equal(dict(one.covariates), dict(other.covariates))


def test_kinds_of_statistic_and_threshold_become_t(tmp_path):
    rows = [
        "study,n1,n2,threshold,threshold_kind,space,x,y,z,statistic,kind,sign",
        "one,20,0,0.001,p_one_sided,spm_mni,1,2,3,4,z,",
        "one,,,,,,4,5,6,0.0001,p_two_sided,-",
        "one,,,,,,7,8,9,16,F,",
        "one,,,,,,7,8,0,3.9,,",
        "one,,,,,,7,0,0,,,-",
        "two,12,15,3.1,cluster_z,fsl_mni,1,2,3,0.9,r,",
        "two,,,,,,1,2,4,-1.4,d,",
        "two,,,,,,1,2,5,-1.4,g,n",
    ]
    found = read(write(tmp_path, "\n".join(rows)))
    one, two = found.studies
    assert one.t_threshold == pytest.approx(stats.t.isf(0.001, 19), rel=1e-12)
    assert two.t_threshold == pytest.approx(stats.t.isf(stats.norm.sf(3.1), 25), rel=1e-9)
    z = stats.t.isf(stats.norm.sf(4), 19)
    wanted = [z, -stats.t.isf(0.00005, 19), 4, 3.9, -one.t_threshold]
    assert one.peaks.t == pytest.approx(wanted, rel=1e-9)
    assert one.peaks.known.tolist() == [True, True, True, True, False]
    assert one.peaks.kinds == ("z", "p_two_sided", "f", "t", "sign")
    assert one.peaks.reported[:4].tolist() == [4, -0.0001, 16, 3.9]
    assert two.peaks.t[1] == pytest.approx(-1.4 / np.sqrt(1 / 12 + 1 / 15), rel=1e-12)
    assert two.peaks.t[2] < two.peaks.t[1]
    assert found.counts() == dict.fromkeys(
        ("cluster_threshold", "sign_assumed", "statistic_converted", "unknown_height"), 1
    )
    message = next(n.message for n in found.notices if n.kind == "sign_assumed")
    assert message.endswith("1 peaks of 1 studies have no sign; they are taken as positive.")
    assert "too small" in next(n.message for n in found.notices if n.kind == "cluster_threshold")


def cell(row, column, text):
    """GOOD with another text in a cell."""
    lines = [line.split(",") for line in GOOD.splitlines()]
    lines[row][HEADER.split(",").index(column)] = text
    return "\n".join(",".join(line) for line in lines)


BAD = {
    "decimal comma": (
        cell(1, "statistic", '"3,5"'),
        r"in.csv:2: column statistic holds '3,5'; write a number, or p .* \(write 3.5\)",
    ),
    "decimal comma, split": (cell(1, "age", "31,5"), ":2: has 12 cells for 11 columns; was a dec"),
    "decimal comma in a covariate": (cell(1, "age", '"31,5"'), ":2: column age holds '31,5'"),
    "decimal comma in a threshold": (cell(1, "threshold", '"3,1"'), ":2: column threshold holds"),
    "no name": (cell(2, "study", ""), ":3: column study is empty; repeat the study's name"),
    "name": (cell(1, "study", "../a"), ":2: study name '../a' holds a path separator"),
    "disagrees": (cell(2, "n1", "21"), ":3: column n1 holds '21'; study 'a' has '20' in an"),
    "n": (cell(1, "n1", "many"), ":2: study 'a' has n1 = 'many'"),
    "no threshold": (cell(1, "threshold", ""), ":2: study 'a' has no threshold; .*--threshold-p"),
    "threshold": (cell(1, "threshold", "-3"), ":2: study 'a' has a threshold of '-3'"),
    "coordinate": (cell(1, "y", "east"), ":2: column y holds 'east'; write a number"),
    "half a place": (cell(1, "y", ""), ":2: column y is empty; write a number"),
    "no place": (GOOD.replace("10,-20,30", ",,"), ":2: column x is empty; a peak needs"),
    "no statistic": (cell(1, "statistic", ""), ":2: column statistic is empty; write a number, or"),
    "kind": (cell(1, "kind", "p"), ":2: column kind holds 'p'; write t, z, p_one_sided"),
    "p of 0": (GOOD.replace("4.5,t", "0,p_one_sided"), ":2: study 'a' has one-sided p = 0; it"),
    "r": (GOOD.replace("4.5,t", "1.2,r"), "correlation = 1.2; it must be between -1 and 1"),
    "t": (cell(1, "statistic", "30000"), "t = 30000; it must be a number, and amount to a"),
    "space": (cell(1, "space", "moon"), ":2: column space holds 'moon'; write one of spm_mni"),
    "outside": (cell(1, "x", "300"), r":2: the peak \(300, -20, 30\) is at MNI"),
    "found and not": (GOOD + "c,,,,spm_mni,1,2,3,4,t,\n", ":6: study 'c' has a peak here and a"),
    "sign": (GOOD.replace("kind", "sign").replace("4.5,t", "4.5,-"), ":2: column sign holds '-'"),
    "twice": (GOOD.replace("kind", "age"), ":1: column 'age' appears twice"),
    "no column": (GOOD.replace("space", "room"), ":1: has no column space; the first row must"),
    "quotes": (cell(1, "age", '"31'), "cannot be split into cells"),
    "latin-1": (GOOD.replace("a,", "ä,").encode("latin-1"), r"is not UTF-8 text \(byte"),
    "utf-16": (GOOD.encode("utf-16"), r"is not UTF-8 text \(byte 1\)"),
    "one study": ("\n".join(GOOD.splitlines()[:3]), "holds 1 usable study"),
    "header only": (HEADER, "holds no study"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_one_sentence_each(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_unknown_thresholds_are_left_out_or_assumed(tmp_path):
    path = write(tmp_path, cell(4, "threshold", "NA").replace("a,20,,3.1", "a,20,,"))
    with pytest.raises(InputError, match="study 'a' has no threshold"):
        read(path)
    found = read(path, assumed=Assumed(0.01, 2))
    assert found.names == ("a", "b", "c")
    wanted = [stats.t.isf(0.005, 19), 3.2, stats.t.isf(0.005, 24)]
    assert [s.t_threshold for s in found.studies] == pytest.approx(wanted, rel=1e-12)
    assert "2 studies give no threshold" in found.notices[-1].message
    plain = read(write(tmp_path, cell(4, "threshold", "NA")))
    assert plain.names == ("a", "b")
    assert plain.counts()["threshold_missing"] == 1


def workbook(path, rows, more=()):
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title in more:
        book.create_sheet(title)
    book.save(path)
    return path


ROWS = [[c or None for c in line.split(",")] for line in GOOD.splitlines()]
NUMBERS = [ROWS[0], *([float(c) if c and c.lstrip("-")[0].isdigit() else c for c in row]
                      for row in ROWS[1:])]  # fmt: skip


def test_a_workbook_reads_like_its_text(tmp_path):
    path = workbook(tmp_path / "in.xlsx", NUMBERS, more=["notes"])
    assert format_of(path) == "xlsx"
    found, wanted = read(path), read(write(tmp_path, GOOD))
    for one, other in zip(found.studies, wanted.studies, strict=True):
        assert (one.name, one.n1, one.t_threshold) == (other.name, other.n1, other.t_threshold)
        assert np.array_equal(one.peaks.xyz_mm, other.peaks.xyz_mm)
        assert np.array_equal(one.peaks.t, other.peaks.t)
        assert np.array_equal(one.peaks.lines, other.peaks.lines)
    assert [n.message for n in found.notices if n.kind == "more_sheets"] == [
        "in.xlsx: only its first sheet, 'Sheet', is read of 2."
    ]


def test_formulas_merged_cells_and_damage_are_named(tmp_path):
    import datetime

    import openpyxl

    path = workbook(tmp_path / "in.xlsx", NUMBERS)
    for at, value, message in (
        ("I2", "=4+0.5", "bad.xlsx:2: cell I2 holds a formula, '=4[+]0.5'; paste its value"),
        ("I2", datetime.date(2026, 5, 4), "cell I2 .column statistic. holds '2026-05-04"),
        ("F2", "3,5", "cell F2 .column x. holds '3,5'; write a number with a decimal point"),
    ):
        book = openpyxl.load_workbook(path)
        book.active[at] = value
        book.save(tmp_path / "bad.xlsx")
        with pytest.raises(InputError, match=message):
            read(tmp_path / "bad.xlsx")
    book = openpyxl.load_workbook(path)
    book.active.merge_cells("A2:A3")
    book.save(tmp_path / "merged.xlsx")
    with pytest.raises(InputError, match=r"cell A3 .column study. is empty; .*merged cells"):
        read(tmp_path / "merged.xlsx")
    raw = path.read_bytes()
    for content in (raw[: len(raw) // 2], raw.replace(b"xl/worksheets", b"xl/worksheetz")):
        (tmp_path / "cut.xlsx").write_bytes(content)
        with pytest.raises(InputError, match=r"cut.xlsx: (is no readable XLSX|is not an|holds)"):
            read(tmp_path / "cut.xlsx")


def test_a_peak_outside_the_box_blames_no_file_name(tmp_path):
    path = write(tmp_path, GOOD.replace("10,-20,30", "10,-20,300"))
    with pytest.raises(InputError, match=r"in.csv:2: the peak .* or the space spm_mni\.$"):
        read(path)
