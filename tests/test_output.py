"""The life of OUT: continue, extend, refuse, replace; and that nothing is lost or half written."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm import output
from gpu_sdm.errors import CheckpointMismatch, OutputError
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.permute import checkpoint
from gpu_sdm.permute.null import NullState

SMALL = {"imputations": 3, "voxel_size": 4, "permutations": 70}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"), studies=6, two_sample=2)


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    return write_mask(tmp_path_factory.mktemp("mask") / "mask.nii.gz", radius=5)


def settings(mask, **changes):
    return gpu_sdm.Settings(**(SMALL | {"mask": mask} | changes))


def files(out: Path) -> dict[str, str]:
    """Content hash of every file of a result but run.json, which holds timings."""
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.name != "run.json"
    }


@pytest.fixture(scope="module")
def whole(project, mask, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=out)
    return out


def test_same_command_twice_gives_the_same_files(project, mask, whole, tmp_path):
    gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=tmp_path / "o", threads=1)
    assert files(tmp_path / "o") == files(whole)
    assert not (tmp_path / "o.partial").exists()


def test_finished_with_fewer_permutations_is_extended(project, mask, whole, tmp_path):
    out = tmp_path / "o"
    gpu_sdm.run(gpu_sdm.read(project), settings(mask, permutations=33), out=out)
    assert files(out) != files(whole)
    gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=out)
    assert files(out) == files(whole)


@pytest.mark.parametrize("count", [70, 12])
def test_finished_is_not_computed_again(project, mask, whole, count):
    before = files(whole)
    with pytest.raises(OutputError, match="is finished with 70 permutations; ask for more"):
        gpu_sdm.run(gpu_sdm.read(project), settings(mask, permutations=count), out=whole)
    assert files(whole) == before
    assert not output.partial_of(whole).exists()


def test_other_settings_are_refused_and_named(project, mask, whole):
    with pytest.raises(CheckpointMismatch, match=r"seed is 1, there it is 0.*--force"):
        gpu_sdm.run(gpu_sdm.read(project), settings(mask, seed=1), out=whole)
    assert not output.partial_of(whole).exists()


def test_changed_input_is_refused_and_named(project, mask, whole, tmp_path):
    copy = write_project(tmp_path / "copy", studies=6, two_sample=2)
    peaks = copy / "study00.spm_mni.txt"
    peaks.write_text(peaks.read_text() + "10 10 10 5\n")
    with pytest.raises(CheckpointMismatch, match=r"input study00\.spm_mni\.txt is changed"):
        gpu_sdm.run(gpu_sdm.read(copy), settings(mask, permutations=200), out=whole)


def test_force_replaces_a_result(project, mask, whole, tmp_path):
    out = tmp_path / "o"
    gpu_sdm.run(gpu_sdm.read(project), settings(mask, seed=9), out=out)
    assert files(out) != files(whole)
    gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=out, force=True)
    assert files(out) == files(whole)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_never_touched(project, mask, tmp_path, force):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not a gpu-sdm result"):
        gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=tmp_path / "thesis", force=force)
    assert [p.name for p in tmp_path.rglob("*")] == ["thesis", "chapter.txt"]


def test_second_process_is_refused(project, mask, tmp_path):
    partial = tmp_path / "o.partial"
    partial.mkdir()
    code = (
        "import sys, time; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(partial / "lock")], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(OutputError, match="being worked on by another process"):
                gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=tmp_path / "o")
        finally:
            other.kill()
    gpu_sdm.run(gpu_sdm.read(project), settings(mask, permutations=2), out=tmp_path / "o")


def test_interrupted_run_goes_on_bit_for_bit(project, mask, whole, tmp_path):
    out = tmp_path / "o"

    def stop(stage, done, total):
        if stage == "permutations" and done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=out, progress=stop)
    assert not out.exists()
    kept = checkpoint.load_null(output.partial_of(out) / "checkpoint.npz", ("voxel", "tfce"), 70)
    assert 32 <= kept.done < 70
    with pytest.raises(CheckpointMismatch, match="unfinished work with other settings"):
        gpu_sdm.run(gpu_sdm.read(project), settings(mask, imputations=4), out=out)
    gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=out)
    assert files(out) == files(whole)


def test_ctrl_c_saves_says_how_to_go_on_and_exits_130(project, mask, tmp_path):
    out = tmp_path / "o"
    command = [
        sys.executable, "-m", "gpu_sdm.cli", "permute", str(project), "--out", str(out),
        "--mask", str(mask), "--voxel-size", "4", "--imputations", "3", "-n", "1000000",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        saved = output.partial_of(out) / "checkpoint.npz"
        deadline = time.monotonic() + 60
        while not saved.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "give the same command again to go on" in said
    kept = checkpoint.load_null(saved, ("voxel", "tfce"), 1_000_000)
    assert kept.done > 0
    shorter = settings(mask, permutations=kept.done + 40)
    gpu_sdm.run(gpu_sdm.read(project), shorter, out=out)
    whole = gpu_sdm.run(gpu_sdm.read(project), shorter)
    stored = read_maxima(out / "null" / "maxima.tsv", ("voxel", "tfce"))
    for name, maxima in whole.maxima.items():
        assert np.array_equal(stored[name], maxima)


@pytest.mark.parametrize("step", ["replace", "fsync", "write"])
def test_a_fault_while_saving_loses_nothing(project, mask, whole, tmp_path, monkeypatch, step):
    out, calls = tmp_path / "o", []

    def fail(*args, **kwargs):
        calls.append(step)
        raise OSError(28, "No space left on device")

    real = NullState.add

    def add(self, start, chunk):
        real(self, start, chunk)
        if start + next(iter(chunk.values())).shape[1] >= 64:
            target = {"replace": (Path, "replace"), "fsync": (os, "fsync"), "write": (np, "savez")}
            monkeypatch.setattr(*target[step], fail)

    monkeypatch.setattr(NullState, "add", add)
    with pytest.raises(OutputError, match="No space left on device"):
        gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=out)
    monkeypatch.undo()
    assert calls
    assert not out.exists()
    gpu_sdm.run(gpu_sdm.read(project), settings(mask), out=out)
    assert files(out) == files(whole)


def test_the_clock_of_a_stage_that_comes_from_the_cache_stands():
    from gpu_sdm.terminal import StageProgress

    bars = StageProgress()
    bars("likelihood", 5, 5)
    bars("permutations", 1, 3)
    cached, running = bars._progress.tasks
    assert cached.finished_time is not None
    assert running.finished_time is None
