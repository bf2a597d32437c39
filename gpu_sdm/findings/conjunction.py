"""Where two finished results both find something: the minimum statistic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.clusters import SIDES, THRESHOLDS, blobs
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.common_grid import CommonGrid
from gpu_sdm.findings.folder import replace_folder
from gpu_sdm.finished import Finished
from gpu_sdm.io.nifti import write_map
from gpu_sdm.io.tables import write_tsv
from gpu_sdm.spaces import Space

Label = Callable[[np.ndarray], list[str]]
COLUMNS = (
    "threshold", "cluster", "side", "x_mm", "y_mm", "z_mm", "sdm_z", "p", "sdm_z_first",
    "sdm_z_second", "g_first", "g_second", "voxels", "mm3", "label",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Conjunction:
    """The conjunction of two results.

    Parameters
    ----------
    grid : CommonGrid
        The results and their common voxels.
    maps : dict of str to (V,) float32
        `z`, the smaller of the two where they have one sign, else 0; and every p map that both
        have, the larger of the two, under its name.
    rows : list of rows
        Clusters at every threshold of `clusters.THRESHOLDS` whose p map both have.
    """

    grid: CommonGrid
    maps: dict[str, np.ndarray]
    rows: list[dict[str, Any]]

    @property
    def space(self) -> Space:
        """Grid and common mask."""
        return self.grid.space

    def save(self, out: Path) -> Path:
        """Write maps/ and clusters.tsv to a folder; one of the same two results is replaced."""

        def write(folder: Path) -> None:
            (folder / "maps").mkdir()
            for name, values in self.maps.items():
                fill = 1.0 if name.startswith("p") else 0.0
                says = f"Conjunction: {'larger p' if fill else 'minimum'} of two results"
                path = folder / "maps" / f"{name}.nii.gz"
                write_map(path, values, self.space, fill, says, "p value" if fill else "z score")
            write_tsv(folder / "clusters.tsv", COLUMNS, self.rows)

        said = dict(self.grid.said())
        identity = {k: said.pop(k) for k in ("first", "second")}
        return replace_folder(out, "conjunction", identity, said, write)


def minimum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of two z maps (V,) the one nearer 0 where both have the same sign, else 0."""
    smaller = np.where(np.abs(first) <= np.abs(second), first, second)
    return np.where(first * second > 0, smaller, 0).astype(np.float32)


def conjunction(first: Finished, second: Finished, label_of: Label) -> Conjunction:
    """Find where two results both differ from 0, on the same side.

    Parameters
    ----------
    first, second : Finished
        The results; they may share studies.
    label_of : callable
        Region names of MNI millimetres (n, 3).

    Raises
    ------
    SpaceError
        If their grids differ or no voxel is in both masks.
    SettingError
        If both are the same folder.

    Notes
    -----
    The conjunction null: no effect in at least one of the two. p is the larger of the two, each
    corrected or not as it was, so that a corrected one controls the family-wise error of the
    claim "in both". No other test of that null is valid without knowing more; it is conservative
    where there is no effect in either.

    References
    ----------
    .. [1] Nichols T, Brett M, Andersson J, Wager T, Poline JB (2005) Valid conjunction inference
       with the minimum statistic. NeuroImage 25:653-660.

    Examples
    --------
    `out` and `other` are results in the same mask.

    >>> from gpu_sdm.atlas import load_atlas
    >>> from gpu_sdm.finished import open_result
    >>> first, second = open_result(out), open_result(other)
    >>> found = conjunction(first, second, load_atlas().label_of)
    >>> bool((found.maps["p"] >= first.map("p") - 1e-6).all())  # the larger of the two
    True
    """
    if first.folder.absolute() == second.folder.absolute():
        raise SettingError(f"{first.folder} is given twice; a conjunction needs two results.")
    grid = CommonGrid.of(first, second)
    z = minimum(*grid.both("z"))
    maps = {"z": z}
    for rule in THRESHOLDS.values():
        names = (rule.p_map, f"{rule.p_map}_neg")
        if all(result.has(name) for result in (first, second) for name in names):
            maps |= {name: np.maximum(*grid.both(name)) for name in names}
    return Conjunction(grid, maps, _rows(grid, maps, label_of))


def _rows(grid: CommonGrid, maps: dict[str, np.ndarray], label_of: Label) -> list[dict[str, Any]]:
    space, z = grid.space, maps["z"]
    z_first, z_second = grid.both("z")
    g_first, g_second = grid.both("g")
    mm = space.mm()
    rows: list[dict[str, Any]] = []
    for name, rule in THRESHOLDS.items():
        if rule.p_map not in maps:
            continue
        n = 0
        for side, suffix, sign in zip(SIDES, ("", "_neg"), (1, -1), strict=True):
            p = maps[rule.p_map + suffix]
            number = blobs(rule.passes(p, sign * z), space, rule.k_min)
            for c in range(1, int(number.max()) + 1):
                inside = np.flatnonzero(number == c)
                peak = inside[np.argmax(np.abs(z[inside]))]
                n += 1
                values = (
                    name, n, side, *mm[peak].astype(int).tolist(), float(z[peak]),
                    float(p[peak]), float(z_first[peak]), float(z_second[peak]),
                    float(g_first[peak]), float(g_second[peak]), len(inside),
                    len(inside) * space.voxel_size**3, "",
                )  # fmt: skip
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    if rows:
        peaks = np.array([[row["x_mm"], row["y_mm"], row["z_mm"]] for row in rows], np.float64)
        for row, label in zip(rows, label_of(peaks), strict=True):
            row["label"] = label
    return rows
