"""Peak heights: every digit of SDM-PSI's preprocessing report."""

from __future__ import annotations

import re

import numpy as np
import pytest
from projects import write_project
from scipy.special import gammaln

import gpu_sdm
from gpu_sdm.findings.peak_heights import peak_heights, study_height
from gpu_sdm.ops.pool import random_effects

NUMBER = r"\s+(-?[\d.]+)"


@pytest.fixture(scope="module")
def groups(enge2021):
    return {(g.threshold, g.side): g for g in peak_heights(gpu_sdm.read(enge2021 / "project"))}


@pytest.fixture(scope="module")
def report(enge2021):
    """(threshold, side) -> text of that table."""
    text = re.sub("<[^>]*>", " ", (enge2021 / "pp/pp.htm").read_text().replace("&#964;", "tau"))
    found = {}
    for part in text.split("Peak height meta-analysis for ")[1:]:
        positive, negative = part.split("B) Negative peaks")[:2]
        name = part.split("'")[1]
        found[name, "positive"] = positive
        found[name, "negative"] = negative.split("Warnings")[0]
    return found


def printed(text, name):
    found = re.search(re.escape(name) + NUMBER * 6 + r"\s", text)
    return None if found is None else np.array([float(v) for v in found.groups()])


def test_the_report_is_reproduced(groups, report):
    assert set(groups) == {
        ("uncorrected", "positive"), ("uncorrected", "negative"), ("corrected", "positive"),
    }  # fmt: skip
    assert "No studies report t values" in report["corrected", "negative"]
    assert [len(groups[key].studies) for key in sorted(groups)] == [14, 2, 24]
    differ = []
    for key, group in groups.items():
        for row in group.rows():
            theirs = printed(report[key], "Mean" if row["role"] == "mean" else row["study"])
            ours = np.array([row[c] for c in ("g", "se", "z", "p", "ci_low", "ci_high")])
            if np.abs(ours - theirs).max() > 7e-4:
                differ.append(row["study"])
        tau2 = float(re.search(r"tau = ([\d.]+)", report[key])[1])
        assert group.tau2 == pytest.approx(tau2, abs=5e-4)
    # Their log gamma is in single precision: see the next test.
    assert differ == ["krishnan2021", "mean"]
    group = groups["uncorrected", "positive"]
    assert group.mean == pytest.approx(1.815, abs=6e-4)
    assert group.se == pytest.approx(0.183, abs=5e-4)
    assert group.q == pytest.approx(117.983, abs=0.06)
    assert groups["corrected", "positive"].q == pytest.approx(53.205, abs=1e-3)


def test_single_precision_explains_the_rest(groups, report):
    """n = 67: J follows from the difference of two logs of 80."""
    group = groups["uncorrected", "positive"]
    at = group.studies.index("krishnan2021")
    log = np.float32(gammaln(33.0)) - np.float32(gammaln(32.5))
    j = float(np.exp(log) / np.sqrt(np.float32(33)))
    exact = float(np.exp(gammaln(33.0) - gammaln(32.5)) / np.sqrt(33))
    y, v = group.g.copy(), group.variance.copy()
    y[at] *= j / exact
    v[at] = 1 / 67 + (1 - 64 / (66 * j**2)) * y[at] ** 2
    theirs = printed(report["uncorrected", "positive"], "krishnan2021")
    assert theirs[2] == 10.781
    assert y[at] / np.sqrt(v[at]) == pytest.approx(10.781, abs=5e-4)
    fit = random_effects(y[:, None], v[:, None], np.ones((24, 1)), np.ones(1), "reml")
    assert float(fit[3][0]) == pytest.approx(117.983, abs=1e-3)
    assert float(fit[0][0] / np.sqrt(fit[1][0])) == pytest.approx(9.946, abs=6e-4)


def test_height_is_g_of_the_mean_t_of_known_peaks(enge2021):
    studies = {s.name: s for s in gpu_sdm.read(enge2021 / "project").studies}
    lee = studies["lee2016"]  # one of its six peaks has no height
    assert (~lee.peaks.known).sum() == 1
    g, variance = study_height(lee, 1.0)
    assert (round(g, 3), round(variance**0.5, 3)) == (1.366, 0.260)
    assert study_height(lee, -1.0) is None
    assert study_height(studies["scherf2010"], 1.0) is None  # no height at all


def test_groups_without_a_kind_and_of_one_study(tmp_path):
    project = write_project(tmp_path / "project", 3, two_sample=1)
    for k, row in ((0, "0 0 0 -4\n"), (1, "0 0 0 p\n"), (2, "0 0 0 5\n")):
        (project / f"study{k:02d}.spm_mni.txt").write_text(row)
    one, other = peak_heights(gpu_sdm.read(project))
    assert (one.threshold, one.side, one.studies) == ("not given", "positive", ("study02",))
    assert (other.side, other.studies) == ("negative", ("study00",))
    for group in (one, other):
        study, mean = group.rows()
        assert (mean["g"], mean["se"], mean["p_q"]) == (study["g"], study["se"], 1.0)
    assert one.mean > 0 > other.mean
