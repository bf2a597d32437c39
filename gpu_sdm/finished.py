"""A finished result, opened again: its maps, nulls and settings, and the analysis behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, prepare, silent
from gpu_sdm.backend import Backend
from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset
from gpu_sdm.errors import CheckpointMismatch, InputError
from gpu_sdm.io import read
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.io.volumes import read_mask
from gpu_sdm.output import MARK, describe_difference
from gpu_sdm.spaces import Space


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished result folder.

    Parameters
    ----------
    folder : path
        OUT of `gpu-sdm permute`.
    run : dict
        Content of run.json.
    settings : Settings
        What was asked for; `mask` is the folder's own.
    space : Space
        Grid and mask.

    Examples
    --------
    >>> finished = open_result(out)
    >>> finished.map("z").shape == (finished.space.n_voxels,), finished.has("p_fwe_tfce")
    (True, True)
    """

    folder: Path
    run: Mapping[str, Any]
    settings: Settings
    space: Space

    def has(self, name: str) -> bool:
        """Whether the folder holds a map of this name."""
        return (self.folder / "maps" / f"{name}.nii.gz").is_file()

    def map(self, name: str) -> np.ndarray:
        """Read a map (V,) float32 by its name, e.g. "z".

        Raises
        ------
        InputError
            If the folder has no such map; names those it has.
        """
        path = self.folder / "maps" / f"{name}.nii.gz"
        if not path.is_file():
            found = sorted(p.name.removesuffix(".nii.gz") for p in path.parent.glob("*.nii.gz"))
            raise InputError(f"has no map {name!r}; it has: {', '.join(found)}.", self.folder)
        return read_map(path, self.space)

    def maxima(self) -> dict[str, np.ndarray]:
        """Null of the maxima: statistic -> (2, P), positive side first, the observed first."""
        return read_maxima(self.folder / "null" / "maxima.tsv", self.settings.statistic)

    def dataset(self, compat: bool | None = None) -> Dataset:
        """Read the project again, truncating millimetres as the run did unless `compat` says.

        Raises
        ------
        InputError
            If it is no longer where it was.
        """
        path = Path(self.run["project"])
        if not path.exists():
            raise InputError(
                f"was made from {path}, which is no longer there; put the project back.",
                self.folder,
            )
        return read(path, compat=self.settings.sdm_compat if compat is None else compat)

    def analysis(self, backend: Backend, progress: Progress = silent) -> Analysis:
        """Prepare the same analysis again: the bounds come from the cache where it has them.

        Raises
        ------
        CheckpointMismatch
            If the project's files are no longer those of the result; names the changed ones.
        """
        again = prepare(self.dataset(), self.settings, backend, progress)
        difference = describe_difference(self.settings, again.content(), dict(self.run))
        if difference:
            raise CheckpointMismatch(
                f"{self.folder} was made from other files than are there now ({difference}); run "
                "gpu-sdm permute again."
            )
        return again


def open_result(folder: Path | str) -> Finished:
    """Open the result folder of `gpu-sdm permute`.

    Raises
    ------
    InputError
        If it is not a finished one.

    Examples
    --------
    >>> finished = open_result(out)
    >>> finished.settings.permutations, finished.space.voxel_size
    (20, 4)
    """
    folder = Path(folder)
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        run = None
    if not isinstance(run, dict) or run.get("program") != MARK or "settings" not in run:
        raise InputError(
            "is not a finished gpu-sdm result; give the --out folder of gpu-sdm permute.", folder
        )
    mask = folder / "maps" / "mask.nii.gz"
    settings = replace(Settings.from_dict(run["settings"]), mask=mask)
    space = Space(settings.voxel_size, read_mask(mask, settings.voxel_size))
    return Finished(folder, run, settings, space)
