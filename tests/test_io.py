import hashlib
import locale
from collections import Counter

import numpy as np
import pytest

from gpu_sdm.coordinates import CONVERSIONS, to_mni
from gpu_sdm.errors import InputError
from gpu_sdm.io import READERS, read
from gpu_sdm.io.peak_files import BOX_HIGH, BOX_LOW, SUFFIXES

TABLE = "study\tn1\tt_thr\tage\na.b\t20\t3.1\t31\nc\t16\t3.2\t\n"


def project(folder, table=TABLE, **files):
    """Write a project; keyword names are file names with __ for the dot before the suffix."""
    files = files or {"a.b__spm_mni": "0 0 0 4\n", "c__fsl_tal": "10,20,30,5\n"}
    (folder / "sdm_table.txt").write_bytes(table.encode() if isinstance(table, str) else table)
    for name, text in files.items():
        path = folder / f"{name.replace('__', '.')}.txt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def test_a_project_becomes_studies(tmp_path):
    dataset = read(project(tmp_path))
    assert dataset.names == ("a.b", "c")
    first, second = dataset.studies
    assert (first.n1, first.n2, first.df, first.t_threshold) == (20, 0, 19, 3.1)
    assert first.covariates == {"age": 31.0}
    assert np.isnan(second.covariates["age"])
    assert (second.peaks.space, second.peaks.source) == ("fsl_tal", "c.fsl_tal.txt")
    assert np.array_equal(second.peaks.xyz_reported, [[10, 20, 30]])
    assert np.array_equal(second.peaks.xyz_mm, to_mni(np.array([[10, 20, 30]]), "fsl_tal"))
    assert not second.peaks.xyz_mm.flags.writeable
    for name, digest in dataset.sha256.items():
        assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert set(dataset.sha256) == {"sdm_table.txt", "a.b.spm_mni.txt", "c.fsl_tal.txt"}
    assert dataset.notices == ()


@pytest.mark.parametrize("reader", READERS)
def test_a_project_is_recognised_by_its_own_reader_only(tmp_path, reader):
    good, other = tmp_path / "good", tmp_path / "other"
    good.mkdir()
    other.mkdir()
    project(good)
    assert READERS[reader].sniff(good) == (reader == "sdm")
    assert not READERS[reader].sniff(other)
    assert not READERS[reader].sniff(tmp_path / "absent")


def test_the_table_itself_names_the_project(tmp_path):
    project(tmp_path)
    assert read(tmp_path / "sdm_table.txt").names == read(str(tmp_path)).names


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_in_any_case(tmp_path, suffix):
    rows = "" if suffix == "no_peaks" else "10 -20 30 5\n"
    files = {"a.b__spm_mni": "0 0 0 4\n", f"c__{suffix.upper()}": rows}
    peaks = read(project(tmp_path, **files)).studies[1].peaks
    assert peaks.space == suffix
    assert len(peaks) == len(rows.splitlines())
    if rows:
        assert suffix in CONVERSIONS
        assert np.array_equal(peaks.xyz_mm, to_mni(np.array([[10, -20, 30]]), suffix))


TEXTS = {
    "tabs": "1\t2\t3\t4.5\n-1\t-2\t-3\t-4.5\n",
    "blanks": "  1  2 3   4.5 \n-1 -2 -3 -4.5",
    "commas": "1,2,3,4.5\n-1, -2 ,-3,\t-4.5\n",
    "trailing commas": "1,2,3,4.5,,\n-1,-2,-3,-4.5,\n",
    "blank lines": "\n\n1 2 3 4.5\n \t\n-1 -2 -3 -4.5\n\n",
    "windows": "1,2,3,4.5\r\n-1,-2,-3,-4.5\r\n",
    "old mac": "1,2,3,4.5\r-1,-2,-3,-4.5\r",
    "bom": "\ufeff1,2,3,4.5\n-1,-2,-3,-4.5\n",
    "exponents": "1e0 .2e1 +3 45e-1\n-1.0 -2. -3 -4.5",
    "typographic minus": "1 2 3 4.5\n\u22121 \u20132 \u20113 \u22124.5",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_tolerated_peak_files(tmp_path, text):
    files = {"a.b__spm_mni": text, "c__no_peaks": ""}
    peaks = read(project(tmp_path, **files)).studies[0].peaks
    assert np.array_equal(peaks.xyz_mm, [[1, 2, 3], [-1, -2, -3]])
    assert peaks.t.tolist() == [4.5, -4.5]


TABLES = {
    "windows and bom": "\ufeff" + TABLE.replace("\n", "\r\n"),
    "commas": TABLE.replace("\t", ","),
    "blanks": "study n1 t_thr age\n a.b  20 3.1 31 \nc 16 3.2 NA",
    "blank rows": TABLE.replace("\n", "\n\t\t\t\n\n"),
    "spreadsheet's empty columns": TABLE.replace("\n", "\t\t\n"),
    "short rows": TABLE.replace("\t\n", "\n"),
    "quotes": '"study"\t"n1"\t"t_thr"\t"age"\n"a.b"\t20\t3.1\t31\n"c"\t"16"\t3.2\tNA\n',
    "capitals and order": "Age\tT_THR\tStudy\tN1\n31\t3.1\ta.b\t20.0\nn/a\t3.2\tc\t16\n",
    "n2 of zero": "study\tn1\tn2\tt_thr\tage\na.b\t20\t0\t3.1\t31\nc\t16\t\t3.2\tNA\n",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tolerated_tables(tmp_path, table):
    studies = read(project(tmp_path, table)).studies
    assert [(s.name, s.n1, s.n2, s.t_threshold) for s in studies] == [
        ("a.b", 20, 0, 3.1),
        ("c", 16, 0, 3.2),
    ]
    ages = [v for s in studies for c, v in s.covariates.items() if c.lower() == "age"]
    assert ages[0] == 31
    assert np.isnan(ages[1])


def test_an_empty_cell_does_not_shift_its_row(tmp_path):
    table = "study\tn1\tn2\tt_thr\tage\tiq\na.b\t20\t\t3.1\t\t101\nc\t16\t15\t3.2\t40\t\n"
    first, second = read(project(tmp_path, table)).studies
    assert (first.n2, first.t_threshold, first.covariates["iq"]) == (0, 3.1, 101)
    assert np.isnan(first.covariates["age"])
    assert (second.n2, second.df, second.covariates["age"]) == (15, 29, 40)


def test_reading_ignores_the_locale_and_stray_files(tmp_path):
    project(tmp_path)
    for stray in ("notes.txt", "._a.b.spm_mni.txt", ".c.spm_mni.txt", "map.nii.gz", "x.csv"):
        (tmp_path / stray).write_text("anything")
    (tmp_path / "pp").mkdir()
    plain = read(tmp_path)
    assert plain.notices == ()
    before = locale.setlocale(locale.LC_ALL)
    try:
        for name in filter(_set_locale, ("de_DE.UTF-8", "C.UTF-8", "C")):
            again = read(tmp_path)
            assert again.sha256 == plain.sha256, name
            assert again.notices == ()
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _set_locale(name):
    try:
        return bool(locale.setlocale(locale.LC_ALL, name))
    except locale.Error:
        return False


def test_unknown_heights_take_the_signed_threshold(tmp_path):
    files = {"a.b__spm_mni": "1 2 3 p\n4 5 6 N\n7 8 9 5\n1 1 1 P\n", "c__no_peaks": ""}
    dataset = read(project(tmp_path, **files))
    peaks = dataset.studies[0].peaks
    assert peaks.t.tolist() == [3.1, -3.1, 5.0, 3.1]
    assert peaks.known.tolist() == [False, False, True, False]
    assert peaks.lines.tolist() == [1, 2, 3, 4]
    assert dataset.counts() == {"unknown_height": 3}


DOUBTS = {
    "peak_below_threshold": ("1 2 3 3.0\n\n4 5 6 -3.05\n7 8 9 -3.1\n", 2),
    "duplicate_peak": ("1 2 3 4\n1,2,3,5\n1 2 3.5 6\n", 1),
    "opposite_signs": ("1 2 3 4\n\n1 2 3 n\n", 1),
    "unknown_height": ("1 2 3 p\n", 1),
}


@pytest.mark.parametrize("kind", DOUBTS)
def test_doubts_about_peaks_are_counted(tmp_path, kind):
    text, count = DOUBTS[kind]
    dataset = read(project(tmp_path, **{"a.b__spm_mni": text, "c__no_peaks": ""}))
    assert dataset.counts()[kind] == count
    message = next(n.message for n in dataset.notices if n.kind == kind)
    assert message.startswith("a.b.spm_mni.txt:")
    assert message.endswith(".")
    # The doubt does not change what was read.
    assert len(dataset.studies[0].peaks) == len(text.split("\n")) - 1 - text.count("\n\n")


def test_doubts_name_the_line(tmp_path):
    files = {"a.b__spm_mni": "1 2 3 4\n\n1 2 3 n\n1 2 3 -9\n", "c__no_peaks": ""}
    notices = read(project(tmp_path, **files)).notices
    text = {n.kind: n.message for n in notices}
    assert "txt:3: " in text["opposite_signs"]
    assert "in line 1 with the opposite sign" in text["opposite_signs"]
    assert "txt:4: " in text["duplicate_peak"]
    assert "in line 3." in text["duplicate_peak"]


def test_unlisted_files_and_text_and_codes_are_notices(tmp_path):
    table = "study\tn1\tt_thr\tiq\tsoft\na.b\t20\t3.1\t9999\tSPM\nc\t16\t3.2\t-999\t1\n"
    project(tmp_path, table)
    (tmp_path / "C.spm_mni.txt").write_text("not even numbers")
    dataset = read(tmp_path)
    kinds = {n.kind: n.message for n in dataset.notices}
    assert set(kinds) == {"unlisted_file", "covariate_code", "text_column"}
    assert "the table has 'c': case matters" in kinds["unlisted_file"]
    assert "a.b (9999), c (-999)" in kinds["covariate_code"]
    assert "sdm_table.txt:2: column 'soft' holds text ('SPM') among numbers" in kinds["text_column"]
    assert list(dataset.studies[0].covariates) == ["iq"]


def test_a_study_of_unknown_threshold_is_left_out_and_said_so(tmp_path):
    table = "study\tn1\tt_thr\na.b\t20\t3.1\nc\t16\tNA\nd\t18\t3\n"
    files = {f"{n}__spm_mni": "1 2 3 4\n" for n in ("a.b", "c", "d")}
    dataset = read(project(tmp_path, table, **files))
    assert dataset.names == ("a.b", "d")
    assert dataset.counts() == {"threshold_missing": 1}
    assert "'c' has t_thr NA" in dataset.notices[0].message


def test_compat_truncates_after_conversion_and_keeps_what_was_reported(tmp_path):
    files = {"a.b__spm_mni": "1.9 -1.9 -0.5 4\n", "c__spm_tal": "10.5 -20.5 30.5 5\n"}
    project(tmp_path, **files)
    plain, compat = read(tmp_path), read(tmp_path, compat=True)
    assert compat.studies[0].peaks.xyz_mm.tolist() == [[1, -1, 0]]
    assert not np.signbit(compat.studies[0].peaks.xyz_mm[0, 2])
    converted = plain.studies[1].peaks.xyz_mm
    assert np.array_equal(compat.studies[1].peaks.xyz_mm, np.trunc(converted))
    assert not np.array_equal(converted, np.trunc(converted))
    for a, b in zip(plain.studies, compat.studies, strict=True):
        assert np.array_equal(a.peaks.xyz_reported, b.peaks.xyz_reported)


def test_the_box_is_that_of_the_outermost_voxels(tmp_path):
    assert BOX_LOW.tolist() == [-90, -126, -72]
    assert BOX_HIGH.tolist() == [90, 90, 108]
    files = {"a.b__spm_mni": "-90 -126 -72 4\n90 90 108 4\n", "c__no_peaks": ""}
    assert len(read(project(tmp_path, **files)).studies[0].peaks) == 2
    (tmp_path / "a.b.spm_mni.txt").write_text("90.4 0 0 4\n")
    assert read(tmp_path, compat=True).studies[0].peaks.xyz_mm.tolist() == [[90, 0, 0]]
    with pytest.raises(InputError, match=r"outside the box x -90 to 90"):
        read(tmp_path)


def test_enge2021(enge2021):
    dataset = read(enge2021 / "project")
    assert len(dataset.studies) == 50
    assert sum(len(s.peaks) for s in dataset.studies) == 687
    assert sum(s.n for s in dataset.studies) == 1018
    counts = dataset.counts()
    assert counts["unknown_height"] == 226
    assert "unlisted_file" not in counts
    aylward = dataset.studies[dataset.names.index("aylward2005")]
    assert aylward.t_threshold == 2.8796600555467062
    assert aylward.peaks.xyz_mm[0].tolist() == [47.1195713504, -45.9389838263, -11.9083528506]
    compat = read(enge2021 / "project", compat=True).studies[dataset.names.index("aylward2005")]
    assert compat.peaks.xyz_mm[0].tolist() == [47, -45, -11]


def test_li2024_seven_unlisted_and_123_below_threshold(li2024):
    dataset = read(li2024 / "project")
    counts = dataset.counts()
    assert counts["unlisted_file"] == 7
    assert counts["peak_below_threshold"] == 123
    # Four of its 128 rows have t_thr NA.
    assert counts["threshold_missing"] == 4
    assert len(dataset.studies) == 124
    # 128 peak files of the table, the 7 unlisted ones, and the table itself.
    assert len(dataset.sha256) + counts["unlisted_file"] == 135 + 1
    spaces = Counter(s.peaks.space for s in dataset.studies)
    assert {"spm_mni", "spm_tal", "other_tal", "fsl_mni", "other_mni"} <= set(spaces)
    codes = [n.message for n in dataset.notices if n.kind == "covariate_code"]
    assert len(codes) == 1
    assert "'performance'" in codes[0]
    assert "42 more" in codes[0]
