"""Files of a threshold: what is written, replaced and kept, and the paper's table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr
from thresholds import AT_REPORT, HALVES, table, two_sided_result

from gpu_sdm.clusters import COLUMNS
from gpu_sdm.errors import OutputError
from gpu_sdm.findings import threshold_files
from gpu_sdm.findings.folder import replace_folder
from gpu_sdm.findings.maps import open_source
from gpu_sdm.findings.table3 import _decimals, breakdown, escape, table3, to_csv, to_latex
from gpu_sdm.findings.threshold import Rule, threshold
from gpu_sdm.findings.threshold_files import save
from gpu_sdm.io.nifti import read_map


@pytest.fixture(scope="module")
def mod1(enge2021):
    return open_source(enge2021 / "mod1")


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return two_sided_result(tmp_path_factory.mktemp("threshold"))


def test_what_is_written_can_be_read_again(ours, tmp_path):
    out, _ = ours
    source = open_source(out)
    found = threshold(source, Rule(map="uncorrected", p=0.05), [HALVES])
    folder = save(found, tmp_path / "a" / "b")
    assert sorted(p.name for p in folder.iterdir()) == [
        "clusters.nii.gz", "clusters.tsv", "masks", "peaks.tsv", "regions.tsv", "table3.csv",
        "table3.tex", "threshold.json", "z.nii.gz", "z_negative.nii.gz", "z_positive.nii.gz",
    ]  # fmt: skip
    space, number = source.space, found.numbers()
    np.testing.assert_array_equal(read_map(folder / "clusters.nii.gz", space), number)
    z = read_map(folder / "z.nii.gz", space)
    np.testing.assert_array_equal(z, np.where(number > 0, source.map("z"), 0))
    for side, mine in (("positive", z > 0), ("negative", z < 0)):
        one = read_map(folder / f"z_{side}.nii.gz", space)
        np.testing.assert_array_equal(one, np.where(mine, z, 0))
    rows = table(folder / "clusters.tsv")
    assert list(rows[0]) == [*COLUMNS, "p_uncorrected", "shares_toy"]
    assert len(rows) == len(list((folder / "masks").iterdir())) == len(found.found) >= 2
    for row in rows:
        path = folder / "masks" / f"cluster_{int(row['cluster']):02d}_{row['side']}.nii.gz"
        mask = read_map(path, space)
        assert mask.sum() == int(row["voxels"])
        at = np.flatnonzero((space.mm() == [float(row[c]) for c in COLUMNS[2:5]]).all(axis=1))
        assert mask[at] == 1
        assert np.float32(row["sdm_z"]) == z[at]
    peaks = table(folder / "peaks.tsv")
    assert [p["cluster"] for p in peaks if p["peak"] == "1"] == [r["cluster"] for r in rows]
    stored = json.loads((folder / "threshold.json").read_text())
    assert stored["rule"]["p"] == 0.05
    assert stored["caveat"].startswith("Not corrected")


def test_the_default_folder_is_replaced_and_others_are_not(ours, tmp_path):
    source = open_source(ours[0])
    found = threshold(source, Rule(), [HALVES])
    folder = save(found)
    assert folder == ours[0] / "thresholds" / "fwe-tfce-0.05-k10"
    about = json.loads((folder / "threshold.json").read_text())
    about["files"].append("masks/cluster_99_positive.nii.gz")  # of a run with more clusters
    (folder / "threshold.json").write_text(json.dumps(about))
    for name in ("masks/cluster_99_positive.nii.gz", "my notes.txt", "masks/mine/m.nii.gz"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    assert save(found) == folder
    assert not (folder / "masks/cluster_99_positive.nii.gz").exists()
    assert (folder / "my notes.txt").read_text() == "my notes.txt"
    assert (folder / "masks/mine/m.nii.gz").exists()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]

    other = threshold(source, Rule(p=0.04), [HALVES])
    with pytest.raises(OutputError, match=r"holds another threshold.*'fwe-tfce-0.05-k10'"):
        save(other, folder)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds no threshold of gpu-sdm"):
        save(found, foreign)
    assert [p.name for p in foreign.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputError, match="cannot be written"):
        save(found, foreign / "thesis.tex" / "x")


def test_a_failure_leaves_what_was_there(ours, tmp_path, monkeypatch):
    found = threshold(open_source(ours[0]), Rule(), [HALVES])
    folder = save(found, tmp_path / "t")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    def full(*_):
        raise OutputError("disk full")

    monkeypatch.setattr(threshold_files, "to_latex", full)
    for place in (tmp_path / "t", tmp_path / "new" / "deep"):
        with pytest.raises(OutputError, match="disk full"):
            save(found, place)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before

    def no_rename(self, target):
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return real(self, target)

    real = Path.rename
    monkeypatch.setattr(Path, "rename", no_rename)
    with pytest.raises(OutputError, match="No space left"):
        replace_folder(folder, "threshold", {"name": found.rule.name}, {}, lambda f: None)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_table3_reads_as_the_papers(mod1):
    found = threshold(mod1, AT_REPORT, [HALVES])
    rows = table3(found, {"positive": "task > baseline"})
    assert list(rows[0]) == [
        "Comparison", "Cluster", "Voxels", "MNI", "SDM-Z", "Voxel p", "p (voxel, FWE)",
        "Hedges g", "I2 (%)", "Breakdown (toy)",
    ]  # fmt: skip
    last = rows[-1]
    assert list(last.values())[:7] == [
        "task > baseline", "Left_half", "69", "-44, 4, 48", "6.212", "<0.000000001", "0.000999987",
    ]  # fmt: skip
    assert last["Breakdown (toy)"] == "Left_half 69 (100 %)"
    back = list(csv.DictReader(to_csv(rows).decode("utf-8-sig").splitlines()))
    assert back == rows
    plain = table3(threshold(mod1, Rule(map="uncorrected", p=0.0025), [HALVES]))
    assert "p (uncorrected)" not in plain[0]


def test_the_p_of_the_paper_is_the_tail_of_z():
    """pipeline.md, Table 3: z and voxel p as printed there."""
    for z, p in ((3.510, 0.000224233), (3.699, 0.000108063), (3.797, 0.000073254)):
        assert ndtr(-z) == pytest.approx(p, rel=0.01)
        assert _decimals(p) == f"{p:.9f}"


def test_breakdown_sums_small_shares():
    regions = [{"region": r, "voxels": n} for r, n in (("A", 60), ("B", 30), ("C", 4), ("D", 3))]
    assert breakdown(regions, 97) == "A 60 (62 %); B 30 (31 %); other 7 (7 %)"
    assert breakdown(regions[:2], 90) == "A 60 (67 %); B 30 (33 %)"


def test_latex_is_balanced_and_escaped():
    assert escape("p <= .05, I_2 50 % & {a}~b^2 #1 $x \\ <3") == (
        r"p $\leq$ .05, I\_2 50 \% \& \{a\}\textasciitilde{}b\textasciicircum{}2 \#1 \$x "
        r"\textbackslash{} $<$3"
    )
    row = {"Comparison": "A > B", "Cluster": "Insula_L", "MNI": "1, 2, 3", "Breakdown (x)": "y 5 %"}
    text = to_latex([row, {**row, "Comparison": "A < B"}], "p <= .05")
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert text.count("{") == text.count("}")
    body = [line for line in text.splitlines() if "&" in line]
    assert len(body) == 3
    assert all(line.endswith(r"\\") and line.count("&") == 2 for line in body)
    assert r"\textit{A $>$ B}" in text
    assert r"\textit{A $<$ B}" in text
    assert "No cluster" in to_latex([], "none")
