"""What the permutations gave: the null of each statistic, and how settled its p values are."""

from __future__ import annotations

import numpy as np

from gpu_sdm.clusters import SIDES
from gpu_sdm.figures.convergence import convergence
from gpu_sdm.figures.null import fwe_threshold, null
from gpu_sdm.findings.maps import shown_statistic, tested_map
from gpu_sdm.permute.maxima import TIE_TOLERANCE
from gpu_sdm.report.facts import Facts, number
from gpu_sdm.report.html import Html, tag
from gpu_sdm.report.pictures import HALF, drawn
from gpu_sdm.report.tables import MINUS

ALPHA = 0.05
NAMES = {
    "voxel": "Voxelwise SDM-Z",
    "score": "Voxelwise score",
    "tfce": "TFCE",
    "cluster-extent": "Cluster extent",
    "cluster-mass": "Cluster mass",
}
TABLES = {"voxel": "fwe-voxel-0.05", "tfce": "fwe-tfce-0.05"}
MOST = 5  # lines of the convergence


def _observed(
    facts: Facts, statistic: str, maxima: np.ndarray
) -> dict[str, tuple[np.ndarray, float]]:
    """Series of the convergence: the peaks whose p is nearest to the threshold."""
    rows = facts.clusters.get(TABLES.get(statistic, ""), [])
    if not rows:
        return {f"largest {side}": (maxima[s], float(maxima[s, 0])) for s, side in enumerate(SIDES)}
    grid = {tuple(mm): v for v, mm in enumerate(facts.finished.space.mm().tolist())}
    least = sorted(rows, key=lambda row: -(number(row["p"]) or 0))[:MOST]
    series, tested = {}, facts.finished.map(tested_map(facts.finished))
    for row in sorted(least, key=lambda row: int(row["cluster"])):
        side = SIDES.index(row["side"])
        voxel = grid[tuple(float(row[f"{a}_mm"]) for a in "xyz")]
        if statistic == "voxel":
            at = abs(float(tested[voxel])) - TIE_TOLERANCE["voxel"]
        else:
            name = "tfce_neg" if side else "tfce"
            at = float(facts.finished.map(name)[voxel]) * (1 - TIE_TOLERANCE["tfce"])
        series[f"{row['cluster']} {row['label']}".strip()] = maxima[side], at
    return series


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _says(title: str, maxima: np.ndarray) -> str:
    """Say observed maximum and threshold of each side."""
    parts = []
    for side, values in zip(SIDES, maxima, strict=True):
        cut = fwe_threshold(values, ALPHA)
        p = float((values >= values[0]).mean())
        limit = f"the threshold for p .05 is {_number(cut)}"
        limit = limit if np.isfinite(cut) else "p cannot reach .05"
        parts.append(f"{side} side: observed {_number(values[0])} (p {p:.4g}), {limit}")
    return f"{title}, {'; '.join(parts).replace('-', MINUS)}."


def nulls(facts: Facts) -> list[Html]:
    """Give a block for each statistic."""
    blocks = []
    for statistic, maxima in facts.finished.maxima().items():
        shown = shown_statistic(facts.finished, statistic)
        title = NAMES[shown]
        says = _says(title, np.asarray(maxima, np.float64))
        parts = [
            drawn(
                null(maxima, shown, look=HALF),
                f"Histograms of the largest statistic of each permutation. {says}",
                says,
            ),
        ]
        if facts.exact:
            parts.append(
                tag("p", "All distinct permutations were used: p has no Monte Carlo error.",
                    class_="note")
            )  # fmt: skip
        else:
            series = _observed(facts, statistic, np.asarray(maxima, np.float64))
            ends = "; ".join(
                f"{name}: {(values >= at).mean():.4g}" for name, (values, at) in series.items()
            )
            parts.append(
                drawn(
                    convergence(series, look=HALF),
                    f"Corrected p after each permutation, 95 % interval; at the end {ends}.",
                    "Corrected p after each permutation; the band is its 95 % interval "
                    "(binomial). A band that still crosses .05 asks for more permutations.",
                )
            )
        blocks += [tag("h3", title), tag("div", *parts, class_="pictures")]
    return blocks
