"""Stop permuting when the p of one named peak is decided (Besag and Clifford 1991).

References
----------
.. [1] Besag J, Clifford P (1991) Sequential Monte Carlo p-values. Biometrika 78:301-304.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_sdm.permute.null import NullState

LAW = (
    "Besag and Clifford 1991: p = h / n where the h-th of the maxima that reach the observed value "
    "is that of the n-th random permutation, else (hits + 1) / permutations; then "
    "P(p <= x) = x under the null for every x that p can be"
)


@dataclass(frozen=True, slots=True)
class StopRule:
    """When enough permutations have reached what was observed at a voxel.

    Parameters
    ----------
    xyz_mm : tuple of three float
        Centre of the voxel.
    statistic : str
        Whose maxima count.
    side : {0, 1}
        Positive or negative.
    observed : float
        Statistic of that side at the voxel.
    bar : float
        What a maximum must reach to count: `observed` less its tie tolerance.
    hits : int
        h, at least 1; 0 never stops.
    """

    xyz_mm: tuple[float, float, float]
    statistic: str
    side: int
    observed: float
    bar: float
    hits: int = 0

    def _reached(self, state: NullState) -> np.ndarray:
        """Numbers of the random permutations done whose maximum counts, from 1."""
        maxima = state.maxima[self.statistic][self.side, 1 : state.done]
        # float64: NumPy would round the bar to the type of the maxima.
        return np.flatnonzero(maxima.astype(np.float64) >= self.bar) + 1

    def enough(self, state: NullState) -> int | None:
        """Give how many permutations are enough, the identity included; None to go on.

        The number does not depend on how many are done beyond it.
        """
        if not self.hits:
            return None
        reached = self._reached(state)
        return int(reached[self.hits - 1]) + 1 if len(reached) >= self.hits else None

    def p(self, state: NullState) -> float:
        """Give p as it stands: h / n where the rule has stopped, else (hits + 1) / done."""
        enough = self.enough(state)
        if enough is not None:
            return self.hits / (enough - 1)
        return (len(self._reached(state)) + 1) / state.done

    def interval(self, state: NullState) -> tuple[float, float]:
        """Give the exact binomial 95 % interval of the share of permutations that count."""
        from scipy.special import betaincinv

        n, b = state.done - 1, len(self._reached(state))
        low = float(betaincinv(b, n - b + 1, 0.025)) if b else 0.0
        high = float(betaincinv(b + 1, n - b, 0.975)) if b < n else 1.0
        return low, high

    def report(self, state: NullState, most: int) -> dict[str, Any]:
        """Content of `sequential` in run.json."""
        low, high = self.interval(state)
        return {
            "x_mm": self.xyz_mm[0],
            "y_mm": self.xyz_mm[1],
            "z_mm": self.xyz_mm[2],
            "statistic": self.statistic,
            "side": "negative" if self.side else "positive",
            "observed": self.observed,
            "hits_wanted": self.hits,
            "hits": len(self._reached(state)),
            "stopped": self.enough(state) is not None,
            "permutations": state.done,
            "permutations_at_most": most,
            "p": self.p(state),
            "interval_95": [low, high],
            "law": LAW,
            "caveat": "corrected p of other voxels and thresholds come from these permutations, "
            "whose number was chosen by this peak: name the peak before looking at a result",
        }
