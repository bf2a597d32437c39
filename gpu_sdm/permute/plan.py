"""Which subjects, or studies, each permutation exchanges; and the sums that follow.

Permutation 0 is the identity. Everything is a pure function of seed, study name and permutation
number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from gpu_sdm.data import Study
from gpu_sdm.rng import philox, stream_key
from gpu_sdm.stages.subjects import SubjectBank

TILE = 32  # permutations of one residual product; changing it changes bits
BLOCK = 8192  # voxels of one residual product: fixed, because BLAS changes bits with shape
TILES_TOGETHER = 16  # most tiles that are computed in one pass over the voxels


class Plan(Protocol):
    """What the engine asks of a plan; plans are hashable by identity."""

    @property
    def n_studies(self) -> int:
        """K."""

    def __hash__(self) -> int:
        """Identity."""

    def weights(self, k: int, permutations: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Weights of the subjects of study k, and f.

        Parameters
        ----------
        k : int
            Study.
        permutations : (P,) int
            Permutation numbers.

        Returns
        -------
        weights : (P, N_k) float32 or None
            Permuted group 1 mean of the residuals = weights @ residuals; None where whole studies
            are exchanged.
        share : (P,) float32
            Mean sign, share of true patients among the labelled, or the sign of the study.
        """


def subject_weights(drawn: np.ndarray, n1: int, n2: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and f from signs (one sample) or labels (two samples), each (P, N)."""
    share = drawn[:, :n1].sum(axis=1, dtype=np.float64) / n1
    return drawn.astype(np.float32) * np.float32(1 / n1), share.astype(np.float32)


@dataclass(frozen=True, eq=False)
class PermutationPlan:
    """Random permutations.

    Parameters
    ----------
    seed : int
        Seed of the analysis.
    names : tuple of str
        The studies; their draws depend on the name, not on the order.
    n1, n2 : tuple of int
        Group sizes; n2 = 0 for a one-sample study.
    exchange : {"subjects", "studies"}
        What is exchanged.

    Examples
    --------
    >>> plan = PermutationPlan(0, ("a",), (4,), (0,))
    >>> plan.signs(0, [0])
    array([[1, 1, 1, 1]], dtype=int8)
    """

    seed: int
    names: tuple[str, ...]
    n1: tuple[int, ...]
    n2: tuple[int, ...]
    exchange: str = "subjects"

    @classmethod
    def of(cls, studies: Sequence[Study], seed: int, exchange: str = "subjects") -> PermutationPlan:
        """Plan the permutations of these studies."""
        return cls(
            seed,
            tuple(s.name for s in studies),
            tuple(s.n1 for s in studies),
            tuple(s.n2 for s in studies),
            exchange,
        )

    @property
    def n_studies(self) -> int:
        """K."""
        return len(self.names)

    def distinct(self) -> int:
        """Count the distinct permutations, the identity included."""
        return math.prod(self.choices(k) for k in range(self.n_studies))

    def choices(self, k: int) -> int:
        """Count what can be drawn for study k."""
        if self.exchange == "studies":
            return 2
        n1, n2 = self.n1[k], self.n2[k]
        return math.comb(n1 + n2, n1) if n2 else 2**n1

    def signs(self, k: int, permutations: Sequence[int] | np.ndarray) -> np.ndarray:
        """Signs of the subjects of a one-sample study: (P, n1) int8, each +1 or -1."""
        p = np.asarray(permutations, np.int64)[:, None]
        n = self.n1[k]
        key = stream_key(self.seed, "flip", self.names[k])
        words = np.stack(philox(p, np.arange((n + 127) // 128), 0, 0, key), axis=-1)
        bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
        signs = 1 - 2 * bits.reshape(len(p), -1)[:, :n].astype(np.int8)
        signs[p[:, 0] == 0] = 1
        return signs

    def labels(self, k: int, permutations: Sequence[int] | np.ndarray) -> np.ndarray:
        """Who is labelled a patient in a two-sample study: (P, n1 + n2) int8, n1 ones a row."""
        p = np.asarray(permutations, np.int64)[:, None]
        n = self.n1[k] + self.n2[k]
        key = stream_key(self.seed, "label", self.names[k])
        words = np.stack(philox(p, np.arange((n + 1) // 2), 0, 0, key), axis=-1).astype(np.uint64)
        ticket = (words[..., 0::2] << np.uint64(32)) | words[..., 1::2]
        order = np.argsort(ticket.reshape(len(p), -1)[:, :n], axis=1, kind="stable")
        order[p[:, 0] == 0] = np.arange(n)
        labels = np.zeros((len(p), n), np.int8)
        np.put_along_axis(labels, order[:, : self.n1[k]], 1, axis=1)
        return labels

    def flips(self, k: int, permutations: Sequence[int] | np.ndarray) -> np.ndarray:
        """Sign of the whole study: (P,) int8, +1 or -1."""
        p = np.asarray(permutations, np.int64)
        word = philox(p, 0, 0, 0, stream_key(self.seed, "exchange", self.names[k]))[0]
        flips = 1 - 2 * (word & np.uint32(1)).astype(np.int8)
        flips[p == 0] = 1
        return flips

    def weights(self, k: int, permutations: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Weights of the subjects and f; see `Plan`."""
        if self.exchange == "studies":
            return None, self.flips(k, permutations).astype(np.float32)
        drawn = (self.labels if self.n2[k] else self.signs)(k, permutations)
        return subject_weights(drawn, self.n1[k], self.n2[k])


@dataclass(frozen=True, eq=False)
class ExplicitPlan:
    """Given permutations, to replay those of another program.

    No analysis makes one: `make fidelity` runs SDM-PSI's own signs with it, on any backend.

    Parameters
    ----------
    drawn : tuple of (P, N_k) int8
        Per study the signs of its subjects, or 1 for those labelled patients and 0 for the rest.
    n1, n2 : tuple of int
        Group sizes; n2 = 0 for a one-sample study.
    """

    drawn: tuple[np.ndarray, ...]
    n1: tuple[int, ...]
    n2: tuple[int, ...]

    @property
    def n_studies(self) -> int:
        """K."""
        return len(self.drawn)

    def weights(self, k: int, permutations: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Weights of the subjects and f, 0 past the last permutation; see `Plan`."""
        given = self.drawn[k]
        rows = np.zeros((len(permutations), given.shape[1]), np.int8)
        known = np.asarray(permutations) < len(given)
        rows[known] = given[np.asarray(permutations)[known]]
        return subject_weights(rows, self.n1[k], self.n2[k])


# As many as one pass over the voxels may serve (gpu_sdm.distribute.memory).
@lru_cache(maxsize=TILES_TOGETHER)
def _tile(plan: Plan, start: int) -> tuple[list[np.ndarray | None], np.ndarray]:
    """Weights of each study and f (K, TILE) of the tile from `start`."""
    numbers = np.arange(start, start + TILE)
    pairs = [plan.weights(k, numbers) for k in range(plan.n_studies)]
    share = np.stack([f for _, f in pairs])
    share.flags.writeable = False
    return [w for w, _ in pairs], share


def residual_sums(
    bank: SubjectBank | None, plan: Plan, start: int, voxels: slice
) -> tuple[np.ndarray | None, np.ndarray]:
    """Sum the residuals as the permutations of one tile want it.

    Parameters
    ----------
    bank : SubjectBank or None
        Unit residuals; None where whole studies are exchanged.
    plan : Plan
        The permutations.
    start : int
        First permutation of the tile, a multiple of TILE.
    voxels : slice
        Block of voxels.

    Returns
    -------
    sums : (K, TILE, v) float32 or None
        Permuted means of the residuals; None where whole studies are exchanged.
    share : (K, TILE) float32
        See `Plan.weights`; read-only.

    Notes
    -----
    BLAS changes bits with the shape of a product and may do so with its threads: whole tiles of
    fixed blocks, and BLAS limited to one thread by the caller, keep the bits.
    """
    if start % TILE:
        raise ValueError(f"tile starts at {start}, not a multiple of {TILE}")
    weights, share = _tile(plan, start)
    if bank is None or weights[0] is None:
        return None, share
    n_voxels = bank.residuals[0][:, voxels].shape[1]
    sums = np.empty((plan.n_studies, TILE, n_voxels), np.float32)
    for k, w in enumerate(weights):
        if w is not None:
            np.matmul(w, bank.residuals[k][:, voxels], out=sums[k])
    return sums, share
