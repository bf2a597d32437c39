"""Grades of evidence: the published criteria, one by one, and on a small result."""

from __future__ import annotations

import csv
import json
import sys

import metafor_reference as metafor
import numpy as np
import pytest
from projects import write_mask, write_project
from scipy import stats
from small_results import MIDDLE, known_result

import gpu_sdm
from gpu_sdm.cli import main
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.grade import CLASSES, grade, grade_one, largest_study
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.sites import Site
from gpu_sdm.finished import open_result
from gpu_sdm.stages.effects import hedges_g

BEST = {
    "cases": 1001, "p": 9e-7, "i2": 49.9, "interval": (0.01, 0.5), "egger_p": 0.11,
    "excess_p": 0.11, "largest": (0.1, 0.3),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected", "lacking"),
    [
        ({}, "I", []),
        ({"interval": (-0.5, -0.01)}, "I", []),
        ({"i2": 50.0}, "II", ["I2 = 50 %"]),
        ({"interval": (-0.01, 0.5)}, "II", ["prediction interval includes 0"]),
        ({"egger_p": 0.1}, "II", ["small-study effect p = 0.1"]),
        ({"egger_p": None}, "II", ["small-study effect not testable"]),
        ({"excess_p": 0.02}, "II", ["excess significance p = 0.02"]),
        ({"excess_p": None}, "II", ["excess significance not testable"]),
        ({"i2": 80, "largest": (-0.1, 0.3)}, "III", ["largest study includes 0"]),
        ({"p": 1e-6}, "III", ["p = 1e-06"]),
        ({"p": 1e-3}, "IV", ["p = 0.001"]),
        ({"cases": 1000}, "IV", ["1000 cases"]),
        ({"cases": 500, "p": 0.0499}, "IV", ["500 cases", "p = 0.05"]),
        ({"p": 0.05}, "NS", ["p = 0.05"]),
        ({"p": 0.3, "cases": 12}, "NS", ["p = 0.3"]),
    ],
)
def test_criteria(changes, expected, lacking):
    assert grade_one(**(BEST | changes)) == (expected, lacking)


def test_grade_of_a_known_analysis(tmp_path):
    """Effects known everywhere: all that goes into the grade is a direct calculation."""
    at = site_effects(known_result(tmp_path, "dl"), MIDDLE)
    row = grade(at)[0]
    n = np.array(metafor.N)
    g, v = hedges_g(np.array(metafor.T), n)[0], at.variances[0, :, 0]
    assert row["cases"] == n.sum()
    assert row["studies"] == len(n)
    assert row["p_two_sided"] == pytest.approx(2 * stats.norm.sf(abs(row["z"])))
    k = int(n.argmax())
    half = stats.norm.ppf(0.975) * np.sqrt(v[k])
    assert row["largest_study"] == at.names[k]
    assert row["largest_low"] == pytest.approx(g[k] - half, abs=1e-6)
    assert row["largest_high"] == pytest.approx(g[k] + half, abs=1e-6)
    assert row["class"] in ("IV", "NS")  # fewer than 1000 subjects
    assert row["evidence"] == CLASSES[row["class"]]


def test_interval_of_the_largest_study_is_wider_where_it_is_imputed(tmp_path):
    home = write_project(tmp_path / "p", 6)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(tmp_path / "mask.nii.gz", radius=4), permutations=4,
        imputations=4, statistic=("voxel",),
    )  # fmt: skip
    result = tmp_path / "out"
    gpu_sdm.run(gpu_sdm.read(home), settings, out=result, backend="cpu")
    analysis = open_result(result).analysis(gpu_sdm.get_backend("cpu"))
    point = Site("point", "point", np.array([0]), (0.0, 0.0, 0.0))
    at = site_effects(analysis, [point])
    name, low, high = largest_study(at)
    k = at.names.index(name)
    y, v = at.effects[:, k, 0], at.variances[:, k, 0]
    assert (at.terms.n1 + at.terms.n2)[k] == (at.terms.n1 + at.terms.n2).max()
    total = v.mean() + 1.25 * y.var(ddof=1)
    assert y.var() > 0
    assert (high - low)[0] == pytest.approx(2 * stats.norm.ppf(0.975) * np.sqrt(total))
    # Six studies: what Egger does not find is no proof.
    assert grade(at)[0]["egger_p"] is None
    region = Site("region", "region", np.array([0, 1]), (np.nan,) * 3)
    with pytest.raises(SettingError, match="not over several voxels"):
        grade(site_effects(analysis, [region]))


def test_command(tmp_path, monkeypatch, capsys):
    known_result(tmp_path, "dl")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gpu-sdm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        done = capsys.readouterr()
        assert not ended.value.code, done.err
        return done

    out = tmp_path / "out"
    done = call("grade", out, "--at", "0,-20,16", "--backend", "cpu", "--json")
    row = json.loads(done.out)["sites"][0]
    assert row["kind"] == "point"
    with (out / "grade" / "grade.tsv").open(newline="") as lines:
        written = list(csv.DictReader(lines, delimiter="\t"))
    assert written[0]["class"] == row["class"]
    assert written[0]["lacking"] == "; ".join(row["lacking"])
    assert "for the next class" in done.err
