"""Disks that are full or read-only, before the work and during it: a sentence, nothing lost."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm import cache, output
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.errors import OutputError
from gpu_sdm.permute.checkpoint import load_null
from gpu_sdm.pipeline import disk_needed, execute

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    home = tmp_path_factory.mktemp("disk")
    return write_project(home / "project"), write_mask(home / "mask.nii.gz", radius=5)


def analysis(inputs, **changes):
    asked = {"imputations": 2, "voxel_size": 4, "permutations": 200, "mask": inputs[1]} | changes
    return prepare(gpu_sdm.read(inputs[0]), gpu_sdm.Settings(**asked), get_backend("cpu"))


def files(out: Path) -> dict[str, str]:
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.name != "run.json"
    }


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    execute(analysis(inputs), out=out)
    return out


def test_too_little_space_is_refused_before_the_work_and_nothing_is_left(
    inputs, tmp_path, monkeypatch
):
    wanted, stages = analysis(inputs), []
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 150_000))
    with pytest.raises(OutputError, match=r"has 0\.1 MB free and .* about 0\.\d MB;"):
        execute(wanted, out=tmp_path / "o", progress=lambda stage, *_: stages.append(stage))
    assert stages == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("voxel_size", [4, 2])
def test_the_space_said_to_be_needed_is_enough_and_not_far_off(inputs, tmp_path, voxel_size):
    every = ("voxel", "tfce", "cluster-extent", "cluster-mass")
    asked = {"voxel_size": voxel_size, "statistic": every, "permutations": 500}
    if voxel_size == 2:  # the built-in mask without the long work: noise in place of its maps
        asked |= {"mask": None, "permutations": 5000}
    wanted = analysis(inputs, **asked)
    if voxel_size == 4:
        execute(wanted, out=tmp_path / "o")
        written = sum(p.stat().st_size for p in (tmp_path / "o").rglob("*") if p.is_file())
    else:
        small = analysis(inputs, statistic=every)
        result = execute(small)
        rng = np.random.default_rng(1)
        maps = {
            n: rng.random(wanted.space.n_voxels).astype(np.float32) * (n != "mask")
            for n in result.maps
        }
        maxima = {n: rng.random((2, 5000)).astype(m.dtype) for n, m in result.maxima.items()}
        fields = {f: getattr(result, f) for f in ("studies", "peaks", "clusters", "provenance")}
        (tmp_path / "o").mkdir()
        type(result)(wanted.settings, wanted.space, maps, maxima, **fields).save(tmp_path / "o")
        written = sum(p.stat().st_size for p in (tmp_path / "o").rglob("*") if p.is_file())
    needed = disk_needed(wanted)
    assert written < needed
    assert voxel_size == 4 or needed < 1.5 * written


@pytest.mark.parametrize("when", ["permutations", "result"])
def test_a_disk_that_fills_up_is_a_sentence_and_the_work_goes_on_later(
    inputs, whole, tmp_path, when
):
    """A limit on the size of files makes writes fail as a full disk does, without a small disk."""
    out, wanted = tmp_path / "o", analysis(inputs)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(stage, done, total):
        if stage == "permutations" and done >= (32 if when == "permutations" else total):
            resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))

    try:
        with pytest.raises(OutputError, match="give the same command again") as caught:
            execute(wanted, out=out, progress=fill, chunk=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert not out.exists()
    left = {p.name for p in output.partial_of(out).iterdir()}
    assert not left & {"result", "checkpoint.npz.new"}  # they would keep the disk full
    kept = load_null(output.partial_of(out) / "checkpoint.npz", ("voxel", "tfce"), 200)
    assert kept.done >= 32
    begun = {}
    execute(
        wanted, out=out, progress=lambda stage, done, total: begun.setdefault(stage, done), chunk=32
    )
    assert begun["permutations"] == kept.done
    assert files(out) == files(whole)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(inputs, tmp_path, monkeypatch):
    wanted = analysis(inputs)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Not a directory"):
        execute(wanted, out=tmp_path / "file" / "o")

    def read_only(self, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OutputError, match=r"Read-only file system.*choose a folder"):
        execute(wanted, out=tmp_path / "o")
    monkeypatch.undo()
    (tmp_path / "o").mkdir()
    monkeypatch.setattr(output.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="may not be written to"):
        execute(wanted, out=tmp_path / "o")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "o"]


@pytest.mark.parametrize("trouble", ["unwritable", "full"])
def test_without_a_cache_the_run_goes_on_and_says_so(inputs, whole, tmp_path, monkeypatch, trouble):
    if trouble == "unwritable":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path / "file" / "cache"))
    else:
        monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Usage(9, 9, 60_000_000))
    wanted = analysis(inputs)
    (notice,) = (n.message for n in wanted.notices if n.kind == "no_cache")
    assert "GPU_SDM_CACHE" in notice
    assert ("Not a directory" in notice) == (trouble == "unwritable")
    assert ("60 MB free" in notice) == (trouble == "full")
    execute(wanted, out=tmp_path / "o")
    assert files(tmp_path / "o") == files(whole)
    assert not list(tmp_path.glob("cache/*/*"))


def test_a_link_is_followed_to_where_it_leads(inputs, whole, tmp_path):
    (tmp_path / "big disk" / "o").mkdir(parents=True)
    (tmp_path / "o").symlink_to(tmp_path / "big disk" / "o")
    execute(analysis(inputs), out=tmp_path / "o")
    assert (tmp_path / "o").is_symlink()
    assert files(tmp_path / "big disk" / "o") == files(whole)
    assert sorted(p.name for p in (tmp_path / "big disk").iterdir()) == ["o"]


def test_a_small_disk_that_is_really_full(inputs, whole, tmp_path):
    """On a file system of its own, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and not os.system(
        f"mount -t tmpfs -o size=2m tmpfs '{disk}' 2>/dev/null"
    )
    if not mounted:
        pytest.skip("NO SMALL DISK: a tmpfs cannot be mounted here (needs root)")
    try:
        wanted = analysis(inputs)

        def fill(stage, done, total):
            if stage == "permutations" and done >= 64 and not (disk / "filler").exists():
                with (disk / "filler").open("wb") as file:
                    file.write(bytes(shutil.disk_usage(disk).free))

        with pytest.raises(OutputError, match="No space left on device"):
            execute(wanted, out=disk / "o", progress=fill, chunk=32)
        (disk / "filler").unlink()
        kept = load_null(output.partial_of(disk / "o") / "checkpoint.npz", ("voxel", "tfce"), 200)
        assert kept.done >= 32
        execute(wanted, out=disk / "o")
        assert files(disk / "o") == files(whole)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 300_000))
        with pytest.raises(OutputError, match=r"has 0\.3 MB free and this analysis writes about"):
            execute(analysis(inputs, permutations=300), out=disk / "o")
        assert files(disk / "o") == files(whole)
    finally:
        os.system(f"umount '{disk}'")
