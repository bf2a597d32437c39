"""Sleuth foci, NiMARE's and NIMADS' JSON, and what happens to anything else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from projects import write_project
from scipy import stats

from gpu_sdm.coordinates import to_mni
from gpu_sdm.errors import InputError
from gpu_sdm.io import READERS, Assumed, format_of, read, read_all
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io.convert import differences

P = Assumed(0.001)
SLEUTH = """// Reference=Talairach
// Smith, 2010: Go > NoGo
// Subjects=20
10\t-20\t30
-12 22 32

// Jones, 2011: a/b
// second line
//Subjects = 15
1, 2, 3
// Ray, 2012: nothing
// Subjects=12
"""


def file(tmp_path, content, name="in.txt"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def shipped(name):
    """A file inside NiMARE's package, without importing it."""
    spec = importlib.util.find_spec("nimare")
    if spec is None:
        pytest.skip("NiMARE is not installed: its files are not here to read")
    return Path(spec.origin).parent / name


def test_foci_become_studies(tmp_path):
    path = file(tmp_path, SLEUTH)
    with pytest.raises(InputError, match=r"in.txt:2: study 'Smith, 2010: Go > NoGo' has no thres"):
        read(path)
    found = read(path, assumed=P)
    assert found.names == ("Smith, 2010: Go > NoGo", "Jones, 2011: a_b; second line", "Ray, 2012: "
                           "nothing")  # fmt: skip
    assert [(s.n1, s.n2, len(s.peaks)) for s in found.studies] == [(20, 0, 2), (15, 0, 1),
                                                                   (12, 0, 0)]  # fmt: skip
    first = found.studies[0]
    assert np.array_equal(first.peaks.xyz_mm, to_mni([[10, -20, 30], [-12, 22, 32]], "other_tal"))
    assert first.t_threshold == pytest.approx(stats.t.isf(0.001, 19), rel=1e-12)
    assert np.array_equal(first.peaks.t, [first.t_threshold] * 2)
    assert not first.peaks.known.any()
    assert first.peaks.lines.tolist() == [4, 5]
    assert {"renamed_study", "one_sample_assumed", "sign_assumed"} <= set(found.counts())


BAD_SLEUTH = {
    "space": (SLEUTH.replace("Talairach", "Dog"), ":1: gives its space as 'Dog'"),
    "no space": (SLEUTH.split("\n", 1)[1], ":1: does not say its space; make its first line"),
    "coordinates": (SLEUTH.replace("-12 22 32", "-12 22"), ":5: found '-12 22'; a row is x, y, z"),
    "no number": (SLEUTH.replace("-12 22 32", "-12 22 dog"), ":5: found '-12 22 dog'"),
    "no subjects": (SLEUTH.replace("// Subjects=20\n", ""), ":3: holds coordinates of an exp"),
    "subjects": (SLEUTH.replace("=20", "=some"), ":2: study 'Smith, .*' has n1 = 'some'"),
    "the end": (SLEUTH + "1 2 3\n// More", ":14: ends within experiment 'More'"),
}


@pytest.mark.parametrize(("text", "message"), BAD_SLEUTH.values(), ids=BAD_SLEUTH)
def test_bad_foci(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(file(tmp_path, text), assumed=P)


def test_pain_studies_of_nimare_are_the_same_in_both_of_its_formats():
    dataset = read(shipped("resources/nidm_pain_dset.json"), assumed=P)
    studyset = read(shipped("resources/nidm_pain_studyset.json"), assumed=P)
    assert len(dataset.studies) == 21
    assert sum(len(s.peaks) for s in dataset.studies) == 267
    assert [s.n1 for s in dataset.studies][:3] == [25, 25, 20]
    for one, other in zip(dataset.studies, studyset.studies, strict=True):
        assert (one.name, one.n1, one.t_threshold) == (other.name, other.n1, other.t_threshold)
        places = [sorted(map(tuple, s.peaks.xyz_mm.tolist())) for s in (one, other)]
        assert places[0] == places[1]


def test_statistics_of_a_neurostore_studyset_are_read():
    found = read(shipped("tests/data/sample_size_nimads_studyset.json"), assumed=P)
    assert (len(found.studies), sum(len(s.peaks) for s in found.studies)) == (15, 69)
    assert all(s.peaks.known.all() for s in found.studies)
    assert {s.peaks.space for s in found.studies} == {"other_mni", "other_tal"}
    kinds = [k for s in found.studies for k in s.peaks.kinds if k != "t"]
    assert kinds == ["z", "z", "z"]
    z = next(s for s in found.studies if "z" in s.peaks.kinds)
    wanted = stats.t.isf(stats.norm.sf(z.peaks.reported[0]), z.df)
    assert z.peaks.t[0] == pytest.approx(wanted, rel=1e-9)


def studyset(**changes):
    point = {"space": "MNI", "coordinates": [1, 2, 3], "values": [{"kind": "T", "value": -4.5}]}
    analysis = {"id": "x", "name": "x", "points": [point], "metadata": {"t_thr": 3.1}} | changes
    other = {"id": "y", "points": [], "metadata": {"t_thr": 3.2}}
    sizes = {"sample_sizes": [20, 18], "age": 31.5, "young": True}
    return {
        "studies": [
            {"id": "s", "metadata": sizes, "analyses": [analysis, other]},
            {"id": "empty", "analyses": []},
        ],
        "annotations": [{"notes": [{"analysis": "y", "note": {"age": 40}}]}],
    }


def test_a_studyset_becomes_studies(tmp_path):
    one, other = read(file(tmp_path, studyset())).studies
    assert (one.name, one.n1, one.n2, one.t_threshold) == ("s-x", 20, 18, 3.1)
    assert (one.peaks.t.tolist(), one.peaks.xyz_mm.tolist()) == ([-4.5], [[1, 2, 3]])
    assert (other.name, other.t_threshold, len(other.peaks)) == ("s-y", 3.2, 0)
    assert (dict(one.covariates), dict(other.covariates)) == (
        {"age": 31.5, "young": 1.0}, {"age": 40.0, "young": 1.0},
    )  # fmt: skip


POINT = {"space": "MNI", "coordinates": [1, 2, 3]}
BAD_JSON = {
    "cut": (json.dumps(studyset())[:-9], "in.json:1: is not valid JSON"),
    "deep": ('{"studies": ' + "[" * 100_000, "is JSON that no studyset can be|is not valid JSON"),
    "no list": ({"studies": {"a": 1}}, "studies is no list"),
    "ids": ({"studies": ["a", "b"]}, r"studies\[0\] is 'a' and not an object; download the stud"),
    "points": (studyset(points=["p1"]), r"studies\[0\].analyses\[0\].points\[0\] is 'p1'"),
    "place": (studyset(points=[POINT | {"coordinates": [1, None, 3]}]), "is not three numbers"),
    "nan": (studyset(points=[POINT | {"coordinates": [1, float("nan"), 3]}]), "is not three numb"),
    "value": (
        studyset(points=[POINT | {"values": [{"kind": "T", "value": "big"}]}]),
        r"points\[0\].values\[0\].value is 'big' and not a number",
    ),
    "space": (studyset(points=[POINT | {"space": "surface"}]), "has points in 'surface'; it must"),
    "spaces": (studyset(points=[POINT, POINT | {"space": "TAL"}]), "in several spaces"),
    "groups": (studyset(metadata={"sample_sizes": [9, 9, 9]}), "has 3 groups"),
    "threshold": (studyset(metadata={"t_thr": -1}), "study 's-x' has a threshold of '-1'"),
    "no size": (
        {"studies": [{"id": "s", "analyses": [{"id": "x", "points": [POINT]}]}]},
        "holds no study that can be used",
    ),
    "nothing": ({"studies": []}, "holds no study"),
    "contrasts": ({"s": {"contrasts": []}}, "s.contrasts is not an object"),
    "columns": (
        {"s": {"contrasts": {"1": {"coords": {"x": [1], "y": [1, 2], "z": [1]}}}}},
        "s.contrasts.1.coords has columns that are no lists of one length",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(file(tmp_path, content, "in.json"))
    assert "\n" not in str(caught.value)


def test_nimare_reads_its_parquet_folders(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: no parquet here")
    pytest.importorskip("nimare", reason="NiMARE is not installed with all it needs")
    from nimare.studyset import Studyset

    whole = shipped("resources/nidm_pain_studyset.json")
    Studyset(str(whole)).to_parquet(str(tmp_path / "tables"))
    found = read_all(tmp_path / "tables", P)
    assert differences(found.studies, read_all(whole, P).studies) == []


def test_parquet_without_nimare_says_what_to_install(tmp_path, monkeypatch):
    import sys

    for name in ("studies.parquet", "analyses.parquet"):
        (tmp_path / name).write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "nimare.studyset", None)
    monkeypatch.setitem(sys.modules, "nimare", None)
    with pytest.raises(InputError, match=r"pip install 'gpu-sdm\[nimare\]', or save it as NIMADS"):
        read(tmp_path)


def test_each_format_is_recognised_by_its_content_alone(tmp_path):
    from test_formats_flat import GOOD, NUMBERS, workbook

    project = write_project(tmp_path / "p", studies=3)
    files = {
        "sdm": project,
        "flat": file(tmp_path, GOOD, "a.dat"),
        "xlsx": workbook(tmp_path / "b.xlsx", NUMBERS).rename(tmp_path / "b.dat"),
        "sleuth": file(tmp_path, SLEUTH, "c.dat"),
        "nimads": file(tmp_path, studyset(), "d.dat"),
        "nimare": file(tmp_path, {"s": {"contrasts": {}}}, "e.dat"),
    }
    for name, path in files.items():
        assert [r for r in READERS if READERS[r].sniff(path)] == [name]
    with pytest.raises(InputError, match=r"looks like NIMADS .* and like NiMARE Dataset JSON;"):
        format_of(file(tmp_path, {"studies": [], "s": {"contrasts": {}}}))
    for content in ("", "\x00\x01", "hello", "a,b\n1,2\n", "[1, 2]"):
        with pytest.raises(InputError, match="nor anything else that can be read: CSV or TSV"):
            read(file(tmp_path, content))
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "absent.csv")


def test_a_study_of_three_groups_does_not_hide_the_others(tmp_path):
    content = studyset()
    wrong = {"id": "w", "metadata": {"sample_sizes": [9, 8, 7]}, "analyses": [{"id": "1"}]}
    content["studies"].insert(0, wrong)
    path, ledger = file(tmp_path, content), Ledger()
    with pytest.raises(InputError, match=r"studies\[0\].analyses\[0\] has 3 groups"):
        read(path)
    assert read(path, ledger=ledger).names == ("s-x", "s-y")
    assert len(ledger.errors) == 1
