"""What commands print: tables that fit, names as they are, words that can be pasted."""

from __future__ import annotations

import shlex

import pytest
from command_line import invoke
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.commands import _on_result as shared
from gpu_sdm.errors import GpuSdmError, InputError, SettingError
from gpu_sdm.findings.models import open_source
from gpu_sdm.finished import Finished
from gpu_sdm.spaces import Space, voxel_at
from gpu_sdm.templates import default_mask

NAN = float("nan")
ROWS = [
    {"study": "Smith[2010]", "g": 0.51234, "p": 3.2e-14, "low": -1.0, "high": 2.0},
    {"study": "Jones", "g": NAN, "p": None, "low": NAN, "high": 1.0},
]
COLUMNS = {
    "study<": shared.text("study"),
    "g [Hedges]": shared.number("g", 3),
    "p": shared.small("p"),
    "95 %": shared.interval("low", "high"),
    "nothing<": lambda row: "",
    "<": lambda row: "",
}


def test_brackets_are_printed_and_nan_is_a_dash(capsys):
    shared.show_table("[bold]files[x]", COLUMNS, ROWS, ["[a note]"])
    said = capsys.readouterr().err
    for text in ("[bold]files[x]", "Smith[2010]", "g [Hedges]", "[a note]", "3.2e-14"):
        assert text in said
    assert said.splitlines()[-3].split() == ["Jones", "-", "-", "-"]


def test_what_is_too_wide_goes_below_with_the_first_column(capsys, monkeypatch):
    monkeypatch.setattr(shared, "WIDE", 41)
    shared.show_table("title", COLUMNS, ROWS)
    lines = capsys.readouterr().err.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 41
    heads = [line.split() for line in lines if line.strip().startswith("study")]
    assert heads == [["study", "g", "[Hedges]", "p"], ["study", "95", "%", "nothing"]]
    assert sum("Jones" in line for line in lines) == 2
    assert any("3.2e-14" in line for line in lines)  # numbers are never folded


def test_a_printed_command_can_be_pasted():
    words = shlex.split(shared.command("report", "my results/[1]; rm", 0.5))
    assert words == ["gpu-sdm", "report", "my results/[1]; rm", "0.5"]


@pytest.mark.parametrize("text", ["nan,0,0", "0,inf,0", "1_0,2,3", "0,0", "0,0,0,0", "a,b,c"])
def test_points_are_three_finite_numbers(text):
    with pytest.raises(SettingError, match=r"--at is .*; give three numbers with commas"):
        shared.point(text)


def test_a_point_that_is_no_number_lies_in_no_voxel():
    with pytest.raises(SettingError, match="lies outside the mask"):
        voxel_at(Space(4, default_mask(4)), (float("nan"), 0, 0))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    home = tmp_path_factory.mktemp("tables")
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=10, imputations=2
    )
    project = write_project(home / "project", 5)
    gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return home / "out"


@pytest.mark.parametrize("command", ["heterogeneity", "bias", "extract", "grade"])
def test_places_are_refused_before_the_analysis_is_made_again(out, command, monkeypatch):
    def made(*_, **__):
        raise AssertionError("the analysis was made again")

    monkeypatch.setattr(Finished, "analysis", made)
    done = invoke(command, out, "--at", "0,0,900")
    assert isinstance(done.exception, GpuSdmError)
    assert "lies outside the mask" in str(done.exception)
    assert not (out / command).exists()


def test_a_model_of_a_result_says_that_its_project_is_gone(out, tmp_path):
    source = open_source(out)
    project = out.parent / "project"
    project.rename(tmp_path / "away")
    try:
        for compat in (False, True):
            with pytest.raises(InputError, match="no longer there; put the project back"):
                source.dataset(compat)
    finally:
        (tmp_path / "away").rename(project)
