"""What makes no sample, and `gpu-sdm combine`."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from projects import write_project
from sampled import CPU, double, settings, with_samples

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.cli import main
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.findings.check import check_input
from gpu_sdm.findings.combine import combine
from gpu_sdm.stages.samples import merge_samples


def labelled(project: Path, labels: dict[str, str]):
    dataset = gpu_sdm.read(project)
    return replace(dataset, studies=tuple(
        replace(s, labels={"sample": labels.get(s.name, "")}) for s in dataset.studies
    ))  # fmt: skip


def test_bad_samples_are_refused(tmp_path):
    project = write_project(tmp_path / "project", 6)
    first, second = gpu_sdm.read(project).studies[:2]
    assert first.n1 != second.n1
    both = dict.fromkeys(("study00", "study01"), "A")
    with pytest.raises(InputError, match=rf"'A'.*study00 \(n1 = {first.n1}, n2 = 0\) and study01"):
        merge_samples(labelled(project, both))
    checked = check_input(with_samples(write_project(tmp_path / "checked", 6), both))
    assert ["different sizes" in str(e) for e in checked.errors] == [True]
    double(project, "study00", "again")
    for label, text in (("study05", "name of a study"), ("a/b", "separator"), (".a", "dot")):
        with pytest.raises(InputError, match=text):
            merge_samples(labelled(project, dict.fromkeys(("study00", "again"), label)))
    with pytest.raises(SettingError, match="sample_correlation"):
        gpu_sdm.Settings(sample_correlation=1.5)
    good = labelled(project, dict.fromkeys(("study00", "again"), "A"))
    with pytest.raises(SettingError, match="exchange is peaks but sample 'A'"):
        prepare(good, settings(tmp_path, exchange="peaks"), CPU)


def test_texts_that_differ_are_missing(tmp_path):
    project = write_project(tmp_path / "project", 5)
    double(project, "study00", "again")
    dataset = labelled(project, dict.fromkeys(("study00", "again"), "A"))
    task = {"study00": "faces", "again": "words", "study01": "faces"}
    studies = [
        replace(s, labels=s.labels | {"task": task.get(s.name, "words"), "lab": "x"})
        for s in dataset.studies
    ]
    studies[0] = replace(studies[0], labels=studies[0].labels | {"lab": ""})
    first = merge_samples(replace(dataset, studies=tuple(studies))).studies[0]
    assert first.labels == {"sample": "A", "task": "", "lab": "x"}


def command(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu-sdm", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_combine_command(tmp_path, monkeypatch, capsys):
    project = write_project(tmp_path / "project", 5)
    for again in ("more, again", "third"):
        double(project, "study01", again)
    new = tmp_path / "new"
    words = ["combine", project, "--studies", "study01,third", "--studies", "more, again"]
    words += ["--name", "Sample 1", "--out", new, "--correlation", "0.7"]
    assert command(monkeypatch, *words) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == str(new)
    assert "--sample-correlation 0.7" in shown.err
    assert f"permute {new}" in " ".join(shown.err.split())
    dataset = gpu_sdm.read(new)
    assert merge_samples(dataset).names == (
        "study00", "Sample 1", "study02", "study03", "study04"
    )  # fmt: skip
    for file in project.glob("*.spm_mni.txt"):
        assert (new / file.name).read_text().split() == file.read_text().split()
    # Nothing is replaced, and nothing is left behind.
    before = sorted(tmp_path.iterdir())
    for bad, text in (
        (words, "exists"),
        ([*words[:3], "study01,none", *words[6:-3], tmp_path / "no"], "'none' is not there"),
        ([*words[:3], "study01,study02", *words[6:-3], tmp_path / "no"], "different sizes"),
        ([*words[:3], "study01", *words[6:-3], tmp_path / "no"], "two or more"),
        ([*words[:-3], tmp_path / "no.json"], "no column sample"),
    ):
        assert command(monkeypatch, *bad) == 1
        assert text in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.iterdir()) == before
    with (new / "sdm_table.txt").open() as file:
        cells = {row["study"]: row["sample"] for row in csv.DictReader(file, delimiter="\t")}
    assert cells["third"] == "Sample 1"
    assert cells["study00"] == "NA"


def test_combine_adds_to_a_sample_and_keeps_others(tmp_path):
    project = write_project(tmp_path / "project", 4)
    for name in ("b", "c"):
        double(project, "study01", name)
    double(project, "study02", "d")
    with_samples(project, {"study01": "1", "b": "1", "study02": "2", "d": "2", "study03": "3"})
    dataset = gpu_sdm.read(project)
    more = merge_samples(combine(dataset, ["c"], "1"))
    assert more.names == ("study00", "1", "2", "study03")
    assert [p.name for p in more.studies[1].contrasts] == ["b", "c", "study01"]
    with pytest.raises(SettingError, match="'study02' already belongs to sample '2'"):
        combine(dataset, ["study02", "c"], "new")
    with pytest.raises(SettingError, match="single blanks"):
        combine(dataset, ["study00", "c"], "NA")


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs" / "samples.md"
    (block,) = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    combined, permuted = (shlex.split(line)[1:] for line in block.strip().splitlines())
    project = write_project(tmp_path / "emotion", 5)
    names = combined[combined.index("--studies") + 1].split(",")
    for name in names:
        double(project, "study00", name)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *combined) == 0
    mask = settings(tmp_path).mask
    assert command(monkeypatch, *permuted, "--dry-run", "--voxel-size", 4, "--mask", mask) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 contrasts make 1 of the studies" in shown
    assert "6: 6 one-sample" in shown
