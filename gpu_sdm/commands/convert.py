"""`gpu-sdm convert`: studies from any readable format to any writable one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gpu_sdm.commands import _options as opt


def convert(
    source: Annotated[Path, opt.argument("INPUT", opt.PROJECT)],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="File ending in .csv, .tsv, .xlsx, .txt (Sleuth) or .json (NIMADS), or the folder "
            "of an SDM project.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Literal["sdm", "csv", "tsv", "xlsx", "sleuth", "nimads"] | None,
        typer.Option(show_default="by the name of OUTPUT", help="Format to write."),
    ] = None,
    threshold_p: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            show_default="none",
            help="Threshold of studies that give none; t_thr follows from it and n.",
        ),
    ] = None,
    sides: Annotated[
        int, typer.Option(min=1, max=2, help="Sides of --threshold-p; SPM's p has one.")
    ] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at OUTPUT.")] = False,
) -> None:
    """Write studies and peaks in another format; say what it cannot hold."""
    from gpu_sdm import terminal
    from gpu_sdm.io import Assumed, read_all
    from gpu_sdm.io.convert import convert as write
    from gpu_sdm.io.convert import format_for

    format_for(out, to)
    assumed = None if threshold_p is None else Assumed(threshold_p, sides)
    dataset = read_all(source, assumed)
    lost = write(dataset, out, to, force)
    terminal.show_notices(dataset.notices + lost)
    peaks = sum(len(s.peaks) for s in dataset.studies)
    terminal.say(f"{len(dataset.studies):,} studies, {peaks:,} peaks")
    print(out)  # noqa: T201 -- the contract: last line of stdout is the path of the result
