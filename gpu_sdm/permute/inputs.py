"""What the permutations need, where their maxima are kept, and who may compute them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpu_sdm.data import StudyTerms
from gpu_sdm.permute.maxima import Forming
from gpu_sdm.permute.null import NullState
from gpu_sdm.permute.plan import Plan
from gpu_sdm.permute.refit import Refit
from gpu_sdm.permute.scores import Scores
from gpu_sdm.spaces import Space
from gpu_sdm.stages.subjects import SubjectBank


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """All that the engine needs.

    Parameters
    ----------
    effects : (M, K, V) float32
        Imputed Hedges g.
    bank : SubjectBank or None
        Unit residuals of the simulated subjects; None where whole studies are exchanged.
    terms : StudyTerms
        Constants of the studies.
    design : (K, Q) float64
        Ones and mean-centred covariates.
    contrast : (Q,) float64
        The tested coefficient.
    tau2 : {"dl", "reml"}
        Estimator of the between-study variance.
    rescale_sd : bool
        Re-estimate the subjects' SD in every permutation.
    space : Space
        Grid and mask.
    neighbours : (V, 6) int32
        Face neighbours, for TFCE.
    observed_z : (V,) float32
        The observed map of the tested statistic: permutation 0.
    forming : Forming, optional
        For the cluster statistics.
    rows : (R, Q) float64, optional
        Tested rows of a moderator: whole studies are permuted (the plan is a `StudyPlan`), on the
        CPU whatever the backend.
    own_variance : bool
        Whether a permuted effect keeps the size of its own study; see `study_permuted_z`.
    refit : Refit, optional
        Where every permutation begins again from the bounds, on the CPU whatever the backend.
    scores : Scores, optional
        Where the signs of whole studies flip in the score test.
    """

    effects: np.ndarray
    bank: SubjectBank | None
    terms: StudyTerms
    design: np.ndarray
    contrast: np.ndarray
    tau2: str
    rescale_sd: bool
    space: Space
    neighbours: np.ndarray
    observed_z: np.ndarray
    forming: Forming | None = None
    rows: np.ndarray | None = None
    own_variance: bool = False
    refit: Refit | None = None
    scores: Scores | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU permutes, whatever the backend."""
        return self.rows is not None or self.refit is not None


class Store(Protocol):
    """Where finished maxima are kept between chunks."""

    def load(self) -> NullState:
        """Give what an earlier run finished."""

    def save(self, state: NullState) -> None:
        """Keep what is finished."""


class Source(Protocol):
    """Where maxima come from, if not from here."""

    def rows(
        self,
        problem: Problem,
        plan: Plan,
        statistics: tuple[str, ...],
        start: int,
        stop: int,
        tick: Callable[[], None],
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """Yield the maxima (2, p) of permutations start..stop-1 in order, some at a time.

        `tick` is called while waiting: it may raise KeyboardInterrupt.
        """
