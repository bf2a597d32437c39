"""A finished result is opened again with everything that made it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.errors import CheckpointMismatch, InputError
from gpu_sdm.finished import open_result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("finished")
    project = write_project(home / "project", studies=5)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=8, imputations=2
    )
    result = gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return home, project, result


def test_maps_null_and_settings_come_back(made):
    home, _, result = made
    finished = open_result(home / "out")
    assert finished.space.digest() == result.space.digest()
    assert np.array_equal(finished.map("z"), result.maps["z"])
    for statistic, values in result.maxima.items():
        assert np.array_equal(finished.maxima()[statistic], values)
    same = replace(finished.settings, mask=result.settings.mask)
    assert same == result.settings
    assert finished.has("tfce")
    assert not finished.has("nothing")
    with pytest.raises(InputError, match="no map 'nothing'; it has: g, h2"):
        finished.map("nothing")


def test_the_analysis_behind_it_is_prepared_again(made):
    home, _, result = made
    again = open_result(home / "out").analysis(gpu_sdm.get_backend("cpu"))
    assert again.content() == result.provenance["content"]
    assert again.design.dataset.names == tuple(row["study"] for row in result.studies)


def test_another_project_or_none_is_refused(made):
    home, project, _ = made
    finished = open_result(home / "out")
    file = sorted(project.glob("*_mni.txt"))[0]
    text = file.read_text()
    try:
        file.write_text(text + "0 0 0 5\n")
        with pytest.raises(CheckpointMismatch, match=f"input {file.name} is changed"):
            finished.analysis(gpu_sdm.get_backend("cpu"))
    finally:
        file.write_text(text)
    run = dict(finished.run, project=str(home / "gone"))
    with pytest.raises(InputError, match="no longer there"):
        replace(finished, run=run).dataset()


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a finished gpu-sdm result"):
        open_result(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"program": "other"}))
    with pytest.raises(InputError, match="not a finished gpu-sdm result"):
        open_result(tmp_path)
