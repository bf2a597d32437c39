"""Regions of interest by name: structures of an atlas, mask files, and sets from the literature."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpu_sdm.atlas import Atlas, open_atlas
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.sites import Site, region_site
from gpu_sdm.spaces import Space

# Sets of regions that a literature keeps asking about: what `--roi` would take.
PRESETS: dict[str, tuple[str, ...]] = {
    "pain-empathy": (
        "ACC=AAL2:Cingulate_Ant",
        "midcingulate=AAL2:Cingulate_Mid",
        "insula=AAL2:Insula",
        "amygdala=AAL2:Amygdala",
        "prefrontal=AAL2:Frontal_Sup_2+Frontal_Mid_2+Frontal_Sup_Medial+Frontal_Med_Orb",
        "inferior frontal=AAL2:Frontal_Inf_Oper+Frontal_Inf_Tri",
        "inferior parietal=AAL2:Parietal_Inf+SupraMarginal",
        "premotor=AAL2:Precentral+Supp_Motor_Area",
    ),
}
HEMISPHERES = ("_L", "_R")
NOWHERE = (np.nan, np.nan, np.nan)


def _numbers(atlas: Atlas, structure: str) -> list[int]:
    """Region numbers of a structure; without _L or _R both hemispheres."""
    wanted = {structure.lower(), *(f"{structure}{side}".lower() for side in HEMISPHERES)}
    found = [n for n, name in atlas.regions.items() if name.lower() in wanted]
    exact = [n for n in found if atlas.regions[n].lower() == structure.lower()]
    if found:
        return exact or found
    names = sorted({*atlas.regions.values()})
    plain = {n.lower(): n for n in [*names, *(n.removesuffix("_L") for n in names)]}
    near = [plain[n] for n in difflib.get_close_matches(structure.lower(), plain, 4, 0.5)]
    raise SettingError(
        f"{atlas.name} has no region {structure!r}; "
        + (f"near to it are: {', '.join(near)}." if near else f"it has: {', '.join(names)}.")
    )


def _site(name: str, voxels: np.ndarray) -> Site:
    if not len(voxels):
        raise SettingError(f"region {name!r}: no voxel of it lies in the mask of the analysis.")
    return Site(name, "region", voxels, NOWHERE)


def parse_region(text: str, space: Space) -> list[Site]:
    """Find the voxels that an option `--roi` means.

    Parameters
    ----------
    text : str
        [NAME=]ATLAS:STRUCTURE[+STRUCTURE...] or [NAME=]FILE.nii.gz. ATLAS is the name of a
        packaged atlas or the file of another one. A structure without _L or _R is both
        hemispheres.
    space : Space
        Grid and mask; voxels outside the mask do not count.

    Returns
    -------
    list of Site
        With a NAME the one region; without, each structure, then their union if they are several.

    Raises
    ------
    SettingError
        If an atlas or structure is not known, or lies outside the mask.
    InputError, SpaceError
        If a file cannot be used.
    """
    name, named, rest = text.partition("=")
    if not named or Path(text.strip()).is_file():  # a folder's name may hold an =
        name, named, rest = "", "", text
    name, rest = name.strip(), rest.strip()
    if not rest or (named and not name):
        raise SettingError(
            f"--roi is {text!r}; write ATLAS:STRUCTURE+STRUCTURE, NAME=ATLAS:STRUCTURE or "
            "NAME=FILE.nii.gz."
        )
    if rest.lower().endswith((".nii", ".nii.gz")):  # C:\mask.nii too, which is no structure of C
        site = region_site(space, Path(rest))
        return [_site(name or site.name, site.voxels)]
    where, colon, structures = rest.rpartition(":")
    if not colon:
        raise SettingError(
            f"--roi is {text!r}: {rest!r} is neither a NIfTI file nor ATLAS:STRUCTURE, such "
            "as AAL2:Insula_L+Insula_R."
        )
    atlas = open_atlas(where)
    if atlas.notice is not None:
        raise SettingError(f"{where} is not there. {atlas.notice.message}")
    parts = [s.strip() for s in structures.split("+")]
    numbers = [_numbers(atlas, s) for s in parts]
    at = atlas.number_at(space.mm())
    voxels = [np.flatnonzero(np.isin(at, wanted)) for wanted in numbers]
    union = np.unique(np.concatenate(voxels))
    if named:
        return [_site(name, union)]
    sites = [_site(s, v) for s, v in zip(parts, voxels, strict=True)]
    return sites if len(sites) == 1 else [*sites, _site("+".join(parts), union)]


def regions_of(texts: Sequence[str], presets: Sequence[str], space: Space) -> list[Site]:
    """Give the regions of several options `--roi` and `--preset`, and at last all of them.

    Raises
    ------
    SettingError
        If nothing is asked for, a preset is not known, or two regions share a name.
    """
    for preset in presets:
        if preset not in PRESETS:
            raise SettingError(f"preset is {preset!r}; there are: {', '.join(PRESETS)}.")
    asked = [*texts, *(text for preset in presets for text in PRESETS[preset])]
    if not asked:
        raise SettingError(
            "no region is asked for; give --roi, such as AAL2:Insula_L+Insula_R, or --preset."
        )
    groups = [parse_region(text, space) for text in asked]
    sites = [site for group in groups for site in group]
    if len(groups) > 1:
        voxels = np.unique(np.concatenate([group[-1].voxels for group in groups]))
        sites.append(_site("all regions", voxels))
    names = [s.name for s in sites]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise SettingError(f"two regions are called {twice!r}; give one another NAME=.")
    return sites
