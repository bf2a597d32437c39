"""The README's commands and Python are run, not just shown."""

from __future__ import annotations

import csv
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from projects import write_project

HOME = Path(__file__).parents[1]
README = (HOME / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if importlib.util.find_spec("nimare") is None:
        pytest.skip("NIMARE WHEEL ABSENT: pip install --no-deps nimare==0.22.1")
    home = tmp_path_factory.mktemp("readme")
    done = subprocess.run(
        [sys.executable, HOME / "examples" / "pain21_project.py", "demo-project"],
        cwd=home, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "21 pain studies, 267 peaks of unknown height; thresholds are ASSUMED" in done.stdout
    return home


def test_python_example_prints_what_is_shown(folder):
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    shown = re.search(r"```text\n(21 studies.*?)```", README, re.S)[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == shown.splitlines()[0]
    # Another processor may round differently: places within a voxel, z within .02.
    for ours, theirs in zip(done.stdout.splitlines()[1:4], shown.splitlines()[1:4], strict=True):
        mine, wanted = (list(map(float, line.split()[:4])) for line in (ours, theirs))
        assert mine == pytest.approx(wanted, abs=4.1)
        assert mine[3] == pytest.approx(wanted[3], abs=0.02)


def test_commands_exist():
    made = (HOME / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", made, re.M), target
    done = subprocess.run(
        [sys.executable, "-m", "gpu_sdm.cli", "permute", "--help"],
        capture_output=True, text=True, check=True, env={"COLUMNS": "120", "PATH": ""},
    )  # fmt: skip
    for option in set(re.findall(r"`(--[a-z-]+)", README)):
        assert option in done.stdout, option


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (HOME / target).exists(), target


def test_the_commands_after_the_main_analysis_run(tmp_path):
    project = write_project(tmp_path / "PROJECT", studies=6)
    run = [sys.executable, "-m", "gpu_sdm.cli"]
    small = ["--voxel-size", "4", "--imputations", "3", "--permutations", "20"]
    begin = [*run, "permute", str(project), "--out", "OUT", *small, "--no-report"]
    subprocess.run(begin, cwd=tmp_path, capture_output=True, check=True)
    block = re.search(r"## After the main analysis.*?```bash\n(.*?)```", README, re.S)[1]
    lines = [line.split("  #")[0].strip() for line in block.splitlines()]
    assert len(lines) == 14
    for line in lines:
        words = shlex.split(line.replace("OUT1", "OUT").replace("OUT2", "AGE"))
        words += ["--no-report"] if words[1] == "model" else []  # `report` is a line of its own
        assert words[0] == "gpu-sdm"
        done = subprocess.run(
            [*run, *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"
        assert done.stdout.strip(), line
    tables = [*tmp_path.glob("OUT/**/*.[tc]sv"), *tmp_path.glob("AGE/**/*.[tc]sv")]
    assert len(tables) > 15
    for table in tables:
        separator = "\t" if table.suffix == ".tsv" else ","
        with table.open(newline="", encoding="utf-8") as lines:
            header, *rows = csv.reader(lines, delimiter=separator)
        # A spreadsheet opens it: a name to every column, a cell in every column.
        assert all(header), table
        assert len(set(header)) == len(header), table
        assert {len(row) for row in rows} <= {len(header)}, table
