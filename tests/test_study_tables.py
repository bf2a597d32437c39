"""Study tables and group comparisons against the paper's Table 1 and scipy."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from gpu_sdm.cli import app
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.findings.group_comparisons import compare_groups
from gpu_sdm.findings.prisma import STUDIES, read_flow
from gpu_sdm.findings.study_columns import Column, Columns, understood
from gpu_sdm.findings.study_tables import study_tables, to_latex
from gpu_sdm.io import read_all

PAPER = Path(__file__).parents[1] / "examples" / "pain_empathy" / "project_simulated"
# He et al., Table 1: mean ages and SDs as printed; Xu 2020 gives neither.
AGES = np.array(
    [(34.6, 35), (17, 17), (18.4, 19.3), (37.2, 32.3), (26.2, 26.8), (23.5, 22.5), (48.2, 46.5),
     (20.2, 20.4), (27.34, 27.41), (29.7, 29.2)]
)  # fmt: skip
SDS = np.array(
    [(13.3, 12.8), (2.8, 3.4), (9.5, 10.5), (6.4, 7.8), (8.7, 7.5), (10.4, 7.1), (1, 0.94),
     (1.35, 1.3), (8.6, 7.9)]
)  # fmt: skip
N1 = np.array([18, 30, 24, 11, 15, 36, 21, 16, 61, 27, 37])
N2 = np.array([18, 8, 21, 11, 14, 31, 21, 14, 35, 21, 35])


def write(folder: Path, header: str, *rows: str) -> Path:
    """A project of two-sample studies s0, s1, ... without findings."""
    folder.mkdir()
    lines = [f"study\tn1\tn2\tt_thr\t{header}"]
    for k, row in enumerate(rows):
        lines.append(f"s{k}\t{20 + k}\t{30 - k}\t3.2\t{row}")
        (folder / f"s{k}.no_peaks.txt").write_text("")
    (folder / "sdm_table.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def paper():
    return read_all(PAPER).studies


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("age", Column("age")),
        ("Mean age (years)", Column("age")),
        ("age_patients", Column("age", "patients")),
        ("ageControls", Column("age", "controls")),
        ("age_g2", Column("age", "controls")),
        ("age2", None),  # of li2024: the square of age
        ("age_n1", Column("age", "patients")),
        ("sd_age_hc", Column("age", "controls", "sd")),
        ("female %", Column("female", "", "percent")),
        ("n_female_pat", Column("female", "patients", "count")),
        ("Males (controls)", Column("male", "controls")),
        ("medicated_percent", Column("treated", "", "percent")),
        ("reported_threshold", Column("threshold")),
        ("p_thr", Column("threshold", "", "p")),
        ("Task", Column("paradigm")),
        ("age_of_onset", None),
        ("space_patients", None),
        ("treatment_duration", None),
        ("sd", None),
        ("%", None),
    ],
)
def test_columns_are_told_from_their_names(name, column):
    assert understood(name) == column


def test_the_second_of_two_columns_that_say_the_same_is_an_unknown_one(tmp_path):
    studies = read_all(write(tmp_path / "p", "treated\tmedication\tbirds", "1\t2\t3", "4\t5\t6"))
    columns = Columns.of(studies.studies)
    assert columns.name("treated") == "treated"
    assert columns.unknown == ("medication", "birds")


def test_table_1_is_the_papers(paper):
    samples, methods = study_tables(paper)
    assert (samples.name, methods.name) == ("samples", "methods")
    rows = {r["Study"].removesuffix("_simulated"): r for r in samples.rows}
    assert list(rows["Fujino2014"].values())[1:] == [
        "MDD", "11", "11", "37.2 (9.5)", "32.3 (10.5)", "77 %", "Y",
    ]  # fmt: skip
    assert rows["Moriguchi2007"]["Age controls (SD)"] == "20.4 (0.94)"
    assert rows["Decety2009"]["Age patients (SD)"] == "17"
    assert rows["Xu2020"]["Age patients (SD)"] == "NA"
    assert rows["Vistoli2017"]["Treated"] == "N"
    by_name = {r["Study"].removesuffix("_simulated"): r for r in methods.rows}
    assert by_name["Fujino2014"]["Space"] == "Talairach"
    assert by_name["Gu2015"]["Threshold"] == "p<.05 uncorrected"
    assert by_name["Xu2020"] | {"Peaks": ""} == {
        "Study": "Xu2020_simulated", "Threshold": "p<.05 corrected", "Correction": "corrected",
        "Space": "MNI", "Directions": "HC>P", "Peaks": "",
    }  # fmt: skip
    assert sum(int(r["Peaks"]) for r in methods.rows) == sum(len(s.peaks) for s in paper)


def test_totals_are_the_papers(paper):
    patients, controls, everyone = compare_groups(paper).totals
    assert (patients["subjects"], controls["subjects"]) == (296, 229)  # as the paper says
    assert (patients["studies"], patients["age_studies"]) == (11, 10)
    assert patients["age_mean"] == pytest.approx((AGES[:, 0] * N1[:10]).sum() / N1[:10].sum())
    assert controls["age_mean"] == pytest.approx((AGES[:, 1] * N2[:10]).sum() / N2[:10].sum())
    share = np.array([0, 0, 0, 0.77, 0, 0.08, 0.31, 0.83, 0.70, 0.17, 0])
    assert everyone["female"] == int(np.round(share * (N1 + N2)).sum())
    assert math.isnan(patients["female_percent"])
    assert patients["female"] is None


@pytest.mark.parametrize(("quantity", "values"), [("mean age", AGES), ("SD of age", SDS)])
def test_t_tests_of_ages_are_scipys_and_the_textbooks(paper, quantity, values):
    rows = {r["test"]: r for r in compare_groups(paper).tests if r["quantity"] == quantity}
    a, b = values.T
    k = len(a)
    assert rows["Student's t"]["studies"] == k
    assert "Xu2020" in rows["Student's t"]["left_out"]
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / k)  # groups of equal size
    t = (a.mean() - b.mean()) / pooled
    for name, df in (("Student's t", 2 * k - 2), ("Welch's t", None)):
        assert rows[name]["statistic"] == pytest.approx(t)
        if df:
            assert rows[name]["df"] == df
            assert rows[name]["p"] == pytest.approx(2 * stats.t.sf(abs(t), df))
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert rows["Welch's t"]["p"] == pytest.approx(welch.pvalue)
    assert rows["Welch's t"]["df"] < 2 * k - 2
    d = a - b
    paired = d.mean() / (d.std(ddof=1) / math.sqrt(k))
    assert rows["paired t"]["statistic"] == pytest.approx(paired)
    assert rows["paired t"]["p"] == pytest.approx(2 * stats.t.sf(abs(paired), k - 1))


def test_without_sex_by_group_it_says_what_is_missing(paper):
    found = compare_groups(paper)
    assert not [r for r in found.tests if r["quantity"] == "women and men"]
    assert any("female_patients" in note for note in found.notes)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("female_patients\tfemale_controls", ("50\t10", "100\t0", "NA\t50")),
        ("female_share_patients\tfemale_share_controls", ("0.5\t0.1", "1\t0", "0.2\tNA")),
        ("n_female_pat\tn_female_hc", ("10\t3", "21\t0", "NA\tNA")),
        ("male_percent_cases\tmale_percent_controls", ("50\t90", "0\t100", "NA\t7")),
    ],
)
def test_chi_square_of_sex_counts_women_however_they_are_given(tmp_path, header, rows):
    found = compare_groups(read_all(write(tmp_path / "p", header, *rows)).studies)
    plain, yates = (r for r in found.tests if r["quantity"] == "women and men")
    table = np.array([[31, 10], [3, 56]])  # women, men of 20 + 21 patients, 30 + 29 controls
    (a, b), (c, d) = table
    n = table.sum()
    chi2 = n * (a * d - b * c) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    assert plain["statistic"] == pytest.approx(chi2)
    assert plain["p"] == pytest.approx(stats.chi2.sf(chi2, 1))
    assert yates["p"] == pytest.approx(stats.chi2_contingency(table).pvalue)
    assert (plain["patients"], plain["controls"], plain["left_out"]) == (31, 3, "s2")


def test_one_sample_studies_have_no_groups(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "sdm_table.txt").write_text("study\tn1\tt_thr\tage\na\t20\t3\t30\nb\t10\tNA\t60\n")
    for name in "ab":
        (folder / f"{name}.no_peaks.txt").write_text("")
    studies = read_all(folder).studies
    samples, methods = study_tables(studies)
    assert list(samples.rows[0]) == ["Study", "n", "Age (SD)"]
    assert methods.rows[1]["Threshold"] == "NA"
    assert methods.rows[0]["Threshold"] == f"t > 3 (p < {stats.t.sf(3, 19):.2g})"
    found = compare_groups(studies)
    assert found.tests == []
    (total,) = found.totals
    assert total["age_mean"] == pytest.approx(40)


def test_flat_tables_keep_their_columns(tmp_path):
    path = tmp_path / "peaks.csv"
    path.write_text(
        "study,n1,n2,threshold,space,x,y,z,t,task,drug dose\n"
        "a,20,20,3,spm_tal,0,0,0,4,faces,10\nb,20,20,3,mni,10,0,0,4,,20\n"
    )
    _, methods, further = study_tables(read_all(path).studies, ["all"])
    assert [r["Paradigm"] for r in methods.rows] == ["faces", "NA"]
    assert [r["Space"] for r in methods.rows] == ["Talairach", "MNI"]
    assert [r["drug dose"] for r in further.rows] == ["10", "20"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(paper):
    with pytest.raises(SettingError, match=r"'shoe' is not in the table; it has: .*treated"):
        study_tables(paper, ["shoe"])


def test_latex_prints_what_is_there():
    latex = to_latex([{"Study": "A_1", "n": "3", "x": "NA"}], "50 % & more")
    assert r"\begin{tabular}{lrr}" in latex
    assert r"A\_1 & 3 & NA \\" in latex
    assert r"\caption{50 \% \& more}" in latex


def test_the_command_writes_every_table(tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["studies", str(PAPER), "--columns", "all", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(out)
    names = {f"{t}.{k}" for t in ("samples", "methods", "further") for k in ("tsv", "csv", "tex")}
    assert {p.name for p in out.iterdir()} == names | {"groups.tsv", "group_tests.tsv"}
    with (out / "samples.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(r["n patients"]) for r in rows) == 296
    tsv = (out / "samples.tsv").read_text().splitlines()
    assert tsv[0].split("\t") == list(rows[0])
    assert tsv[4].split("\t") == list(rows[3].values())
    assert re.search("SIMULATED", (out / "further.tex").read_text())


def test_json_holds_tables_and_tests_and_nothing_is_written(tmp_path):
    before = sorted(p.name for p in PAPER.iterdir())
    done = CliRunner().invoke(app, ["studies", str(PAPER), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["samples"]) == len(found["methods"]) == 11
    assert {t["test"] for t in found["tests"]} == {"Student's t", "Welch's t", "paired t"}
    assert found["totals"][0]["female_percent"] is None
    assert sorted(p.name for p in PAPER.iterdir()) == before


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    root = PAPER.parents[2]
    page = (root / "docs" / "studies.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(root / "examples")
    for line in re.findall(r"```bash\n(.*?)\n```", page, re.S):
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
    assert {"study-tables", "flow.svg"} <= {p.name for p in tmp_path.iterdir()}
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(code, {})
    wanted = re.search(r"\)  # (.*)\n", code)
    assert wanted is not None
    assert capsys.readouterr().out.split("\n")[0] == wanted[1]
    (tmp_path / "counts.csv").write_text(re.findall(r"```text\n(box,n\n.*?)```", page, re.S)[0])
    assert read_flow(tmp_path / "counts.csv").n(STUDIES) == 11


def test_a_published_table_is_totalled_and_its_powers_of_age_are_not_taken_for_ages(li2024):
    project = li2024 / "project"
    with (project / "sdm_table.txt").open(encoding="utf-8-sig", newline="") as file:
        raw = list(csv.DictReader(file, delimiter="\t"))
    studies = read_all(project).studies
    n = {r["study"]: int(r["n1"]) for r in raw}
    age = {r["study"]: float(r["avgAge"]) for r in raw}
    assert {"Age2", "Age3"} <= set(Columns.of(studies).unknown)
    (total,) = compare_groups(studies).totals
    assert total["subjects"] == sum(n[s.name] for s in studies)
    weighted = sum(n[s.name] * age[s.name] for s in studies) / total["subjects"]
    assert total["age_mean"] == pytest.approx(weighted)


@pytest.mark.parametrize(
    ("header", "cell", "says"),
    [
        ("female_n_patients\tfemale_n_controls", "90", r"= 90 of 20 subjects, which is 450 %"),
        ("female_patients\tfemale_controls", "-3", r"= -3, which is -3 %"),
        ("male_patients\tmale_controls", "101", r"male_patients = 101, which is 101 %"),
    ],
)
def test_more_women_than_subjects_are_refused(tmp_path, header, cell, says):
    studies = read_all(write(tmp_path / "p", header, f"{cell}\t5", "1\t2", "3\t4")).studies
    for make in (compare_groups, study_tables):
        with pytest.raises(InputError, match=says):
            make(studies)
