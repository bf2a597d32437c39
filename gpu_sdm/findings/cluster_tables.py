"""Tables of a threshold beside that of its clusters: peaks, and shares of the regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_sdm.atlas import Atlas
from gpu_sdm.clusters import SIDES, Cluster, voxel_row
from gpu_sdm.data import Pooled
from gpu_sdm.findings.maps import Pair
from gpu_sdm.findings.peaks import local_maxima, spread_out
from gpu_sdm.spaces import Space

LISTED_PERCENT = 1.0  # smaller shares are in regions.tsv only


def share_text(shares: Sequence[tuple[str, int]], total: int) -> str:
    """Write shares of a cluster, e.g. `Insula_L 43 %; Putamen_L 12 %`; those below 1 % left out."""
    percents = ((region, 100 * voxels / total) for region, voxels in shares)
    return "; ".join(f"{region} {p:.0f} %" for region, p in percents if p >= LISTED_PERCENT)


def label_columns(atlases: Sequence[str]) -> list[str]:
    """Columns of the labels: `label` is that of the first atlas, the others have theirs."""
    return ["label", *(f"label_{name}" for name in atlases[1:])]


def add_labels(rows: list[dict[str, Any]], atlases: Sequence[Atlas]) -> None:
    """Fill in the label columns of rows with x_mm, y_mm and z_mm."""
    if not rows:
        return
    mm = np.array([[row["x_mm"], row["y_mm"], row["z_mm"]] for row in rows], np.float64)
    for column, atlas in zip(label_columns([a.name for a in atlases]), atlases, strict=False):
        for row, label in zip(rows, atlas.label_of(mm), strict=True):
            row[column] = label


def add_shares(rows: list[dict[str, Any]], regions: Sequence[dict[str, Any]]) -> None:
    """Fill in the columns `shares_ATLAS` of the rows of clusters from `region_rows`."""
    shares: dict[tuple[int, str], list[tuple[str, int]]] = {}
    for r in regions:
        shares.setdefault((r["cluster"], r["atlas"]), []).append((r["region"], r["voxels"]))
    by_number = {row["cluster"]: row for row in rows}
    for (number, atlas), found in shares.items():
        row = by_number[number]
        row[f"shares_{atlas}"] = share_text(found, row["voxels"])


def peak_rows(
    found: Sequence[Cluster], distance_mm: float, p: Pair, pooled: Pooled, space: Space
) -> list[dict[str, Any]]:
    """List the local maxima of each cluster, highest first.

    Parameters
    ----------
    found : sequence of Cluster
        The clusters.
    distance_mm : float
        Least distance between the maxima listed of one cluster.
    p : pair of (V,) float
        p to report, by side.
    pooled, space
        The meta-analysis, its grid and mask.
    """
    rows: list[dict[str, Any]] = []
    for side, sign in zip(SIDES, (1, -1), strict=True):
        mine = [c for c in found if c.side == side]
        if not mine:
            continue
        # Clusters of one side touch nowhere: their local maxima are found together.
        top = local_maxima(sign * pooled.z, np.concatenate([c.voxels for c in mine]), space)
        for cluster in mine:
            inside = spread_out(top[np.isin(top, cluster.voxels)], space, distance_mm)
            rows.extend(
                {
                    "cluster": cluster.number,
                    "peak": i,
                    **voxel_row(voxel, side, p, pooled, space),
                    "label": "",
                }
                for i, voxel in enumerate(inside.tolist(), 1)
            )
    return rows


def region_rows(
    found: Sequence[Cluster], atlases: Sequence[Atlas], space: Space
) -> list[dict[str, Any]]:
    """Count the voxels of each cluster in each region of each atlas, largest share first."""
    mm = space.mm()
    return [
        {
            "cluster": cluster.number,
            "side": cluster.side,
            "atlas": atlas.name,
            "region": region,
            "voxels": voxels,
            "percent": round(100 * voxels / len(cluster.voxels), 2),
        }
        for cluster in found
        for atlas in atlases
        for region, voxels in atlas.shares(mm[cluster.voxels])
    ]
