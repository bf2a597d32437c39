"""Two finished results on the voxels that both have analysed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_sdm.errors import SpaceError
from gpu_sdm.finished import Finished
from gpu_sdm.spaces import Space


@dataclass(frozen=True, eq=False)
class CommonGrid:
    """The voxels of two results.

    Parameters
    ----------
    first, second : Finished
        The results.
    space : Space
        Grid, and the intersection of their masks.
    places : pair of (V,) int
        Positions of these voxels in the mask of either result.
    """

    first: Finished
    second: Finished
    space: Space
    places: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, first: Finished, second: Finished) -> CommonGrid:
        """Intersect two masks.

        Raises
        ------
        SpaceError
            If voxel sizes differ or no voxel is in both masks.
        """
        sizes = first.space.voxel_size, second.space.voxel_size
        if sizes[0] != sizes[1]:
            raise SpaceError(
                f"{first.folder} has voxels of {sizes[0]} mm and {second.folder} of {sizes[1]} mm; "
                "run one of them again with the --voxel-size of the other."
            )
        mask = first.space.mask & second.space.mask
        if not mask.any():
            raise SpaceError(f"{first.folder} and {second.folder} share no analysed voxel.")
        space = Space(sizes[0], mask)
        places = (
            np.searchsorted(first.space.index, space.index),
            np.searchsorted(second.space.index, space.index),
        )
        return cls(first, second, space, places)

    def both(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Read a map (V,) of either result."""
        at_first, at_second = self.places
        return self.first.map(name)[at_first], self.second.map(name)[at_second]

    def said(self) -> Mapping[str, Any]:
        """Name the results and count their voxels, for JSON."""
        return {
            "first": str(self.first.folder.absolute()),
            "second": str(self.second.folder.absolute()),
            "voxels_of_first": self.first.space.n_voxels,
            "voxels_of_second": self.second.space.n_voxels,
            "voxels": self.space.n_voxels,
        }

    def sentence(self) -> str:
        """Say which voxels are compared."""
        n = self.space.n_voxels
        ours, theirs = self.first.space.n_voxels, self.second.space.n_voxels
        if n == ours == theirs:
            return f"the same mask in both, {n:,} voxels"
        return f"{n:,} voxels in both masks (of {ours:,} and {theirs:,})"
