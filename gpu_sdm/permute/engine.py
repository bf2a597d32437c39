"""Run the permutations: residual sums, permuted z, maxima; tile after tile, the same bits always.

Bits are kept by computing fixed tiles (32 permutations aligned to the permutation number, fixed
voxel blocks) whatever part of a tile a chunk asks for, and by letting each thread work alone on
a whole block or map.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np

from gpu_sdm.backend import Backend
from gpu_sdm.data import StudyTerms
from gpu_sdm.ops.permuted_z import PERMUTED_Z
from gpu_sdm.ops.study_permuted_z import STUDY_PERMUTED_Z
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.maxima import TIE_TOLERANCE, Forming, maxima_of, require_identity
from gpu_sdm.permute.null import NullState
from gpu_sdm.permute.plan import TILE, Plan, residual_sums
from gpu_sdm.permute.refit import Refit
from gpu_sdm.permute.study_plan import StudyPlan
from gpu_sdm.spaces import Space
from gpu_sdm.stages.subjects import SubjectBank

__all__ = [
    "BLOCK",
    "TIE_TOLERANCE",
    "Forming",
    "Problem",
    "Store",
    "maxima_of",
    "permute",
    "z_tile",
]

SAVE_EVERY = 2.0  # seconds between checkpoints: what a kill can cost
BLOCK = 8192  # voxels of one residual product: fixed, because BLAS changes bits with shape


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
        The observed z map: permutation 0.
    forming : Forming, optional
        For the cluster statistics.
    rows : (R, Q) float64, optional
        Tested rows of a moderator: whole studies are permuted (the plan is a `StudyPlan`), on the
        CPU whatever the backend.
    own_variance : bool
        Whether a permuted effect keeps the size of its own study; see `study_permuted_z`.
    refit : Refit, optional
        Where every permutation begins again from the bounds, on the CPU whatever the backend.
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


class Store(Protocol):
    """Where finished maxima are kept between chunks."""

    def load(self) -> NullState:
        """Give what an earlier run finished."""

    def save(self, state: NullState) -> None:
        """Keep what is finished."""


def z_tile(
    problem: Problem,
    plan: Plan,
    start: int,
    backend: Backend,
    pool: ThreadPoolExecutor,
    only: np.ndarray | None = None,
) -> np.ndarray:
    """Compute z of the TILE permutations from `start` (a multiple of TILE).

    Parameters
    ----------
    problem, plan, start, backend, pool
        As for `permute`.
    only : (v,) int, optional
        Voxels that are wanted, increasing; all by default. They get the bits that they get among
        all the others, because the residual products keep their shape.

    Returns
    -------
    (TILE, V) or (TILE, v) float32
    """
    if problem.refit is not None:
        inside = slice(None) if only is None else only
        return np.stack([problem.refit.z(plan, p)[inside] for p in range(start, start + TILE)])
    n_voxels = problem.effects.shape[2]
    starts = range(0, n_voxels, BLOCK)
    edges = np.append(starts, n_voxels)
    cut = edges if only is None else np.searchsorted(only, edges)
    z = np.empty((TILE, cut[-1]), np.float32)
    compute = PERMUTED_Z.on(backend.name)
    orders = plan.orders(np.arange(start, start + TILE)) if isinstance(plan, StudyPlan) else None

    def block(i: int) -> None:
        voxels, place = slice(edges[i], edges[i + 1]), slice(cut[i], cut[i + 1])
        if place.start == place.stop:
            return
        if orders is not None:
            inside = voxels if only is None else only[place]
            z[:, place] = STUDY_PERMUTED_Z.on(backend.name)(
                orders,
                np.ascontiguousarray(problem.effects[:, :, inside]),
                problem.terms,
                design=problem.design,
                rows=problem.rows,
                tau2=problem.tau2,
                own_variance=problem.own_variance,
            )
            return
        sums, share = residual_sums(problem.bank, plan, start, voxels)
        effects = problem.effects[:, :, voxels]
        if only is not None:
            inside = only[place] - edges[i]
            effects = np.ascontiguousarray(effects[:, :, inside])
            sums = None if sums is None else np.ascontiguousarray(sums[:, :, inside])
        z[:, place] = compute(
            sums,
            share,
            effects,
            problem.terms,
            design=problem.design,
            contrast=problem.contrast,
            tau2=problem.tau2,
            rescale_sd=problem.rescale_sd,
        )

    list(pool.map(block, range(len(starts))))
    return z


def permute(
    problem: Problem,
    plan: Plan,
    permutations: int,
    statistics: tuple[str, ...],
    backend: Backend,
    *,
    store: Store | None = None,
    progress: Callable[[int], None] = lambda done: None,
    chunk: int = TILE,
    say: Callable[[str], None] = lambda sentence: None,
) -> NullState:
    """Build the null of the maxima.

    Parameters
    ----------
    problem : Problem
        The analysis.
    plan : Plan
        Which subjects (or studies) each permutation exchanges.
    permutations : int
        P, the identity included.
    statistics : tuple of {"voxel", "tfce", "cluster-extent", "cluster-mass"}
        What the maximum is taken of; those of clusters need `problem.forming`.
    backend : Backend
        Where to run.
    store : Store, optional
        Where to continue from and save to after every chunk.
    progress : callable
        Called with the number of permutations done.
    chunk : int
        Permutations between two saves; the result does not depend on it.
    say : callable
        Called with a sentence when a device runs short of memory.

    Returns
    -------
    NullState
        All maxima; permutation 0 is the observed map.
    """
    state = store.load() if store else NullState.empty(statistics, permutations)
    progress(state.done)
    saved = monotonic() - SAVE_EVERY
    engine = None
    with ThreadPoolExecutor(backend.threads) as pool:
        if state.done == 0:
            observed = maxima_of(problem.observed_z[None], statistics, problem, backend, pool)
            state.add(0, observed)
        on_cpu = problem.rows is not None or problem.refit is not None
        on_device = None if on_cpu else backend.device
        if on_cpu and backend.device is not None:
            say("Whole studies are permuted on the CPU, not on the GPU.")
        if problem.refit is not None:
            chunk = 1  # a permutation takes seconds: save and show each
        if on_device is not None and state.done < permutations:
            engine = DeviceEngine(problem, plan, on_device, statistics, say)
            chunk = max(chunk, engine.group)
            require_identity(engine.rows(0, 1), state, problem, backend)
        try:
            while state.done < permutations:
                start = state.done
                stop = min(start + chunk - start % chunk, permutations)
                if engine is not None:
                    state.add(start, engine.rows(start, stop))
                elif problem.refit is not None:
                    z = problem.refit.z(plan, start)[None]
                    state.add(start, maxima_of(z, statistics, problem, backend, pool, start))
                else:
                    for tile in range(start - start % TILE, stop, TILE):
                        rows = slice(max(start, tile) - tile, min(stop, tile + TILE) - tile)
                        first = tile + rows.start
                        z = z_tile(problem, plan, tile, backend, pool)[rows]
                        state.add(first, maxima_of(z, statistics, problem, backend, pool, first))
                if store and (state.done == permutations or monotonic() - saved > SAVE_EVERY):
                    store.save(state)
                    saved = monotonic()
                progress(state.done)
        except KeyboardInterrupt:
            if store:
                store.save(state)
            raise
    return state
