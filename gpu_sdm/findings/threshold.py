"""Threshold a finished analysis: clusters, their peaks and what regions they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.atlas import Atlas, load_atlas
from gpu_sdm.checks import Interval, Options
from gpu_sdm.clusters import SIDES, Cluster, Threshold, cluster_rows, exactly, find_clusters
from gpu_sdm.data import Notice
from gpu_sdm.findings.cluster_tables import add_labels, add_shares, peak_rows, region_rows
from gpu_sdm.findings.maps import (
    MAPS,
    NamedMap,
    Source,
    named_map,
    p_tolerance,
    permutations_of,
    pooled_of,
)
from gpu_sdm.spaces import Space

PEAK_DISTANCE = 8.0  # mm; SPM's tables list maxima more than 8 mm apart


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What counts as a cluster and as a peak.

    Parameters
    ----------
    map : str
        A name in `gpu_sdm.findings.maps.MAPS`.
    p : float
        Voxels of p at most this pass.
    extent : int, optional
        Smallest cluster in voxels; 10, or 1 for maps that test whole clusters.
    peak_z : float
        Clusters whose peak ``|z|`` is not above it are dropped. 0 drops none; SDM-PSI's custom
        is 1.
    side : {"both", "positive", "negative"}
        Sides to look at.
    peak_distance : float
        Least distance in mm between the peaks that are listed of a cluster. 0 lists every local
        maximum, as SDM-PSI's reports.

    Raises
    ------
    SettingError
        If a value lies outside its range.

    Examples
    --------
    >>> Rule(map="uncorrected", p=0.005, peak_z=1, side="positive").name
    'uncorrected-0.005-k10-z1-positive'
    """

    map: str = "fwe-tfce"
    p: float = 0.05
    extent: int | None = None
    peak_z: float = 0.0
    side: str = "both"
    peak_distance: float = PEAK_DISTANCE

    def __post_init__(self) -> None:
        named_map(self.map)
        Interval(0, 1, closed="right").check("p", self.p)
        Interval(1, 10**7, integer=True).check("extent", self.k_min)
        Interval(0, 100).check("peak_z", self.peak_z)
        Options(("both", *SIDES)).check("side", self.side)
        Interval(0, 300).check("peak_distance", self.peak_distance)

    @property
    def k_min(self) -> int:
        """Smallest cluster in voxels."""
        return MAPS[self.map].extent if self.extent is None else self.extent

    @property
    def name(self) -> str:
        """Name for folders, e.g. `fwe-tfce-0.05-k10`, `uncorrected-0.005-k10-z1-positive`."""
        z = f"-z{self.peak_z:g}" if self.peak_z else ""
        side = "" if self.side == "both" else f"-{self.side}"
        return f"{self.map}-{self.p:g}-k{self.k_min}{z}{side}"

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides looked at."""
        return SIDES if self.side == "both" else (self.side,)


@dataclass(frozen=True, eq=False)
class Thresholded:
    """What passes a threshold.

    Parameters
    ----------
    folder : path
        The result it was made from.
    rule : Rule
        The threshold.
    space : Space
        Grid and mask.
    z : (V,) float32
        SDM-Z.
    found : list of Cluster
        The clusters, positive side first, larger ones first.
    clusters, peaks, regions : list of rows
        Tables, one row per cluster, per peak, and per cluster, atlas and region.
    atlases : tuple of str
        Names of the atlases, in the order asked for.
    passing : dict of str to int
        Side -> voxels that pass, those in clusters too small to keep included.
    notices : tuple of Notice
        What a reader must know.
    """

    folder: Path
    rule: Rule
    space: Space
    z: np.ndarray
    found: list[Cluster]
    clusters: list[dict[str, Any]]
    peaks: list[dict[str, Any]]
    regions: list[dict[str, Any]]
    atlases: tuple[str, ...]
    passing: dict[str, int]
    notices: tuple[Notice, ...]

    @property
    def named(self) -> NamedMap:
        """The map the threshold is set on."""
        return MAPS[self.rule.map]

    def numbers(self) -> np.ndarray:
        """Cluster of each voxel (V,) int32, as `clusters` numbers them; 0 outside."""
        number = np.zeros(self.space.n_voxels, np.int32)
        for cluster in self.found:
            number[cluster.voxels] = cluster.number
        return number

    def summary(self) -> dict[str, Any]:
        """Everything but the maps, as plain values."""
        return {
            "rule": {"name": self.rule.name, **asdict(self.rule), "extent": self.rule.k_min},
            "source": str(self.folder.absolute()),
            "p": self.named.says,
            "caveat": self.named.caveat,
            "voxels_passing": self.passing,
            "atlases": list(self.atlases),
            "warnings": [{"kind": n.kind, "message": n.message} for n in self.notices],
            "clusters": self.clusters,
            "peaks": self.peaks,
            "regions": self.regions,
        }


def _notices(source: Source, rule: Rule, atlases: Sequence[Atlas]) -> tuple[Notice, ...]:
    notices = [atlas.notice for atlas in atlases if atlas.notice is not None]
    permutations = permutations_of(source) if MAPS[rule.map].permuted else None
    if permutations and rule.p * permutations * (1 + 1e-6) < 1:
        notices.append(
            Notice(
                "nothing_can_pass",
                f"No voxel can pass p <= {rule.p:g}: with {permutations} permutations the smallest "
                f"corrected p is {1 / permutations:.3g}.",
            )
        )
    return tuple(notices)


def threshold(
    source: Source, rule: Rule | None = None, atlases: Sequence[Atlas] | None = None
) -> Thresholded:
    """Threshold a finished analysis.

    Parameters
    ----------
    source : Finished or SdmResults
        From `gpu_sdm.findings.maps.open_source`.
    rule : Rule, optional
        The threshold; by default TFCE-corrected p <= .05 and 10 voxels.
    atlases : sequence of Atlas, optional
        The first names clusters and peaks; shares are counted in each. Default: AAL2.

    Returns
    -------
    Thresholded
        Clusters are joined by faces, edges and corners. The table's p is that of the map the
        threshold is set on; `p_uncorrected` stands beside it.

    Raises
    ------
    SettingError
        If the result has no such map.

    Examples
    --------
    >>> from gpu_sdm.findings.maps import open_source
    >>> found = threshold(open_source(out), Rule(map="uncorrected", p=0.05, extent=1))
    >>> found.rule.name, found.clusters[0]["side"]
    ('uncorrected-0.05-k1', 'positive')
    """
    rule = Rule() if rule is None else rule
    wanted = [load_atlas()] if atlases is None else list(atlases)
    notices = _notices(source, rule, wanted)
    present = list({atlas.name: atlas for atlas in wanted if atlas.regions}.values())
    space, pooled = source.space, pooled_of(source)
    p = named_map(rule.map, source).p(source)
    limit = Threshold(rule.map, rule.p + p_tolerance(source))
    nowhere = np.zeros(space.n_voxels, bool)
    passing = (
        limit.passes(p[0], pooled.z) if "positive" in rule.sides else nowhere,
        limit.passes(p[1], -pooled.z) if "negative" in rule.sides else nowhere,
    )
    found = find_clusters(passing, pooled.z, space, rule.k_min, rule.peak_z)
    rows = cluster_rows(found, p, pooled, space, lambda mm: [""] * len(mm))
    plain = MAPS["uncorrected"].p(source)
    for cluster, row in zip(found, rows, strict=True):
        row["p_uncorrected"] = exactly(plain[SIDES.index(cluster.side)][cluster.peak])
    regions = region_rows(found, present, space)
    add_shares(rows, regions)
    peaks = peak_rows(found, rule.peak_distance, p, pooled, space)
    for table in (rows, peaks):
        add_labels(table, present)
    return Thresholded(
        folder=source.folder,
        rule=rule,
        space=space,
        z=pooled.z,
        found=found,
        clusters=rows,
        peaks=peaks,
        regions=regions,
        atlases=tuple(atlas.name for atlas in present),
        passing={s: int(m.sum()) for s, m in zip(SIDES, passing, strict=True) if s in rule.sides},
        notices=notices,
    )
