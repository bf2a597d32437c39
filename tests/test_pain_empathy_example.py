"""The worked example: its simulation is reproduced, and every step of run.sh finds the truth.

The run itself takes over a minute: `make test-slow`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpu_sdm.coordinates import from_mni
from gpu_sdm.io import read
from gpu_sdm.spaces import Space
from gpu_sdm.templates import default_mask

EXAMPLE = Path(__file__).parents[1] / "examples" / "pain_empathy"
PROJECT = EXAMPLE / "project_simulated"
XU = "Xu2020_simulated"


@pytest.fixture(scope="module")
def scripts():
    """The example's own modules, simulate and planted."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import planted
        import simulate

        yield simulate, planted
    finally:
        sys.path.remove(str(EXAMPLE))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """OUT of the commands of docs/example.md (run.sh --small), and what was said."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("BASH ABSENT: the worked example is a shell script")
    home = tmp_path_factory.mktemp("example")
    (home / "examples").symlink_to(EXAMPLE.parent)
    page = (EXAMPLE.parents[1] / "docs" / "example.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```bash\n(.*?)```", page, re.S)
    environment = {k: v for k, v in os.environ.items() if k != "GPU_SDM_DATABASE"}
    environment["GPU_SDM"] = f"{sys.executable} -m gpu_sdm.cli"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-euo", "pipefail", "-c", commands],
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = home / "out-small"
    assert done.stdout.count("\n| ") == 6, done.stdout  # planted.py: heading, rule, four rows
    return out, done.stderr


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_script_makes_the_committed_peaks_and_table(scripts, tmp_path):
    simulate, _ = scripts
    space = Space(2, default_mask(2))
    studies = simulate.read_studies()
    made = [simulate.table_row(s) for s in studies]
    assert rows(PROJECT / "sdm_table.txt") == made
    one = next(s for s in studies if s["study"] == "Fujino2014")  # the smallest, in Talairach
    path = simulate.write_study(
        tmp_path, one, simulate.report(one, simulate.t_map(one, space), space)
    )
    assert path.name == "Fujino2014_simulated.other_tal.txt"
    assert path.read_text() == (PROJECT / path.name).read_text()


def test_the_planted_truth_is_the_papers_in_place_and_sign(scripts):
    simulate, _ = scripts
    space = Space(2, default_mask(2))
    truth = simulate.planted(space)
    mm = space.mm()
    for centre, g in simulate.TRUTH.items():
        near = np.linalg.norm(mm - centre, axis=1)
        assert truth[near.argmin()] == pytest.approx(g, abs=0.03)
    assert [np.sign(g) for g in simulate.TRUTH.values()] == [1, 1, -1, -1]


def test_studies_report_at_their_own_threshold_and_directions_and_say_simulated(scripts):
    simulate, _ = scripts
    dataset = read(PROJECT)
    assert len(dataset.studies) == 11
    assert sum(len(s.peaks) for s in dataset.studies) == 149
    assert not {"peak_below_threshold", "duplicate_peak"} & {n.kind for n in dataset.notices}
    for row, study in zip(simulate.read_studies(), dataset.studies, strict=True):
        assert study.name == row["study"] + "_simulated"
        assert study.labels["peaks_are"] == "SIMULATED"
        assert set(np.sign(study.peaks.t)) <= set(simulate.SIGNS[row["directions"]])
        assert (np.abs(study.peaks.t) >= study.t_threshold - 0.005).all()
        place = from_mni(study.peaks.xyz_mm, study.peaks.space)
        assert np.allclose(place, study.peaks.xyz_reported)


@pytest.mark.slow
def test_every_planted_difference_comes_back_with_its_sign(scripts, ran):
    _, planted = scripts
    out, _ = ran
    for row in planted.found(out):
        assert row["cluster"], row
        assert float(row["mm away"]) <= 12
        assert np.sign(float(row["Hedges g"])) == np.sign(float(row["planted g"]))
        assert abs(float(row["SDM-Z"])) > 2.807  # p < .0025
        assert 0 <= float(row["Egger p"]) <= 1
    paper = rows(out / "main" / "thresholds" / "paper" / "clusters.tsv")
    assert {r["side"] for r in paper} == {"positive", "negative"}
    table3 = (out / "main" / "thresholds" / "paper" / "table3.csv").read_text("utf-8-sig")
    assert "patients > controls" in table3
    assert "patients < controls" in table3


@pytest.mark.slow
def test_effects_at_the_planted_places_have_the_right_sign(scripts, ran):
    simulate, _ = scripts
    out, _ = ran
    for name, table in (("heterogeneity", "heterogeneity.tsv"), ("bias", "bias.tsv")):
        found = rows(out / "main" / name / table)
        for centre, g in simulate.TRUTH.items():
            points = [r for r in found if r["kind"] == "point"]
            at = [[float(r[c]) for c in ("x_mm", "y_mm", "z_mm")] for r in points]
            near = np.linalg.norm(np.array(at) - centre, axis=1)
            assert near.min() < 4
            assert np.sign(float(points[near.argmin()]["g"])) == np.sign(g)


@pytest.mark.slow
def test_the_study_without_age_leaves_the_age_models_by_name(ran):
    out, said = ran
    count = {}
    for name in ("main", "slope_age", "slope_female_percent", "slope_treated"):
        run = json.loads((out / name / "run.json").read_text())
        count[name] = run["studies"]
    assert count == {"main": 10, "slope_age": 10, "slope_female_percent": 11, "slope_treated": 11}
    assert f"study '{XU}' has no value of 'age'; it leaves this model." in said
    listed = rows(out / "main" / "tables" / "studies.tsv")
    assert [r["study"] for r in listed if r["in_model"] == "false"] == [XU]


@pytest.mark.slow
def test_every_step_leaves_its_files_and_skips_are_loud(ran):
    out, said = ran
    for path in (
        "studies/samples.tex",
        "prisma_made_up.png",
        "main/thresholds/fwe-tfce-0.05-k10/clusters.tsv",
        "main/extract/extract.tsv",
        "main/grade/grade.tsv",
        "main/jackknife",
        "main/figures",
        "main/report.html",
    ):
        assert (out / path).exists(), path
    assert "SKIPPED: decode needs a database" in said
    assert "every peak of this analysis is SIMULATED" in said
    assert "imulated" in (out / "main" / "report.html").read_text()
