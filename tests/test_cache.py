import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gpu_sdm import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_stored_comes_back_bit_for_bit(rng):
    arrays = {"a": rng.random((3, 4), np.float32), "b": np.array([True, False]), "c": np.array(7)}
    assert cache.store("bounds", "k" * 64, **arrays)
    back = cache.load("bounds", "k" * 64)
    assert back is not None
    assert list(back) == ["a", "b", "c"]
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes()


def test_another_kind_or_key_is_absent():
    cache.store("bounds", "aa", x=np.ones(2))
    assert cache.load("bounds", "bb") is None
    assert cache.load("mask", "aa") is None


@pytest.mark.parametrize("kind", ["", "../x", "A", "a/b"])
def test_a_kind_cannot_leave_the_folder(kind):
    with pytest.raises(ValueError, match="lower-case word"):
        cache.load(kind, "aa")


def test_key_depends_on_every_part_and_where_it_ends():
    a = np.arange(6, dtype=np.float32)
    keys = [
        cache.key("ab", "c"),
        cache.key("a", "bc"),
        cache.key("abc"),
        cache.key(b"abc"),
        cache.key(1),
        cache.key(1.0),
        cache.key("1"),
        cache.key(None),
        cache.key(a),
        cache.key(a.reshape(2, 3)),
        cache.key(a.view(np.int32)),
        cache.key(a.astype(np.float64)),
        cache.key(a[::-1]),
    ]
    assert len(set(keys)) == len(keys)
    assert cache.key(a[::2]) == cache.key(np.array([0, 2, 4], np.float32))
    assert all(len(k) == 64 for k in keys)


def test_key_depends_on_the_code_version(monkeypatch):
    before = cache.key("x")
    monkeypatch.setattr(cache, "CODE_VERSION", "another")
    assert cache.key("x") != before


def test_key_refuses_what_it_cannot_hash_by_content():
    with pytest.raises(TypeError, match="object"):
        cache.key(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_file_counts_as_absent_and_goes(folder, damage, rng):
    cache.store("bounds", "aa", x=rng.random(5000))
    path = folder / "bounds" / "aa.npz"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    damaged = {"cut": content[:-100], "flip": content, "empty": b"", "text": b"not a cache file"}
    path.write_bytes(bytes(damaged[damage]))
    assert cache.load("bounds", "aa") is None
    assert not path.exists()
    assert cache.store("bounds", "aa", x=np.ones(1))
    assert cache.load("bounds", "aa") is not None


def test_a_pickle_is_never_loaded(folder):
    (folder / "bounds").mkdir(parents=True)
    np.savez(folder / "bounds" / "aa.npz", x=np.array([{"run": 1}], dtype=object))
    assert cache.load("bounds", "aa") is None


def test_a_full_disk_is_not_fatal_and_leaves_nothing(folder, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert cache.store("bounds", "aa", x=np.ones(3)) is False
    assert list((folder / "bounds").iterdir()) == []


def test_a_failed_rename_leaves_the_old_entry(folder, monkeypatch):
    cache.store("bounds", "aa", x=np.ones(3))

    def refuse(*_args):
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(Path, "replace", refuse)
    assert cache.store("bounds", "aa", x=np.zeros(3)) is False
    assert [p.name for p in (folder / "bounds").iterdir()] == ["aa.npz"]
    back = cache.load("bounds", "aa")
    assert back is not None
    assert back["x"].sum() == 3


def test_a_file_in_the_folders_place_is_not_fatal(folder):
    folder.write_text("")
    assert cache.store("bounds", "aa", x=np.ones(3)) is False
    assert cache.load("bounds", "aa") is None
    assert cache.entries() == []
    assert cache.clear() == 0


def test_entries_and_clear(folder):
    assert cache.entries() == []
    cache.store("bounds", "bb", x=np.ones(1000))
    cache.store("bounds", "aa", x=np.ones(10))
    cache.store("mask", "cc", x=np.ones(10, bool))
    (folder / "mask" / ".cc-left.tmp").write_bytes(b"x" * 50)  # a writer that was killed
    (folder / "note.txt").write_text("not ours")
    found = cache.entries()
    assert [(e.kind, e.key) for e in found] == [("bounds", "aa"), ("bounds", "bb"), ("mask", "cc")]
    assert found[1].size > 8000
    assert cache.clear() == sum(e.size for e in found) + 50
    assert cache.entries() == []
    assert (folder / "note.txt").exists()


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [
        ("linux", "XDG_CACHE_HOME", ("gpu-sdm",)),
        ("win32", "LOCALAPPDATA", ("gpu-sdm",)),
        ("darwin", None, ("Library", "Caches", "gpu-sdm")),
        ("linux", None, (".cache", "gpu-sdm")),
    ],
)
def test_the_folder_is_the_platforms_own(monkeypatch, tmp_path, platform, variable, tail):
    monkeypatch.delenv("GPU_SDM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if variable:
        monkeypatch.setenv(variable, os.fspath(tmp_path))
    assert cache.folder() == tmp_path.joinpath(*tail)
