"""Seeds: peaks, points and clusters, and the studies of a database that report a peak there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_sdm.decode.counts import nearest_voxels
from gpu_sdm.decode.database import Database
from gpu_sdm.findings.sites import Site
from gpu_sdm.spaces import Space

RADIUS_MM = 6.0


@dataclass(frozen=True, eq=False)
class Seed:
    """A site and its number, which files and tables call it by.

    Parameters
    ----------
    number : int
        From 1, in the order asked for.
    site : Site
        A peak, a point (a sphere around it) or a cluster (its voxels).
    xyz_mm : tuple of three float
        The peak or the point, as asked for.
    """

    number: int
    site: Site
    xyz_mm: tuple[float, float, float]

    @property
    def where(self) -> str:
        """Write its coordinates "x,y,z"."""
        return ",".join(f"{v:g}" for v in self.xyz_mm)

    @property
    def stem(self) -> str:
        """Beginning of its files' names."""
        return f"seed{self.number}_" + "_".join(f"{v:g}" for v in self.xyz_mm)

    @property
    def title(self) -> str:
        """How figures call it."""
        label = self.site.label.replace("_", " ")
        return f"{label} ({self.where})" if label else self.where

    def row(self) -> dict[str, object]:
        """First columns of every table."""
        x, y, z = self.xyz_mm
        return {
            "seed": self.number,
            "site": self.site.name,
            "x_mm": x,
            "y_mm": y,
            "z_mm": z,
            "label": self.site.label,
        }


def seeds_of(sites: Sequence[Site], kind: str) -> list[Seed]:
    """Give the sites to look at their numbers.

    Parameters
    ----------
    sites : sequence of Site
        Peaks and clusters of thresholds, and points.
    kind : {"peak", "cluster"}
        Of a cluster: take its peak or all its voxels. Points are kept either way.
    """
    kept = [s for s in sites if s.kind in (kind, "point")]
    return [Seed(i, s, _place(s)) for i, s in enumerate(kept, 1)]


def _place(site: Site) -> tuple[float, float, float]:
    """Give a point as it was asked for: its voxel's centre may lie beside it."""
    if site.kind == "point":
        x, y, z = (float(v) for v in site.name.split(" ")[0].split(","))
        return x, y, z
    return site.xyz_mm


def studies_at(database: Database, seed: Seed, space: Space, radius_mm: float) -> np.ndarray:
    """(K,) bool studies with a peak at a seed.

    Parameters
    ----------
    database : Database
        K studies.
    seed : Seed
        Where.
    space : Space
        Grid and mask, for clusters.
    radius_mm : float
        Largest distance from a peak or a point, mm. Of a cluster, a peak counts whose nearest
        voxel is in it.
    """
    if seed.site.kind == "cluster":
        ijk = nearest_voxels(database.xyz_mm, space)
        inside = ((ijk >= 0) & (ijk < space.shape)).all(axis=1)
        member = space.embed(np.isin(np.arange(space.n_voxels), seed.site.voxels)) > 0
        near = np.zeros(len(ijk), bool)
        near[inside] = member[tuple(ijk[inside].T)]
    else:
        near = np.linalg.norm(database.xyz_mm - np.array(seed.xyz_mm), axis=1) <= radius_mm
    return np.bincount(database.study[near], minlength=len(database.ids)) > 0
