"""Corrected p of the clusters of a finished result from the fitted tail of its null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_sdm.errors import SettingError
from gpu_sdm.findings.maps import tested_map
from gpu_sdm.findings.sites import Site
from gpu_sdm.finished import Finished
from gpu_sdm.ops.max_cluster import box_neighbours, cluster_maps
from gpu_sdm.tails import BEYOND, TailFit, fit_tail

BELOW = f"below 1/({BEYOND} P)"
COUNTED = "not in the tail"
NO_FIT = "no fit"
SIDES = {"positive": ("", 1), "negative": ("_neg", -1)}


def _statistics(finished: Finished) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """(statistic, side) -> its map and its counted p map, each (V,)."""
    settings, z = finished.settings, finished.map(tested_map(finished))
    found = {}
    for side, (suffix, sign) in SIDES.items():
        values = {"voxel": sign * z}
        if "tfce" in settings.statistic:
            values["tfce"] = finished.map(f"tfce{suffix}")
        if settings.cluster_threshold is not None:
            neighbours = box_neighbours(finished.space)
            extent, mass, _ = cluster_maps(sign * z, neighbours, settings.cluster_threshold)
            values |= {"cluster-extent": extent, "cluster-mass": mass}
        for statistic in settings.statistic:
            p = finished.map(f"p_fwe_{statistic.replace('-', '_')}{suffix}")
            found[statistic, side] = values[statistic], p
    return found


def tail_fits(finished: Finished) -> dict[tuple[str, str], TailFit | None]:
    """Fit the tail of every null of a result: (statistic, side) -> fit.

    Raises
    ------
    SettingError
        If the null holds every distinct permutation: there is nothing to approximate.
    """
    if finished.run.get("exact"):
        raise SettingError(
            f"{finished.folder} holds every distinct permutation: its p values are exact and its "
            "null has no tail to approximate."
        )
    return {
        (statistic, side): fit_tail(maxima[i], finished.settings.seed, f"{statistic} {side}")
        for statistic, maxima in finished.maxima().items()
        for i, side in enumerate(SIDES)
    }


def tail_table(finished: Finished, sites: Sequence[Site]) -> list[dict[str, Any]]:
    """Give counted and fitted corrected p at sites.

    Parameters
    ----------
    finished : Finished
        The result.
    sites : sequence of Site
        Clusters, peaks or points. Of several voxels the one with the largest statistic counts.

    Returns
    -------
    list of rows
        One per site and statistic, on the side of the site (of a point: that of its z):
        `value` of the statistic, `p_counted`, `p_tail` with its 95 % interval `p_low p_high`, and
        the fit: `tail_from` which value on, `tail_maxima`, `shape`, `scale`, `fit_p`, `accepted`.
        `flag` says where p_tail is missing ("not in the tail": counted there; "no fit") or only
        an upper limit ("below 1/(10 P)", which is then the number given).

    Raises
    ------
    SettingError
        If the null is exact.
    """
    fits = tail_fits(finished)
    maps, z = _statistics(finished), finished.map("z")
    floor = 1 / (BEYOND * next(iter(finished.maxima().values())).shape[1])
    rows = []
    for site in sites:
        side = site.side or ("positive" if z[site.voxels[0]] >= 0 else "negative")
        for statistic in finished.settings.statistic:
            values, counted = maps[statistic, side]
            best = site.voxels[np.argmax(values[site.voxels])]
            fit = fits[statistic, side]
            row = {
                **site.row(),
                "side": side,
                "statistic": statistic,
                "value": float(values[best]),
                "p_counted": float(counted[best]),
            }
            rows.append(row | _fitted(fit, float(values[best]), floor))
    return rows


def _fitted(fit: TailFit | None, value: float, floor: float) -> dict[str, Any]:
    p = low = high = np.nan
    flag = NO_FIT
    if fit is not None and fit.accepted:
        p = float(fit.p(np.array([value]))[0])
        low, high = (float(limit[0]) for limit in fit.interval(np.array([value])))
        flag = COUNTED if np.isnan(p) else BELOW if p < floor else ""
        p, low, high = (max(x, floor) for x in (p, low, high))
    return {
        "p_tail": p,
        "p_low": low,
        "p_high": high,
        "flag": flag,
        "tail_from": np.nan if fit is None else fit.threshold,
        "tail_maxima": 0 if fit is None else len(fit.excess),
        "shape": np.nan if fit is None else fit.shape,
        "scale": np.nan if fit is None else fit.scale,
        "fit_p": np.nan if fit is None else fit.fit_p,
        "accepted": fit is not None and fit.accepted,
    }
