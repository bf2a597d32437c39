"""What the figures of a finished result show: a map, what passes a threshold, the peaks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.atlas import load_atlas
from gpu_sdm.clusters import SIDES
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.figures._brain import UNITS, Scale, hide, scale_of
from gpu_sdm.figures.labels import peak_text
from gpu_sdm.findings.maps import MAPS, Source, available, named_map
from gpu_sdm.findings.sites import Site, point_sites
from gpu_sdm.findings.threshold import Rule, Thresholded, threshold
from gpu_sdm.spaces import Space

DEFAULTS = ("fwe-tfce", "fwe-voxel", "fwe-extent", "fwe-mass", "uncorrected")
MINUS_LOG = "\N{MINUS SIGN}log\N{SUBSCRIPT ONE}\N{SUBSCRIPT ZERO} "


@dataclass(frozen=True, eq=False)
class View:
    """One map of a result as the brain figures draw it.

    Parameters
    ----------
    space : Space
        Grid and mask.
    values : (V,) float32
        The map.
    shown : (V,) bool
        Voxels to draw: those of the clusters; all where there is none.
    scale : Scale
        Colours.
    sites : tuple of Site
        Peaks: one per cluster, strongest first, then the points asked for. Where nothing passes,
        the extreme of either side.
    name : str
        For file names, e.g. "z_fwe-tfce-0.05-k10".
    title : str
        What is shown, in words.
    warning : str
        Said in the figure and on stderr where nothing passes; else empty.
    rule : Rule
        The threshold.
    """

    space: Space
    values: np.ndarray
    shown: np.ndarray
    scale: Scale
    sites: tuple[Site, ...]
    name: str
    title: str
    warning: str
    rule: Rule

    @property
    def peaks(self) -> np.ndarray:
        """(n, 3) float64 MNI millimetres of the sites."""
        return np.array([site.xyz_mm for site in self.sites], np.float64).reshape(-1, 3)

    def texts(self, line: str = "\n") -> list[str]:
        """Region and place of each site."""
        return [peak_text(site.label, site.xyz_mm, line) for site in self.sites]


def rule_of(source: Source, name: str | None = None, p: float | None = None) -> Rule:
    """Find the threshold that a name stands for.

    Parameters
    ----------
    source : Finished or SdmResults
        The result.
    name : str, optional
        A map that thresholds are set on (fwe-tfce, ...), a folder of `thresholds/` in the result,
        or the path of one. Default: the first corrected one that the result has.
    p : float, optional
        Voxels of p at most this; .05, uncorrected .0025.

    Raises
    ------
    SettingError
        If there is no such threshold; names those there are.
    InputError
        If the folder's threshold.json is damaged.
    """
    if name is None:
        there = available(source)
        name = next((d for d in DEFAULTS if d in there), there[0])
    stored = source.folder / "thresholds" / name / "threshold.json"
    if not stored.is_file() and (Path(name) / "threshold.json").is_file():
        stored = Path(name) / "threshold.json"
    if stored.is_file():
        if p is not None:
            raise SettingError(f"{name} is a finished threshold with its own p; leave out --p.")
        return _read_rule(stored)
    if name not in MAPS:
        folder = source.folder / "thresholds"
        made = sorted(f.name for f in folder.iterdir()) if folder.is_dir() else []
        raise SettingError(
            f"threshold is {name!r}; it must be one of {', '.join(available(source))}"
            + (f", or a finished one: {', '.join(made)}." if made else ".")
        )
    named_map(name, source)
    usual = 0.0025 if name == "uncorrected" else 0.05
    return Rule(map=name, p=usual if p is None else p)


def _read_rule(path: Path) -> Rule:
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))["rule"]
        return Rule(**{f.name: held[f.name] for f in fields(Rule)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"holds no threshold of gpu-sdm threshold ({error}).", path) from error


def _map(source: Source, name: str) -> tuple[np.ndarray, str]:
    """Values (V,) and unit of a map; p maps of either side as signed -log10 p."""
    values = source.map(name)
    if name != "p" and not name.startswith("p_"):
        return values, UNITS.get(name, name)
    stem = name.removesuffix("_neg")
    p = np.asarray(source.map(stem), np.float64)
    other = np.asarray(source.map(f"{stem}_neg"), np.float64) if source.has(f"{stem}_neg") else p
    z = source.map("z")
    mine = np.where(z >= 0, p, other)
    signed = -np.sign(z) * np.log10(np.maximum(mine, np.finfo(np.float32).tiny))
    of = {"p": "p, uncorrected"}.get(stem, stem)
    return signed.astype(np.float32), f"{MINUS_LOG}{of}, with the sign of the effect"


def _extremes(values: np.ndarray, space: Space) -> list[Site]:
    """Give the largest voxel of either sign, the stronger first."""
    sites = []
    for side, sign in zip(SIDES, (1, -1), strict=True):
        at = int(np.argmax(sign * values))
        if sign * values[at] > 0:
            x, y, z = (float(v) for v in space.mm(np.array([at]))[0])
            label = load_atlas().label_of(np.array([[x, y, z]]))[0]
            sites.append(
                Site(f"{side} extreme", "point", np.array([at]), (x, y, z), label, side=side)
            )
    return sorted(sites, key=lambda s: -abs(float(values[s.voxels[0]])))


def _peaks(found: Thresholded) -> list[Site]:
    """Give the peak of each cluster, the strongest first."""
    sites = [
        Site(
            f"{found.rule.name} {cluster.number} peak", "peak", np.array([cluster.peak]),
            (float(row["x_mm"]), float(row["y_mm"]), float(row["z_mm"])), row["label"],
            found.rule.name, cluster.side, cluster.number,
        )
        for cluster, row in zip(found.found, found.clusters, strict=True)
    ]  # fmt: skip
    return sorted(sites, key=lambda s: -abs(float(found.z[s.voxels[0]])))


def view(
    source: Source,
    map_name: str = "z",
    rule: Rule | None = None,
    points: Sequence[tuple[float, float, float]] = (),
    *,
    peaks: int = 12,
    high: float | None = None,
) -> View:
    """Choose what the figures of a result show.

    Parameters
    ----------
    source : Finished or SdmResults
        From `gpu_sdm.findings.maps.open_source`.
    map_name : str
        A map of the result, e.g. "z", "g", "i2"; p maps are shown as signed -log10 p.
    rule : Rule, optional
        The threshold; by default `rule_of(source)`.
    points : sequence of (x, y, z)
        MNI millimetres to show; then the peaks of the clusters are not.
    peaks : int
        Peaks at most.
    high : float, optional
        Value with the strongest colour; by default the largest shown.

    Raises
    ------
    InputError, SettingError
        If there is no such map, or a point lies outside the mask.

    Notes
    -----
    Where nothing passes, the whole map is shown and `warning` says so.
    """
    rule = rule_of(source) if rule is None else rule
    found = threshold(source, rule)
    values, unit = _map(source, map_name)
    says = (
        f"p \N{LESS-THAN OR EQUAL TO} {rule.p:g} ({found.named.says}), "
        f"k \N{GREATER-THAN OR EQUAL TO} {rule.k_min}"
    )
    shown, warning, name = found.numbers() > 0, "", f"{map_name}_{rule.name}"
    if not found.found:
        shown = np.ones(len(values), bool)
        warning = f"No cluster at {says}: the unthresholded map is shown"
        name = f"{map_name}_unthresholded"
    sites = point_sites(source.space, points) or _peaks(found) or _extremes(found.z, source.space)
    made = scale_of(hide(values, shown), map_name, high)
    scale = replace(made, unit=unit, fade=bool(warning))
    return View(
        source.space, values, shown, scale, tuple(sites[: max(peaks, len(points))]), name,
        warning or says, warning, rule,
    )  # fmt: skip
