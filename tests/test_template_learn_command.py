"""`gpu-sdm template learn`: what it reads, writes and refuses, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from learned_projects import invented_template, write_preprocessed
from projects import write_project
from template_maps import run

from gpu_sdm import cache
from gpu_sdm import template_learn as tl
from gpu_sdm.errors import InputError, SettingError, SpaceError
from gpu_sdm.io.volumes import load_template
from gpu_sdm.stages import template_learn as stage
from gpu_sdm.stages.template_learn import score_kernels
from gpu_sdm.template_kernels import read_kernels
from gpu_sdm.templates import default_template

SWEEPS = 6  # in place of 20


@pytest.fixture(scope="module")
def truth():
    return invented_template()


@pytest.fixture
def few_sweeps(monkeypatch, tmp_path):
    monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tl, "SWEEPS", SWEEPS)
    monkeypatch.setattr(stage.learn, "__kwdefaults__", {**stage.learn.__kwdefaults__,
                                                        "sweeps": SWEEPS})  # fmt: skip


@pytest.fixture
def project(tmp_path, truth):
    return write_preprocessed(tmp_path / "some", truth)


def test_the_command_writes_a_template_that_permute_reads(few_sweeps, project, truth, tmp_path):
    more = write_preprocessed(tmp_path / "more", truth, n=3, seed=6)
    out = tmp_path / "learned.nii.gz"
    done = run("template", "learn", project, more, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(out)
    said = " ".join(done.stderr.replace("│", "").split())
    assert "warning: 9 studies are few" in said
    for word in ("template of 9 studies", "held out", "studies not learned from"):
        assert word in said
    report = json.loads((tmp_path / "learned.json").read_text())
    assert report["studies"] == [f"some{k}" for k in range(6)] + [f"more{k}" for k in range(3)]
    kernels = report["kernels"]
    assert kernels["after"]["rmse"] < 0.6 * kernels["before"]["rmse"]
    assert kernels["held_out"]["folds"] == 2
    # The file is what was scored.
    template = load_template(out, 4)
    studies = read_kernels(project) + read_kernels(more)
    assert score_kernels(template, studies)._asdict() == pytest.approx(kernels["after"], abs=1e-6)
    fit = run(
        "permute", project, "--out", tmp_path / "result", "--template", out, "--voxel-size", 4,
        "--permutations", 2, "--imputations", 2, "--no-report",
    )  # fmt: skip
    assert fit.exit_code == 0, fit.output
    again = run("template", "learn", project, more, "--out", out, "--force", "--json", "--folds", 0)
    assert again.exit_code == 0, again.output
    printed = json.loads(again.stdout)
    assert printed["kernels"]["held_out"] is None
    assert printed["kernels"]["after"] == kernels["after"]


def test_the_maps_may_lie_elsewhere(few_sweeps, project, tmp_path):
    elsewhere = (project / "pp").rename(tmp_path / "bounds")
    out = tmp_path / "t.nii.gz"
    done = run("template", "learn", project, "--bounds", elsewhere, "--out", out, "--folds", 0)
    assert done.exit_code == 0, done.output
    assert out.exists()


def test_a_run_that_is_cut_short_goes_on_where_it_was(few_sweeps, project, monkeypatch):
    whole = tl.learn_template([project], folds=0).template
    cache.clear()
    monkeypatch.setattr(tl, "KEEP_EVERY", 2)
    began: list[int] = []

    def stop_at(last):
        def progress(stage_name, done, total):
            began.append(done)
            if done == last:
                raise KeyboardInterrupt

        return progress

    with pytest.raises(KeyboardInterrupt):
        tl.learn_template([project], folds=0, progress=stop_at(3))
    again = tl.learn_template([project], folds=0, progress=stop_at(None)).template
    assert began == [0, 1, 2, 3, 2, 3, 4, 5, 6]
    assert (again.costs == whole.costs).all()


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill with SIGINT kills the process there")
def test_ctrl_c_writes_nothing(few_sweeps, project, tmp_path, monkeypatch):
    plain = stage.sweep
    swept = []

    def sweep(*arguments, **more):
        swept.append(1)
        if len(swept) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*arguments, **more)

    monkeypatch.setattr(stage, "sweep", sweep)
    done = run("template", "learn", project, "--out", tmp_path / "t.nii.gz", "--folds", 0)
    assert done.exit_code != 0
    assert len(swept) == 2
    assert "interrupted; nothing was written" in done.stderr
    assert not (tmp_path / "t.nii.gz").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_kill_loses_five_sweeps_at_most(project, tmp_path):
    """SIGKILL once the first sweeps are kept; the same command then gives the same bytes."""

    def command(out, kept):
        words = ["template", "learn", str(project), "--out", str(out), "--folds", "0"]
        return subprocess.Popen(
            [sys.executable, "-m", "gpu_sdm.cli", *words],
            env=os.environ | {"GPU_SDM_CACHE": str(kept)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    whole, again = tmp_path / "whole.nii.gz", tmp_path / "again.nii.gz"
    done = command(whole, tmp_path / "cache 1")
    assert (done.wait(timeout=120), whole.exists()) == (0, True)
    kept = tmp_path / "cache 2"
    killed = command(again, kept)
    limit = time.monotonic() + 60
    while not list(kept.glob("learned/*.npz")) and time.monotonic() < limit:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=30) == -signal.SIGKILL
    assert not again.exists()
    with np.load(next(iter(kept.glob("learned/*.npz")))) as stored:
        assert 5 <= int(stored["sweeps"]) < 20
    done = command(again, kept)
    assert done.wait(timeout=120) == 0
    assert again.read_bytes() == whole.read_bytes()
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"some", "cache 1", "cache 2", "whole.nii.gz", "whole.json", "again.nii.gz",
                    "again.json"}  # fmt: skip


def test_what_cannot_be_used_is_said_in_one_sentence(few_sweeps, project, truth, tmp_path):
    def refused(error, words, *projects, bounds=(), folds=0):
        with pytest.raises(error, match=words) as raised:
            tl.learn_template(list(projects), bounds, folds=folds)
        assert "\n" not in str(raised.value)

    pp = project / "pp"
    refused(InputError, "no such folder of bound maps", write_project(tmp_path / "raw"))
    refused(InputError, "1 project.s. and 2 folder.s.", project, bounds=[pp, pp])
    refused(SettingError, "folds is 7", project, folds=7)
    refused(SettingError, "folds is 1", project, folds=1)
    refused(InputError, "some0 is in two", project, project)
    table = (project / "sdm_table.txt").read_text()
    rows = [row.split("\t") for row in table.splitlines()]
    for column, value, words in (
        (2, "9.5", r"bounds of some1 are at most .* by its threshold and sample size"),
        (2, "1.5", r"bounds of some1 are at most .* by its threshold and sample size"),
    ):
        changed = [list(row) for row in rows]
        changed[2][column] = value
        (project / "sdm_table.txt").write_text("\n".join("\t".join(r) for r in changed) + "\n")
        refused(InputError, words, project)
    (project / "sdm_table.txt").write_text(table)
    peaks = sorted(project.glob("some*.spm_mni.txt"))
    first = peaks[0].read_text()
    held = [path.read_text() for path in peaks]
    for path, content in zip(peaks, held[1:] + held[:1], strict=True):
        path.write_text(content)
    refused(InputError, r"known at only \d+ of the \d+ peaks .* not of these peaks", project)
    for path, content in zip(peaks, held, strict=True):
        path.write_text(content)
    assert peaks[0].read_text() == first
    other_grid = tmp_path / "grid"
    other_grid.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.float32), np.eye(4)),
             other_grid / "some0_lower.nii.gz")  # fmt: skip
    refused(SpaceError, r"some0_lower.nii.gz: the image has shape \(5, 5, 5\)", project,
            bounds=[other_grid])  # fmt: skip
    (pp / "some3_upper.nii.gz").unlink()
    refused(InputError, "1 of 12 bound maps are missing", project)
    (pp / "some0_lower.nii.gz").unlink()
    refused(InputError, "holds no some0_lower.nii.gz", project)
    for path in peaks:
        path.rename(path.with_name(path.name.replace("spm_mni", "no_peaks"))).write_text("")
    refused(InputError, "no study of this project has peaks", project)


def test_an_impossible_place_is_refused_before_the_work(project, tmp_path):
    done = run("template", "learn", project, "--out", tmp_path / "t.png")
    assert "end its name with .nii.gz" in str(done.exception)
    taken = tmp_path / "t.nii.gz"
    taken.write_text("mine")
    done = run("template", "learn", project, "--out", taken)
    assert "exists; choose another --out" in str(done.exception)
    assert taken.read_text() == "mine"


def test_nothing_is_learned_where_nothing_differs(few_sweeps, tmp_path):
    """Bound maps made with the built-in template give it back."""
    start = default_template(4)
    project = write_preprocessed(tmp_path / "own", start)
    built = tl.learn_template([project], folds=0)
    assert built.report["kernels"]["before"]["rmse"] < 1e-5
    linked = np.isfinite(start.costs)
    np.testing.assert_allclose(built.template.costs[linked], start.costs[linked], rtol=2e-3)
