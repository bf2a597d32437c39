"""A paper's table of results: one row per cluster, as CSV for a spreadsheet and as LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gpu_sdm.clusters import SIDES
from gpu_sdm.findings.threshold import Thresholded
from gpu_sdm.io.tables import guarded

SPELT_OUT_PERCENT = 5.0  # smaller shares are summed as `other`
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<=": r"$\leq$",
    ">=": r"$\geq$",
    "<": "$<$",
    ">": "$>$",
}


def breakdown(regions: Sequence[Mapping[str, Any]], voxels: int) -> str:
    """Spell out a cluster's regions with their voxels, e.g. `Insula_L 120 (43 %); other 9 (3 %)`.

    Parameters
    ----------
    regions : sequence of rows
        Of one cluster and one atlas, `region` and `voxels`, largest first.
    voxels : int
        All voxels of the cluster.
    """
    large = [r for r in regions if 100 * r["voxels"] >= SPELT_OUT_PERCENT * voxels]
    pairs = [(r["region"], r["voxels"]) for r in large]
    rest = voxels - sum(n for _, n in pairs)
    if rest:
        pairs.append(("other", rest))
    return "; ".join(f"{name} {n} ({100 * n / voxels:.0f} %)" for name, n in pairs)


def _decimals(p: float) -> str:
    return f"{p:.9f}" if p >= 1e-9 else "<0.000000001"


def table3(found: Thresholded, names: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Make the rows of the table, every value as text.

    Parameters
    ----------
    found : Thresholded
        The clusters.
    names : mapping of str to str, optional
        What each side is called, e.g. {"positive": "patients > controls"}.

    Returns
    -------
    list of dict
        Columns: comparison, cluster (label of its peak), voxels, MNI of the peak, SDM-Z,
        one-sided voxel p and, where the threshold is on another one, that p; Hedges g, I2; the
        breakdown by each atlas, regions of at least 5 % by name.
    """
    called = {side: side for side in SIDES} | dict(names or {})
    rows = []
    for row in found.clusters:
        corrected = (
            {}
            if found.rule.map == "uncorrected"
            else {f"p ({found.named.says})": f"{row['p']:.6g}"}
        )
        mine = [r for r in found.regions if r["cluster"] == row["cluster"]]
        rows.append(
            {
                "Comparison": called[row["side"]],
                "Cluster": row["label"] or f"cluster {row['cluster']}",
                "Voxels": str(row["voxels"]),
                # With blanks: a spreadsheet takes 48,20,4 for the number 48204.
                "MNI": f"{row['x_mm']}, {row['y_mm']}, {row['z_mm']}",
                "SDM-Z": f"{row['sdm_z']:.3f}",
                "Voxel p": _decimals(row["p_uncorrected"]),
                **corrected,
                "Hedges g": f"{row['g']:.6f}",
                "I2 (%)": f"{row['i2']:.6f}",
                **{
                    f"Breakdown ({atlas})": breakdown(
                        [r for r in mine if r["atlas"] == atlas], row["voxels"]
                    )
                    for atlas in found.atlases
                },
            }
        )
    return rows


def to_csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    """Give the table as comma-separated text that a spreadsheet opens (UTF-8 with its mark)."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows({c: guarded(cell) for c, cell in row.items()} for row in rows)
    return text.getvalue().encode("utf-8-sig")


def escape(text: str) -> str:
    r"""Write text so that LaTeX prints it as it is.

    Examples
    --------
    >>> print(escape("Insula_L 43 %"))
    Insula\_L 43 \%
    """
    return "".join(LATEX.get(part, part) for part in re.findall("<=|>=|.", text, re.S))


def to_latex(rows: Sequence[Mapping[str, str]], caption: str) -> str:
    """Give the table as a LaTeX `table` that needs no package.

    Parameters
    ----------
    rows : sequence of mapping
        From `table3`.
    caption : str
        Plain text.
    """
    lines = [r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(caption)}}}"]
    columns = [c for c in (rows[0] if rows else {}) if c != "Comparison"]
    if not rows:
        lines.append("No cluster.")
    else:
        layout = "".join(
            "p{5cm}" if c.startswith("Breakdown") else "l" if c in ("Cluster", "MNI") else "r"
            for c in columns
        )
        heads = [escape(c).replace("I2", "$I^2$").replace("Voxel p", r"Voxel $p$") for c in columns]
        heads = [re.sub(r"^p \(", r"$p$ (", h) for h in heads]
        lines += [rf"\begin{{tabular}}{{{layout}}}", r"\hline", " & ".join(heads) + r" \\"]
        side = None
        for row in rows:
            if row["Comparison"] != side:
                side = row["Comparison"]
                lines += [
                    r"\hline",
                    rf"\multicolumn{{{len(columns)}}}{{l}}{{\textit{{{escape(side)}}}}} \\",
                ]
            lines.append(" & ".join(escape(row[c]) for c in columns) + r" \\")
        lines += [r"\hline", r"\end{tabular}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"
