"""A threshold on disk: maps, masks and tables, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gpu_sdm.clusters import COLUMNS
from gpu_sdm.findings.cluster_tables import label_columns
from gpu_sdm.findings.folder import replace_folder
from gpu_sdm.findings.table3 import table3, to_csv, to_latex
from gpu_sdm.findings.threshold import Thresholded
from gpu_sdm.io.nifti import write_map
from gpu_sdm.io.tables import write_bytes, write_tsv

PEAK_COLUMNS = ("cluster", "peak", *COLUMNS[1:10])
REGION_COLUMNS = ("cluster", "side", "atlas", "region", "voxels", "percent")


def cluster_columns(found: Thresholded) -> list[str]:
    """Columns of clusters.tsv: those of every cluster table, then what is known of regions."""
    return [
        *COLUMNS,
        "p_uncorrected",
        *label_columns(found.atlases)[1:],
        *(f"shares_{name}" for name in found.atlases),
    ]


def caption(found: Thresholded) -> str:
    """Say in a sentence or two what the table shows."""
    rule = found.rule
    peak = f", peak |z| > {rule.peak_z:g}" if rule.peak_z else ""
    return (
        f"Clusters at p <= {rule.p:g} ({found.named.says}), at least {rule.k_min} voxels{peak}. "
        f"{found.named.caveat}"
    ).strip()


def _write_maps(found: Thresholded, folder: Path) -> None:
    space, number = found.space, found.numbers()
    shown = np.where(number > 0, found.z, 0)
    at = found.rule.name
    write_map(folder / "z.nii.gz", shown, space, 0.0, f"SDM-Z at {at}", "z score")
    for side in found.rule.sides:
        mine = np.isin(number, [c.number for c in found.found if c.side == side])
        one = np.where(mine, found.z, 0)
        write_map(folder / f"z_{side}.nii.gz", one, space, 0.0, f"SDM-Z at {at}, {side}", "z score")
    write_map(folder / "clusters.nii.gz", number, space, 0.0, f"Clusters at {at}", "label")
    (folder / "masks").mkdir()
    digits = max(2, len(str(len(found.found))))
    for c in found.found:
        path = folder / "masks" / f"cluster_{c.number:0{digits}d}_{c.side}.nii.gz"
        write_map(path, number == c.number, space, 0.0, f"Cluster {c.number} at {at}")


def save(
    found: Thresholded, out: Path | None = None, names: Mapping[str, str] | None = None
) -> Path:
    """Write a threshold.

    Parameters
    ----------
    found : Thresholded
        What to write.
    out : path, optional
        The folder; by default `thresholds/NAME` in that of the result. One with the same
        threshold of the same result is replaced.
    names : mapping of str to str, optional
        What each side is called in table3.csv and table3.tex.

    Returns
    -------
    path
        The folder: z.nii.gz (within clusters), z_SIDE.nii.gz, clusters.nii.gz (numbers as in
        clusters.tsv), masks/ (one per cluster), clusters.tsv, peaks.tsv, regions.tsv, table3.csv,
        table3.tex, threshold.json.

    Raises
    ------
    OutputError
        If something else is there, or it cannot be written; nothing is left then.
    """
    inside = out is None
    target = found.folder / "thresholds" / found.rule.name if out is None else out

    def write(folder: Path) -> None:
        _write_maps(found, folder)
        write_tsv(folder / "clusters.tsv", cluster_columns(found), found.clusters)
        write_tsv(folder / "peaks.tsv", [*PEAK_COLUMNS, *label_columns(found.atlases)], found.peaks)
        write_tsv(folder / "regions.tsv", REGION_COLUMNS, found.regions)
        rows = table3(found, names)
        write_bytes(folder / "table3.csv", to_csv(rows))
        write_bytes(folder / "table3.tex", to_latex(rows, caption(found)).encode())

    tables = ("clusters", "peaks", "regions")
    content = {k: v for k, v in found.summary().items() if k not in tables}
    identity = {"name": found.rule.name}
    if not inside:  # a result keeps its thresholds when it is moved
        identity["source"] = content.pop("source")
    return replace_folder(target, "threshold", identity, content, write)
