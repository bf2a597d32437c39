"""Every distinct permutation exactly once, where there are few enough of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpu_sdm.data import Study
from gpu_sdm.permute.plan import PermutationPlan, subject_weights


@dataclass(frozen=True, eq=False)
class ExactPlan:
    """All distinct permutations: a p value counted over them has no Monte Carlo error.

    Permutation p is a number with one digit for each study: which of its sign vectors, of its
    choices of patients or of its two signs. 0 is the identity. Numbers from `distinct()` on begin
    again at 0, to fill the last tile.

    Parameters
    ----------
    random : PermutationPlan
        Whose permutations are enumerated; its seed no longer matters.

    Examples
    --------
    >>> plan = ExactPlan(PermutationPlan(0, ("a", "b"), (4, 5), (0, 0), "studies"))
    >>> plan.flips(1, [0, 1, 2, 3])
    array([ 1,  1, -1, -1], dtype=int8)
    """

    random: PermutationPlan

    @property
    def n_studies(self) -> int:
        """K."""
        return self.random.n_studies

    @property
    def exchange(self) -> str:
        """What is exchanged: "subjects" or "studies"."""
        return self.random.exchange

    def distinct(self) -> int:
        """Count the permutations, the identity included."""
        return self.random.distinct()

    @cached_property
    def _digits(self) -> tuple[tuple[int, int], ...]:
        """Of each study: the value of its digit, and how many digits there are."""
        found, value = [], 1
        for k in range(self.n_studies):
            base = self.random.choices(k)
            found.append((value, base))
            value *= base
        return tuple(found)

    def _digit(self, k: int, permutations: np.ndarray) -> np.ndarray:
        value, base = self._digits[k]
        return np.asarray(permutations, np.int64) % self.distinct() // value % base

    def signs(self, k: int, permutations: np.ndarray) -> np.ndarray:
        """Signs of the subjects of a one-sample study: (P, n1) int8; see `PermutationPlan`."""
        bits = self._digit(k, permutations)[:, None] >> np.arange(self.random.n1[k])
        return (1 - 2 * (bits & 1)).astype(np.int8)

    def labels(self, k: int, permutations: np.ndarray) -> np.ndarray:
        """Who is labelled a patient in a two-sample study: (P, n1 + n2) int8."""
        left = self._digit(k, permutations)
        n1, n = self.random.n1[k], self.random.n1[k] + self.random.n2[k]
        wanted = np.full(len(left), n1)
        labels = np.zeros((len(left), n), np.int8)
        for i in range(n):
            # Choices, in lexicographic order, in which subject i is the next patient.
            with_i = np.array([math.comb(n - 1 - i, w - 1) if w else 0 for w in range(n1 + 1)])
            taken = left < with_i[wanted]
            labels[:, i] = taken
            left = np.where(taken, left, left - with_i[wanted])
            wanted = wanted - taken
        return labels

    def flips(self, k: int, permutations: np.ndarray) -> np.ndarray:
        """Sign of the whole study: (P,) int8."""
        return (1 - 2 * self._digit(k, permutations)).astype(np.int8)

    def weights(self, k: int, permutations: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Weights of the subjects and f; see `Plan`."""
        if self.exchange == "studies":
            return None, self.flips(k, permutations).astype(np.float32)
        drawn = (self.labels if self.random.n2[k] else self.signs)(k, permutations)
        return subject_weights(drawn, self.random.n1[k], self.random.n2[k])


def plan_permutations(
    studies: Sequence[Study], seed: int, exchange: str, permutations: int
) -> PermutationPlan | ExactPlan:
    """Plan random permutations, or all distinct ones where no more were asked for.

    Parameters
    ----------
    studies : sequence of Study
        The K studies.
    seed : int
        Seed of the analysis.
    exchange : {"subjects", "studies"}
        What is exchanged.
    permutations : int
        How many are asked for.
    """
    plan = PermutationPlan.of(studies, seed, exchange)
    return ExactPlan(plan) if plan.distinct() <= permutations else plan
