"""The commands, the table and the Python of docs/formats.md run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from projects import write_mask, write_project
from scipy import stats

from gpu_sdm.io import read
from gpu_sdm.io.convert import differences

PAGE = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("formats")
    write_project(home / "demo-project", studies=5)
    mask = write_mask(home / "mask.nii.gz", radius=5)
    small = ["--mask", str(mask), "--voxel-size", "4", "--imputations", "2"]
    small += ["--permutations", "20", "--backend", "numpy"]
    for line in re.search(r"```bash\n(.*?)```", PAGE, re.S)[1].splitlines():
        words = shlex.split(line)[1:]
        words += [*small, "--no-report"] if words[0] == "permute" else []
        done = subprocess.run(
            [sys.executable, "-m", "gpu_sdm.cli", *words], cwd=home, capture_output=True,
            text=True, check=False, env=dict(os.environ, NO_COLOR="1"),
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return home


def test_the_demo_comes_back_through_every_format(folder):
    whole = read(folder / "demo-project").studies
    for name in ("demo.csv", "demo.xlsx", "demo.json", "demo-again"):
        assert differences(whole, read(folder / name).studies) == []
    foci = read(folder / "foci.csv")
    assert foci.names == tuple(s.name for s in whole)
    assert not any(s.peaks.known.any() for s in foci.studies)


def test_a_table_is_analysed_like_the_project_it_came_from(folder):
    table = (folder / "demo-output" / "tables" / "peaks.tsv").read_text().splitlines()
    peaks = sum(len(s.peaks) for s in read(folder / "demo-project").studies)
    assert len(table) == peaks + 1
    assert "reported" not in table[0].split("\t")  # all were t
    assert "\tdemo.csv\t" in table[1]


def test_the_table_on_the_page(folder, tmp_path):
    text = re.search(r"```\n(study,.*?)```", PAGE, re.S)[1]
    (tmp_path / "page.csv").write_text(text)
    smith, jones, ray = read(tmp_path / "page.csv").studies
    assert smith.t_threshold == pytest.approx(stats.t.isf(0.001, 19))
    assert smith.peaks.kinds == ("t", "z")
    assert jones.peaks.t.tolist() == [-(12.3**0.5), -3.2]
    assert (ray.n1, len(ray.peaks), ray.covariates["age"]) == (25, 0, 28)


def test_the_python_on_the_page(folder):
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1])),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 {")
    assert len(read(folder / "foci-project").studies) == 5
