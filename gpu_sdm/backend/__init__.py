"""Where the work runs, chosen once: `cpu` (compiled, numba), `numpy` (plain reference), `cuda`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from gpu_sdm.backend.cuda import Device, probe
from gpu_sdm.checks import Options
from gpu_sdm.errors import BackendUnavailable, SettingError

BACKENDS = ("auto", "cuda", "cpu", "numpy")


@dataclass(frozen=True, slots=True)
class Backend:
    """A place to run.

    Parameters
    ----------
    name : {"cuda", "cpu", "numpy"}
        Which implementation of each op is used.
    why : str
        One sentence on how it came to be chosen.
    threads : int
        Worker threads; results do not depend on it.
    device : Device, optional
        Where the likelihood and the permutations run, for "cuda"; all else runs as "cpu".
    """

    name: str
    why: str
    threads: int
    device: Device | None = None


def cuda_missing() -> str:
    """Say what stands between this machine and the CUDA backend; empty where nothing does."""
    try:
        probe()
    except BackendUnavailable as exc:
        return str(exc)
    return ""


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def get_backend(
    name: str = "auto",
    threads: int | None = None,
    device: int = 0,
    device_memory: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> Backend:
    """Choose a backend by name.

    Parameters
    ----------
    name : {"auto", "cuda", "cpu", "numpy"}
        "auto" takes CUDA where it can run and the compiled CPU path elsewhere, and says which.
    threads : int, optional
        Worker threads; all the cores this process may use by default.

    Raises
    ------
    BackendUnavailable
        If "cuda" is asked for and cannot run.
    SettingError
        If the name or the number of threads is not allowed.

    Examples
    --------
    >>> backend = get_backend("cpu", threads=2)
    >>> backend.name, backend.threads
    ('cpu', 2)
    """
    Options(BACKENDS).check("backend", name)
    cores = available_cores()
    if threads is not None and threads < 1:
        raise SettingError(f"threads is {threads}; it must be at least 1.")
    workers = cores if threads is None else threads
    if name in ("cuda", "auto"):
        try:
            gpu = probe(device, device_memory, announce)
        except BackendUnavailable as exc:
            if name == "cuda":
                raise BackendUnavailable(f"backend 'cuda' cannot run here: {exc}") from exc
            return Backend("cpu", f"compiled CPU path, as {exc}", workers)
        return Backend("cuda", f"permutations on {gpu.name}", workers, gpu)
    why = "asked for" if name == "cpu" else "asked for: the plain reference, slow"
    return Backend(name, why, workers)
