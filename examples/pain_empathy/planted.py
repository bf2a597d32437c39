"""Hold the findings of run.sh against the planted truth: the rows of the paper's Table 3.

Usage: python examples/pain_empathy/planted.py OUT

OUT is the folder of run.sh. Prints a Markdown table: what was planted where, and the cluster at
the paper's threshold (p < .0025 uncorrected, k > 10) whose peak is the nearest of that sign, with
Egger's p at that peak. Every peak that went in is SIMULATED.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from simulate import TRUTH

NEAR_MM = 20.0
COLUMNS = (
    "planted g", "planted at", "cluster", "voxels", "MNI", "mm away", "SDM-Z", "voxel p",
    "Hedges g", "I2 %", "Egger p",
)  # fmt: skip


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def place(row: dict[str, str]) -> tuple[float, ...]:
    """Where a row's peak is, MNI mm."""
    return tuple(float(row[c]) for c in ("x_mm", "y_mm", "z_mm"))


def found(out: Path) -> list[dict[str, str]]:
    """One row per planted difference; cells of what was not found are empty."""
    clusters = read(out / "main" / "thresholds" / "paper" / "clusters.tsv")
    bias = read(out / "main" / "bias" / "bias.tsv")
    egger = {place(r): r["egger_p"] for r in bias if r["kind"] == "peak"}
    rows = []
    for centre, g in TRUTH.items():
        same = [r for r in clusters if np.sign(float(r["g"])) == np.sign(g)]
        near = sorted(
            (float(np.linalg.norm(np.subtract(place(r), centre))), i) for i, r in enumerate(same)
        )
        row = dict.fromkeys(COLUMNS, "") | {
            "planted g": f"{g:+.2f}", "planted at": ", ".join(map(str, centre)),
        }  # fmt: skip
        if near and near[0][0] <= NEAR_MM:
            away, best = near[0][0], same[near[0][1]]
            row |= {
                "cluster": best["label"],
                "voxels": best["voxels"],
                "MNI": ", ".join(f"{v:g}" for v in place(best)),
                "mm away": f"{away:.0f}",
                "SDM-Z": f"{float(best['sdm_z']):.3f}",
                "voxel p": f"{float(best['p_uncorrected']):.2g}",
                "Hedges g": f"{float(best['g']):.3f}",
                "I2 %": f"{float(best['i2']):.1f}",
                "Egger p": f"{float(egger[place(best)]):.3f}" if place(best) in egger else "",
            }
        rows.append(row)
    return rows


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    table = found(Path(sys.argv[1]))
    print("Every peak of this analysis is SIMULATED.", file=sys.stderr)
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---"] * len(COLUMNS))))
    for line in table:
        print(f"| {' | '.join(line.values())} |")
