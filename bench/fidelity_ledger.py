"""The figures of a run beside their bars, and the file that keeps the newest of every part."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bar:
    """What a figure must reach: `low` <= figure <= `high`; `text` says so in words."""

    low: float = -math.inf
    high: float = math.inf
    text: str = ""

    def __str__(self) -> str:
        if self.text:
            return self.text
        if math.isinf(self.high):
            return f">= {self.low:g}"
        return f"<= {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"

    def met(self, value: float) -> bool:
        """Whether a figure reaches it; one that is not a number does not."""
        return bool(self.low <= value <= self.high)


def within(wanted: float, share: float) -> Bar:
    """Give the bar of at most `share` away from `wanted`, relative to it."""
    return Bar(wanted * (1 - share), wanted * (1 + share), f"{wanted:g} +- {share:.0%}")


@dataclass
class Ledger:
    """Figures of the parts that ran.

    `rows` holds dicts with the keys part, what, where, ours, theirs, bar, met and beside; `tables`
    holds further lists of rows by name, such as one row per study.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(
        self,
        part: str,
        what: str,
        ours: float,
        where: str = "",
        theirs: float | None = None,
        bar: Bar | None = None,
        beside: Mapping[str, float] | None = None,
    ) -> None:
        """Keep one figure and print it beside theirs and its bar.

        `beside` holds the same figure of something else by name; the bar does not speak of it.
        """
        met = None if bar is None else bar.met(ours)
        others = {name: _plain(value) for name, value in (beside or {}).items()}
        row = {"part": part, "what": what, "where": where, "ours": _plain(ours),
               "theirs": _plain(theirs), "bar": "" if bar is None else str(bar),
               "met": met, "beside": others}  # fmt: skip
        self.rows.append(row)
        reference = "" if theirs is None else f"{theirs:.7g}"
        mark = "" if met is None else "ok" if met else "MISSED"
        said = "".join(f"  {name} {value:.5g}" for name, value in (beside or {}).items())
        print(
            f"{part:<16}{what:<38}{where:<24}{ours:>12.7g}{reference:>12}  {row['bar']:<17}{mark}"
            f"{said}",
            flush=True,
        )

    def missed(self) -> list[dict[str, Any]]:
        """Figures below their bar."""
        return [row for row in self.rows if row["met"] is False]


def _plain(value: float | None) -> float | None:
    """JSON knows no NaN and no infinity: None."""
    return float(value) if value is not None and math.isfinite(value) else None


def newest(folder: Path) -> dict[str, Any]:
    """Content of the newest figures of this layout in a folder; empty parts where there are none.

    Older layouts, without `parts`, are passed over.
    """
    for path in sorted(folder.glob("fidelity-*.json"), reverse=True):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "parts" in content:
            return content
    return {"parts": {}, "figures": [], "tables": {}}


def merged(
    before: dict[str, Any],
    ledger: Ledger,
    parts: dict[str, dict[str, Any]],
    machine: dict[str, Any],
) -> dict[str, Any]:
    """Replace the parts that ran and keep the others as they were.

    Parameters
    ----------
    before : dict
        From `newest`.
    ledger : Ledger
        Figures of the parts that ran.
    parts : dict
        Part -> when, at which commit and how long it ran.
    machine : dict
        What they ran on.
    """
    kept = [row for row in before["figures"] if row["part"] not in parts]
    return {
        "machine": machine,
        "parts": before["parts"] | parts,
        "figures": kept + ledger.rows,
        "tables": before["tables"] | ledger.tables,
    }
