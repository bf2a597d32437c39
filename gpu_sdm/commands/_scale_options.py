"""Options of `permute` on workers, memory and when to stop, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from gpu_sdm.distribute.workers import Workers

StopAt = Annotated[
    str | None,
    opt.option(
        opt.NULL,
        "Stop when the corrected p of this peak (MNI mm), named beforehand, is decided.",
        "--stop-at",
        metavar="X,Y,Z",
        default="never",
    ),
]
STOP_HITS = "It is when so many permutations reach its value; else all are run."
StopHits = Annotated[int, opt.option(opt.NULL, STOP_HITS, "--stop-hits", min=1)]
StopStatistic = Annotated[
    str | None,
    opt.option(
        opt.NULL,
        "Which statistic of that peak.",
        "--stop-statistic",
        metavar="STATISTIC",
        default="tfce if asked for, else the first",
    ),
]
Memory = Annotated[
    float | None,
    opt.option(
        opt.DEVICE,
        "Most memory to use; effects and subject images that do not fit go to files in "
        "OUT.partial.",
        "--memory",
        min=0.1,
        metavar="GB",
        default="what is free",
    ),
]
COUNT = "Permute in so many processes of this machine; the result does not change."
Count = Annotated[
    int | None, opt.option(opt.DEVICE, COUNT, "--workers", min=1, max=4096, default="none")
]
Address = Annotated[
    str | None,
    opt.option(
        opt.DEVICE,
        "Permute on the workers of this Dask scheduler, e.g. tcp://node1:8786.",
        "--dask",
        metavar="ADDRESS",
        default="none",
    ),
]


def place(text: str | None) -> tuple[float, float, float] | None:
    """Read `--stop-at`.

    Raises
    ------
    SettingError
    """
    return None if text is None else shared.point(text, "--stop-at")


def workers_of(
    count: int | None,
    address: str | None,
    backend: str,
    threads: int | None,
    say: Callable[[str], None],
) -> AbstractContextManager[Workers | None]:
    """Make the workers that the options ask for, not yet entered; None inside where none.

    Raises
    ------
    GpuSdmError
        If the options do not fit each other, or Dask is not installed.
    """
    from gpu_sdm.errors import SettingError

    if count is None and address is None:
        return nullcontext()
    if count is not None and address is not None:
        raise SettingError("--workers starts processes here and --dask uses others; give one.")
    if count is not None and backend == "cuda":
        raise SettingError(
            "--workers are processes of the CPU; for several GPUs start one dask-cuda worker for "
            "each and give --dask (docs/scaling.md)."
        )
    from gpu_sdm.distribute.workers import Workers

    chosen = "cpu" if count is not None and backend == "auto" else backend
    return Workers(address, count, chosen, threads, say)
