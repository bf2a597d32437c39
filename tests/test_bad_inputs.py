"""Every kind of bad input and the sentence it must produce."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset
from gpu_sdm.errors import GpuSdmError, InputError, SettingError
from gpu_sdm.io import read
from gpu_sdm.stages.design import design

TABLE = "study\tn1\tt_thr\nana\t20\t3.1\nbob\t16\t3.2\n"
TWO = "study\tn1\tn2\tt_thr\nana\t20\t{}\t3.1\nbob\t16\t0\t3.2\n"
PEAKS = "1 2 3 4.5\n"


def write(folder: Path, files: dict[str, str | bytes | None]) -> Path:
    """A good project of two studies with some files replaced, added or (None) left out."""
    good = {"sdm_table.txt": TABLE, "ana.spm_mni.txt": PEAKS, "bob.spm_mni.txt": PEAKS}
    for name, content in (good | files).items():
        if content is not None:
            raw = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(raw)
    return folder


def table(**changes: str) -> dict[str, str]:
    """The good table with ana's cells changed."""
    cells = {"study": "ana", "n1": "20", "t_thr": "3.1"} | changes
    return {"sdm_table.txt": TABLE.replace("ana\t20\t3.1", "\t".join(cells.values()))}


def ana(text: str | bytes) -> dict[str, str | bytes]:
    return {"ana.spm_mni.txt": text}


FILES = {
    "no table": ({"sdm_table.txt": None}, "is not an SDM project; give a folder that holds"),
    "empty table": ({"sdm_table.txt": " \n\n"}, r"sdm_table\.txt: is empty; its first row names"),
    "header only": ({"sdm_table.txt": "study\tn1\tt_thr\n"}, "names columns but no study"),
    "table not text": ({"sdm_table.txt": b"study\xff\xfe"}, r"is not UTF-8 text \(byte 6\)"),
    "table utf-16": ({"sdm_table.txt": TABLE.encode("utf-16")}, "save it as plain text, UTF-8"),
    "peaks not text": (ana(b"\x89PNG\xff"), r"ana\.spm_mni\.txt: is not UTF-8 text"),
    "no study column": ({"sdm_table.txt": TABLE.replace("study", "name")}, "has no column study"),
    "no n1 column": (
        {"sdm_table.txt": TABLE.replace("n1", "n")},
        r":1: has no column n1; .*'study n",
    ),
    "no t_thr column": (
        {"sdm_table.txt": TABLE.replace("t_thr", "thr")},
        r":2: study 'ana' has no t_thr; give the smallest \|t\|",
    ),
    "column twice": (
        {"sdm_table.txt": "study\tn1\tt_thr\tage\tage\nana\t9\t3\nbob\t9\t3\n"},
        r":1: column 'age' appears 2 times; keep one",
    ),
    "column twice by case": ({"sdm_table.txt": "study\tn1\tN1\tt_thr\n"}, "column 'n1' appears 2"),
    "unnamed column": ({"sdm_table.txt": "study\t\tn1\tt_thr\n"}, ":1: column 2 has no name"),
    "row too long": (table(t_thr="3.1\tx"), r":2: has 4 values for 3 columns; separate columns"),
    "row too short": (
        {"sdm_table.txt": "study n1 t_thr age\nana 20 3.1\nbob 16 3.2 4\n"},
        r":2: has 3 values for 4 columns; .*write NA for a missing value",
    ),
    "no study name": (table(study=""), r":2: has no study name"),
    "name twice": (table(study="bob"), r":3: study 'bob' is already in line 2; .*must be unique"),
    "path separator": (table(study="../ana"), r":2: study name '\.\./ana' holds a path separator"),
    "backslash": (table(study="a\\b"), "path separator or control character; use letters"),
    "control character": (table(study="a\x07b"), r"txt:2: holds the control character '\\x07'"),
    "n1 missing": (table(n1=""), r":2: study 'ana' has n1 = ''; it must be a whole number"),
    "n1 NA": (table(n1="NA"), "has n1 = 'NA'; it must be a whole number of subjects"),
    "n1 text": (table(n1="twenty"), "has n1 = 'twenty'; it must be a whole number"),
    "n1 fraction": (table(n1="12.5"), "has n1 = '12.5'; it must be a whole number"),
    "n1 decimal comma": (table(n1="12,0"), "has n1 = '12,0'"),
    "n1 negative": (table(n1="-20"), "has n1 = '-20'; it must be a whole number"),
    "n1 infinite": (table(n1="1e999"), "has n1 = '1e999'"),
    "n1 absurd": (table(n1="1e12"), "has n1 = '1e12'"),
    "n1 too small": (table(n1="3"), r":2: .*n1 = 3; a one-sample study needs n1 >= 4"),
    "n2 one": (
        {"sdm_table.txt": TWO.format("1")},
        r":2: study 'ana' has n1 = 20, n2 = 1; a two-sa",
    ),
    "n1 one of two": (
        {"sdm_table.txt": TWO.format("9").replace("20", "1")},
        "n1 = 1, n2 = 9; a two-sample study needs n1 >= 2, n2 >= 2",
    ),
    "two pairs": (
        {"sdm_table.txt": TWO.format("2").replace("20", "2")},
        r"n1 = 2, n2 = 2; .*n1 \+ n2 >= 5",
    ),
    "n2 negative": ({"sdm_table.txt": TWO.format("-1")}, "n2 = '-1'; .* 0 or empty for one sample"),
    "n2 text": ({"sdm_table.txt": TWO.format("x")}, "has n2 = 'x'"),
    "t_thr empty": (table(t_thr=""), r":2: study 'ana' has no t_thr; .*or NA to leave the study"),
    "t_thr nan": (table(t_thr="nan"), "has t_thr = 'nan'; .*a number above 0"),
    "t_thr zero": (table(t_thr="0"), "has t_thr = '0'; give the smallest"),
    "t_thr negative": (table(t_thr="-3.1"), "has t_thr = '-3.1'"),
    "t_thr infinite": (table(t_thr="inf"), "has t_thr = 'inf'"),
    "t_thr absurd": (table(t_thr="1e9"), "has t_thr = '1e9'"),
    "t_thr text": (table(t_thr="p<.001"), "has t_thr = 'p<.001'"),
    "one study": (
        {"sdm_table.txt": "study\tn1\tt_thr\nana\t20\t3\n"},
        "holds 1 usable study; a meta",
    ),
    "one study left": (table(t_thr="NA"), "holds 1 usable study; a meta-analysis needs at least 2"),
    "no peak file": ({"bob.spm_mni.txt": None}, r"'bob' has no peak file; add bob\.SOFTWARE_SPACE"),
    "wrong case": (
        {"bob.spm_mni.txt": None, "Bob.spm_mni.txt": PEAKS},
        r"study 'bob' has no peak file; .*bob\.no_peaks\.txt if it found nothing",
    ),
    "two files": (
        {"ana.fsl_tal.txt": PEAKS},
        r"'ana' has two files, ana\.fsl_tal\.txt and ana\.spm_mni\.txt; keep one",
    ),
    "peaks and no_peaks": ({"ana.no_peaks.txt": ""}, "'ana' has two files"),
    "peaks and image": ({"ana.nii.gz": b""}, r"two files, ana\.spm_mni\.txt and ana\.nii\.gz"),
    "only an image": (
        {"ana.spm_mni.txt": None, "ana.nii.gz": b""},
        r"ana\.nii\.gz: is not a NIfTI image; give a \.nii or \.nii\.gz file",
    ),
    "unknown suffix": (
        {"ana.spm_mni.txt": None, "ana.spm12_mni.txt": PEAKS},
        r"suffix 'spm12_mni' is unknown; name the file ana\.SOFTWARE_SPACE\.txt with one of: ",
    ),
    "no suffix": (
        {"ana.spm_mni.txt": None, "ana.txt": PEAKS},
        r"ana\.txt: has no suffix; name the file ana\.SOFTWARE_SPACE\.txt",
    ),
    "no peaks inside": (ana(" \n\t\n"), r"holds no peak; .*rename it to ana\.no_peaks\.txt"),
    "rows in no_peaks": (
        {"ana.spm_mni.txt": None, "ana.no_peaks.txt": "\n" + PEAKS},
        r"no_peaks\.txt:2: holds rows although its suffix is no_peaks",
    ),
    "header in peaks": (
        ana("x y z t\n" + PEAKS),
        r"ana\.spm_mni\.txt:1: found 'x y z t'; a row is x",
    ),
    "three values": (
        ana(PEAKS + "\n4 5 6\n"),
        r"ana\.spm_mni\.txt:3: found '4 5 6'; a row is x, y, z",
    ),
    "five values": (ana("1 2 3 4 5\n"), "found '1 2 3 4 5'; a row is"),
    "gap in a row": (ana("1,,3,4\n"), "found '1,,3,4'; a row is"),
    "decimal commas": (ana("1,5 2,5 3,5 4,5\n"), "all numbers with a decimal point"),
    "coordinate nan": (ana("1 nan 3 4\n"), ":1: found '1 nan 3 4'"),
    "coordinate text": (ana("1 2 three 4\n"), ":1: found '1 2 three 4'"),
    "height text": (ana("1 2 3 high\n"), "with p or n in place of a t whose height was not"),
    "height nan": (ana("1 2 3 nan\n"), "found '1 2 3 nan'"),
    "height infinite": (ana("1 2 3 inf\n"), "found '1 2 3 inf'"),
    "height with stars": (ana("1 2 3 4.5*\n"), r"found '1 2 3 4\.5\*'"),
    "height absurd": (ana("1 2 3 1e9\n"), r":1: t = 1e\+09 is not a t statistic"),
    "underscores": (ana("1_0 2 3 4\n"), "found '1_0 2 3 4'"),
    "very long line": (ana("1 " * 500 + "\n"), r"found '1 1 1 .*\.\.\.'; a row is"),
    "outside the box": (
        ana(PEAKS + "0 0 109 4\n"),
        r":2: the peak \(0, 0, 109\) is at MNI \(0, 0, 109\) mm, outside the box x -90 to 90, y "
        r"-126 to 90, z -72 to 108; correct it, or the space spm_mni in the file name",
    ),
    "outside after conversion": (
        {"ana.spm_mni.txt": None, "ana.spm_tal.txt": "85 0 0 4\n"},
        r"the peak \(85, 0, 0\) is at MNI \(92\.8696, .*, outside the box",
    ),
    "voxels not mm": (ana("45 63 120 4\n"), "outside the box"),
}

SETTINGS = {
    "permutations": (0, "permutations is 0; it must lie in [1, "),
    "imputations": (1, "imputations is 1; it must lie in [2, 10000] (whole numbers)"),
    "seed": (-1, "seed is -1; it must lie in [0, "),
    "fwhm": (float("nan"), "fwhm is nan; it must lie in [5, 60]"),
    "anisotropy": (1.5, "anisotropy is 1.5; it must lie in [0, 1]"),
    "voxel_size": (1, "voxel_size is 1; it must be one of: 2, 3, 4"),
    "tau2": ("hedges", "tau2 is 'hedges'; it must be one of: dl, reml"),
    "imputation": ("mean", "imputation is 'mean'; it must be one of: sdm, truncated-normal"),
    "exchange": ("voxels", "exchange is 'voxels'; it must be one of: subjects, studies"),
    "compat": ("sdm-5", "compat is 'sdm-5'; it must be one of: None, sdm-6.21"),
    "discards": (-1, "discards is -1; it must lie in [0, 1000]"),
    "covariates": (("age", "age"), "covariates names one twice: age+age"),
    "noise": ("pink:1", "noise is 'pink:1'; write scan:R"),
    "statistic": (("cluster",), "statistic is 'cluster'; it must be one of: voxel, tfce"),
}
MORE_SETTINGS = [
    ("permutations", 10.5, "permutations is 10.5; it must lie in"),
    ("permutations", True, "permutations is True; it must lie in"),
    ("fwhm", 4.9, "fwhm is 4.9; it must lie in [5, 60]"),
    ("noise", "scan:1", "noise scan is 1.0; it must lie in (0, 1)"),
    ("noise", "gaussian:41", "noise gaussian is 41.0; it must lie in (0, 40]"),
    ("statistic", (), "statistic is empty; ask for some of: voxel, tfce"),
]


@pytest.mark.parametrize("case", FILES)
def test_bad_files_are_refused_in_one_sentence(tmp_path, case):
    files, sentence = FILES[case]
    with pytest.raises(InputError, match=sentence) as caught:
        read(write(tmp_path, files))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert caught.value.path is not None
    assert len(message) < len(str(tmp_path)) + 400


def test_the_good_project_of_the_table_is_good(tmp_path):
    assert read(write(tmp_path, {})).names == ("ana", "bob")
    assert len(FILES) + len(SETTINGS) + len(MORE_SETTINGS) >= 45


@pytest.mark.parametrize(("name", "value", "sentence"), [
    *((k, *v) for k, v in SETTINGS.items()), *MORE_SETTINGS
])  # fmt: skip
def test_bad_settings_are_refused(name, value, sentence):
    with pytest.raises(SettingError) as caught:
        Settings(**{name: value})
    assert sentence in str(caught.value)


def test_paths_that_are_not_projects(tmp_path):
    with pytest.raises(InputError, match=r"absent: does not exist; give the folder"):
        read(tmp_path / "absent")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="is not an SDM project"):
        read(tmp_path / "file.txt")
    (tmp_path / "sdm_table.txt").mkdir()
    with pytest.raises(InputError, match=r"sdm_table.txt: cannot be read \(Is a directory\)"):
        read(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / ("long" * 1000))


TOKENS = st.sampled_from([
    "ana", "bob", "study", "n1", "n2", "t_thr", "age", "20", "3.1", "-4", "0", "NA", "nan", "p",
    "n", "1e999", "1e308", "-1e308", "1e-300", "1e400", "--1", "9999", "\t", "\t", "\n", "\r\n",
    "\r", ",", " ", '"', "'", ".", "\x00",
    "\ufeff", "\u2028", "\x0c", "\u0663", "\u2212", "é", "/", "%s", "{}",
])  # fmt: skip
TEXT = st.one_of(
    st.lists(TOKENS, max_size=40).map("".join).map(str.encode),
    st.binary(max_size=60),
    st.lists(TOKENS, max_size=20).map("\t".join).map(lambda s: (TABLE + s).encode()),
)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table_text=st.one_of(st.just(TABLE.encode()), TEXT), peaks=TEXT)
def test_arbitrary_text_raises_nothing_but_our_errors(tmp_path, table_text, peaks):
    folder = write(tmp_path, {"sdm_table.txt": table_text, "ana.spm_mni.txt": peaks})
    message = ""
    try:
        dataset = read(folder)
        assert isinstance(dataset, Dataset)
        design(dataset, list(dataset.studies[0].covariates)[:2])
    except GpuSdmError as error:
        message = str(error)
    assert "\n" not in message
