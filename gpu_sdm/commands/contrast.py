"""`gpu-sdm contrast`: how two results of different samples differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gpu_sdm.commands import _on_result as shared


def contrast(
    first: shared.Result,
    second: Annotated[
        Path,
        typer.Argument(help="Result folder of other samples.", show_default=False, metavar="OUT2"),
    ],
    permutations: Annotated[
        int | None,
        typer.Option(
            "--permutations",
            "-n",
            min=1,
            show_default="those of the first result",
            help="Divisions of the studies, the observed one included.",
        ),
    ] = None,
    out: Annotated[Path | None, shared.out_option("contrast/NAME2")] = None,
    backend: Annotated[
        Literal["cpu", "numpy"],
        typer.Option(rich_help_panel=shared.DEVICE, help="Where to run."),
    ] = "cpu",
    threads: shared.Threads = None,
    as_json: shared.AsJson = False,
) -> None:
    """Difference of two results, studies exchanged between them for its p values."""
    from gpu_sdm import terminal
    from gpu_sdm.atlas import load_atlas
    from gpu_sdm.backend import get_backend
    from gpu_sdm.findings.contrast import contrast as compare
    from gpu_sdm.finished import open_result

    chosen = get_backend(backend, threads)
    with terminal.StageProgress() as progress:
        found = compare(
            open_result(first), open_result(second), chosen, load_atlas().label_of, permutations,
            progress,
        )  # fmt: skip
    folder = found.save(out or first / "contrast" / second.absolute().name)
    rows = [{"threshold": name, **row} for name, rows in found.clusters.items() for row in rows]
    columns = {
        "threshold<": shared.text("threshold"),
        "side<": lambda row: "1 > 2" if row["side"] == "positive" else "1 < 2",
        "MNI x y z": shared.place,
        "z": shared.number("sdm_z"),
        "p": shared.number("p", 4),
        "g1 - g2": shared.number("g"),
        "voxels": lambda row: f"{row['voxels']:,}",
        "label<": shared.text("label"),
    }
    count = found.maxima.shape[1]
    drawn = f"all {count:,} divisions of the studies" if found.exact else f"{count:,} divisions"
    notes = [f"{found.grid.sentence()}; {drawn}, each side at its own alpha."]
    shared.show_table("contrast, first - second", columns, rows, notes)
    shared.finish(folder, as_json, {"clusters": rows})
