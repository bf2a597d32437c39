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
from gpu_sdm.errors import NumericalError
from gpu_sdm.ops.max_tfce import MAX_TFCE, max_statistic
from gpu_sdm.ops.permuted_z import PERMUTED_Z
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.null import NullState, refuse_nan
from gpu_sdm.permute.plan import TILE, Plan, residual_sums
from gpu_sdm.spaces import Space
from gpu_sdm.stages.subjects import SubjectBank

SAVE_EVERY = 2.0  # seconds between checkpoints: what a kill can cost
BLOCK = 8192  # voxels of one residual product: fixed, because BLAS changes bits with shape

# Stated error of a backend's permuted z against the float64 twin (tests hold it); maxima closer
# to an observed value than this count as ties. TFCE: relative, from the thresholds it moves.
TIE_TOLERANCE = {"voxel": 1e-4, "tfce": 1e-3}


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


class Store(Protocol):
    """Where finished maxima are kept between chunks."""

    def load(self) -> NullState:
        """Give what an earlier run finished."""

    def save(self, state: NullState) -> None:
        """Keep what is finished."""


def z_tile(
    problem: Problem, plan: Plan, start: int, backend: Backend, pool: ThreadPoolExecutor
) -> np.ndarray:
    """Compute z of the TILE permutations from `start` (a multiple of TILE): (TILE, V) float32."""
    n_voxels = problem.effects.shape[2]
    z = np.empty((TILE, n_voxels), np.float32)
    compute = PERMUTED_Z.on(backend.name)

    def block(first: int) -> None:
        voxels = slice(first, min(first + BLOCK, n_voxels))
        sums, share = residual_sums(problem.bank, plan, start, voxels)
        z[:, voxels] = compute(
            sums,
            share,
            problem.effects[:, :, voxels],
            problem.terms,
            design=problem.design,
            contrast=problem.contrast,
            tau2=problem.tau2,
            rescale_sd=problem.rescale_sd,
        )

    list(pool.map(block, range(0, n_voxels, BLOCK)))
    return z


def maxima_of(
    z: np.ndarray,
    statistics: tuple[str, ...],
    problem: Problem,
    backend: Backend,
    pool: ThreadPoolExecutor,
    first: int = 0,
) -> dict[str, np.ndarray]:
    """Largest value of each statistic in each map: statistic -> (2, P), positive side first.

    Raises
    ------
    NumericalError
        If a map holds NaN; names the permutation (`first` is that of the first map) and voxel.
    """
    highest, lowest = max_statistic(z)
    if np.isnan(highest).any():
        row = int(np.flatnonzero(np.isnan(highest))[0])
        refuse_nan(z[row], problem.space, first + row)
    found = {}
    if "voxel" in statistics:
        found["voxel"] = np.stack([highest, lowest])
    if "tfce" in statistics:
        compute = MAX_TFCE.on(backend.name)
        sides = [(p, sign) for sign in (1.0, -1.0) for p in range(len(z))]
        values = pool.map(
            lambda side: compute(z[side[0] : side[0] + 1], problem.neighbours, side[1])[0], sides
        )
        found["tfce"] = np.array(list(values)).reshape(2, len(z))
    return found


def require_identity(identity: dict[str, np.ndarray], state: NullState, device: str) -> None:
    """Hold a device's permutation 0 against the observed maxima, which the CPU computed.

    Raises
    ------
    NumericalError
        If they differ by more than the device's stated error: the card, its driver or the
        compiled kernels cannot be trusted.
    """
    for statistic, found in identity.items():
        ours, wanted = found[:, 0], state.maxima[statistic][:, 0]
        tolerance = TIE_TOLERANCE[statistic] * (1.0 if statistic == "voxel" else np.abs(wanted))
        if not (np.abs(ours - wanted) <= tolerance).all():
            raise NumericalError(
                f"{device} gives {ours.tolist()} as the observed maxima of {statistic} where the "
                f"CPU gives {wanted.tolist()}; use --backend cpu and please report this."
            )


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
    statistics : tuple of {"voxel", "tfce"}
        What the maximum is taken of.
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
        if backend.device is not None and state.done < permutations:
            engine = DeviceEngine(problem, plan, backend.device, statistics, say)
            chunk = max(chunk, engine.group)
            require_identity(engine.rows(0, 1), state, backend.device.name)
        try:
            while state.done < permutations:
                start = state.done
                stop = min(start + chunk - start % chunk, permutations)
                if engine is not None:
                    state.add(start, engine.rows(start, stop))
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
