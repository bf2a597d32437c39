"""The finished analysis: maps, nulls, tables and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.clusters import COLUMNS as CLUSTER_COLUMNS
from gpu_sdm.config import Settings
from gpu_sdm.io.nifti import MAPS, write_named_map
from gpu_sdm.io.tables import MAXIMA, write_json, write_maxima, write_tsv
from gpu_sdm.spaces import Space

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
# Also of the table of an analysis of images alone, which has no rows.
PEAK_COLUMNS = (
    "study", "file", "line", "space", "x", "y", "z", "x_mm", "y_mm", "z_mm", "t", "height_known",
    "g", "in_mask", "voxels_reached",
)  # fmt: skip
ROW_BYTES = 400  # of a table, a warning or an input file in run.json
SMALL_FILES = 500_000  # bytes of cluster tables and the rest of run.json


def bytes_needed(settings: Settings, space: Space, permutations: int, rows: int) -> int:
    """Give the most bytes that a result and the checkpoints towards it take on the disk.

    Parameters
    ----------
    settings, space
        Of the analysis.
    permutations : int
        That are run.
    rows : int
        Studies, peaks, notices and input files together.
    """
    asked = tuple(f"p_fwe_{s.replace('-', '_')}" for s in settings.statistic)
    corrected = ("p_fwe", "tfce", "score")
    maps = sum(name.startswith(asked) or not name.startswith(corrected) for name in MAPS)
    maps += 2 * ("tfce" in settings.statistic) + (settings.test == "score")
    # Noise does not compress; a run of zeros outside the mask does, two hundredfold.
    volume = 4 * space.n_voxels + space.mask.size // 50 + 1000
    values = [np.dtype(MAXIMA[s][1]).itemsize for s in settings.statistic]
    # Three generations of the checkpoint, and the same numbers as text.
    null = permutations * sum(2 * (3 * size + 2.5 * size + 2) for size in values)
    return int(maps * volume + null + 10 * permutations + ROW_BYTES * rows + SMALL_FILES)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What an analysis found.

    Parameters
    ----------
    settings : Settings
        What was asked for.
    space : Space
        Grid and mask.
    maps : dict of str to (V,) float32
        `g se z p p_neg log_p log_p_neg tau2 i2 h2 q mask` and those of each statistic.
    maxima : dict of str to (2, P)
        The null: statistic -> maxima of the positive and the negative side, permutation 0 (the
        observed) first.
    studies, peaks : list of rows
        What was read and how it was used.
    clusters : dict of str to list of rows
        Threshold name -> cluster table.
    provenance : dict
        Content of run.json.
    coefficients : list of rows
        All coefficients of a formula at the peak of every cluster.

    Examples
    --------
    `result` is what `gpu_sdm.run` gives.

    >>> result.frame("studies")[["study", "n1", "df"]].shape
    (6, 3)
    >>> sorted(result.maxima), result.provenance["studies"]
    (['tfce', 'voxel'], 6)
    """

    settings: Settings
    space: Space
    maps: Mapping[str, np.ndarray]
    maxima: Mapping[str, np.ndarray]
    studies: Sequence[Row]
    peaks: Sequence[Row]
    clusters: Mapping[str, Sequence[Row]]
    provenance: Mapping[str, Any]
    coefficients: Sequence[Row] = ()

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds per stage."""
        timings: Mapping[str, float] = self.provenance["timings_s"]
        return timings

    def frame(self, table: str) -> pd.DataFrame:
        """Give a table as a data frame.

        Parameters
        ----------
        table : str
            "studies", "peaks", "coefficients" (of a formula, where clusters were found), or the
            name of a threshold, e.g. "fwe-tfce-0.05".

        Raises
        ------
        KeyError
            If there is no such table; names those there are.
        """
        import pandas as pd

        tables = {"studies": self.studies, "peaks": self.peaks, **self.clusters}
        if self.coefficients:
            tables["coefficients"] = self.coefficients
        if table not in tables:
            raise KeyError(f"no table {table!r}; there are: {', '.join(tables)}")
        columns: tuple[str, ...] | None = CLUSTER_COLUMNS if table in self.clusters else None
        columns = PEAK_COLUMNS if table == "peaks" else columns
        return pd.DataFrame(list(tables[table]), columns=columns)

    def save(self, folder: Path) -> None:
        """Write maps/, null/, tables/ and run.json into an existing empty folder."""
        for name in ("maps", "null", "tables"):
            (folder / name).mkdir()
        for name, values in self.maps.items():
            write_named_map(folder / "maps", name, values, self.space)
        write_maxima(folder / "null" / "maxima.tsv", self.maxima)
        for name, rows in {"studies": self.studies, "peaks": self.peaks}.items():
            columns = list(rows[0]) if rows else PEAK_COLUMNS
            write_tsv(folder / "tables" / f"{name}.tsv", columns, rows)
        if self.coefficients:
            rows = self.coefficients
            write_tsv(folder / "tables" / "coefficients.tsv", list(rows[0]), rows)
        for name, rows in self.clusters.items():
            write_tsv(folder / "tables" / f"clusters_{name}.tsv", CLUSTER_COLUMNS, rows)
        write_json(folder / "run.json", self.provenance)
