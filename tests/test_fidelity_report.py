"""Figures beside their bars, the file that keeps them, and the document's round trip."""

from __future__ import annotations

import json
import math

import fidelity_report
import pytest
from fidelity_data import HOME
from fidelity_ledger import Bar, Ledger, merged, newest, within
from fidelity_maps import EVERYWHERE, record
from fidelity_scores import (
    Agreement,
)


def test_bars():
    assert within(4.389, 0.02).met(4.47)
    assert not within(4.389, 0.02).met(4.48)
    assert str(within(7423, 0.05)) == "7423 +- 5%"
    assert str(Bar(0.97, 1.03)) == "0.97 to 1.03"
    assert (str(Bar(0.9)), str(Bar(high=6))) == (">= 0.9", "<= 6")
    assert not Bar(0.9).met(float("nan"))
    assert not Bar(high=6).met(float("inf"))


def filled() -> Ledger:
    ledger = Ledger()
    for region in (EVERYWHERE, "apart 0.02"):
        ledger.add("from-bounds", "share of the mask", 0.8123, region)
        scores = {("g", region): Agreement(0.9774, 0.99, -0.003, 0.02)}
        other = {"two of our runs": {("g", region): Agreement(0.9966, 1.0, 0.0, 0.0075)}}
        record(ledger, "from-bounds", scores, "bounds", other)
    ledger.add("pooling", "g", 0.15707412, "li2024", 0.157074, Bar(0.1, 0.2))
    for seed in (0, 1):
        ledger.add("null", "95% of max z", 4.4 + seed, f"seed {seed}", 4.389, within(4.389, 0.02))
    ledger.add("clusters-bounds", "Dice, positive", 0.87, "voxel, FWE p <= 0.05", bar=Bar(0.9),
               beside={"two of our runs": 0.93})  # fmt: skip
    ledger.add("clusters-bounds", "mm to our nearest cluster peak", math.inf, "(0, 0, 0)",
               bar=Bar(high=6))  # fmt: skip
    return ledger


def test_parts_that_did_not_run_are_kept(tmp_path, capsys):
    assert newest(tmp_path) == {"parts": {}, "figures": [], "tables": {}}
    (tmp_path / "fidelity-2026-01-03.json").write_text('{"machine": {}, "figures": []}')
    first = merged(newest(tmp_path), filled(), {"from-bounds": {}, "pooling": {}}, {"cores": 2})
    text = json.dumps(first, allow_nan=False)
    (tmp_path / "fidelity-2026-01-02.json").write_text(text)
    again = Ledger()
    again.add("pooling", "g", 0.5, "li2024")
    second = merged(newest(tmp_path), again, {"pooling": {"seconds": 3}}, {"cores": 4})
    assert [r for r in second["figures"] if r["part"] == "pooling"] == again.rows
    assert len(second["figures"]) == len(first["figures"])
    assert second["parts"] == {"from-bounds": {}, "pooling": {"seconds": 3}}
    assert capsys.readouterr().out.count("MISSED") == 5


def test_report_renews_tables_and_keeps_prose(tmp_path, capsys):
    ran = {"date": "2026-01-02", "commit": "abc", "seconds": 1234}
    where = {"processor": "P", "cores": 2, "versions": {"numpy": "2.0"}}
    content = merged({"parts": {}, "figures": [], "tables": {}}, filled(), {"null": ran}, where)
    places = [
        f"Prose on {name} with a backslash \\1.\n\n<!-- {name} begins -->\nold\n"
        f"<!-- {name} ends -->\n"
        for name in fidelity_report.SECTIONS
    ]
    path = tmp_path / "fidelity.md"
    path.write_text("# Title\n\n" + "\n".join(places) + "\nLast words.\n")
    fidelity_report.write_report(json.loads(json.dumps(content)), path)
    text = path.read_text()
    assert "old" not in text
    for name in fidelity_report.SECTIONS:
        assert f"Prose on {name} with a backslash \\1.\n" in text
    assert text.endswith("\nLast words.\n")
    assert "| bias | rmse | two of our runs, r | two of our runs, rmse |" in text
    assert "| g | whole mask | 0.9774 (>= 0.98: **MISSED**) | 0.9900 |" in text
    assert "| 0.0200 | 0.9966 | 0.0075 |" in text
    assert (
        "| Dice, positive | voxel, FWE p <= 0.05 | 0.8700 | - | >= 0.9 | **MISSED** | 0.9300 |"
        in (text)
    )
    assert "| 95% of max z | 4.389 | 4.4 met | 5.4 **MISSED** | 4.389 +- 2% |" in text
    assert "Mm to our nearest cluster peak <= 6: 0 of 1, **MISSED**." in text
    assert "| 2026-01-02 | abc | 1,234 s |" in text
    assert "8 figures have a bar; 5 miss it." in text
    fidelity_report.write_report(content, path)
    assert path.read_text() == text
    path.write_text(text.replace("<!-- null ends -->", ""))
    with pytest.raises(ValueError, match="null begins"):
        fidelity_report.write_report(content, path)


def test_the_published_document_has_every_table():
    text = (HOME / "docs" / "fidelity.md").read_text(encoding="utf-8")
    content = newest(HOME / "bench" / "results")
    assert fidelity_report.renewed(text, content) == text, "run python bench/fidelity.py --report"


def test_bars_of_the_maps(capsys):
    ledger = Ledger()
    fine, bad = Agreement(0.991, 1.0, 0, 0.1), Agreement(0.979, 1.04, 0, 0.1)
    record(ledger, "p", {("g", EVERYWHERE): bad, ("g", "apart 0.02"): fine}, "bounds")
    record(
        ledger, "p", {("g", "apart 0.02 and neighbours"): bad, ("g", "apart 0.1"): bad}, "bounds"
    )
    judged = {(r["what"], r["where"]): r["met"] for r in ledger.rows if r["met"] is not None}
    assert judged == {
        ("g, r", EVERYWHERE): False,
        ("g, r", "apart 0.02"): True,
        ("g, slope", "apart 0.02"): True,
        ("g, r", "apart 0.02 and neighbours"): False,
        ("g, slope", "apart 0.02 and neighbours"): False,
    }
    assert len(ledger.missed()) == 3
    assert capsys.readouterr().out.count("MISSED") == 3
