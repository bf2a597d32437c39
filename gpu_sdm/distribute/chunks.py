"""Send chunks of permutations to workers, take them in any order and give them in theirs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.distribute.task import Inputs, chunk_maxima
from gpu_sdm.errors import WorkersLost

if TYPE_CHECKING:
    from distributed import Client, Future

TICK_S = 0.3  # between two looks at Ctrl-C
AHEAD = 2  # chunks sent to each worker before its first comes back
SPREAD = 4  # times as many may come back before the one that is next
MOST_DEATHS = 5  # times that a chunk, or the inputs, may be lost with their workers
WAIT_S = 600.0  # for a worker to come back when none is left


class Chunks:
    """The chunks of one run; use as a context manager.

    Parameters
    ----------
    client : Client
        Connection to the scheduler.
    inputs : Inputs
        Sent to every worker once, and again where all workers that hold it are lost.
    size : int
        Permutations of a chunk.
    say : callable
        Called with a sentence when workers are lost.
    """

    def __init__(self, client: Client, inputs: Inputs, size: int, say: Callable[[str], None]):
        self._client, self._inputs, self._size, self._say = client, inputs, size, say
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._sent: dict[str, tuple[int, int]] = {}  # key -> permutations
        self._futures: dict[str, Future[Any]] = {}
        self._deaths: dict[int, int] = {}
        self._shared: Any = None
        self._times_sent = 0
        self._number = 0

    def __enter__(self) -> Chunks:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # the scheduler may be gone
            self._client.cancel(list(self._futures.values()), force=True)
        self._futures.clear()
        self._shared = None

    def between(
        self, start: int, stop: int, tick: Callable[[], None]
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """Yield the maxima of permutations start..stop-1, in order.

        Raises
        ------
        WorkersLost
            If no worker comes back, or a chunk kills every worker that takes it.
        """
        give, send = start, start
        ready: dict[int, tuple[int, dict[str, np.ndarray]]] = {}
        looked, workers = -np.inf, 1
        alone = monotonic()
        while give < stop:
            now = monotonic()
            if now - looked > 1:
                workers, looked = len(self._client.nthreads()), now
                alone = now if workers else alone
                if not workers and now - alone > WAIT_S:
                    raise WorkersLost(
                        f"no worker has been left for {WAIT_S:g} s; start some and give the same "
                        "command again: what is finished is kept."
                    )
            room = AHEAD * max(workers, 1)
            while workers and send < stop and len(self._sent) < room:
                if send - give >= SPREAD * room * self._size:
                    break
                end = min(send + self._size - send % self._size, stop)
                self._submit(send, end)
                send = end
            try:
                future = self._done.get(timeout=TICK_S)
            except Empty:
                tick()
                continue
            if str(future.key) in self._sent:
                self._take(future, ready)
            while give in ready:
                end, found = ready.pop(give)
                give = end
                yield found

    def _submit(self, start: int, stop: int) -> None:
        if self._shared is None:
            self._times_sent += 1
            if self._times_sent > MOST_DEATHS:
                raise WorkersLost(
                    f"all workers that held the inputs were lost {MOST_DEATHS} times; see their "
                    "logs (too little memory?). What is finished is kept."
                )
            (self._shared,) = self._client.scatter([self._inputs], broadcast=True, hash=False)
        self._number += 1
        key = f"gpu-sdm-{self._inputs.name}-{start}-{self._number}"
        future = self._client.submit(
            chunk_maxima, self._shared, start, stop, key=key, pure=False, retries=0
        )
        self._sent[key], self._futures[key] = (start, stop), future
        future.add_done_callback(self._done.put)

    def _take(
        self, future: Future[Any], ready: dict[int, tuple[int, dict[str, np.ndarray]]]
    ) -> None:
        """Take a chunk that came back, or send it again where its worker was lost."""
        from distributed import KilledWorker

        start, stop = self._sent.pop(str(future.key))
        self._futures.pop(str(future.key))
        if future.status == "finished":
            with suppress(OSError, CancelledError):  # lost with its worker before it was fetched
                ready[start] = stop, future.result()
                return
        if future.status == "error":
            error = future.exception()
            if error is not None and not isinstance(error, KilledWorker):
                raise error
        self._deaths[start] = self._deaths.get(start, 0) + 1
        if self._deaths[start] > MOST_DEATHS:
            raise WorkersLost(
                f"permutations {start} to {stop - 1} were lost with their workers "
                f"{MOST_DEATHS + 1} times; see the workers' logs (too little memory?). What is "
                "finished is kept."
            )
        if self._shared is not None and self._shared.status != "finished":
            self._shared = None  # lost with the last worker that held it
        self._say(f"A worker was lost; permutations {start} to {stop - 1} are computed again.")
        self._submit(start, stop)
