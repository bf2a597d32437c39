"""What a worker does: the maxima of a chunk of permutations, of inputs that it was sent once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np

from gpu_sdm.analysis import limited_threads
from gpu_sdm.backend import Backend, get_backend
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import Problem, maxima_rows
from gpu_sdm.permute.maxima import maxima_of, require_identity
from gpu_sdm.permute.null import NullState
from gpu_sdm.permute.plan import Plan

_one = Lock()  # a process works on one chunk at a time, with all its threads
_engines: dict[str, DeviceEngine] = {}
_backends: dict[tuple[str, int | None], Backend] = {}


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that a worker needs; sent once.

    Parameters
    ----------
    name : str
        Of this sending, for what a worker keeps.
    problem : Problem
    plan : Plan
    statistics : tuple of str
        As for `gpu_sdm.permute.engine.permute`.
    backend : {"auto", "cuda", "cpu", "numpy"}
        Where a worker runs it.
    threads : int or None
        Threads of a worker; as many as Dask gives it by default.
    """

    name: str
    problem: Problem
    plan: Plan
    statistics: tuple[str, ...]
    backend: str
    threads: int | None


def portable(problem: Problem) -> Problem:
    """Leave out what only this process needs: the device of a refit, effects that are not read."""
    if problem.scores is not None:
        return replace(problem, effects=problem.scores.parts[None])
    if problem.refit is None:
        return problem
    here = problem.refit.backend
    name = "numpy" if here.name == "numpy" else "cpu"
    return replace(problem, refit=replace(problem.refit, backend=Backend(name, here.why, 1)))


def worker_backend(name: str, threads: int | None) -> Backend:
    """Choose the backend of a worker, once."""
    if (name, threads) not in _backends:
        count = threads
        if count is None:
            from distributed import get_worker

            count = int(get_worker().state.nthreads)
        _backends[name, threads] = get_backend(name, count)
    return _backends[name, threads]


def chunk_maxima(inputs: Inputs, start: int, stop: int) -> dict[str, np.ndarray]:
    """Compute the maxima (2, stop - start) of a chunk of permutations."""
    with _one:
        backend = worker_backend(inputs.backend, inputs.threads)
        problem, plan = inputs.problem, inputs.plan
        if problem.refit is not None:
            problem = replace(problem, refit=replace(problem.refit, backend=backend))
        with limited_threads(backend):
            if backend.device is not None and not problem.on_cpu:
                if inputs.name not in _engines:
                    _engines.clear()
                    _engines[inputs.name] = _trusted_engine(inputs, backend)
                return _engines[inputs.name].rows(start, stop)
            with ThreadPoolExecutor(backend.threads) as pool:
                return maxima_rows(problem, plan, inputs.statistics, backend, pool, start, stop)


def _trusted_engine(inputs: Inputs, backend: Backend) -> DeviceEngine:
    """Upload the inputs to the GPU of this worker, and hold it against the CPU."""
    assert backend.device is not None
    problem, statistics = inputs.problem, inputs.statistics
    engine = DeviceEngine(problem, inputs.plan, backend.device, statistics)
    state = NullState.empty(statistics, 1)
    with ThreadPoolExecutor(backend.threads) as pool:
        state.add(0, maxima_of(problem.observed_z[None], statistics, problem, backend, pool))
    require_identity(engine.rows(0, 1), state, problem, backend)
    return engine


def describe(backend: str, threads: int) -> dict[str, Any]:
    """Say what a worker is, for the check before the work."""
    from gpu_sdm.analysis import CODE_VERSION
    from gpu_sdm.environment import versions

    chosen = worker_backend(backend, threads)
    return {
        "versions": versions() | {"results": CODE_VERSION},
        "backend": chosen.name,
        "threads": chosen.threads,
    }
