"""Chunks of permutations on the workers of a Dask cluster: the same null, whatever the workers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from gpu_sdm.backend import available_cores
from gpu_sdm.distribute.chunks import Chunks
from gpu_sdm.distribute.task import Inputs, portable
from gpu_sdm.errors import BackendUnavailable, SettingError
from gpu_sdm.permute.plan import TILE, TILES_TOGETHER

if TYPE_CHECKING:
    from distributed import Client

    from gpu_sdm.permute.engine import Problem
    from gpu_sdm.permute.plan import Plan

CONNECT_S = 10.0  # to reach a scheduler
FIRST_WORKER_S = 120.0  # for a batch system to start one
# What must be the same here and there for the same bits.
COMPARED = ("gpu-sdm", "results", "numpy", "scipy", "numba")


def require_dask() -> None:
    """Refuse where the extra is not installed.

    Raises
    ------
    BackendUnavailable
    """
    try:
        import distributed  # noqa: F401
    except ImportError as exc:
        raise BackendUnavailable(
            "--workers and --dask need dask.distributed: pip install 'gpu-sdm[dask]'."
        ) from exc


def _deaf_to_ctrl_c() -> Any:
    """Make a plugin that leaves Ctrl-C, which a terminal sends to all, to this process."""
    from distributed import WorkerPlugin

    class Deaf(WorkerPlugin):
        name = "gpu-sdm-deaf"

        def setup(self, worker: Any) -> None:
            import signal
            import threading

            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


@dataclass
class Workers:
    """The workers of a run; use as a context manager, and as `source` of `permute`.

    Parameters
    ----------
    address : str, optional
        A running scheduler, e.g. "tcp://node1:8786".
    count : int, optional
        Start so many processes here instead.
    backend : {"auto", "cuda", "cpu", "numpy"}
        Where each worker runs its chunks.
    threads : int, optional
        Threads of each worker; by default the cores are shared out, and a worker of a running
        cluster uses the threads it has.
    say : callable
        Called with a sentence on the cluster.

    Raises
    ------
    BackendUnavailable
        If there is no cluster: Dask is not installed, nothing answers, no worker comes, or
        versions differ.
    SettingError
        If there are more workers than cores.
    """

    address: str | None = None
    count: int | None = None
    backend: str = "auto"
    threads: int | None = None
    say: Callable[[str], None] = lambda sentence: None

    def __post_init__(self) -> None:
        require_dask()
        if (self.address is None) == (self.count is None):
            raise SettingError("give either --workers or --dask.")
        if self.count is not None:
            cores = available_cores()
            if self.count < 1:
                raise SettingError(f"workers is {self.count}; it must be at least 1.")
            if self.threads is not None and self.count * self.threads > cores:
                raise SettingError(
                    f"{self.count} workers of {self.threads} threads are more than the {cores} "
                    "cores of this machine; use fewer --workers or --threads."
                )
            if self.threads is None:
                self.threads = max(1, cores // self.count)
            if self.count > cores:
                self.say(f"{self.count} workers on {cores} cores are no faster than {cores}.")
        self._stack = ExitStack()
        self._client: Client | None = None
        self._tiles = 1

    def __enter__(self) -> Workers:
        try:
            self._client = self._stack.enter_context(self._connected())
            self._check()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def processes(self) -> int:
        """Local processes that share the memory with this one."""
        return 0 if self.count is None else self.count

    @property
    def client(self) -> Client:
        """The connection."""
        if self._client is None:
            raise RuntimeError("workers are used inside their context")
        return self._client

    @contextmanager
    def _connected(self) -> Generator[Client, None, None]:
        from distributed import Client, LocalCluster

        with ExitStack() as stack:
            where: Any = self.address
            if self.count is not None:
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="gpu-sdm-", ignore_cleanup_errors=True)
                )
                where = stack.enter_context(
                    LocalCluster(
                        n_workers=self.count,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address="127.0.0.1:0",  # any free port
                        memory_limit=0,  # the layout has counted; spilling would copy files
                        local_directory=folder,
                        silence_logs=logging.CRITICAL,
                    )
                )
            try:
                client = Client(where, timeout=CONNECT_S, set_as_default=False)
            except (OSError, TimeoutError, ValueError) as exc:
                raise BackendUnavailable(
                    f"no Dask scheduler answers at {self.address} within {CONNECT_S:g} s; start "
                    "one with 'dask scheduler' and give the address it prints, such as "
                    "tcp://node1:8786."
                ) from exc
            stack.enter_context(client)
            if self.count is not None:
                client.register_plugin(_deaf_to_ctrl_c())
            yield client

    def _check(self) -> None:
        """Wait for the first worker and hold its versions against ours."""
        from gpu_sdm.analysis import CODE_VERSION
        from gpu_sdm.environment import versions

        try:
            self.client.wait_for_workers(self.count or 1, timeout=FIRST_WORKER_S)
        except TimeoutError as exc:
            raise BackendUnavailable(
                f"the scheduler at {self.address} has had no worker for {FIRST_WORKER_S:g} s; "
                "start some with 'dask worker ADDRESS' where gpu-sdm is installed."
            ) from exc
        asked, threads = self.backend, self.threads

        def look(dask_worker: Any = None) -> Any:
            # Defined here so that it travels whole, to a worker without gpu-sdm too.
            try:
                from gpu_sdm.distribute.task import describe
            except ImportError as error:
                return f"cannot import gpu-sdm ({error})"
            try:
                return describe(asked, threads or int(dask_worker.state.nthreads))
            except Exception as error:
                return str(error)

        ours = versions() | {"results": CODE_VERSION}
        found = self.client.run(look)
        for address, theirs in found.items():
            if isinstance(theirs, str):
                raise BackendUnavailable(f"worker {address}: {theirs}")
            for name in COMPARED:
                here, there = ours[name], theirs["versions"].get(name)
                if here != there:
                    raise BackendUnavailable(
                        f"worker {address} has {name} {there} and this process {here}; install "
                        "the same versions on both, so that all permutations are the same."
                    )
        kinds = {theirs["backend"] for theirs in found.values()}
        if len(kinds) > 1:
            raise BackendUnavailable(
                f"some workers run on {' and some on '.join(sorted(kinds))}, which agree to "
                "rounding only; name one with --backend."
            )
        # A GPU does a tile in milliseconds.
        self._tiles = TILES_TOGETHER if "cuda" in kinds else 1
        n = [theirs["threads"] for theirs in found.values()]
        self.say(f"{len(n)} workers on {kinds.pop()}, {sum(n)} threads in all")

    def rows(
        self,
        problem: Problem,
        plan: Plan,
        statistics: tuple[str, ...],
        start: int,
        stop: int,
        tick: Callable[[], None],
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """Yield the maxima of permutations start..stop-1 in order; see `Source`."""
        size = 1 if problem.refit is not None else self._tiles * TILE
        inputs = Inputs(
            uuid4().hex, portable(problem), plan, statistics, self.backend, self.threads
        )
        with Chunks(self.client, inputs, size, self.say) as chunks:
            yield from chunks.between(start, stop, tick)
