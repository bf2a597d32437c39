"""What goes into a format comes back: properties, real data, and the command."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import write_project

from gpu_sdm.coordinates import CONVERSIONS, to_mni
from gpu_sdm.data import Dataset, Peaks, Study
from gpu_sdm.errors import OutputError, SettingError
from gpu_sdm.io import Assumed, read, read_all
from gpu_sdm.io.convert import WRITERS, convert, differences, format_for

NAMES = {"sdm": "out", "csv": "out.csv", "tsv": "out.tsv", "xlsx": "out.xlsx", "nimads": "o.json"}
letters = st.text("aZ09._- ,;'é漢<&=+\"", min_size=1, max_size=12).map(str.strip)
names = letters.filter(lambda n: n and n[0] not in ".=+-" and n.strip("'\"") == n)
heights = st.floats(2, 60).flatmap(lambda t: st.sampled_from([t, -t]))


@st.composite
def datasets(draw):
    studies = []
    titles = draw(st.lists(names, min_size=2, max_size=4, unique_by=str.lower))
    for name in titles:
        n1, n2 = draw(st.integers(4, 90)), draw(st.sampled_from([0, 0, 7, 31]))
        threshold = draw(st.floats(0.5, 9) | st.just(float("nan")))
        n = draw(st.integers(0, 3))
        space = draw(st.sampled_from(list(CONVERSIONS)))
        place = np.array([[draw(st.integers(-40, 40)) / 3 for _ in "xyz"] for _ in range(n)])
        known = np.array([draw(st.booleans()) for _ in range(n)], bool)
        t = np.array([draw(heights) for _ in range(n)])
        peaks = Peaks.none("no_peaks", "") if not n else Peaks(
            to_mni(place, space), place, np.where(known, t, np.copysign(threshold, t)), known,
            np.arange(n), space, "",
        )  # fmt: skip
        facts = {"age": draw(st.floats(-1e6, 1e6) | st.just(float("nan")))}
        word = draw(st.sampled_from(["", "corrected", "uncorrected"]))
        labels = {"site": draw(st.sampled_from(["", "Oslo", "São Paulo, east"]))}
        studies.append(Study(name, n1, n2, threshold, peaks, facts, word, labels))
    return Dataset(tuple(studies), (), Path("nowhere"), {})


@settings(
    max_examples=15, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(dataset=datasets(), form=st.sampled_from(list(NAMES)), through=st.sampled_from(list(NAMES)))
def test_what_is_written_reads_back_the_same(tmp_path_factory, dataset, form, through):
    folder = tmp_path_factory.mktemp("round")
    convert(dataset, folder / NAMES[form], form)
    once = read_all(folder / NAMES[form])
    assert differences(dataset.studies, once.studies) == []
    convert(once, folder / f"again-{NAMES[through]}", through)
    twice = read_all(folder / f"again-{NAMES[through]}")
    assert differences(dataset.studies, twice.studies) == []


@pytest.mark.parametrize("form", ["sdm", "csv", "nimads"])
def test_real_studies_come_back(li2024, tmp_path, form):
    """128 studies, 4 without threshold, 1,766 peaks in six spaces, 30 covariates."""
    project = read_all(li2024 / "project")
    lost = convert(project, tmp_path / NAMES[form], form)
    assert lost == ()
    found = read_all(tmp_path / NAMES[form])
    assert len(found.studies) == 128
    assert sum(len(s.peaks) for s in found.studies) == 1766
    assert differences(project.studies, found.studies) == []
    for one, other in zip(project.studies, found.studies, strict=True):
        assert np.array_equal(one.peaks.xyz_reported, other.peaks.xyz_reported)
        assert one.peaks.space == other.peaks.space
        np.testing.assert_equal(dict(one.covariates), dict(other.covariates))
    plain, again = read(li2024 / "project"), read(tmp_path / NAMES[form])
    assert plain.names == again.names  # the 124 that an analysis takes
    assert again.counts()["peak_below_threshold"] == 123


def test_differences_are_seen(tmp_path):
    one = read(write_project(tmp_path / "p", studies=3)).studies
    p = one[0].peaks
    moved = replace(p, xyz_mm=p.xyz_mm + 1e-6)
    for changed, word in (
        (replace(one[0], n1=one[0].n1 + 1), "n"), (replace(one[0], t_threshold=3.0), "threshold"),
        (replace(one[0], peaks=moved), "coordinates"), (replace(one[0], peaks=replace(p, t=-p.t)),
        "signs"), (replace(one[0], covariates={"age": 1.0}), "column age"),
    ):  # fmt: skip
        assert any(f"would differ in {word}." in d for d in differences(one, (changed, *one[1:])))
    assert differences(one, one[1:]) == ["the studies are not the same."]


def test_foci_lose_what_they_cannot_hold_and_say_so(tmp_path):
    source = write_project(
        tmp_path / "p", studies=4, two_sample=1, negative_mm=(10, 10, 10), noise_peaks=0
    )
    dataset = read(source)
    lost = [n.message for n in convert(dataset, tmp_path / "out.txt")]
    assert len(lost) == 3
    assert "heights, thresholds, covariates" in lost[0]
    assert "4 negative peaks are left out" in lost[1]
    assert "1 two-sample studies become one sample" in lost[2]
    found = read(tmp_path / "out.txt", assumed=Assumed(0.001))
    for one, other in zip(dataset.studies, found.studies, strict=True):
        assert (one.name, one.n) == (other.name, other.n1)
        assert np.array_equal(one.peaks.xyz_mm[one.peaks.t > 0], other.peaks.xyz_mm)


def test_a_table_keeps_other_statistics_and_a_project_names_them(tmp_path):
    rows = "study,n1,threshold,space,x,y,z,statistic,kind\na,20,3,spm_mni,1,2,3,4.5,z\n"
    (tmp_path / "in.csv").write_text(rows + "b,20,3,spm_mni,1,2,3,-16,f\n")
    dataset = read(tmp_path / "in.csv")
    assert convert(dataset, tmp_path / "out.xlsx") == ()
    kept = read(tmp_path / "out.xlsx").studies
    assert [(s.peaks.kinds, s.peaks.reported.tolist()) for s in kept] == [
        (("z",), [4.5]), (("f",), [-16.0]),
    ]  # fmt: skip
    lost = convert(dataset, tmp_path / "out")
    assert lost[0].message == "statistics of other kinds (F(1, df), z) are written as t."
    assert differences(dataset.studies, read(tmp_path / "out").studies) == []


def test_unknown_thresholds_of_a_project_can_be_assumed(tmp_path):
    source = write_project(tmp_path / "p", studies=3)
    table = source / "sdm_table.txt"
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    for line in lines[1:]:
        line[3] = "NA"
    table.write_text("\n".join("\t".join(line) for line in lines))
    found = read(source, assumed=Assumed(0.01))
    again = write_project(tmp_path / "q", studies=3)
    assert [s.t_threshold for s in read_all(source, Assumed(0.001)).studies] == pytest.approx(
        [s.t_threshold for s in read(again).studies], abs=1e-5
    )
    assert len(found.studies) == 3
    with pytest.raises(SettingError, match=r"threshold-p is 0.6; it must lie in"):
        read(source, assumed=Assumed(0.6))


def test_what_is_there_stays(tmp_path):
    source = write_project(tmp_path / "p", studies=3)
    dataset = read(source)
    out = tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"out.csv exists; choose another name, or replace it"):
        convert(dataset, out)
    assert out.read_text() == "mine"
    convert(dataset, out, force=True)
    assert differences(dataset.studies, read(out).studies) == []
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for refused in (folder, source):
        with pytest.raises(OutputError, match=r"no sdm that could be replaced|is the input itself"):
            convert(dataset, refused, "sdm", force=True)
    assert read(source).names == dataset.names
    convert(dataset, tmp_path / "new", force=True)
    convert(dataset, tmp_path / "new", force=True)
    for file in tmp_path.iterdir():
        assert not file.name.startswith("."), "scratch was left behind"


def test_a_name_that_cannot_name_a_file_changes_nothing(tmp_path):
    rows = (
        "study,n1,threshold,space,x,y,z,statistic\n.a,20,3,spm_mni,1,2,3,4\nb,20,3,spm_mni,1,2,3,4"
    )
    (tmp_path / "in.csv").write_text(rows)
    with pytest.raises(OutputError, match=r"study '.a' cannot name a file"):
        convert(read(tmp_path / "in.csv"), tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv"}


def test_the_name_says_the_format(tmp_path):
    for name, form in zip(
        ("a", "a.csv", "a.tsv", "a.XLSX", "a.txt", "a.json"), WRITERS, strict=True
    ):
        assert format_for(tmp_path / name) == form
    assert format_for(tmp_path / "a.b", "sdm") == "sdm"
    with pytest.raises(SettingError, match="the name says no format"):
        format_for(tmp_path / "a.docx")


def test_the_command_ends_with_the_path_and_errors_are_a_sentence(tmp_path):
    write_project(tmp_path / "p", studies=3)

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "gpu_sdm.cli", "convert", *words], cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run("p", "sub/out.json")
    assert (done.returncode, done.stdout) == (0, "sub/out.json\n")
    assert "3 studies" in done.stderr
    again = run("p", "sub/out.json")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("error: sub/out.json exists;")


def test_what_was_to_be_replaced_is_put_back_if_the_new_cannot_be_moved(tmp_path, monkeypatch):
    dataset, out = read(write_project(tmp_path / "p", studies=3)), tmp_path / "out"
    convert(dataset, out)
    before = sorted(p.name for p in out.iterdir())
    real = Path.replace

    def full(self, target):
        if Path(target) == out:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="out cannot be written: No space left"):
        convert(dataset, out, force=True)
    assert sorted(p.name for p in out.iterdir()) == before
    assert read(out).names == dataset.names


def test_a_folder_of_notes_is_no_project_to_replace(tmp_path):
    dataset, notes = read(write_project(tmp_path / "p", studies=3)), tmp_path / "notes"
    notes.mkdir()
    (notes / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="no sdm that could be replaced"):
        convert(dataset, notes, "sdm", force=True)
    assert (notes / "diary.txt").read_text() == "mine"


def test_peaks_of_studies_whose_threshold_is_assumed_are_doubted_too(tmp_path):
    source = write_project(tmp_path / "p", studies=3)
    file = next(f for f in sorted(source.iterdir()) if f.name.startswith("study00."))
    rows = file.read_text().splitlines()
    file.write_text("\n".join([*rows, rows[0]]) + "\n")
    table = source / "sdm_table.txt"
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    lines[1][lines[0].index("t_thr")] = "NA"
    table.write_text("\n".join("\t".join(line) for line in lines) + "\n")
    kinds = [n.kind for n in read(source, assumed=Assumed(0.001)).notices]
    assert "duplicate_peak" in kinds
