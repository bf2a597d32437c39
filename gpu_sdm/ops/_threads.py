"""Independent pieces of work on all threads, without `parallel=True`.

Numba compiles the body of a parallel loop twice, and its workers must not be entered from two
threads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numba as nb

PIECES_PER_THREAD = 8  # no thread waits long for the last one

T = TypeVar("T")


def in_pieces(work: Callable[[int, int], T], n: int) -> list[T]:
    """Run `work(first, last)` on consecutive pieces of range(n), in as many threads as numba may.

    Parameters
    ----------
    work : callable
        A compiled function that releases the GIL; pieces must not depend on each other.
    n : int
        Number of items.

    Returns
    -------
    list
        What the pieces gave, in order.
    """
    threads = nb.get_num_threads()
    step = max(1, -(-n // (threads * PIECES_PER_THREAD)))
    starts = range(0, n, step)
    if threads == 1 or len(starts) < 2:
        return [work(first, min(n, first + step)) for first in starts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda first: work(first, min(n, first + step)), starts))
