"""Where to look in a finished result: its clusters, their peaks, chosen points, regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gpu_sdm.atlas import load_atlas
from gpu_sdm.clusters import THRESHOLDS, find_clusters
from gpu_sdm.data import _freeze
from gpu_sdm.errors import SettingError
from gpu_sdm.finished import Finished
from gpu_sdm.io.volumes import read_mask
from gpu_sdm.spaces import Space, voxel_at


@dataclass(frozen=True, eq=False)
class Site:
    """A voxel, or several that are averaged.

    Parameters
    ----------
    name : str
        How tables call it.
    kind : {"peak", "cluster", "point", "region"}
        What it is.
    voxels : (n,) int
        Positions in the mask.
    xyz_mm : tuple of three float
        Its peak, or the point itself; NaN for a region.
    label : str
        Atlas region of `xyz_mm`.
    threshold, side : str
        Of a cluster and its peak; else empty.
    cluster : int
        Number in the cluster table of that threshold; 0 for anything else.
    """

    name: str
    kind: str
    voxels: np.ndarray
    xyz_mm: tuple[float, float, float]
    label: str = ""
    threshold: str = ""
    side: str = ""
    cluster: int = 0

    def __post_init__(self) -> None:
        _freeze(self.voxels)

    def row(self) -> dict[str, object]:
        """First columns of every table about sites."""
        return {
            "site": self.name,
            "kind": self.kind,
            "threshold": self.threshold or None,
            "cluster": self.cluster or None,
            "side": self.side or None,
            **dict(zip(("x_mm", "y_mm", "z_mm"), self.xyz_mm, strict=True)),
            "voxels": len(self.voxels),
            "label": self.label,
        }


def available_thresholds(finished: Finished) -> tuple[str, ...]:
    """Names of the thresholds whose p maps the result has."""
    return tuple(name for name, t in THRESHOLDS.items() if finished.has(t.p_map))


def full_name(threshold: str, finished: Finished) -> str:
    """Give the name of a threshold as `clusters.THRESHOLDS` has it, from that or its start.

    Raises
    ------
    SettingError
        If there is none, or the result has no such map.

    Examples
    --------
    "fwe-tfce" stands for "fwe-tfce-0.05", "uncorrected" for "uncorrected-0.0025".
    """
    there = available_thresholds(finished)
    for name in there:
        if threshold in (name, name.rpartition("-")[0]):
            return name
    raise SettingError(f"threshold is {threshold!r}; {finished.folder} has: {', '.join(there)}.")


def default_threshold(finished: Finished) -> str:
    """Give the first threshold of `clusters.THRESHOLDS` at which the result has a cluster."""
    there = available_thresholds(finished)
    return next((name for name in there if cluster_sites(finished, [name])), there[-1])


def passing(finished: Finished, threshold: str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (V,) bool that pass a threshold on the positive and on the negative side."""
    rule, z = THRESHOLDS[threshold], finished.map("z")
    p, p_neg = finished.map(rule.p_map), finished.map(f"{rule.p_map}_neg")
    return rule.passes(p, z), rule.passes(p_neg, -z)


def cluster_sites(finished: Finished, thresholds: Sequence[str]) -> list[Site]:
    """Give each cluster of the result and its peak, in the order of its cluster tables.

    Parameters
    ----------
    finished : Finished
        The result.
    thresholds : sequence of str
        Names as in `clusters.THRESHOLDS`.

    Returns
    -------
    list of Site
        For each cluster a site of kind "peak" and one of kind "cluster", with the number that the
        cluster has in tables/clusters_THRESHOLD.tsv.
    """
    z, mm = finished.map("z"), finished.space.mm()
    found = [
        (threshold, cluster)
        for threshold in thresholds
        for cluster in find_clusters(
            passing(finished, threshold), z, finished.space, THRESHOLDS[threshold].k_min
        )
    ]
    if not found:
        return []
    labels = load_atlas().label_of(mm[[cluster.peak for _, cluster in found]])
    sites = []
    for (threshold, cluster), label in zip(found, labels, strict=True):
        where, name = _triple(mm[cluster.peak]), f"{threshold} {cluster.number}"
        rest = (where, label, threshold, cluster.side, cluster.number)
        sites.append(Site(f"{name} peak", "peak", np.array([cluster.peak]), *rest))
        sites.append(Site(f"{name} cluster", "cluster", cluster.voxels, *rest))
    return sites


def distinct_names(sites: Sequence[Site]) -> list[Site]:
    """Add a number to the names that an earlier site has."""
    seen: dict[str, int] = {}
    named = []
    for site in sites:
        seen[site.name] = seen.get(site.name, 0) + 1
        again = seen[site.name] > 1
        named.append(replace(site, name=f"{site.name} ({seen[site.name]})") if again else site)
    return named


def _triple(mm: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in mm)
    return x, y, z


def point_sites(space: Space, xyz_mm: Sequence[tuple[float, float, float]]) -> list[Site]:
    """Give the voxels nearest to points (MNI millimetres).

    Raises
    ------
    SettingError
        If a point is not in the mask; names the nearest voxel that is.
    """
    mm, sites = space.mm(), []
    for wanted in xyz_mm:
        at = voxel_at(space, wanted)
        place, name = _triple(mm[at]), f"{wanted[0]:g},{wanted[1]:g},{wanted[2]:g}"
        label = load_atlas().label_of(mm[[at]])[0]
        sites.append(Site(name, "point", np.array([at]), place, label))
    return sites


def region_site(space: Space, path: Path) -> Site:
    """Give the analysed voxels of a mask file.

    Raises
    ------
    InputError, SpaceError
        If the file is no mask.
    SettingError
        If none of its voxels is analysed.
    """
    voxels = np.flatnonzero(space.extract(read_mask(path, space.voxel_size)))
    if not len(voxels):
        raise SettingError(f"{path}: no voxel of it lies in the mask of the analysis.")
    return Site(path.name, "region", voxels, (np.nan, np.nan, np.nan))
