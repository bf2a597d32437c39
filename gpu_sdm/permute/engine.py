"""Run the permutations: residual sums, permuted z, maxima; tile after tile, the same bits always.

Bits are kept by computing fixed tiles (32 permutations aligned to the permutation number, fixed
voxel blocks) whatever part of a tile a chunk asks for, and by letting each thread work alone on
a whole block or map.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

import numpy as np

from gpu_sdm.backend import Backend
from gpu_sdm.ops.permuted_z import PERMUTED_Z
from gpu_sdm.ops.study_permuted_z import STUDY_PERMUTED_Z
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.inputs import Problem, Source, Store
from gpu_sdm.permute.maxima import TIE_TOLERANCE, Forming, maxima_of, require_identity
from gpu_sdm.permute.null import NullState
from gpu_sdm.permute.plan import BLOCK, TILE, Plan, residual_sums
from gpu_sdm.permute.study_plan import StudyPlan

__all__ = [
    "BLOCK",
    "COMPLETE",
    "TIE_TOLERANCE",
    "Forming",
    "Problem",
    "Source",
    "Store",
    "maxima_of",
    "maxima_rows",
    "permute",
    "z_tile",
]

SAVE_EVERY = 2.0  # seconds between checkpoints: what a kill can cost
# Tiles of one complete data set that share its voxels' tables; maps are the memory they take.
COMPLETE = 4


def z_tile(
    problem: Problem,
    plan: Plan,
    start: int,
    backend: Backend,
    pool: ThreadPoolExecutor,
    only: np.ndarray | None = None,
    tiles: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Compute z of the TILE permutations from `start` (a multiple of TILE), or of several tiles.

    Parameters
    ----------
    problem, plan, start, backend, pool
        As for `permute`.
    only : (v,) int, optional
        Voxels that are wanted, increasing; all by default. They get the bits that they get among
        all the others, because the residual products keep their shape.
    tiles : int
        How many tiles; a block of voxels is read once for all of them.
    tick : callable
        Called after every block of voxels.

    Returns
    -------
    (tiles * TILE, V) or (tiles * TILE, v) float32
    """
    firsts = range(start, start + tiles * TILE, TILE)
    if problem.refit is not None:
        inside = slice(None) if only is None else only
        numbers = range(start, start + tiles * TILE)
        return np.stack([problem.refit.z(plan, p)[inside] for p in numbers])
    n_voxels = problem.effects.shape[2]
    starts = range(0, n_voxels, BLOCK)
    edges = np.append(starts, n_voxels)
    cut = edges if only is None else np.searchsorted(only, edges)
    z = np.empty((tiles * TILE, cut[-1]), np.float32)
    fitted = partial(
        PERMUTED_Z.on(backend.name),
        terms=problem.terms,
        design=problem.design,
        contrast=problem.contrast,
        tau2=problem.tau2,
        rescale_sd=problem.rescale_sd,
    )
    orders = (
        plan.orders(np.arange(start, start + tiles * TILE)) if isinstance(plan, StudyPlan) else None
    )

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
        if problem.scores is not None:
            inside = slice(None) if only is None else only[place] - edges[i]
            for first in firsts:
                flipped = problem.scores.tile(plan, first, voxels)
                z[first - start : first - start + TILE, place] = flipped[:, inside]
            return
        effects = problem.effects[:, :, voxels]
        if only is not None:
            inside = only[place] - edges[i]
            effects = np.ascontiguousarray(effects[:, :, inside])
        if problem.bank is None:  # what depends on the voxel alone is then computed once
            share = np.concatenate(
                [residual_sums(None, plan, f, voxels)[1] for f in firsts], axis=1
            )
            z[:, place] = fitted(None, share, effects)
            return
        for first in firsts:
            sums, share = residual_sums(problem.bank, plan, first, voxels)
            if only is not None and sums is not None:
                sums = np.ascontiguousarray(sums[:, :, inside])
            z[first - start : first - start + TILE, place] = fitted(sums, share, effects)

    for _ in pool.map(block, range(len(starts))):
        tick()
    return z


def maxima_rows(
    problem: Problem,
    plan: Plan,
    statistics: tuple[str, ...],
    backend: Backend,
    pool: ThreadPoolExecutor,
    start: int,
    stop: int,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Compute the maxima (2, stop - start) of permutations start..stop-1 on the CPU.

    They need not be whole tiles: whole tiles are computed and cut.
    """
    if problem.refit is not None:
        z = np.stack([problem.refit.z(plan, p) for p in range(start, stop)])
    else:
        tile = start - start % TILE
        tiles = -(-(stop - tile) // TILE)
        z = z_tile(problem, plan, tile, backend, pool, tiles=tiles, tick=tick)
        z = z[start - tile : stop - tile]
    return maxima_of(z, statistics, problem, backend, pool, start)


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
    source: Source | None = None,
    decide: Callable[[NullState], int | None] = lambda state: None,
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
    source : Source, optional
        Workers that do the permutations in place of this process.
    decide : callable
        Given the null so far, how many of its permutations are enough, or None to go on.

    Returns
    -------
    NullState
        All maxima; permutation 0 is the observed map.
    """
    state = store.load() if store else NullState.empty(statistics, permutations)
    progress(state.done)
    due = 0.0
    with ThreadPoolExecutor(backend.threads) as pool:
        if state.done == 0:
            observed = maxima_of(problem.observed_z[None], statistics, problem, backend, pool)
            state.add(0, observed)
        if source is not None:
            rows = source.rows(
                problem, plan, statistics, state.done, permutations, lambda: progress(state.done)
            )
        else:
            rows = _own_rows(
                problem, plan, statistics, backend, pool, state, permutations, chunk, progress, say
            )
        try:
            enough = decide(state)
            while enough is None and state.done < permutations:
                state.add(state.done, next(rows))
                enough = decide(state)
                if enough is not None:
                    state = state.first(enough)
                last = enough is not None or state.done == permutations
                if store and (last or monotonic() > due):
                    begin = monotonic()
                    store.save(state)
                    # Millions of permutations take a while to write: a twentieth of the time.
                    due = monotonic() + max(SAVE_EVERY, 20 * (monotonic() - begin))
                progress(state.done)
        except KeyboardInterrupt:
            if store:
                store.save(state)
            raise
        finally:
            rows.close()
    return state if enough is None else state.first(enough)


def _own_rows(
    problem: Problem,
    plan: Plan,
    statistics: tuple[str, ...],
    backend: Backend,
    pool: ThreadPoolExecutor,
    state: NullState,
    permutations: int,
    chunk: int,
    progress: Callable[[int], None],
    say: Callable[[str], None],
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yield the maxima after those of `state`, computed in this process."""
    if problem.on_cpu and backend.device is not None:
        say("Whole studies are permuted on the CPU, not on the GPU.")
    engine = None
    if problem.refit is not None:
        chunk = 1  # a permutation takes seconds: save and show each
    if not problem.on_cpu and backend.device is not None and state.done < permutations:
        engine = DeviceEngine(problem, plan, backend.device, statistics, say)
        chunk = max(chunk, engine.group)
        require_identity(engine.rows(0, 1), state, problem, backend)
    elif not problem.on_cpu and problem.bank is None and len(problem.effects) == 1:
        chunk = max(chunk, COMPLETE * TILE)
    start = state.done
    while start < permutations:
        stop = min(start + chunk - start % chunk, permutations)
        if engine is not None:
            yield engine.rows(start, stop)
        else:
            yield maxima_rows(
                problem, plan, statistics, backend, pool, start, stop, lambda: progress(state.done)
            )
        start = stop
