"""Rates of the calibration with exact intervals, and the table of docs/calibration.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from null_projects import CELLS, LEVELS, SIDES
from page import between
from scipy.stats import beta

DOC = Path(__file__).parents[1] / "docs" / "calibration.md"
ALPHA = 0.05
STATISTICS = ("voxel", "tfce")
Lines = Mapping[int, Mapping[str, Any]]


def rate_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float, float]:
    """Share of hits with its exact binomial interval (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return hits / n, low, high


def rates(lines: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Projects with corrected p <= .05: (hits, of how many).

    `voxel` and `tfce` pool the two sides of every project, `..._two_sided` counts projects.
    """
    found = {}
    lines = list(lines)
    for statistic in STATISTICS:
        p = np.array([line[f"p_{statistic}"] for line in lines]).reshape(-1, 3) <= ALPHA + 1e-9
        found[statistic] = (int(p[:, :2].sum()), 2 * len(p))
        found[f"{statistic}_two_sided"] = (int(p[:, 2].sum()), len(p))
    return found


def p_shares(lines: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Mean share of voxels with an uncorrected p of at most .05, .01, .001, sides pooled."""
    return np.mean([[line["p_shares"][side] for side in SIDES] for line in lines], axis=(0, 1))


def interval_cell(hits: int, n: int) -> str:
    """Write a share and its interval."""
    rate, low, high = (f"{x:.3f}".lstrip("0") if x < 1 else "1" for x in rate_interval(hits, n))
    return f"{rate} [{low}, {high}]"


def _row(name: str, lines: Lines) -> list[str]:
    of = list(lines.values())
    found = rates(of)
    return [
        name,
        str(len(of)),
        *(interval_cell(*found[key]) for key in found),
        *(f"{x:.4f}" for x in p_shares(of)),
        f"{np.mean([line['peaks_per_study'] for line in of]):.1f}",
        f"{np.mean([line['threshold_voxel'] for line in of]):.2f}",
        f"{np.mean([line['threshold_tfce'] for line in of]):.0f}",
    ]


HEADER = [
    "cell",
    "projects",
    "voxel, a side",
    "voxel, two-sided",
    "TFCE, a side",
    "TFCE, two-sided",
    *(f"p <= {level:g}" for level in LEVELS),
    "peaks a study",
    "z .05",
    "TFCE .05",
]


def summary_lines(results: Mapping[str, Lines]) -> list[str]:
    """Markdown table of all cells that have a project."""
    rows = [_row(name, lines) for name, lines in results.items() if lines]
    marks = ["---"] + ["--:"] * (len(HEADER) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (HEADER, marks, *rows)]


def _cells_table() -> list[str]:
    rows = [f"| {name} | {cell.tests} | {cell.points:g} |" for name, cell in CELLS.items()]
    return ["| cell | what differs from base | wanted ± points |", "|---|---|--:|", *rows]


def _seconds(results: Mapping[str, Lines]) -> list[str]:
    used = [
        line["seconds"]["cpu"]
        for lines in results.values()
        for line in lines.values()
        if "cpu" in line["seconds"]
    ]
    if not used:
        return []
    return [
        "",
        f"{sum(map(len, results.values()))} projects in all; processor time of one: median "
        f"{np.median(used):.1f} s, mean {np.mean(used):.1f} s.",
    ]


def _sensitivity(path: Path) -> list[str]:
    if not path.exists():
        return []
    stored = json.loads(path.read_text(encoding="ascii"))
    names = list(stored["rows"][0])
    rows = [[f"{row[n]:.4g}" for n in names] for row in stored["rows"]]
    marks = ["--:"] * len(names)
    table = [f"| {' | '.join(cells)} |" for cells in (names, marks, *rows)]
    return [stored["caption"], "", *table]


def write_report(results: Mapping[str, Lines], folder: Path, doc: Path = DOC) -> Path:
    """Bring the tables of the page up to date; its prose stays as it is."""
    text = doc.read_text(encoding="utf-8")
    made = {
        "cells": _cells_table(),
        "rates": summary_lines(results) + _seconds(results),
        "seeds": _sensitivity(folder / "seed-sensitivity.json"),
    }
    for name, lines in made.items():
        text = between(text, name, "\n".join(lines))
    doc.write_text(text, encoding="utf-8")
    return doc
