"""Stage 3: significant voxels and peaks, ours against SDM-PSI's, and against another run of ours.

SDM-PSI's report lists every cluster at voxelwise FWE p <= .001 of 50 voxels or more by its peak and
below it its local peaks, the local maxima (26 neighbours) of those clusters; ours are found so too.
"""

from __future__ import annotations

import numpy as np
from fidelity_data import SIDES, enge, sdm_maps, sdm_maxima, sdm_p
from fidelity_ledger import Bar, Ledger
from fidelity_maps import AGAIN, mean_model
from fidelity_null import FULL, STATISTICS, replay
from fidelity_scores import Peak, cluster_peaks, dice, nearest

from gpu_sdm.clusters import blobs
from gpu_sdm.findings.peaks import local_maxima
from gpu_sdm.inference import corrected_maps, critical_value
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.permute.engine import TIE_TOLERANCE
from gpu_sdm.spaces import Space

ALPHAS = (0.05, 0.001)
DICE_BARS = {"bounds": Bar(0.90), "peaks": Bar(0.80), "learned": Bar(0.80)}
PEAK_BAR = Bar(high=6)  # mm
PEAK_ALPHA, PEAK_VOXELS = 0.001, 50  # of SDM-PSI's own report


def statistics_of(z: np.ndarray, space: Space) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Statistic -> our map (V,) of each side: z and -z, or the TFCE of either."""
    enhance, beside = TFCE.on("cpu"), space.neighbours()
    pos, neg = (enhance(sign * z, beside) for sign in (1, -1))
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
    ledger: Ledger, part: str, ours: dict[tuple[str, str], np.ndarray],
    again: dict[tuple[str, str], np.ndarray], space: Space, start: str, permutations: int,
) -> None:  # fmt: skip
    """Enter voxel counts and Dice of every statistic and level, by side and of both together.

    `again` is p of another run of ours; beside the Dice of ours and theirs stands that of both.
    """
    for statistic in STATISTICS:
        for alpha in ALPHAS:
            if alpha * permutations < 1:
                continue  # p cannot be so small
            sets = [
                tuple(passing(p, alpha) for p in (
                    ours[statistic, side], sdm_p(statistic, side, space), again[statistic, side]
                ))
                for side in SIDES
            ]  # fmt: skip
            where = f"{statistic}, FWE p <= {alpha:g}"
            bar = DICE_BARS[start] if (statistic, alpha) == ("voxel", 0.05) else None
            for (mine, theirs, other), side in zip(sets, ("positive", "negative"), strict=True):
                ledger.add(part, f"voxels, {side}", mine.sum(), where, theirs.sum(),
                           beside={AGAIN: other.sum()})  # fmt: skip
                if mine.any() or theirs.any():
                    ledger.add(part, f"Dice, {side}", dice(mine, theirs), where,
                               bar=bar if side == "positive" else None,
                               beside={AGAIN: dice(mine, other)})  # fmt: skip
            mine, theirs, other = (np.concatenate(found) for found in zip(*sets, strict=True))
            ledger.add(part, "Dice, both sides", dice(mine, theirs), where, bar=bar,
                       beside={AGAIN: dice(mine, other)})  # fmt: skip


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
        Local peaks of our clusters.
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
                "local_peak_mm": float(local[i]) if at[i] >= 0 else None,
                "local_peak_z": float(maxima_z[at[i]]) if at[i] >= 0 else None,
            }
        )
    return rows


def peaks(
    ledger: Ledger, part: str, start: str, z: np.ndarray, p: np.ndarray, again: tuple[
        np.ndarray, np.ndarray], space: Space,
) -> None:  # fmt: skip
    """Enter how far our peaks are from SDM-PSI's; `again` are z and p of another run of ours."""
    theirs = sdm_maps(space)["z"], sdm_p("voxel", "", space)
    real, clusters, others = (
        cluster_peaks(values, passing(corrected_p, PEAK_ALPHA), space, PEAK_VOXELS)
        for values, corrected_p in (theirs, (z, p), again)
    )
    where = f"voxel, FWE p <= {PEAK_ALPHA:g}, {PEAK_VOXELS} voxels"
    ledger.add(part, "cluster peaks", len(clusters), where, len(real), beside={AGAIN: len(others)})
    places = [np.array([peak.mm for peak in found]) for found in (real, clusters, others)]
    close = [float((nearest(places[i], places[j])[0] <= PEAK_BAR.high).mean())
             for i, j in ((0, 1), (1, 2))]  # fmt: skip
    ledger.add(part, "share of theirs with one of ours within 6 mm", close[0], where,
               beside={AGAIN: close[1]})  # fmt: skip
    listed = np.flatnonzero(blobs(passing(p, PEAK_ALPHA), space, PEAK_VOXELS))
    tops = local_maxima(z, listed, space)
    rows = peak_rows(real, clusters, space.mm(tops), z, space, z[tops])
    ledger.tables[f"peaks-{start}"] = rows
    bar = PEAK_BAR if start == "bounds" else None
    for row in rows:
        at = "({x_mm:g}, {y_mm:g}, {z_mm:g})".format(**row)
        for which in ("cluster", "local"):
            far = row[f"{which}_peak_mm"]
            ledger.add(part, f"mm to our nearest {which} peak",
                       np.inf if far is None else far, at, bar=bar)  # fmt: skip
        ledger.add(part, "z there", row["z_ours_there"], at, row["z_theirs"])


def run_start(ledger: Ledger, start: str, permutations: int, imputations: int) -> None:
    """Compare clusters and peaks of one start, with our null of seed 0."""
    part = f"clusters-{start}"
    _, problem, _, null = replay(start, 0, permutations, imputations)
    space, z = problem.space, problem.observed_z
    other = enge(start, permutations=1, exchange="studies", imputations=imputations, seed=1)
    z_again = mean_model(other).z.astype(np.float32)
    stats, stats_again = statistics_of(z, space), statistics_of(z_again, space)
    p, p_again = (corrected(found, null.maxima) for found in (stats, stats_again))
    ledger.add(part, "permutations of our null", null.done, theirs=FULL)
    for statistic, theirs in sdm_maxima().items():
        for row, side in enumerate(("positive", "negative")):
            ledger.add(part, f"critical value, {statistic}",
                       critical_value(null.maxima[statistic][row], 0.05), f"p <= .05, {side}",
                       critical_value(theirs[row], 0.05))  # fmt: skip
    real = sdm_maps(space)["z"]
    ledger.add(part, "largest z", z.max(), theirs=real.max(), beside={AGAIN: z_again.max()})
    ledger.add(part, "smallest z", z.min(), theirs=real.min(), beside={AGAIN: z_again.min()})
    overlaps(ledger, part, p, p_again, space, start, null.done)
    for statistic, theirs in sdm_maxima().items():
        # The maps alone, without the difference between the nulls.
        critical = critical_value(theirs[0], 0.05)
        mine, again = (found[statistic][0] > critical for found in (stats, stats_again))
        wanted = passing(sdm_p(statistic, "", space), 0.05)
        where = f"{statistic}, at its critical value"
        ledger.add(part, "voxels, positive", mine.sum(), where, wanted.sum(),
                   beside={AGAIN: again.sum()})  # fmt: skip
        ledger.add(part, "Dice, positive", dice(mine, wanted), where,
                   beside={AGAIN: dice(mine, again)})  # fmt: skip
    if null.done >= FULL:  # else no p is as small as that of its report
        peaks(ledger, part, start, z.astype(float), p["voxel", ""],
              (z_again.astype(float), p_again["voxel", ""]), space)  # fmt: skip
