"""The bench against other programs agrees at tiny sizes, and the page says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import peers
import peers_common
import performance_report as report
import pytest
from scipy.stats import ttest_1samp

from gpu_sdm.ops.permuted_z import PERMUTED_Z

BENCH = Path(peers.__file__).parent
PARTS = ("pymare", "nilearn", "nimare", "labels")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Every part once, in a process of its own as a user runs it."""
    target = tmp_path_factory.mktemp("peers") / "peers.json"
    command = [sys.executable, str(BENCH / "peers.py"), "--quick", "--out", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == str(target)
    return json.loads(target.read_text())["parts"]


@pytest.mark.parametrize("part", PARTS)
def test_results_agree_and_ratios_are_finite(part: str, quick: dict) -> None:
    if quick[part]["skipped"]:
        pytest.skip(f"PEER ABSENT: {quick[part]['skipped']}")
    assert quick[part]["rows"]
    judged = 0
    for row in quick[part]["rows"]:
        judged += sum(a["met"] is not None for a in row["agreement"])
        assert all(a["met"] is not False for a in row["agreement"]), row["agreement"]
        ratios = [row["ratio"], row["ratio_core"]]
        assert ratios == [None, None] if not row["same"] else np.isfinite(ratios).all()
        assert all(t["wall_s"] > 0 for who in ("theirs", "ours") for t in row[who].values())
        assert row["agreement"]
    assert judged > 0


def test_backends_agree_with_the_reference(quick: dict) -> None:
    rows = quick["ours"]["rows"]
    assert {row["backend"] for row in rows} >= {"numpy", "cpu"}
    assert all(row["agrees"] and row["permutations_per_s"] > 0 for row in rows)


def test_a_curve_knows_its_time_and_memory(quick: dict) -> None:
    rows = quick["curve-voxels"]["rows"]
    assert [row["voxels"] for row in rows] == [1500]
    # numpy, scipy and numba alone take 0.1 GB; a whole mask would take more than 1.
    assert all(row["cpu_s"] > 0 and 0.05 < row["peak_gb"] < 1 for row in rows)


def test_start_is_timed(quick: dict) -> None:
    seconds = {row["what"]: row["wall_s"] for row in quick["start"]["rows"]}
    assert seconds["Python itself"] < seconds["gpu-sdm --help"]


def test_random_effects_of_one_variance_are_the_t_test() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(0.2, 0.6, (1, peers_common.STUDIES, 400)).astype(np.float32)
    signs = rng.choice(np.array([-1, 1], np.float32), (peers_common.STUDIES, 3))
    for backend in ("cpu", "numpy"):
        z = PERMUTED_Z.on(backend)(None, signs, effects, peers_common.equal_terms())
        for p in range(3):
            t = ttest_1samp(effects[0].astype(float) * signs[:, p, None], 0).statistic
            np.testing.assert_allclose(z[p], t, rtol=2e-5, atol=2e-6)


def _row(theirs: float, difference: float) -> dict:
    seconds = {"1": {"wall_s": 1.0, "cpu_s": 1.0}}
    sizes = {"voxels": 1, "studies": 2, "permutations": 3, "imputations": 1}
    agreements = [peers_common.agreement("z, largest difference", difference, 1e-6)]
    their = {"1": {"wall_s": theirs, "cpu_s": theirs}}
    return peers_common.row("work", "peer 1.0", sizes, their, seconds, agreements, 5.0)


@pytest.mark.parametrize(("theirs", "met"), [(6.0, True), (4.0, False)])
def test_a_bar_is_judged(theirs: float, met: bool) -> None:
    row = _row(theirs, 1e-7)
    assert (row["ratio"], row["met"]) == (theirs, met)
    content = {"parts": {"nilearn": {"rows": [row], "skipped": ""}}}
    assert ("**MISSED**" in "\n".join(report.bars({}, content))) is not met
    assert ("MISSED" in "\n".join(peers.shown("nilearn", content["parts"]["nilearn"]))) is not met


def test_what_differs_gets_no_ratio_however_fast(capsys: pytest.CaptureFixture[str]) -> None:
    row = _row(1e6, 1e-3)
    assert row["ratio"] is None
    assert not row["met"]
    found = {"rows": [row], "skipped": ""}
    assert not any("ratio" in line for line in peers.shown("pymare", found))
    assert peers.disagreements({"parts": {"pymare": found}}) == ["pymare: work"]
    assert "| - | - |" in "\n".join(report.compared({}, {"parts": {"pymare": found}}))


def test_a_peer_that_is_not_installed_is_skipped_loudly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers_common.importlib.util, "find_spec", lambda name: None)
    found = peers.run_part("pymare", quick=True)
    assert found["rows"] == []
    assert "SKIPPED pymare: pymare is not installed" in capsys.readouterr().err
    assert "Not compared: pymare" in "\n".join(report.compared({}, {"parts": {"pymare": found}}))


def test_a_peer_without_what_it_needs_is_skipped_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise ModuleNotFoundError("No module named 'wrapt'")

    monkeypatch.setattr(peers_common.importlib, "import_module", fails)
    with pytest.raises(peers_common.Absent, match=r"pymare cannot be imported: .*wrapt"):
        peers_common.require("pymare", "pymare")


def test_the_page_is_what_the_generator_makes_of_the_committed_figures() -> None:
    text = report.DOC.read_text(encoding="utf-8")
    made = report.renewed(text, report.newest("permute-cpu-*.json"), report.newest("peers-*.json"))
    assert text == made, "run: python bench/performance_report.py"
    for name in report.SECTIONS:
        assert f"<!-- {name} begins -->\n<!--" not in text


def test_the_kept_figures_agree_and_are_not_tiny() -> None:
    kept = report.newest("peers-*.json")
    assert not kept["quick"]
    assert set(kept["parts"]) == set(peers.PARTS)
    assert peers.disagreements(kept) == []
    assert all(row["voxels"] > 5_000 for part in PARTS for row in kept["parts"][part]["rows"])


def test_the_picture_shows_every_point() -> None:
    from performance_picture import AXES, curves_figure

    assert 10_000 < report.PICTURE.stat().st_size < 150_000
    kept = report.newest("peers-*.json")
    figure = curves_figure(kept)
    assert len(figure.axes) == 2 * len(AXES)
    for axis, ax in zip(AXES, figure.axes, strict=False):
        rows = kept["parts"][f"curve-{axis}"]["rows"]
        drawn = ax.get_lines()[0].get_xydata()
        wanted = [(row[axis], row["wall_s"] / row["permutations"]) for row in rows]
        np.testing.assert_allclose(drawn, wanted)
