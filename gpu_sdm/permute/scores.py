"""Signs of whole studies flipped in the score test of the mean: nothing is estimated again.

What a study adds to the score at a mean of zero changes its sign with the study, and the
information does not change: a permutation is one product of signs and scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.ops.mean_score import MEAN_SCORE
from gpu_sdm.permute.plan import BLOCK, TILE, Plan, residual_sums


@dataclass(frozen=True, eq=False)
class Scores:
    """Parts of the studies in the score test.

    Parameters
    ----------
    parts : (K, V) float32
        From `MEAN_SCORE`; they add up to the observed statistic.
    """

    parts: np.ndarray

    @classmethod
    def of(cls, bounds: Bounds, terms: StudyTerms, backend: str) -> Scores:
        """Score the bounds (K, V) of K studies."""
        score = MEAN_SCORE.on("numpy" if backend == "numpy" else "cpu")
        return cls(score(bounds.lower, bounds.upper, terms.c, terms.v2))

    def tile(self, plan: Plan, start: int, voxels: slice) -> np.ndarray:
        """Statistic (TILE, v) float32 of the permutations from `start`, in a whole block."""
        _, signs = residual_sums(None, plan, start, voxels)
        return self._product(signs, voxels)

    def observed(self) -> np.ndarray:
        """Statistic (V,) float32 of the data as they are, the bits of permutation 0."""
        n_voxels = self.parts.shape[1]
        plain = np.ones((len(self.parts), TILE), np.float32)
        blocks = [slice(first, first + BLOCK) for first in range(0, n_voxels, BLOCK)]
        return np.concatenate([self._product(plain, block)[0] for block in blocks])

    def _product(self, signs: np.ndarray, voxels: slice) -> np.ndarray:
        product: np.ndarray = signs.T @ self.parts[:, voxels]
        return product
