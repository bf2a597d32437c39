"""`gpu-sdm threshold` as a user meets it, and its page."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from thresholds import HALVES, table, two_sided_result

from gpu_sdm.cli import main
from gpu_sdm.findings.maps import MAPS


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return two_sided_result(tmp_path_factory.mktemp("threshold"))


@pytest.fixture
def command(monkeypatch, capfd):
    """Run `gpu-sdm threshold`; give its exit code, stdout and stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpu-sdm", "threshold", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capfd.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


def test_the_command_prints_the_folder_last(command, ours, tmp_path):
    out, _ = ours
    image = tmp_path / "halves.nii.gz"
    nibabel.save(nibabel.Nifti1Image(HALVES.volume.astype(np.int16), HALVES.affine), image)
    (tmp_path / "halves.csv").write_text("index,name\n1,Left_half\n2,Right_half\n")
    args = (out, "--map", "fwe-voxel", "--atlas", image, "--out", tmp_path / "t")
    code, printed, said = command(*args, "--json")
    assert code == 0, said
    tables = json.loads(printed)
    assert tables["folder"] == str(tmp_path / "t")
    assert tables["clusters"][0]["label"].endswith("_half")
    assert "fwe-voxel-0.05-k10" in said
    assert "each side at its own alpha" in said
    code, printed, said = command(*args)
    assert printed.splitlines()[-1] == str(tmp_path / "t")
    assert f"{tables['clusters'][0]['sdm_z']:.2f}" in said
    code, printed, said = command("--list-atlases")
    assert printed.split() == ["AAL2", "Harvard-Oxford", "Juelich", "Brodmann"]
    assert "non-commercial" in said


def test_the_command_fails_in_one_sentence(command, ours, tmp_path):
    out, _ = ours
    for args, message in (
        ((tmp_path / "no",), "there is no such folder"),
        ((out, "--map", "fwe-extent"), "run gpu-sdm permute with that --statistic"),
        ((out, "--atlas", "Talairach"), "There is no atlas 'Talairach'"),
        ((out, "--p", "2"), "p is 2.0; it must lie in (0, 1]"),
    ):
        code, printed, said = command(*args, "--out", tmp_path / "t")
        assert (code, printed) == (1, "")
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert message in said
    assert not (tmp_path / "t").exists()


def test_the_page_names_options_and_files_that_exist(command):
    page = (Path(__file__).parents[1] / "docs" / "threshold.md").read_text(encoding="utf-8")
    code, printed, _ = command("--help")
    assert code == 0
    assert set(re.findall(r"`(--[a-z-]+)", page)) - {"--statistic"} <= set(
        re.findall(r"--[a-z-]+", printed)
    )
    for name in MAPS:
        assert f"`{name}`" in page


def test_the_python_of_the_page_runs(ours, capsys):
    page = (Path(__file__).parents[1] / "docs" / "threshold.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.S)[1]
    exec(code.replace('"demo-output"', repr(str(ours[0]))), {})
    lines = capsys.readouterr().out.splitlines()
    folder = Path(lines[-1])
    assert folder.name == "uncorrected-0.0025-k10-z1"
    assert len(lines) == len(table(folder / "clusters.tsv")) + 1 > 1
    assert "pain > baseline" in (folder / "table3.csv").read_text(encoding="utf-8")
