"""The whole characterisation of some seeds, and its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.atlas import Atlas
from gpu_sdm.decode.coactivation import KERNEL_MM, Coactivation, coactivation, total_counts
from gpu_sdm.decode.connectivity import R_MIN, Connectivity, conjunction
from gpu_sdm.decode.database import Database
from gpu_sdm.decode.overlap import overlap_rows, peak_rows, region_rows
from gpu_sdm.decode.seeds import RADIUS_MM, Seed, studies_at
from gpu_sdm.decode.terms import MIN_STUDIES, Terms, associate, usable_terms
from gpu_sdm.errors import SettingError
from gpu_sdm.spaces import Space

LEAST_STUDIES = 20
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of a characterisation.

    Parameters
    ----------
    radius_mm : float
        A study belongs to a peak or point if it reports a peak at most this far.
    kernel_mm : float
        Radius of MKDA.
    q : float
        False discovery rate of maps.
    min_studies : int
        A seed of fewer studies is refused.
    r_min : float
        Smallest correlation of a connectivity map that counts.
    n : int, optional
        Independent observations behind it.
    terms : int
        Terms to list of each seed.
    min_term_studies : int
        Terms of fewer studies are not tested.
    """

    radius_mm: float = RADIUS_MM
    kernel_mm: float = KERNEL_MM
    q: float = 0.05
    min_studies: int = LEAST_STUDIES
    r_min: float = R_MIN
    n: int | None = None
    terms: int = 15
    min_term_studies: int = MIN_STUDIES


@dataclass(frozen=True, eq=False)
class SeedFound:
    """What was found of one seed."""

    seed: Seed
    coactivation: Coactivation
    terms: Terms
    connectivity: Connectivity | None
    conjunction: np.ndarray | None  # (V,) z, 0 where not both


@dataclass(frozen=True, eq=False)
class Decoded:
    """What was found of all seeds.

    Parameters
    ----------
    database, space, rules, atlas
        What it was made with.
    found : list of SeedFound
        Seeds with enough studies.
    refused : list of row
        The others: their columns, their studies and why.
    """

    database: Database
    space: Space
    rules: Rules
    atlas: Atlas
    found: list[SeedFound]
    refused: list[dict[str, Any]]

    @cached_property
    def seeds(self) -> list[dict[str, Any]]:
        """Studies of each seed, and voxels of its maps."""
        return [
            {
                **f.seed.row(),
                "studies": f.coactivation.studies,
                "studies_all": len(self.database.ids),
                "coactivation_voxels": int(f.coactivation.found(self.rules.q).sum()),
                "connectivity_voxels": None
                if f.connectivity is None
                else int(f.connectivity.passes.sum()),
                "conjunction_voxels": None
                if f.conjunction is None
                else int((f.conjunction > 0).sum()),
            }
            for f in self.found
        ]

    @cached_property
    def peaks(self) -> list[dict[str, Any]]:
        """Highest local maxima of the co-activation maps."""
        return [
            row
            for f in self.found
            for row in peak_rows(f.seed, f.coactivation, self.rules.q, self.space, self.atlas)
        ]

    @cached_property
    def regions(self) -> list[dict[str, Any]]:
        """Atlas regions of the co-activation maps, and of the conjunctions where there are."""
        rows: list[dict[str, Any]] = []
        for f in self.found:
            z = np.where(f.coactivation.found(self.rules.q), f.coactivation.z, 0)
            rows += region_rows(f.seed, "coactivation", z, self.space, self.atlas)
            if f.conjunction is not None:
                rows += region_rows(f.seed, "conjunction", f.conjunction, self.space, self.atlas)
        return rows

    @cached_property
    def overlap(self) -> list[dict[str, Any]]:
        """Common voxels of every two seeds' maps."""
        seeds = [f.seed for f in self.found]
        maps = [f.coactivation.found(self.rules.q) for f in self.found]
        rows = overlap_rows("coactivation", seeds, maps, self.space)
        both = [f for f in self.found if f.conjunction is not None]
        maps = [f.conjunction > 0 for f in both if f.conjunction is not None]
        return rows + overlap_rows("conjunction", [f.seed for f in both], maps, self.space)

    @cached_property
    def terms(self) -> list[dict[str, Any]]:
        """Most associated terms of each seed."""
        return [
            {**f.seed.row(), "rank": rank, **f.terms.row(i)}
            for f in self.found
            for rank, i in enumerate(f.terms.top(self.rules.terms), 1)
        ]

    def all_terms(self) -> list[dict[str, Any]]:
        """Every tested term at every seed."""
        return [
            {"seed": f.seed.number, **f.terms.row(i)}
            for f in self.found
            for i in range(len(f.terms.names))
        ]

    def spokes(self) -> tuple[str, ...]:
        """Union of the seeds' most associated terms."""
        union: dict[str, None] = {}
        for f in self.found:
            union |= {f.terms.names[i]: None for i in f.terms.top(self.rules.terms)}
        return tuple(union)

    def said(self) -> dict[str, Any]:
        """Content of run.json."""
        return {
            "rules": asdict(self.rules),
            "terms_tested": len(self.found[0].terms.names),
            "term_value_from": self.database.least,
            "voxel_size": self.space.voxel_size,
            "mask_voxels": self.space.n_voxels,
            "mask": self.space.digest(),
            "atlas": self.atlas.name or None,
            "seeds": self.seeds,
            "refused": self.refused,
            "connectivity": [
                {"seed": f.seed.number, "file": c.path, "sha256": c.sha256}
                for f in self.found
                if (c := f.connectivity) is not None
            ],
            "database": self.database.said(),
        }


def decode(
    database: Database,
    seeds: Sequence[Seed],
    space: Space,
    keep: np.ndarray,
    atlas: Atlas,
    rules: Rules = Rules(),
    connectivity: Mapping[int, Connectivity] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Decoded:
    """Characterise seeds by a database.

    Parameters
    ----------
    database : Database
        K studies.
    seeds : sequence of Seed
        Where.
    space : Space
        Grid and mask of the maps.
    keep : (T,) bool
        Terms to look at, from `words.chosen_terms`.
    atlas : Atlas
        Names of regions.
    rules : Rules
        Settings.
    connectivity : mapping of int to Connectivity, optional
        Seed number -> its map.
    progress : callable
        Called with (stage, done, total).

    Raises
    ------
    SettingError
        If every seed has too few studies, or all there are, or none of the terms can be tested.
    """
    tested = usable_terms(database, keep, rules.min_term_studies)
    selections = [studies_at(database, s, space, rules.radius_mm) for s in seeds]
    why = [_unfit(s, chosen, rules, database) for s, chosen in zip(seeds, selections, strict=True)]
    refused = [
        {**s.row(), "studies": int(chosen.sum()), "why": text}
        for s, chosen, text in zip(seeds, selections, why, strict=True)
        if text
    ]
    if len(refused) == len(seeds):
        raise SettingError(" ".join(str(row["why"]) for row in refused))
    total = total_counts(database, space, rules.kernel_mm)
    found = []
    for i, (seed, chosen, text) in enumerate(zip(seeds, selections, why, strict=True)):
        progress("seeds", i, len(seeds))
        if text:
            continue
        map_of = (connectivity or {}).get(seed.number)
        coactive = coactivation(database, chosen, space, total, rules.kernel_mm)
        both = None if map_of is None else conjunction(coactive, map_of, rules.q)
        found.append(SeedFound(seed, coactive, associate(database, chosen, tested), map_of, both))
    progress("seeds", len(seeds), len(seeds))
    return Decoded(database, space, rules, atlas, found, refused)


def _unfit(seed: Seed, chosen: np.ndarray, rules: Rules, database: Database) -> str:
    """Say why the studies of a seed cannot be compared with the others; empty if they can."""
    n, of = int(chosen.sum()), f"of the {len(chosen):,} studies of {database.label}"
    where = "in the cluster" if seed.site.kind == "cluster" else f"<= {rules.radius_mm:g} mm away"
    if n < rules.min_studies:
        return (
            f"({seed.where}): {n} {of} have a peak {where}, and --min-studies is "
            f"{rules.min_studies}: too few to tell."
        )
    if n == len(chosen):
        return f"({seed.where}): all {of} have a peak {where}: there are no others to compare with."
    return ""


def map_files(found: SeedFound, q: float) -> dict[str, tuple[np.ndarray, str, str]]:
    """Give the maps of a seed: name -> values, description and NIfTI intent."""
    coactive = found.coactivation
    maps = {
        "association_z": (coactive.z, "Co-activation: association z", "z score"),
        "uniformity_z": (coactive.uniformity_z, "Co-activation: uniformity z", "z score"),
        "association_q": (coactive.q, "Co-activation: FDR q of association", "p value"),
        "coactivation": (
            np.where(coactive.found(q), coactive.z, 0),
            f"Co-activation: association z, FDR q <= {q:g}",
            "z score",
        ),
    }
    if found.connectivity is not None and found.conjunction is not None:
        tested, fisher = found.connectivity.z, found.connectivity.fisher_z
        if tested is None:
            maps["connectivity_z"] = (fisher, "Seed connectivity: Fisher z of r", "none")
        else:
            maps["connectivity_z"] = (tested, "Seed connectivity: z of Fisher's z", "z score")
        says = f"{'association' if tested is None else 'minimum'} z where both"
        maps["conjunction"] = (found.conjunction, f"Co-activation and connectivity: {says}", "none")
    return maps


def map_path(folder: Path, seed: Seed, name: str) -> Path:
    """Where a map of a seed lies."""
    return folder / "maps" / f"{seed.stem}_{name}.nii.gz"
