"""Lay out an analysis: in memory, or in files of slabs beside the unfinished work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_sdm.cache import key
from gpu_sdm.config import NOT_COMPARED
from gpu_sdm.distribute.memory import Layout, plan_layout
from gpu_sdm.distribute.scratch import Scratch

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis
    from gpu_sdm.distribute.workers import Workers


def laid_out(
    analysis: Analysis,
    out: Path | None,
    memory: int | None,
    workers: Workers | None,
    say: Callable[[str], None],
) -> tuple[Analysis, Layout]:
    """Decide where the large arrays lie, and how many threads there is memory for.

    Without a folder everything stays in memory.

    Raises
    ------
    OutOfMemory
        If not even slabs fit.
    """
    if out is None:
        return analysis, Layout(False, 0, 0, 1, analysis.backend.threads)
    processes = 1 + (0 if workers is None else workers.processes)
    layout = plan_layout(analysis, memory, processes)
    if layout.slabs:
        say(
            f"Effects and subject images ({layout.disk / 1e9:.1f} GB) do not fit the memory: they "
            f"go to files in {out}.partial until the work is done."
        )
    if layout.threads == analysis.backend.threads:
        return analysis, layout
    say(f"There is memory for {layout.threads} threads.")
    return replace(analysis, backend=replace(analysis.backend, threads=layout.threads)), layout


def scratch_of(analysis: Analysis, layout: Layout, folder: Path) -> Scratch | None:
    """Open the files of an analysis in a folder; None where everything fits the memory.

    Raises
    ------
    OutputError
        If the disk has no room.
    """
    if not layout.slabs:
        return None
    settings = {n: v for n, v in analysis.settings.as_dict().items() if n not in NOT_COMPARED}
    parts = [f"{name}={value!r}" for name, value in sorted(settings.items())]
    content = analysis.content()
    content.pop("exact permutations", None)
    parts += [f"{name}:{value}" for name, value in sorted(content.items())]
    scratch = Scratch(folder, key("scratch", analysis.backend.name == "numpy", *parts))
    scratch.reserve(layout.disk)
    return scratch
