"""From a thresholded map to its clusters: sizes, peaks and labels, one side at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from gpu_sdm.data import Pooled
from gpu_sdm.spaces import Space

COLUMNS = (
    "cluster",
    "side",
    "x_mm",
    "y_mm",
    "z_mm",
    "sdm_z",
    "p",
    "g",
    "se",
    "i2",
    "voxels",
    "mm3",
    "label",
)
SIDES = ("positive", "negative")
MIN_VOXELS = 10
BOX = np.ones((3, 3, 3), bool)  # 26-connectivity


@dataclass(frozen=True, slots=True)
class Threshold:
    """Which voxels form clusters: p of the named map at most `alpha`, |z| above `z_min`."""

    p_map: str  # the negative side's map is this name with `_neg`
    alpha: float
    z_min: float = 0.0
    k_min: int = MIN_VOXELS  # smaller clusters are not listed

    def passes(self, p: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Voxels (V,) bool of one side that pass; give -z for the negative side."""
        # p = 50/1000 is at alpha = .05 also where it was stored in single precision.
        return (p <= self.alpha * (1 + 1e-6)) & (z > self.z_min)


# Name of the table -> its threshold.
THRESHOLDS = {
    "fwe-tfce-0.05": Threshold("p_fwe_tfce", 0.05),
    "fwe-voxel-0.05": Threshold("p_fwe_voxel", 0.05),
    "uncorrected-0.0025": Threshold("p", 0.0025, z_min=1.0),
    # A cluster that is significant as a whole is listed whatever its size.
    "fwe-extent-0.05": Threshold("p_fwe_cluster_extent", 0.05, k_min=1),
    "fwe-mass-0.05": Threshold("p_fwe_cluster_mass", 0.05, k_min=1),
}


def blobs(passing: np.ndarray, space: Space, k_min: int = MIN_VOXELS) -> np.ndarray:
    """Find the clusters of a thresholded map and number them.

    Parameters
    ----------
    passing : (V,) bool
        Voxels that pass.
    space : Space
        Grid and mask.
    k_min : int
        Clusters of fewer voxels are dropped.

    Returns
    -------
    (V,) int32
        0 outside clusters; otherwise the cluster, 1 being the largest. Of equal sizes the one
        that comes first in scan order has the smaller number. Voxels are joined by faces, edges
        and corners, as in SDM-PSI.
    """
    volume, n = ndimage.label(space.embed(passing) > 0, BOX)
    found = space.extract(volume)
    size = np.bincount(found, minlength=n + 1)[1:]
    first = np.full(n + 1, len(found))
    np.minimum.at(first, found, np.arange(len(found)))
    order = np.lexsort((first[1:], -size))
    order = order[size[order] >= k_min]
    number = np.zeros(n + 1, np.int32)
    number[order + 1] = np.arange(1, len(order) + 1)
    numbers: np.ndarray = number[found]
    return numbers


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Joined voxels of one side.

    Parameters
    ----------
    number : int
        From 1, the positive side first, larger clusters first.
    side : {"positive", "negative"}
        Sign of its effects.
    voxels : (n,) int
        Positions in the mask, increasing.
    peak : int
        Position in the mask of the largest |z| (of equals the first in scan order).
    """

    number: int
    side: str
    voxels: np.ndarray
    peak: int


def find_clusters(
    passing: tuple[np.ndarray, np.ndarray],
    z: np.ndarray,
    space: Space,
    k_min: int = MIN_VOXELS,
    peak_z: float = 0.0,
) -> list[Cluster]:
    """Find the clusters of both sides.

    Parameters
    ----------
    passing : pair of (V,) bool
        Voxels that pass on the positive and on the negative side.
    z : (V,) float
        Statistic whose largest absolute value is a cluster's peak.
    space : Space
        Grid and mask.
    k_min : int
        Clusters of fewer voxels are dropped.
    peak_z : float
        Clusters whose peak |z| is not above it are dropped.

    Returns
    -------
    list of Cluster
        Positive side first, larger clusters first.
    """
    found: list[Cluster] = []
    for side, passed in zip(SIDES, passing, strict=True):
        number = blobs(passed, space, k_min)
        for c in range(1, int(number.max()) + 1):
            inside = np.flatnonzero(number == c)
            peak = int(inside[np.argmax(np.abs(z[inside]))])
            if abs(z[peak]) > peak_z or peak_z <= 0:
                found.append(Cluster(len(found) + 1, side, inside, peak))
    return found


def exactly(value: np.floating | float) -> float:
    """Value of a map as a float that prints as short as the map's own precision allows."""
    return float(str(value))


def voxel_row(
    voxel: int, side: str, p: tuple[np.ndarray, np.ndarray], pooled: Pooled, space: Space
) -> dict[str, Any]:
    """Give side, place, z, p, g, standard error and I2 of a voxel, by column."""
    x, y, z = space.mm(np.array([voxel]))[0].tolist()
    return {
        "side": side,
        "x_mm": int(x),
        "y_mm": int(y),
        "z_mm": int(z),
        "sdm_z": exactly(pooled.z[voxel]),
        "p": exactly(p[SIDES.index(side)][voxel]),
        "g": exactly(pooled.g[voxel]),
        "se": exactly(pooled.se[voxel]),
        "i2": exactly(pooled.i2[voxel]),
    }


def cluster_rows(
    found: Sequence[Cluster],
    p: tuple[np.ndarray, np.ndarray],
    pooled: Pooled,
    space: Space,
    label_of: Callable[[np.ndarray], list[str]],
) -> list[dict[str, Any]]:
    """Make the table of clusters: one row each with the keys `COLUMNS`, i2 in percent.

    Parameters
    ----------
    found : sequence of Cluster
        From `find_clusters`.
    p : pair of (V,) float
        p to report at the peak, by side.
    pooled, space, label_of
        As for `clusters_table`.
    """
    rows = [
        {
            "cluster": c.number,
            **voxel_row(c.peak, c.side, p, pooled, space),
            "voxels": len(c.voxels),
            "mm3": len(c.voxels) * space.voxel_size**3,
            "label": "",
        }
        for c in found
    ]
    if rows:
        peaks = space.mm(np.array([c.peak for c in found]))
        for row, label in zip(rows, label_of(peaks), strict=True):
            row["label"] = label
    return rows


def clusters_table(
    passing: tuple[np.ndarray, np.ndarray],
    p: tuple[np.ndarray, np.ndarray],
    pooled: Pooled,
    space: Space,
    label_of: Callable[[np.ndarray], list[str]],
    k_min: int = MIN_VOXELS,
) -> list[dict[str, Any]]:
    """List the clusters of both sides with their peaks.

    Parameters
    ----------
    passing : pair of (V,) bool
        Voxels that pass on the positive and on the negative side.
    p : pair of (V,) float
        p to report at the peak, by side.
    pooled : Pooled
        The meta-analysis.
    space : Space
        Grid and mask.
    label_of : callable
        Region names of MNI millimetres (n, 3).
    k_min : int
        Clusters of fewer voxels are dropped.

    Returns
    -------
    list of dict
        One row per cluster with the keys `COLUMNS`, positive side first, larger clusters first.
        The peak is the voxel of largest |z| (of equals the first in scan order). i2 in percent.
    """
    return cluster_rows(find_clusters(passing, pooled.z, space, k_min), p, pooled, space, label_of)


def threshold_tables(
    maps: Mapping[str, np.ndarray],
    pooled: Pooled,
    space: Space,
    label_of: Callable[[np.ndarray], list[str]],
) -> dict[str, list[dict[str, Any]]]:
    """Cluster tables at every threshold of `THRESHOLDS` whose p maps exist.

    Parameters
    ----------
    maps : mapping of str to (V,) float
        p maps by their names in the output folder.
    pooled, space, label_of
        As for `clusters_table`.

    Returns
    -------
    dict of str to list of dict
        Threshold name -> rows of its table.
    """
    tables = {}
    for name, threshold in THRESHOLDS.items():
        if threshold.p_map not in maps:
            continue
        p, p_neg = maps[threshold.p_map], maps[f"{threshold.p_map}_neg"]
        passing = threshold.passes(p, pooled.z), threshold.passes(p_neg, -pooled.z)
        tables[name] = clusters_table(passing, (p, p_neg), pooled, space, label_of, threshold.k_min)
    return tables
