"""Permutations of whole studies, for the test of a moderator."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpu_sdm.data import Study
from gpu_sdm.rng import philox, stream_key


@dataclass(frozen=True, eq=False)
class StudyPlan:
    """Random permutations of whole studies; permutation 0 is the identity.

    Parameters
    ----------
    seed : int
        Seed of the analysis.
    names : tuple of str
        The K studies; a permutation maps names to names, whatever their order in the table.
    alike : tuple of int
        A number for each study, the same for studies whose sizes and place in the design are the
        same: exchanging what two such studies receive changes no statistic.
    exact : bool
        Enumerate the distinct permutations instead of drawing; the seed no longer matters, and
        numbers from `distinct()` on begin again at 0.

    Examples
    --------
    >>> plan = StudyPlan(0, ("a", "b", "c"), (0, 1, 1))
    >>> plan.distinct()
    3
    >>> plan.orders([0])
    array([[0, 1, 2]])
    """

    seed: int
    names: tuple[str, ...]
    alike: tuple[int, ...]
    exact: bool = False

    @classmethod
    def of(
        cls, studies: Sequence[Study], design: np.ndarray, seed: int, permutations: int
    ) -> StudyPlan:
        """Plan the permutations of these studies in a design (K, Q).

        Random ones, or all distinct ones where no more are asked for.
        """
        kinds: dict[tuple[object, ...], int] = {}
        alike = tuple(
            kinds.setdefault((s.n1, s.n2, s.averaging, *row), len(kinds))
            for s, row in zip(studies, design.tolist(), strict=True)
        )
        plan = cls(seed, tuple(s.name for s in studies), alike)
        return replace(plan, exact=plan.distinct() <= permutations)

    @property
    def n_studies(self) -> int:
        """K."""
        return len(self.names)

    def distinct(self) -> int:
        """Count the permutations that can differ in a statistic, the identity included."""
        same = math.prod(math.factorial(n) for n in Counter(self.alike).values())
        return math.factorial(self.n_studies) // same

    def weights(self, k: int, permutations: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Refuse: no subject is exchanged and no sign flips."""
        raise TypeError("permutations of whole studies have orders, not weights")

    def orders(self, permutations: Sequence[int] | np.ndarray) -> np.ndarray:
        """Give the study whose residual each study receives: (P, K) int64.

        Each name has a random key; the study of alphabetic rank i receives from the study whose
        key has rank i.
        """
        p = np.asarray(permutations, np.int64)
        alphabetic = np.array(sorted(range(self.n_studies), key=self.names.__getitem__))
        if self.exact:
            kinds = [self.alike[k] for k in alphabetic]
            ranked = np.array([_placed(kinds, int(i)) for i in p]).reshape(len(p), -1)
            return self._named(ranked, alphabetic)
        keys = np.empty((len(p), self.n_studies), np.uint64)
        for rank, k in enumerate(alphabetic):
            high, low, *_ = philox(p, 0, 0, 0, stream_key(self.seed, "order", self.names[k]))
            keys[:, rank] = (high.astype(np.uint64) << np.uint64(32)) | low
        ranked = np.argsort(keys, axis=1, kind="stable")
        ranked[p == 0] = np.arange(self.n_studies)
        return self._named(ranked, alphabetic)

    def _named(self, ranked: np.ndarray, alphabetic: np.ndarray) -> np.ndarray:
        """From alphabetic ranks to the order of the table."""
        orders = np.empty_like(ranked)
        orders[:, alphabetic] = alphabetic[ranked]
        return orders


def _arrangements(left: Counter[int]) -> int:
    same = math.prod(math.factorial(n) for n in left.values())
    return math.factorial(left.total()) // same


def _placed(kinds: Sequence[int], number: int) -> list[int]:
    """Give the sender of each receiver in distinct permutation `number`; 0 is the identity.

    A distinct permutation says which kind of receiver each sender goes to; those of a kind are
    filled in order.
    """
    rank, left = 0, Counter(kinds)
    for kind in kinds:  # the identity's place among all in lexicographic order
        for smaller in sorted(left):
            if smaller == kind:
                break
            rank += _after(left, smaller)
        left[kind] -= 1
    rank = (rank + number) % _arrangements(Counter(kinds))
    left = Counter(kinds)
    senders: dict[int, list[int]] = {kind: [] for kind in kinds}
    for sender in range(len(kinds)):
        for kind in sorted(left):
            below = _after(left, kind)
            if rank < below:
                senders[kind].append(sender)
                left[kind] -= 1
                break
            rank -= below
    queues = {kind: iter(found) for kind, found in senders.items()}
    return [next(queues[kind]) for kind in kinds]


def _after(left: Counter[int], kind: int) -> int:
    """Arrangements that begin with `kind`."""
    return _arrangements(left - Counter([kind])) if left[kind] else 0
