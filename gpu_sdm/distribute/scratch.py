"""Files beside the unfinished work that hold what does not fit the memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpu_sdm.distribute.slabs import WIDTH, SlabArray
from gpu_sdm.errors import OutputError
from gpu_sdm.io.tables import write_json

SPARE = 1_000_000_000  # bytes of the disk that are left to others


class Scratch:
    """Effects and subject images in files of slabs, which a second start finds again.

    Parameters
    ----------
    folder : path
        Where: OUT.partial of a run.
    key : str
        Of what determines the arrays; those of another key are made anew.
    width : int
        Voxels of a slab.
    """

    def __init__(self, folder: Path, key: str, width: int = WIDTH):
        self.folder, self.key, self.width = folder, key, width

    def reserve(self, n_bytes: int) -> None:
        """Refuse at once what the disk cannot hold.

        Raises
        ------
        OutputError
            With what is needed and what is free.
        """
        held = sum(f.stat().st_size for f in self.folder.glob("*.f32"))
        free = shutil.disk_usage(self.folder).free + held
        if n_bytes + SPARE > free:
            raise OutputError(
                f"effects and subject images need {n_bytes / 1e9:.1f} GB in {self.folder}, as "
                f"they do not fit the memory, and {free / 1e9:.1f} GB are free there; put --out "
                "on a larger disk, or use fewer --imputations or a larger --voxel-size."
            )

    def finished(self, name: str, shape: Sequence[int]) -> dict[str, float] | None:
        """Give the counts of an array that an earlier start completed; None where it is not."""
        try:
            stored = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            size = (self.folder / f"{name}.f32").stat().st_size
        except (OSError, ValueError):
            return None
        wanted = {"key": self.key, "shape": list(shape), "width": self.width}
        same = {name: stored.get(name) for name in wanted} == wanted
        return stored["counts"] if same and size == 4 * int(np.prod(shape)) else None

    def finish(self, name: str, shape: Sequence[int], counts: dict[str, float]) -> None:
        """Note that an array is complete."""
        with (self.folder / f"{name}.f32").open("rb") as file:
            os.fsync(file.fileno())
        content = {"key": self.key, "shape": list(shape), "width": self.width, "counts": counts}
        write_json(self.folder / f"{name}.json", content)

    def array(self, name: str, shape: tuple[int, ...]) -> SlabArray:
        """Open the array of a name, made anew where it is not complete."""
        path = self.folder / f"{name}.f32"
        if self.finished(name, shape) is None:
            (self.folder / f"{name}.json").unlink(missing_ok=True)
            with path.open("wb") as file:
                file.truncate(4 * int(np.prod(shape)))
        return SlabArray(path, shape, self.width)

    def rows(self, name: str, sizes: Sequence[int], n_voxels: int) -> tuple[SlabArray, ...]:
        """Open an array (sum of sizes, V) as one array (n, V) for each of the sizes."""
        total = self.array(name, (sum(sizes), n_voxels))
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        return tuple(
            SlabArray(total.path, (n, n_voxels), self.width, a, starts[-1])
            for a, n in zip(starts, sizes, strict=False)
        )
