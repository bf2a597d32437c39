"""`gpu-sdm check`: errors are collected, and each doubt is raised where it should be."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from projects import write_mask
from scipy import stats
from some_studies import study

import gpu_sdm
from gpu_sdm.cli import main
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.findings.check import ADVICE, check_input
from gpu_sdm.findings.suggest_thresholds import column, suggest_thresholds


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: (stdout, stderr)."""

    def run(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["gpu-sdm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        done = capsys.readouterr()
        assert (ended.value.code or 0) == code, done.err
        return done.out, done.err

    return run


def write(folder: Path, rows: dict[str, tuple[str, str | None]], header="study\tn1\tt_thr") -> Path:
    """A project: name -> (cells after the name, rows of its peak file or None)."""
    folder.mkdir(exist_ok=True)
    table = [header, *(f"{name}\t{cells}" for name, (cells, _) in rows.items())]
    (folder / "sdm_table.txt").write_text("\n".join(table) + "\n")
    for name, (_, peaks) in rows.items():
        if peaks is not None:
            (folder / f"{name}.spm_mni.txt").write_text(peaks)
    return folder


# --- real data -----------------------------------------------------------------------------------


def test_li2024(li2024, call):
    printed, said = call("check", li2024 / "project", "--json")
    found = json.loads(printed)
    counts = {w["kind"]: w["count"] for w in found["warnings"]}
    assert found["errors"] == []
    assert counts["unlisted_file"] == 7
    assert counts["peak_below_threshold"] == 123
    assert counts["threshold_missing"] == 4
    assert "swapped_axes" not in counts
    rows = found["studies"]
    assert len(rows) == 128
    assert sum(not row["used"] for row in rows) == 4
    first = rows[0]
    assert (first["study"], first["n1"], first["df"], first["peaks"]) == (
        "Aarts2008_adults", 12, 11, 32,
    )  # fmt: skip
    assert first["p_one_sided"] == pytest.approx(stats.t.sf(4.0247, 11), rel=1e-9)
    assert "0 errors" in said
    # Every kind says what to do.
    assert all(w["advice"] for w in found["warnings"])
    # 3.1 in every row of a file, where the paper gave no height.
    ceilings = next(w for w in found["warnings"] if w["kind"] == "equal_heights")["messages"]
    assert any("Roberts2008_adults.spm_mni.txt:1: the largest |t|, 3.1, is that of 21 of 21" in m
               for m in ceilings)  # fmt: skip


def test_enge2021(enge2021):
    found = check_input(enge2021 / "project")
    counts = {d["kind"]: d["count"] for d in found.doubts()}
    assert not found.errors
    assert counts["unknown_height"] == 226
    assert counts["same_sample"] == 4
    assert counts["implausible_height"] == 8  # t = 50 in five of them
    assert "swapped_axes" not in counts
    assert sum(row["peaks"] for row in found.rows()) == 687
    assert [d["count"] for d in found.doubts()] == sorted(counts.values(), reverse=True)


def test_images_need_no_threshold(pain21, tmp_path, call):
    table = (pain21 / "samplesize.csv").read_text().splitlines()
    sizes = {r["study_id"]: r["n"] for r in csv.DictReader(table)}
    rows = ["study\tn1", *(f"{name}\t{n}" for name, n in sizes.items())]
    (tmp_path / "sdm_table.txt").write_text("\n".join(rows) + "\n")
    for name in sizes:
        (tmp_path / f"{name}.nii.gz").symlink_to(pain21 / f"{name}_t.nii.gz")
    printed, said = call("check", tmp_path)
    assert printed == f"{tmp_path}\n"
    assert "21 studies to analyse (21 images, 0 peaks), 0 errors, 0 warnings" in said
    assert "t image" in said


# --- errors --------------------------------------------------------------------------------------


def test_errors_of_every_study_are_collected(tmp_path, call):
    peaks = "1 2 3 5\n"
    rows = {
        "good": ("20\t3.6", peaks),
        "few": ("3\t3.6", peaks),
        "empty": ("20\t", peaks),
        "word": ("20\thigh", peaks),
        "none": ("20\t3.6", None),
        "rough": ("20\t3.6", "1 2 3 5\n1 2 three 5\n"),
        "far": ("20\t3.6", "1 2 300 5\n"),
    }
    project = write(tmp_path / "p", rows)
    table = project / "sdm_table.txt"
    table.write_text(table.read_text() + "good\t20\t3.6\nlong\t20\t3.6\t4\t5\n")
    (project / "none.xyz_mni.txt").write_text(peaks)
    before = sorted(p.name for p in project.iterdir())
    printed, said = call("check", project, "--json", code=1)
    found = json.loads(printed)
    expected = [
        ("sdm_table.txt", 9, "already in line 2"),
        ("sdm_table.txt", 10, "5 values for 3 columns"),
        ("none.xyz_mni.txt", None, "suffix 'xyz_mni' is unknown"),
        ("sdm_table.txt", 3, "n1 = 3"),
        ("sdm_table.txt", 4, "has no t_thr"),
        ("sdm_table.txt", 5, "t_thr = 'high'"),
        ("rough.spm_mni.txt", 2, "three"),
        ("far.spm_mni.txt", 1, "outside the box"),
    ]
    assert len(found["errors"]) == len(expected)
    for error, (file, line, part) in zip(found["errors"], expected, strict=True):
        assert Path(error["path"]).name == file
        assert error["line"] == line
        assert part in error["message"]
        assert error["message"] in said.replace("error: ", "")
    used = {row["study"]: row["used"] for row in found["studies"]}
    assert used == {"good": True, "empty": False, "word": False}
    assert sorted(p.name for p in project.iterdir()) == before
    # What stops the analysis is the first of the same errors.
    with pytest.raises(InputError, match="already in line 2"):
        gpu_sdm.read(project)


def test_a_table_that_cannot_be_read_is_one_error(tmp_path, call):
    (tmp_path / "sdm_table.txt").write_text("study\tt_thr\na\t3\n")
    printed, said = call("check", tmp_path, "--json", code=1)
    assert "has no column n1" in json.loads(printed)["errors"][0]["message"]
    printed, said = call("check", tmp_path / "absent", code=1)
    assert printed == ""
    assert "does not exist" in said


def test_no_study_or_one_is_an_error(tmp_path):
    one = check_input(write(tmp_path / "one", {"a": ("20\t3.6", "1 2 3 5\n")}))
    assert "1 usable study" in str(one.errors[0])
    unknown = {"a": ("20\tNA", "1 2 3 5\n"), "b": ("20\tNA", "1 2 3 5\n")}
    none = check_input(write(tmp_path / "none", unknown))
    assert "0 usable study" in str(none.errors[0])
    assert [s.name for s in none.studies] == ["a", "b"]


def test_peaks_outside_brain_and_mask(tmp_path, call):
    far, near = "80 -60 60 5\n0 -16 18 5\n", "0 -16 18 5\n-40 -60 40 6\n"
    project = write(tmp_path / "p", {"a": ("20\t3.5794", far), "b": ("20\t3.5794", near)})
    found = check_input(project)
    assert [n.message for n in found.notices if n.kind.startswith("peak_outside")] == [
        "a.spm_mni.txt:1: the peak (80, -60, 60) lies outside the brain."
    ]
    mask = write_mask(tmp_path / "mask.nii.gz")  # a ball around the middle
    printed, _ = call("check", project, "--mask", mask, "--json")
    counts = {w["kind"]: w["count"] for w in json.loads(printed)["warnings"]}
    assert counts["peak_outside_brain"] == counts["peak_outside_mask"] == 1


# --- thresholds to suggest -----------------------------------------------------------------------


def test_suggested_thresholds_agree_with_scipy():
    studies = [study("given"), study("none", t_thr=np.nan), study("two", n1=12, n2=11, t=[4.5])]
    for sides in (1, 2):
        rows = suggest_thresholds(studies, 0.005, sides)
        for row, s in zip(rows, studies, strict=True):
            assert row["suggested"] == pytest.approx(stats.t.isf(0.005 / sides, s.df), rel=1e-9)
            assert row["source"].startswith(f"{('one', 'two')[sides - 1]}-sided p 0.005, df ")


def test_suggested_threshold_without_p_is_the_smallest_height():
    unknown = study("a", t_thr=np.nan, t=[5.12349, -4.43219, np.nan])
    given, silent = study("b"), study("c", t_thr=np.nan)
    own = study("d", t_thr=np.nan, t=[3.0], p_thr=0.01)
    rows = suggest_thresholds([unknown, given, silent, own])
    assert [r["source"] for r in rows] == [
        "smallest |t|", "as given", "unknown",
        "one-sided p 0.01, df 19",
    ]  # fmt: skip
    assert column(rows) == [
        "study\tt_thr", "a\t4.4321", "b\t3.5794", "c\tNA", f"d\t{stats.t.isf(0.01, 19):.7g}",
    ]  # fmt: skip
    low = study("e", t=[2.1])
    assert "but a |t| of 2.1 is reported" in suggest_thresholds([low], 0.001)[0]["source"]
    for p, sides in ((0, 1), (0.5, 1), (1, 2), (0.01, 3)):
        with pytest.raises(SettingError):
            suggest_thresholds([low], p, sides)


def test_suggested_thresholds_can_be_pasted(tmp_path, call):
    rows = {"a": ("20\tNA", "0 0 0 4.2\n2 2 2 5.1\n"), "b": ("16\t3.7328", "0 4 0 6\n")}
    project = write(tmp_path / "p", {**rows, "c": ("12\t", "4 0 0 5\n")})
    before = {p.name: p.read_bytes() for p in project.iterdir()}
    printed, said = call("check", project, "--suggest-thresholds", code=1)
    assert printed.splitlines() == ["study\tt_thr", "a\t4.2", "b\t3.7328", "c\t5"]
    assert "has no t_thr" in said
    assert "formed the clusters" in said
    assert {p.name: p.read_bytes() for p in project.iterdir()} == before
    values = dict(line.split("\t") for line in printed.splitlines())
    filled = {n: (f"{c.split(chr(9))[0]}\t{values[n]}", p) for n, (c, p) in rows.items()}
    assert gpu_sdm.read(write(project, filled)).counts() == {"unlisted_file": 1}
    _, said = call("check", project, "--p", "0.001", code=1)
    assert "--suggest-thresholds; add it" in said


def test_every_kind_has_advice():
    """Each kind of notice that a file of the check or a reader can make says what to do."""
    home = Path(gpu_sdm.__file__).parent
    files = [*home.glob("findings/check_*.py"), home / "io/sdm_table.py", home / "io/peak_files.py"]
    files.append(home / "io/images.py")
    made = set()
    for file in files:
        made |= set(re.findall(r'Notice\(\s*"(\w+)"', file.read_text(encoding="utf-8")))
    made |= {"peak_outside_brain", "peak_outside_mask"}
    assert len(made) > 20
    assert made <= set(ADVICE)


def test_commands_of_the_docs_run(tmp_path, monkeypatch, call):
    page = (Path(__file__).parents[1] / "docs" / "check.md").read_text(encoding="utf-8")
    block = re.search(r"```bash\n(.*?)```", page, re.S)[1].splitlines()
    unknown = dict.fromkeys("ab", ("20\tNA", "0 0 0 p\n"))
    known = dict.fromkeys("cd", ("16\t3.7328", "0 4 0 6\n"))
    write(tmp_path / "demo-project", unknown | known)
    monkeypatch.chdir(tmp_path)
    printed = [call(*line.split(" > ")[0].split()[1:])[0] for line in block]
    assert printed[0] == "demo-project\n"
    assert printed[1].splitlines()[1] == f"a\t{stats.t.isf(0.005, 19):.7g}"


def test_hostile_names_and_a_big_input(tmp_path, call):
    rows = {f"[red]é {k}, <b>": ("20\t3.5794", f"{k % 40} 0 0 5\n") for k in range(300)}
    folder = tmp_path / "a [bold] folder"
    _, said = call("check", write(folder, rows))
    assert "a [bold] folder" in said.replace("\n", "")
    assert "[red]é 7, <b>" in said
    assert "300 studies to analyse (0 images, 300 peaks), 0 errors" in said
