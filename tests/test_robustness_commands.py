"""jackknife, heterogeneity, bias, extract and heights on the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.cli import main


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: (stdout, stderr)."""

    def run(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["gpu-sdm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        done = capsys.readouterr()
        assert ended.value.code == code, done.err
        return done.out, done.err

    return run


def table(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    home = tmp_path_factory.mktemp("commands")
    project = write_project(home / "project", 6, negative_mm=(10, -30, 30))
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=10, imputations=3
    )
    gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return home / "out"


def test_heterogeneity(out, call):
    printed, said = call("heterogeneity", out, "--threshold", "uncorrected", "--backend", "cpu")
    folder = Path(printed.splitlines()[-1])
    assert folder == out / "heterogeneity"
    rows = table(folder / "heterogeneity.tsv")
    assert {row["kind"] for row in rows} == {"peak", "cluster"}
    assert "95 % prediction" in said
    found, _ = call("heterogeneity", out, "--at", "2,-14,20", "--json", "--backend", "cpu")
    content = json.loads(found)
    assert [site["kind"] for site in content["sites"]] == ["point"]
    assert table(folder / "heterogeneity.tsv")[0]["site"] == "2,-14,20"


def test_bias(out, call):
    _, said = call("bias", out, "--threshold", "uncorrected", "--backend", "cpu")
    rows = table(out / "bias" / "bias.tsv")
    assert float(rows[0]["egger_p"]) <= 1
    assert rows[1]["expected"] == "n/a"  # a cluster
    assert len(table(out / "bias" / "funnel.tsv")) == 6 * len(rows)
    assert "6 studies: with fewer than 10" in said
    words = ("--regressor", "inverse-root-n", "--significance", "0.05", "--json")
    found, _ = call("bias", out, "--at", "2,-14,20", *words, "--backend", "cpu")
    site = json.loads(found)["sites"][0]
    assert (site["egger_regressor"], site["significance"]) == ("inverse-root-n", "two-sided p 0.05")


def test_extract(out, call):
    where = ("--at", "2,-14,20", "--mask", out.parent / "mask.nii.gz", "--clusters", "uncorrected")
    _, said = call("extract", out, *where, "--backend", "cpu")
    rows = table(out / "extract" / "extract.tsv")
    kinds = {row["kind"] for row in rows}
    assert kinds == {"point", "region", "peak", "cluster"}
    sites = {row["site"] for row in rows}
    assert len(rows) == 7 * len(sites)
    assert len(table(out / "extract" / "imputations.tsv")) == 3 * 6 * len(sites)
    assert "weight %" in said
    _, nothing = call("extract", out, code=1)
    assert "nothing to extract; give --at" in nothing
    _, wrong = call("extract", out, "--at", "1,2", code=1)
    assert "three numbers with commas" in wrong


def test_heights(out, tmp_path, call):
    printed, _ = call("heights", out.parent / "project", "--out", tmp_path / "heights")
    assert Path(printed.strip()) == tmp_path / "heights"
    rows = table(tmp_path / "heights" / "heights.tsv")
    assert {row["side"] for row in rows} == {"positive", "negative"}
    content = json.loads(call("heights", out.parent / "project", "--json")[0])
    assert len(content["heights"]) == len(rows)
    assert call("heights", out.parent / "project")[0] == ""


def test_jackknife_that_is_killed_goes_on(out, tmp_path, call):
    folder = tmp_path / "jk"
    words = ["jackknife", str(out), "--out", str(folder), "--backend", "cpu", "--json"]
    killed = subprocess.Popen(
        [sys.executable, "-m", "gpu_sdm.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "GPU_SDM_CACHE": str(tmp_path / "cache")},
    )
    first = folder / "folds/without_study00/fold.json"
    begin = time.monotonic()
    while not first.exists() and time.monotonic() - begin < 120:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert first.exists()
    assert not (folder / "summary.tsv").exists()
    stamp = first.stat().st_mtime_ns
    content = json.loads(call(*words)[0])
    assert first.stat().st_mtime_ns == stamp
    assert len(list((folder / "folds").glob("*/fold.json"))) == 6
    assert {row["left_out"] for row in content["folds"]} == {f"study{k:02d}" for k in range(6)}
    assert len(table(folder / "jackknife.tsv")) == len(content["folds"]) > 0


def test_other_folders_are_refused(tmp_path, call):
    for command in ("jackknife", "heterogeneity", "bias"):
        printed, said = call(command, tmp_path, code=1)
        assert "is not a finished gpu-sdm result" in said
        assert printed == ""
    assert list(tmp_path.iterdir()) == []
