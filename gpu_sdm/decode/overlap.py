"""What maps of several seeds share, and which regions each of them covers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from gpu_sdm.atlas import NO_LABEL, Atlas
from gpu_sdm.clusters import blobs
from gpu_sdm.decode.coactivation import Coactivation
from gpu_sdm.decode.seeds import Seed
from gpu_sdm.findings.peaks import local_maxima, spread_out
from gpu_sdm.spaces import Space

OVERLAP = (
    "map", "seed_a", "seed_b", "label_a", "label_b", "voxels_a", "voxels_b", "voxels_both", "mm3",
    "dice", "share_a", "share_b",
)  # fmt: skip
REGIONS = (
    "seed", "map", "region", "voxels", "mm3", "share_of_map", "share_of_region", "z_max", "x_mm",
    "y_mm", "z_mm",
)  # fmt: skip
PEAKS = (
    "seed", "site", "rank", "x_mm", "y_mm", "z_mm", "distance_mm", "z", "q", "uniformity_z",
    "posterior", "studies_active", "studies", "cluster", "cluster_voxels", "label",
)  # fmt: skip
APART_MM, LISTED = 16.0, 30  # between listed local maxima, and how many of them


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Twice the common voxels over the sum of both; NaN where both are empty."""
    size = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / size if size else float("nan")


def overlap_rows(
    name: str, seeds: Sequence[Seed], maps: Sequence[np.ndarray], space: Space
) -> list[dict[str, object]]:
    """Compare every two maps.

    Parameters
    ----------
    name : str
        What the maps are.
    seeds : sequence of Seed
        Whose they are.
    maps : sequence of (V,) bool
        One a seed.
    space : Space
        Grid and mask.
    """
    rows: list[dict[str, object]] = []
    for (s, a), (t, b) in combinations(zip(seeds, maps, strict=True), 2):
        both = int((a & b).sum())
        n_a, n_b = int(a.sum()), int(b.sum())
        values = (
            name, s.number, t.number, s.site.label, t.site.label, n_a, n_b, both,
            both * space.voxel_size**3, dice(a, b), both / n_a if n_a else None,
            both / n_b if n_b else None,
        )  # fmt: skip
        rows.append(dict(zip(OVERLAP, values, strict=True)))
    return rows


def region_rows(
    seed: Seed, name: str, values: np.ndarray, space: Space, atlas: Atlas
) -> list[dict[str, object]]:
    """List the atlas regions that a map covers, the largest part first.

    Parameters
    ----------
    seed : Seed
        Whose map.
    name : str
        What the map is.
    values : (V,) float
        z where it counts, else 0.
    space : Space
        Grid and mask.
    atlas : Atlas
        Names; without regions there are no rows.
    """
    if not atlas.regions:
        return []
    number = atlas.number_at(space.mm())
    inside = values > 0
    whole = np.bincount(number)
    rows: list[dict[str, object]] = []
    for n in np.unique(number[inside]).tolist():
        here = np.flatnonzero(inside & (number == n))
        best = here[np.argmax(values[here])]
        x, y, z = space.mm(np.array([best]))[0].tolist()
        cells = (
            seed.number, name, atlas.regions[n] if n else NO_LABEL, len(here),
            len(here) * space.voxel_size**3, len(here) / int(inside.sum()),
            len(here) / int(whole[n]), float(values[best]), int(x), int(y), int(z),
        )  # fmt: skip
        rows.append(dict(zip(REGIONS, cells, strict=True)))
    return sorted(rows, key=lambda row: (row["region"] == NO_LABEL, -int(str(row["voxels"]))))


def peak_rows(
    seed: Seed, found: Coactivation, q: float, space: Space, atlas: Atlas
) -> list[dict[str, object]]:
    """List the highest local maxima of a co-activation map that lie apart, at most 30.

    A map often is one cluster: its maxima tell where, the cluster's size how far it reaches.
    """
    passing = found.found(q)
    number = blobs(passing, space, 1)
    size = np.bincount(number)
    maxima = local_maxima(found.z, np.flatnonzero(passing), space)
    kept = spread_out(maxima[: 20 * LISTED], space, APART_MM)[:LISTED]
    if not len(kept):
        return []
    posterior, mm = found.posterior(), space.mm(kept)
    distance = np.linalg.norm(mm - np.array(seed.xyz_mm), axis=1)
    rows: list[dict[str, object]] = []
    for i, (v, label) in enumerate(zip(kept.tolist(), atlas.label_of(mm), strict=True)):
        cells = (
            seed.number, seed.site.name, i + 1, *mm[i].astype(int).tolist(), float(distance[i]),
            float(found.z[v]), float(found.q[v]), float(found.uniformity_z[v]),
            float(posterior[v]), int(found.active[v]), found.studies, int(number[v]),
            int(size[number[v]]), label,
        )  # fmt: skip
        rows.append(dict(zip(PEAKS, cells, strict=True)))
    return rows
