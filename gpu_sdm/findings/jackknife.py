"""Leave-one-study-out: the whole analysis without each study, and which findings survive it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, silent
from gpu_sdm.clusters import SIDES, THRESHOLDS, Threshold, blobs, exactly
from gpu_sdm.findings.folds import claim, model_without, permuted_fold, plain_fold, without
from gpu_sdm.findings.sites import Site, cluster_sites, default_threshold, full_name
from gpu_sdm.finished import Finished
from gpu_sdm.inference import uncorrected_maps
from gpu_sdm.io.nifti import write_map
from gpu_sdm.io.tables import write_tsv
from gpu_sdm.spaces import Space

UNCORRECTED = "uncorrected-0.0025"


@dataclass(frozen=True, eq=False)
class Jackknife:
    """What leaving out each study changes.

    Parameters
    ----------
    left_out : tuple of str
        Study of each of F folds.
    folds : list of rows
        One per cluster and fold: z and g at the peak, whether the finding survives.
    summary : list of rows
        One per cluster.
    maps : dict of str to (V,)
        `z_min` and, per threshold, `folds_THRESHOLD_positive` and `folds_THRESHOLD_negative`.
    judged_by : dict of str to str
        Threshold of the clusters -> threshold that the folds are held to.
    """

    left_out: tuple[str, ...]
    folds: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    maps: dict[str, np.ndarray]
    judged_by: dict[str, str]


def _passing(maps: Mapping[str, np.ndarray], rule: Threshold) -> tuple[np.ndarray, np.ndarray]:
    z = maps["z"]
    every = {**uncorrected_maps(z), **maps}
    p, p_neg = every[rule.p_map], every[f"{rule.p_map}_neg"]
    return rule.passes(p, z), rule.passes(p_neg, -z)


def _fold_row(
    site: Site,
    cluster: Site,
    study: str,
    maps: Mapping[str, np.ndarray],
    passed: np.ndarray,
    numbers: np.ndarray,
) -> dict[str, Any]:
    """Say what becomes of one cluster in one fold."""
    peak = int(site.voxels[0])
    return {
        "threshold": site.threshold,
        "cluster": site.cluster,
        "left_out": study,
        "z_peak": exactly(maps["z"][peak]),
        "g_peak": exactly(maps["g"][peak]),
        "i2_peak": exactly(maps["i2"][peak]),
        "peak_survives": bool(passed[peak]),
        "share_of_voxels": float(passed[cluster.voxels].mean()),
        "survives": bool(numbers[cluster.voxels].any()),
    }


def _summary_row(
    site: Site, rows: Sequence[Mapping[str, Any]], z: float, g: float
) -> dict[str, Any]:
    weakest = min(rows, key=lambda row: math.copysign(1, z) * row["z_peak"])
    return {
        **{k: v for k, v in site.row().items() if k not in ("site", "kind", "voxels")},
        "folds": len(rows),
        "survives": sum(row["survives"] for row in rows),
        "peak_survives": sum(row["peak_survives"] for row in rows),
        "least_share_of_voxels": min(row["share_of_voxels"] for row in rows),
        "z_peak": z,
        "g_peak": g,
        "weakest_z_peak": weakest["z_peak"],
        "weakest_without": weakest["left_out"],
        "least_g_peak": min((row["g_peak"] for row in rows), key=abs),
        "lost_without": ", ".join(row["left_out"] for row in rows if not row["survives"]) or None,
    }


def jackknife(
    finished: Finished,
    analysis: Analysis,
    folder: Path,
    *,
    studies: Sequence[str] = (),
    thresholds: Sequence[str] = (),
    permutations: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda sentence: None,
) -> Jackknife:
    """Repeat the analysis without each study.

    Parameters
    ----------
    finished : Finished
        The result whose clusters are examined.
    analysis : Analysis
        `finished.analysis(backend)`.
    folder : path
        Where folds, maps and tables go. Finished folds found there are not computed again.
    studies : sequence of str
        Studies to leave out, one at a time; all those of the model by default.
    thresholds : sequence of str
        Thresholds whose clusters are examined; by default the first with a cluster.
    permutations : int, optional
        Permutations of every fold, whose clusters are then held to the corrected threshold that
        made them. None: no permutations; folds are held to uncorrected p <= .0025 and ``|z|`` > 1.
    progress : callable
        Called with (stage, done, total); the stage "jackknife" counts folds.
    say : callable
        Called with a sentence where a device runs short of memory.

    Returns
    -------
    Jackknife
        Also written into `folder`.

    Raises
    ------
    SettingError
        If a study or threshold is unknown, or too few studies would be left.
    OutputError, CheckpointMismatch
        If `folder` holds something else.

    Notes
    -----
    Estimation and imputation are repeated in every fold. Each is, bit for bit, a run of a project
    without that row. A cluster survives where a fold has a cluster of the same side (at least as
    many voxels as the threshold asks for) that shares a voxel with it.

    Examples
    --------
    `finished` and `analysis` are `open_result(out)` and `finished.analysis(backend)`.

    >>> found = jackknife(
    ...     finished, analysis, folder / "jackknife", studies=["study02"],
    ...     thresholds=["uncorrected-0.0025"],
    ... )
    >>> found.left_out
    ('study02',)
    """
    names = tuple(studies) or analysis.design.dataset.names
    for name in names:  # refuses before anything is written
        model_without(analysis, name)
    chosen = [full_name(t, finished) for t in thresholds] or [default_threshold(finished)]
    corrected = tuple(n for n in chosen if n != UNCORRECTED) if permutations is not None else ()
    judged_by = {name: name if name in corrected else UNCORRECTED for name in chosen}
    sites = cluster_sites(finished, list(dict.fromkeys(chosen)))
    pairs = list(zip(sites[::2], sites[1::2], strict=True))
    claim(folder, analysis)
    rows: dict[str, list[dict[str, Any]]] = {peak.name: [] for peak, _ in pairs}
    counts = {
        f"folds_{name}_{side}": np.zeros(finished.space.n_voxels)
        for name in dict.fromkeys((*judged_by.values(), UNCORRECTED))
        for side in SIDES
    }
    z_main = finished.map("z")
    least = np.full(len(z_main), np.inf)
    progress("jackknife", 0, len(names))
    for done, name in enumerate(names, 1):
        fold = without(analysis, name)
        if permutations is None:
            maps = plain_fold(fold, folder / "folds" / f"without_{name}", progress)
        else:
            place = folder / "folds-permuted" / f"without_{name}"
            maps = permuted_fold(fold, permutations, place, progress, say)
        # How far it stays on the side where it was; 0 where it crosses.
        least = np.minimum(least, np.maximum(0.0, np.sign(z_main) * maps["z"]))
        found = {}
        for threshold in dict.fromkeys((*judged_by.values(), UNCORRECTED)):
            rule = THRESHOLDS[threshold]
            for side, passed in zip(SIDES, _passing(maps, rule), strict=True):
                counts[f"folds_{threshold}_{side}"] += passed
                found[threshold, side] = passed, blobs(passed, finished.space, rule.k_min)
        for peak, cluster in pairs:
            held = found[judged_by[peak.threshold], peak.side]
            rows[peak.name].append(_fold_row(peak, cluster, name, maps, *held))
        progress("jackknife", done, len(names))
    g_main = finished.map("g")
    summary = [
        _summary_row(
            peak, rows[peak.name], exactly(z_main[peak.voxels[0]]), exactly(g_main[peak.voxels[0]])
        )
        for peak, _ in pairs
    ]
    flat = [row for peak, _ in pairs for row in rows[peak.name]]
    result = Jackknife(
        names, flat, summary, {"z_min": np.sign(z_main) * least, **counts}, judged_by
    )
    _write(result, folder, finished.space)
    return result


def _write(result: Jackknife, folder: Path, space: Space) -> None:
    for name, values in result.maps.items():
        text = "Least z over folds, signed, 0 where it changes sign"
        if name != "z_min":
            text = f"Folds of {len(result.left_out)} in which a voxel passes"
        write_map(folder / f"{name}.nii.gz", values, space, 0.0, text)
    for name, table in {"jackknife": result.folds, "summary": result.summary}.items():
        columns = list(table[0]) if table else ["threshold", "cluster", "left_out"]
        write_tsv(folder / f"{name}.tsv", columns, table)
