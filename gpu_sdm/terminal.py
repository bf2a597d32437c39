"""What a person sees: summary and tables on stdout, progress and errors on stderr."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from gpu_sdm import log

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis
    from gpu_sdm.bench import Measured
    from gpu_sdm.data import Notice
    from gpu_sdm.forecast import Forecast
    from gpu_sdm.result import Result

LISTED = 6  # notices of one kind that are spelt out; all are in run.json
THRESHOLD_SHOWN = "fwe-tfce-0.05"


def open_console(stderr: bool = True, wide: int | None = None) -> Console:
    """Give where to print, plain under NO_COLOR; `wide` columns where it is no terminal."""
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    found = Console(stderr=stderr, color_system=colours)
    if wide is not None and not found.is_terminal:
        found.width = wide
    return found


class _Rate(ProgressColumn):
    """Work per second of a running task."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:.3g}/s")


class _Noted(Progress):
    """Bars with a line of text below them."""

    text = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from (*super().get_renderables(), Text(self.text, style="dim"))


class StageProgress:
    """A progress bar per stage on stderr, with rate and time left.

    Call it with (stage, done, total); a new stage starts its own bar.
    """

    def __init__(self) -> None:
        self._progress = _Noted(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=open_console(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StageProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the display."""
        self._progress.stop()

    def note(self, text: str) -> None:
        """Show a line below the bars."""
        self._progress.text = text

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        log.stage(stage, done, total)
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        # A task that is born complete would count its seconds for ever.
        self._progress.update(self._tasks[stage], completed=done, total=total)


class StopAfterStep:
    """Turn Ctrl-C into a stop at the next report of progress; a second one stops at once.

    Raised wherever it happens to arrive, an interrupt can be swallowed (in a callback of the
    interpreter) or leave a thread pool waiting.

    Parameters
    ----------
    progress : callable
        What is called with (stage, done, total) before the check.
    """

    def __init__(self, progress: StageProgress) -> None:
        self._progress, self._asked = progress, False

    def __enter__(self) -> StopAfterStep:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, self._before)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is, and stop there if that was asked for."""
        self._progress(stage, done, total)
        if self._asked:
            raise KeyboardInterrupt


def show_error(message: str) -> None:
    """One red line on stderr."""
    log.note(message, "error")
    open_console().print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def warn(sentence: str) -> None:
    """One line with a yellow "warning:" on stderr."""
    log.note(sentence, "warning")
    open_console().print(f"[yellow]warning:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


def say(sentence: str) -> None:
    """One line on stderr while work goes on."""
    log.note(sentence, "warning" if sentence.startswith("warning:") else "info")
    open_console().print(escape(sentence), highlight=False, soft_wrap=True)


def say_interrupted(out: Path) -> None:
    """Tell how to go on after Ctrl-C."""
    say(
        f"interrupted; what is finished is kept in {out}.partial: give the same command again to "
        "go on."
    )


def show_pairs(title: str, pairs: Mapping[str, str], stderr: bool = False) -> None:
    """Two columns under a title."""
    log.note("\n".join([title, *(f"{name}: {value}" for name, value in pairs.items())]))
    table = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        table.add_row(escape(name), escape(value))
    open_console(stderr).print(Panel(table, title=escape(title), expand=False))


def show_summary(analysis: Analysis, command: str = "permute", stderr: bool = False) -> None:
    """Say what was read and what `command` will do, before the long work."""
    from gpu_sdm.provenance import summary

    show_pairs(f"gpu-sdm {command}", summary(analysis), stderr)
    show_notices(analysis.notices, ", all in run.json")


def show_notices(notices: Sequence[Notice], where: str = "") -> None:
    """Count doubts by kind on stderr, and spell out the first of each."""
    console = open_console()
    for kind in sorted({n.kind for n in notices}):
        same = [n.message for n in notices if n.kind == kind]
        for message in same:
            log.note(f"{kind.replace('_', ' ')}: {message}", "warning")
        console.print(f"[yellow]warning:[/] {kind.replace('_', ' ')}: {len(same)}", highlight=False)
        for message in same[:LISTED]:
            console.print(f"  {escape(message)}", highlight=False, soft_wrap=True)
        if len(same) > LISTED:
            console.print(f"  ... and {len(same) - LISTED} more{where}", highlight=False)


def show_forecast(found: Forecast, permutations: int, stderr: bool = False) -> None:
    """Print memory and expected time of a dry run."""
    show_pairs(
        "dry run: nothing was written",
        {
            "memory needed": f"{found.memory / 1e9:.1f} GB"
            + (f", and {found.disk / 1e9:.1f} GB of disk" if found.disk else ""),
            "memory free": "unknown" if found.free is None else f"{found.free / 1e9:.1f} GB",
            "preparation": f"about {_duration(found.preparation)} (less where it is cached)",
            "permutations": f"about {found.rate:.3g} per second, measured just now",
            "in all": f"about {_duration(found.preparation + permutations / found.rate)}",
        },
        stderr,
    )


def show_bench(
    sizes: Mapping[str, int], found: Sequence[Measured], permutations: Sequence[int]
) -> None:
    """Print agreement and speed of each backend."""
    title = ", ".join(f"{n:,} {name}" for name, n in sizes.items())
    table = Table(title=f"noise with {title}", title_justify="left")
    columns = ("backend", "on", "max |dz|", "statistic", "per s", *(f"{n:,}" for n in permutations))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i in (0, 1, 3) else "right", overflow="fold")
    for m in found:
        first = escape(m.backend), escape(m.where), f"{m.dz:.1e}"
        for name, speed in m.rates.items():
            statistic = "voxel" if name == "voxel" else "voxel + TFCE"
            times = (_duration(n / speed) for n in permutations)
            table.add_row(*first, statistic, f"{speed:.3g}", *times)
        if not m.agrees:
            table.add_row(*first, "[red]does not agree[/]")
    console = open_console(stderr=False)
    console.print(table)
    console.print(
        "max |dz|: against the plain float64 reference, on a block of voxels; at most 1e-4 agrees. "
        "Times are of the permutations; the preparation, done once, comes on top.",
        highlight=False,
        style="dim",
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def show_result(result: Result, stderr: bool = False) -> None:
    """Print the clusters at the TFCE threshold, or at the first that was computed."""
    name = THRESHOLD_SHOWN if THRESHOLD_SHOWN in result.clusters else next(iter(result.clusters))
    rows = result.clusters[name]
    title = f"clusters at {name} (k >= 10), each side at its own alpha"
    # Narrow: the longest labels fit 80 columns.
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for column in ("side", "MNI x y z", "SDM-Z", "p", "g", "I2 %", "voxels", "label"):
        left = column in ("side", "label")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(
            "+" if row["side"] == "positive" else "-",
            f"{row['x_mm']:g} {row['y_mm']:g} {row['z_mm']:g}",
            f"{row['sdm_z']:.2f}",
            f"{row['p']:.4f}",
            f"{row['g']:.2f}",
            f"{row['i2']:.1f}",
            f"{row['voxels']:,}",
            row["label"],
        )
    console = open_console(stderr)
    console.print(table if rows else f"no cluster at {name}")
    console.print(
        "  ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.timings.items()),
        highlight=False,
        style="dim",
    )
