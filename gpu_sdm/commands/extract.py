"""`gpu-sdm extract`: every study's effect at points, in masks and clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def extract(
    result: opt.Result,
    at: opt.Points = None,
    mask: opt.Masks = None,
    clusters: Annotated[
        list[str] | None,
        typer.Option(
            "--clusters",
            rich_help_panel=opt.WHERE,
            metavar="THRESHOLD",
            show_default="none",
            help="The clusters at this threshold and their peaks; repeat for several.",
        ),
    ] = None,
    out: Annotated[Path | None, opt.out_option("extract")] = None,
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
) -> None:
    """Effect, variance, interval and weight of every study, ready for a forest plot."""
    from gpu_sdm.errors import SettingError
    from gpu_sdm.findings import extract as findings
    from gpu_sdm.io.tables import new_folder, write_tsv

    if not (at or mask or clusters):
        raise SettingError("nothing to extract; give --at X,Y,Z, --mask FILE or --clusters NAME.")
    _, effects = shared.effects_at(result, (backend, threads), clusters, at, mask, clusters=False)
    rows, each = findings.extract(effects), findings.imputations(effects)
    folder = new_folder(out or result / "extract")
    write_tsv(folder / "extract.tsv", list(rows[0]), rows)
    write_tsv(folder / "imputations.tsv", list(each[0]), each)
    columns = {
        "study<": shared.text("study"),
        "n1": shared.text("n1"),
        "n2": shared.text("n2"),
        "g": shared.number("g"),
        "95 % interval": shared.interval("ci_low", "ci_high"),
        "weight %": shared.number("weight", 1),
        "known<": lambda row: "yes" if row["known"] else "",
    }
    for site in effects.sites:
        own = [row for row in rows if row["site"] == site.name]
        title = " ".join(v for v in (site.name, shared.place(own[0]), site.label) if v)
        shared.show_table(title, columns, own)
    shared.finish(folder, as_json, {"effects": rows})
