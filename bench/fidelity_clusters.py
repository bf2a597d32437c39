"""Stage 3: significant voxels and peaks, ours against SDM-PSI's."""

from __future__ import annotations

import numpy as np
from fidelity_data import SIDES, sdm_maps, sdm_maxima, sdm_p
from fidelity_ledger import Bar, Ledger
from fidelity_null import FULL, STATISTICS, replay
from fidelity_scores import Peak, cluster_peaks, dice, nearest

from gpu_sdm.findings.peaks import local_maxima
from gpu_sdm.inference import corrected_maps, critical_value
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.permute.engine import TIE_TOLERANCE, Problem
from gpu_sdm.spaces import Space

ALPHAS = (0.05, 0.001)
DICE_BARS = {"bounds": Bar(0.90), "peaks": Bar(0.80)}
PEAK_BAR = Bar(high=6)  # mm
PEAK_ALPHA, PEAK_VOXELS = 0.001, 50  # of SDM-PSI's own report


def statistics_of(problem: Problem) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Statistic -> our map (V,) of each side: z and -z, or the TFCE of either."""
    z, enhance = problem.observed_z, TFCE.on("cpu")
    pos, neg = (enhance(sign * z, problem.neighbours) for sign in (1, -1))
    return {"voxel": (z, -z), "tfce": (pos, neg)}


def corrected(
    stats: dict[str, tuple[np.ndarray, np.ndarray]], maxima: dict[str, np.ndarray]
) -> dict[tuple[str, str], np.ndarray]:
    """Corrected p (V,) of our maps by (statistic, side)."""
    found = {}
    for statistic, (pos, neg) in stats.items():
        maps = corrected_maps(statistic, pos, neg, maxima[statistic], TIE_TOLERANCE[statistic])
        found |= {(statistic, side): maps[f"p_fwe_{statistic}{side}"] for side in SIDES}
    return found


def passing(p: np.ndarray, alpha: float) -> np.ndarray:
    """Voxels (V,) bool of p at most alpha; p is a count over at most a thousand."""
    return p <= alpha * (1 + 1e-6)


def overlaps(
    ledger: Ledger, part: str, ours: dict[tuple[str, str], np.ndarray], space: Space, start: str,
    permutations: int,
) -> None:  # fmt: skip
    """Enter voxel counts and Dice of every statistic and level, by side and of both together."""
    for statistic in STATISTICS:
        for alpha in ALPHAS:
            if alpha * permutations < 1:
                continue  # p cannot be so small
            pairs = [
                (
                    passing(ours[statistic, side], alpha),
                    passing(sdm_p(statistic, side, space), alpha),
                )
                for side in SIDES
            ]
            where = f"{statistic}, FWE p <= {alpha:g}"
            bar = DICE_BARS[start] if (statistic, alpha) == ("voxel", 0.05) else None
            for (mine, theirs), side in zip(pairs, ("positive", "negative"), strict=True):
                ledger.add(part, f"voxels, {side}", mine.sum(), where, theirs.sum())
                if mine.any() or theirs.any():
                    ledger.add(part, f"Dice, {side}", dice(mine, theirs), where,
                               bar=bar if side == "positive" else None)  # fmt: skip
            both = [np.concatenate(sets) for sets in zip(*pairs, strict=True)]
            ledger.add(part, "Dice, both sides", dice(*both), where, bar=bar)


def peak_rows(
    real: list[Peak], clusters: list[Peak], maxima_mm: np.ndarray, z: np.ndarray, space: Space,
    maxima_z: np.ndarray,
) -> list[dict[str, object]]:  # fmt: skip
    """One row per real peak: the nearest of our clusters' peaks and local maxima, our z there.

    Parameters
    ----------
    real, clusters : list of Peak
        SDM-PSI's cluster peaks and ours at the same threshold.
    maxima_mm, maxima_z : (n, 3) and (n,) array
        Our significant local maxima.
    z : (V,) array
        Our z map.
    space : Space
        Its grid and mask.
    """
    places = np.array([p.mm for p in real])
    far, which = nearest(places, np.array([p.mm for p in clusters]))
    local, at = nearest(places, maxima_mm)
    here = nearest(places, space.mm())[1]
    rows: list[dict[str, object]] = []
    for i, peak in enumerate(real):
        found = which[i] >= 0
        rows.append(
            {
                "x_mm": peak.mm[0],
                "y_mm": peak.mm[1],
                "z_mm": peak.mm[2],
                "voxels": peak.voxels,
                "z_theirs": peak.z,
                "z_ours_there": float(z[here[i]]),
                "cluster_peak_mm": float(far[i]) if found else None,
                "cluster_peak_z": clusters[which[i]].z if found else None,
                "cluster_peak_voxels": clusters[which[i]].voxels if found else None,
                "local_maximum_mm": float(local[i]) if at[i] >= 0 else None,
                "local_maximum_z": float(maxima_z[at[i]]) if at[i] >= 0 else None,
            }
        )
    return rows


def run_start(ledger: Ledger, start: str, permutations: int, imputations: int) -> None:
    """Compare clusters and peaks of one start, with our null of seed 0."""
    part = f"clusters-{start}"
    _, problem, _, null = replay(start, 0, permutations, imputations)
    space, z = problem.space, problem.observed_z.astype(float)
    stats = statistics_of(problem)
    p = corrected(stats, null.maxima)
    ledger.add(part, "permutations of our null", null.done, theirs=FULL)
    for statistic, theirs in sdm_maxima().items():
        for row, side in enumerate(("positive", "negative")):
            ledger.add(part, f"critical value, {statistic}",
                       critical_value(null.maxima[statistic][row], 0.05), f"p <= .05, {side}",
                       critical_value(theirs[row], 0.05))  # fmt: skip
    ledger.add(part, "largest z", z.max(), theirs=sdm_maps(space)["z"].max())
    ledger.add(part, "smallest z", z.min(), theirs=sdm_maps(space)["z"].min())
    overlaps(ledger, part, p, space, start, null.done)
    for statistic, theirs in sdm_maxima().items():
        # The maps alone, without the difference between the nulls.
        mine = stats[statistic][0] > critical_value(theirs[0], 0.05)
        wanted = passing(sdm_p(statistic, "", space), 0.05)
        where = f"{statistic}, at its critical value"
        ledger.add(part, "voxels, positive", mine.sum(), where, wanted.sum())
        ledger.add(part, "Dice, positive", dice(mine, wanted), where)

    real = cluster_peaks(
        sdm_maps(space)["z"], passing(sdm_p("voxel", "", space), PEAK_ALPHA), space, PEAK_VOXELS
    )
    enough = null.done >= FULL
    clusters = (
        cluster_peaks(z, passing(p["voxel", ""], PEAK_ALPHA), space, PEAK_VOXELS) if enough else []
    )
    tops = local_maxima(z, np.flatnonzero(passing(p["voxel", ""], 0.05)), space)
    rows = peak_rows(real, clusters, space.mm(tops), z, space, z[tops])
    ledger.tables[f"peaks-{start}"] = rows
    bar = PEAK_BAR if start == "bounds" else None
    for row in rows:
        where = "({x_mm:g}, {y_mm:g}, {z_mm:g})".format(**row)
        if enough:
            far = row["cluster_peak_mm"]
            ledger.add(part, "mm to our nearest cluster peak",
                       np.inf if far is None else far, where, bar=bar)  # fmt: skip
        far = row["local_maximum_mm"]
        ledger.add(part, "mm to our nearest local maximum",
                   np.inf if far is None else far, where, bar=bar)  # fmt: skip
        ledger.add(part, "z there", row["z_ours_there"], where, row["z_theirs"])
