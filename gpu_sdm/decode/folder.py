"""OUT/decode/NAME: maps, tables, radar charts and run.json of a characterisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_sdm.decode.decoded import Decoded, map_files, map_path
from gpu_sdm.decode.overlap import OVERLAP, PEAKS, REGIONS
from gpu_sdm.environment import versions
from gpu_sdm.findings.folder import replace_folder
from gpu_sdm.io.nifti import write_map
from gpu_sdm.io.tables import write_bytes, write_tsv

SEED = ("seed", "site", "x_mm", "y_mm", "z_mm", "label")
TERM = ("term", "z", "p", "q", "p_exact", "posterior", "r", "studies_seed", "studies")
SEEDS = (
    *SEED, "studies", "studies_all", "coactivation_voxels", "connectivity_voxels",
    "conjunction_voxels",
)  # fmt: skip


def save(
    decoded: Decoded,
    out: Path,
    result: Mapping[str, Any],
    pictures: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the folder, or replace one of the same database.

    Parameters
    ----------
    decoded : Decoded
        What to write.
    out : path
        The folder.
    result : mapping
        What run.json says of the result that the seeds are from.
    pictures : mapping of str to bytes, optional
        File name -> content of further files, such as radar charts.

    Returns
    -------
    path
        `out`, absolute.

    Raises
    ------
    OutputError
        If something else is there, or it cannot be written: what was there stays.
    """
    identity = {"findings": "decode", "database_name": decoded.database.label}
    content = {"result": dict(result), "versions": versions(), **decoded.said()}

    def write(folder: Path) -> None:
        (folder / "maps").mkdir()
        for found in decoded.found:
            for name, (values, says, intent) in map_files(found, decoded.rules.q).items():
                fill = 1.0 if name == "association_q" else 0.0
                path = map_path(folder, found.seed, name)
                write_map(path, values, decoded.space, fill, says, intent)
        write_tsv(folder / "seeds.tsv", SEEDS, decoded.seeds)
        write_tsv(folder / "coactivation.tsv", PEAKS, decoded.peaks)
        write_tsv(folder / "conjunction_regions.tsv", REGIONS, decoded.regions)
        write_tsv(folder / "overlap.tsv", OVERLAP, decoded.overlap)
        write_tsv(folder / "terms.tsv", (*SEED, "rank", *TERM), decoded.terms)
        write_tsv(folder / "terms_all.tsv", ("seed", *TERM), decoded.all_terms())
        for name, picture in (pictures or {}).items():
            write_bytes(folder / name, picture)

    return replace_folder(out, "run", identity, content, write)
