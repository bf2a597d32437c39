"""The checkpoint: what a disk does to it is found, and costs no more than a chunk."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sdm.permute.checkpoint import is_damaged, load_null, remove_null, save_null
from gpu_sdm.permute.null import NullState

BOTH = ("voxel", "tfce")


def state(done: int, statistics=BOTH) -> NullState:
    found = NullState.empty(statistics, 80)
    rng = np.random.default_rng(3)
    values = {s: rng.random((2, 80)).astype(found.maxima[s].dtype) for s in statistics}
    found.add(0, {s: v[:, :done] for s, v in values.items()})
    return found


def same(one: NullState, other: NullState) -> bool:
    return one.done == other.done and all(
        np.array_equal(v[:, : one.done], other.maxima[s][:, : one.done])
        for s, v in one.maxima.items()
    )


def test_what_is_saved_comes_back_or_its_beginning(tmp_path):
    path = tmp_path / "checkpoint.npz"
    assert load_null(path, BOTH, 80).done == 0
    save_null(path, state(50))
    assert same(load_null(path, BOTH, 80), state(50))
    assert load_null(path, BOTH, 3).done == 3
    assert load_null(path, ("voxel",), 80).done == 0
    assert not is_damaged(path, BOTH)
    remove_null(path)
    assert list(tmp_path.iterdir()) == []


def test_each_flipped_byte_is_found_or_changes_no_number(tmp_path):
    path, small = tmp_path / "checkpoint.npz", state(37)
    save_null(path, small)
    content, refused = path.read_bytes(), 0
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        found = load_null(path, BOTH, 80)
        assert found.done == 0 or same(found, small), at
        refused += found.done == 0
    assert refused > len(content) / 2  # the others are dates, attributes and the like


@pytest.mark.parametrize("cut", [0, 50, 400, -30])
def test_a_torn_file_costs_what_came_after_the_save_before_it(tmp_path, cut):
    path = tmp_path / "checkpoint.npz"
    save_null(path, state(32))
    save_null(path, state(64))
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    assert is_damaged(path, BOTH)
    assert same(load_null(path, BOTH, 80), state(32))
    path.unlink()  # killed between the two renames of a save
    assert same(load_null(path, BOTH, 80), state(32))
    save_null(path, state(70))
    assert same(load_null(path, BOTH, 80), state(70))


def test_numbers_under_a_smaller_shape_are_refused(tmp_path):
    """The shape stands there as text, and zip checks only what is read to its end."""
    path, many = tmp_path / "checkpoint.npz", NullState.empty(("voxel",), 7000)
    many.add(0, {"voxel": np.zeros((2, 7000), np.float32)})
    save_null(path, many)
    content = path.read_bytes()
    assert content.count(b"(2, 7000)") == 1
    path.write_bytes(content.replace(b"(2, 7000)", b"(2, 3000)"))  # one bit
    with np.load(path) as stored:
        assert stored["voxel"].shape == (2, 3000)  # numpy takes it
    assert load_null(path, ("voxel",), 7000).done == 0
