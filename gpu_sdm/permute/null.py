"""The null: the maxima of every permutation, the one mutable value of the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpu_sdm.errors import NumericalError
from gpu_sdm.io.tables import MAXIMA
from gpu_sdm.spaces import Space


@dataclass
class NullState:
    """Maxima of permutations 0..done-1 (0 is the observed).

    Parameters
    ----------
    maxima : dict of str to (2, P) array
        Statistic -> maxima of the positive and the negative side: "voxel" float32, the others
        float64. Entries from `done` on are NaN.
    done : int
        Permutations finished.
    """

    maxima: dict[str, np.ndarray]
    done: int = 0

    @classmethod
    def empty(cls, statistics: tuple[str, ...], permutations: int) -> NullState:
        """Nothing done yet."""
        return cls({s: np.full((2, permutations), np.nan, MAXIMA[s][1]) for s in statistics})

    def add(self, start: int, chunk: Mapping[str, np.ndarray]) -> None:
        """Enter the maxima (2, p) of permutations start..start+p-1, which must come next."""
        if start != self.done or set(chunk) != set(self.maxima):
            raise ValueError(f"permutation {start} of {set(chunk)} was added at {self.done}")
        for name, values in chunk.items():
            self.maxima[name][:, start : start + values.shape[1]] = values
        # Last, so that an interrupt in between leaves the old state.
        self.done = start + next(iter(chunk.values())).shape[1]

    def first(self, permutations: int) -> NullState:
        """Keep only the first permutations, which must be done."""
        if permutations > self.done:
            raise ValueError(f"{permutations} of {self.done} permutations cannot be kept")
        kept = {name: values[:, :permutations].copy() for name, values in self.maxima.items()}
        return NullState(kept, permutations)


def refuse_nan(z: np.ndarray, space: Space, permutation: int) -> None:
    """Raise for a map (V,) that holds NaN.

    Raises
    ------
    NumericalError
        Always: names the first such voxel and the permutation.
    """
    x, y, w = space.mm(np.flatnonzero(np.isnan(z))[:1])[0]
    raise NumericalError(
        f"z is not a number at MNI ({x:g}, {y:g}, {w:g}) in permutation {permutation}; "
        "please report this with run.json and the input."
    )
