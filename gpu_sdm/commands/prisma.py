"""`gpu-sdm prisma`: the PRISMA 2020 flow diagram of a review, from a file of counts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpu_sdm.commands import _options as opt


def prisma(
    counts: Annotated[
        Path,
        typer.Argument(
            help="CSV of two columns, box and n: 'Records identified from: PubMed', 812.",
            show_default=False,
            metavar="COUNTS.csv",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            rich_help_panel=opt.OUTPUT,
            show_default=False,
            help="Picture to write: .svg, .png (300 dpi) or .pdf.",
        ),
    ],
    width: Annotated[
        float | None,
        typer.Option(
            min=80,
            max=400,
            rich_help_panel=opt.OUTPUT,
            metavar="MM",
            show_default="180; 120 without other methods",
            help="Width of the picture.",
        ),
    ] = None,
) -> None:
    """Draw how studies were identified, screened and included; refuse counts that do not add up."""
    from gpu_sdm import terminal
    from gpu_sdm.figures.palette import Look
    from gpu_sdm.figures.prisma import prisma as draw
    from gpu_sdm.figures.save import save
    from gpu_sdm.findings.prisma import STUDIES, read_flow
    from gpu_sdm.io.tables import new_folder

    flow = read_flow(counts)
    figure = draw(flow, look=None if width is None else Look(width_mm=width))
    if out.parent != Path():
        new_folder(out.parent)
    save(figure, out)
    terminal.say(f"{flow.n(STUDIES)} studies included; every sum is right.")
    print(out)  # noqa: T201 -- the contract: last line of stdout is the path of the result
