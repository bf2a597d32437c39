"""`gpu-sdm plot`: publication figures of a finished result."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpu_sdm.findings.maps import Source
    from gpu_sdm.findings.refit import SiteEffects
    from gpu_sdm.findings.sites import Site

WHAT, LOOK = "What", "Look"


class Kind(StrEnum):
    """The figures; `all` is every one that the result has what it needs for."""

    slices = "slices"
    glass = "glass"
    surface = "surface"
    mosaic = "mosaic"
    forest = "forest"
    funnel = "funnel"
    null = "null"
    convergence = "convergence"
    jackknife = "jackknife"
    bubble = "bubble"
    all = "all"


class Format(StrEnum):
    """Formats of a file."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


def _cuts(text: str) -> tuple[str, tuple[float, ...]]:
    """Read "z=-20,0,20"."""
    from gpu_sdm.errors import SettingError

    plane, _, at = text.replace(" ", "").partition("=")
    try:
        found = tuple(float(v) for v in at.split(","))
    except ValueError:
        found = ()
    if plane not in ("x", "y", "z") or not found:
        raise SettingError(
            f"--cuts is {text!r}; give a plane and millimetres, such as z=-20,-4,12,28."
        )
    return plane, found


def _effects(
    source: Source, backend: str, threads: int | None
) -> Callable[[Sequence[Site]], SiteEffects]:
    """Make the analysis again only where a figure needs the studies' effects."""

    def make(sites: Sequence[Site]) -> SiteEffects:
        from gpu_sdm.finished import open_result

        return shared.effects_of(open_result(source.folder), sites, (backend, threads))

    return make


def plot(
    result: Annotated[
        Path,
        typer.Argument(
            help="Finished result (--out of gpu-sdm permute); brain figures also of SDM-PSI's own "
            "analysis folder.",
            show_default=False,
            metavar="OUT",
        ),
    ],
    kinds: Annotated[
        list[Kind] | None,
        typer.Argument(help="Figures.", show_default="slices glass mosaic", metavar="[KIND]..."),
    ] = None,
    map_name: Annotated[
        str,
        typer.Option(
            "--map",
            rich_help_panel=WHAT,
            metavar="NAME",
            help="Map of OUT/maps to draw: z, g, i2, ...; p maps as signed -log10 p.",
        ),
    ] = "z",
    threshold: Annotated[
        str | None,
        typer.Option(
            "--threshold",
            rich_help_panel=WHAT,
            metavar="NAME",
            show_default="fwe-tfce",
            help="fwe-tfce, fwe-voxel, uncorrected, fdr, ... with --p, or a finished one of "
            "OUT/thresholds.",
        ),
    ] = None,
    p: Annotated[
        float | None,
        typer.Option(
            "--p",
            rich_help_panel=WHAT,
            show_default="0.05; uncorrected 0.0025",
            help="Voxels of p at most this.",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            rich_help_panel=WHAT,
            metavar="X,Y,Z",
            show_default="the clusters' peaks",
            help="Look at this point, MNI mm; repeat for several.",
        ),
    ] = None,
    cuts: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHAT,
            metavar="z=MM,MM,...",
            show_default="through the peaks",
            help="Slices at these places of one plane (x, y or z).",
        ),
    ] = None,
    peaks: Annotated[
        int, typer.Option(min=1, max=99, rich_help_panel=WHAT, help="Peaks at most.")
    ] = 12,
    width: Annotated[
        float,
        typer.Option(
            min=40, max=1000, rich_help_panel=LOOK, help="mm; 85 is one column, 180 are two."
        ),
    ] = 180.0,
    background: Annotated[
        Literal["white", "black"], typer.Option(rich_help_panel=LOOK, help="Colour of the paper.")
    ] = "white",
    high: Annotated[
        float | None,
        typer.Option(
            "--max",
            min=1e-9,
            rich_help_panel=LOOK,
            show_default="the largest shown",
            help="Value with the strongest colour.",
        ),
    ] = None,
    title: Annotated[
        bool, typer.Option(rich_help_panel=LOOK, help="Say in the figure what is shown.")
    ] = True,
    formats: Annotated[
        list[Format] | None,
        typer.Option(
            "--format",
            rich_help_panel=opt.OUTPUT,
            show_default="png",
            help="png, svg or pdf; repeat for several.",
        ),
    ] = None,
    dpi: Annotated[
        int,
        typer.Option(
            min=50,
            max=1200,
            rich_help_panel=opt.OUTPUT,
            help="Pixels per inch, also of pictures in SVG and PDF.",
        ),
    ] = 300,
    out: Annotated[Path | None, opt.out_option("figures")] = None,
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
) -> None:
    """Publication figures: slices, glass brain, surface, mosaic, forest, funnel, null, ..."""
    from gpu_sdm import terminal
    from gpu_sdm.errors import GpuSdmError, OutputError
    from gpu_sdm.figures.drawn import KINDS, MAYBE, Plotter
    from gpu_sdm.figures.of_result import rule_of, view
    from gpu_sdm.figures.palette import Look
    from gpu_sdm.figures.save import save
    from gpu_sdm.findings.maps import open_source
    from gpu_sdm.io.tables import new_folder

    source = open_source(result)
    rule = rule_of(source, threshold, p)
    points = [shared.point(text) for text in at or ()]
    seen = view(source, map_name, rule, points, peaks=peaks, high=high)
    plotter = Plotter(
        source,
        seen,
        Look(width, background),
        _effects(source, backend, threads),
        None if cuts is None else _cuts(cuts),
        title,
    )
    asked = list(dict.fromkeys(kinds or (Kind.slices, Kind.glass, Kind.mosaic)))
    every = Kind.all in asked
    if seen.warning:
        terminal.say(f"warning: {seen.warning}.")
    folder = out or result / "figures"
    written: list[Path] = []
    for kind in KINDS if every else [str(k) for k in asked]:
        try:
            for name, figure in KINDS[kind](plotter):
                new_folder(folder)  # not before there is something to write
                for suffix in dict.fromkeys(formats or (Format.png,)):
                    written.append(save(figure, folder / f"{name}.{suffix}", dpi))
                    terminal.say(str(written[-1]))
        except GpuSdmError as error:
            if not every or kind not in MAYBE or isinstance(error, OutputError):
                raise
            terminal.say(f"no {kind}: {error}")
    shared.finish(folder, as_json, {"files": written, "warning": seen.warning or None})
