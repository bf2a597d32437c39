"""Inputs larger than memory: slabs hold the same numbers and give the same bits."""

from __future__ import annotations

import pickle
import shutil
from collections import namedtuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.distribute import memory as plan
from gpu_sdm.distribute.layout import scratch_of
from gpu_sdm.distribute.memory import memory_needed, plan_layout
from gpu_sdm.distribute.scratch import Scratch
from gpu_sdm.distribute.slabs import SlabArray
from gpu_sdm.errors import OutOfMemory, OutputError
from gpu_sdm.output import partial_of
from gpu_sdm.pipeline import execute


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    home = tmp_path_factory.mktemp("slabs")
    project = write_project(home / "project", studies=6, two_sample=2)
    return project, write_mask(home / "mask.nii.gz", radius=14)


def analysis(inputs, **changes):
    mine = {"imputations": 3, "voxel_size": 4, "permutations": 40, "mask": inputs[1]} | changes
    return prepare(gpu_sdm.read(inputs[0]), gpu_sdm.Settings(**mine), get_backend("cpu", 2))


def short(prepared) -> int:
    """One byte less than everything in memory takes."""
    return memory_needed(prepared) - 1


def of_width(monkeypatch, width):
    real = Scratch.__init__
    monkeypatch.setattr(Scratch, "__init__", lambda s, folder, key: real(s, folder, key, width))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 25), st.data())
def test_a_file_of_slabs_is_an_array(tmp_path_factory, v, width, data):
    """Any width, written in any pieces, read by any slice or list of voxels."""
    shape = (2, 3, v)
    wanted = np.random.default_rng(v).standard_normal(shape).astype(np.float32)
    scratch = Scratch(tmp_path_factory.mktemp("f"), "key", width)
    array = scratch.array("a", shape)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, v), max_size=3))), v]
    for a, b in pairwise(edges):
        if a < b:
            array[:, :, a:b] = wanted[:, :, a:b]
    array = pickle.loads(pickle.dumps(array))
    assert array.shape == shape
    assert len(array) == 2
    a, b = sorted(data.draw(st.tuples(st.integers(0, v), st.integers(0, v))))
    assert np.array_equal(array[:, :, a:b], wanted[:, :, a:b])
    some = np.array(data.draw(st.lists(st.integers(0, v - 1), max_size=9)), int)
    assert np.array_equal(array[:, :, some], wanted[:, :, some])
    rows = scratch.rows("r", (2, 3), v)
    for r, part in zip(rows, (wanted[0, :2], wanted[1]), strict=True):
        r[1:] = part[1:]
        r[:1] = part[:1]
    assert np.array_equal(rows[0][:, a:b], wanted[0, :2, a:b])
    assert np.array_equal(rows[1][:, some], wanted[1][:, some])


def test_only_voxels_can_be_chosen(tmp_path):
    array = Scratch(tmp_path, "key").array("a", (2, 3, 8))
    for index in ((0, slice(None), slice(0, 2)), (slice(None), slice(0, 4)), (slice(0, 8, 2),)):
        with pytest.raises(IndexError):
            array[index]
    with pytest.raises(OutputError, match="every worker must see the folder"):
        SlabArray(tmp_path / "gone.f32", (1, 8))[:, 0:2]


@pytest.mark.parametrize("width", [100, 777, 8192, 50_000])
def test_any_width_of_slab_gives_the_bits_of_memory(inputs, tmp_path, monkeypatch, width):
    prepared = analysis(inputs)
    assert prepared.space.n_voxels > 8192
    whole = execute(prepared, out=tmp_path / "memory")
    of_width(monkeypatch, width)
    said = []
    result = execute(prepared, out=tmp_path / "o", memory=short(prepared), say=said.append)
    assert result.provenance["layout"]["slabs"]
    assert "layout" not in whole.provenance
    assert "do not fit the memory" in said[0]
    for name, values in whole.maps.items():
        assert np.array_equal(result.maps[name], values)
    for name, maxima in whole.maxima.items():
        assert np.array_equal(result.maxima[name], maxima)
    for name in ("noise_lag_correlations", "imputation_fallbacks", "noise_infeasible_share"):
        assert result.provenance[name] == whole.provenance[name]
    assert not partial_of(tmp_path / "o").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"covariates": ("age",)},
        {"tau2": "reml", "noise": "gaussian:8", "permutations": 3},
        {"formula": "1 + age", "contrast": ("age",)},
        {"statistic": ("cluster-extent",)},
    ],
    ids=str,
)
def test_every_model_gives_the_bits_of_memory(inputs, tmp_path, monkeypatch, changes):
    prepared = analysis(inputs, **changes)
    of_width(monkeypatch, 1000)
    result = execute(prepared, out=tmp_path / "o", memory=short(prepared))
    assert result.provenance["layout"]["slabs"]
    whole = execute(prepared)
    for name, values in whole.maps.items():
        assert np.array_equal(result.maps[name], values)
    for name, maxima in whole.maxima.items():
        assert np.array_equal(result.maxima[name], maxima)
    assert result.coefficients == whole.coefficients


def test_a_second_start_finds_the_files_and_another_seed_does_not(inputs, tmp_path):
    prepared = analysis(inputs)

    def stop(stage, done, total):
        if stage == "permutations" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepared, out=tmp_path / "o", memory=short(prepared), progress=stop)
    stages, partial = [], partial_of(tmp_path / "o")
    shutil.copytree(partial, partial_of(tmp_path / "other"))
    result = execute(
        prepared,
        out=tmp_path / "o",
        memory=short(prepared),
        progress=lambda stage, *_: stages.append(stage),
    )
    assert set(stages) == {"permutations"}
    assert np.array_equal(result.maps["z"], execute(prepared).maps["z"])
    other = analysis(inputs, seed=1)
    again = execute(other, out=tmp_path / "other", memory=short(other), force=True)
    assert np.array_equal(again.maps["z"], execute(other).maps["z"])


def test_a_disk_without_room_is_refused_before_the_work(inputs, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1_000_000_500))
    prepared, stages = analysis(inputs), []
    layout = plan_layout(prepared, short(prepared))
    with pytest.raises(OutputError, match=r"effects and subject images need 0\.0 GB in"):
        scratch_of(prepared, layout, tmp_path)
    with pytest.raises(OutputError):
        execute(
            prepared,
            out=tmp_path / "o",
            memory=short(prepared),
            progress=lambda stage, *_: stages.append(stage),
        )
    assert not stages


def test_the_plan_keeps_to_the_memory(inputs, monkeypatch):
    """Threads and tiles shrink with the budget, what is needed never exceeds it."""
    prepared = analysis(inputs)
    for budget in range(short(prepared), short(prepared) - 60_000_000, -500_000):
        if plan._working(prepared, 1, 1) > budget:
            with pytest.raises(OutOfMemory, match="even with effects and subject images on disk"):
                plan_layout(prepared, budget)
            break
        layout = plan_layout(prepared, budget)
        assert layout.slabs
        assert layout.memory <= budget
        assert layout.disk == plan.large_bytes(prepared)
        assert layout.threads >= 1
        assert layout.tiles >= 1
    else:
        pytest.fail("no budget was too small")
    assert not plan_layout(prepared, short(prepared) + 1).slabs
    assert plan_layout(prepared, 3 * short(prepared), processes=3).slabs
