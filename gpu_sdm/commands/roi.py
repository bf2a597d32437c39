"""`gpu-sdm roi`: regions of interest and small-volume correction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gpu_sdm.commands import _on_result as shared


def roi(
    result: shared.Result,
    region: Annotated[
        list[str] | None,
        typer.Option(
            "--roi",
            rich_help_panel=shared.WHERE,
            metavar="[NAME=]ATLAS:A+B|FILE",
            show_default="none",
            help="Structures of an atlas, such as AAL2:Insula_L+Insula_R, or a NIfTI mask; repeat "
            "for several.",
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=shared.WHERE,
            show_default="none",
            help="The regions of a literature: pain-empathy.",
        ),
    ] = None,
    permutations: Annotated[
        int | None,
        typer.Option(
            "--permutations", "-n", min=1, show_default="those of the result", help="Permutations."
        ),
    ] = None,
    out: Annotated[Path | None, shared.out_option("roi")] = None,
    backend: Annotated[
        Literal["cpu", "numpy"],
        typer.Option(rich_help_panel=shared.DEVICE, help="Where to run."),
    ] = "cpu",
    threads: shared.Threads = None,
    as_json: shared.AsJson = False,
) -> None:
    """Pooled effect of regions, and family-wise error within them (small-volume correction)."""
    from gpu_sdm import terminal
    from gpu_sdm.findings.regions import regions_of
    from gpu_sdm.findings.roi import analyse_regions
    from gpu_sdm.finished import open_result
    from gpu_sdm.io.tables import write_json, write_tsv

    sites = regions_of(region or (), preset or (), open_result(result).space)
    with terminal.StageProgress() as progress:
        _, analysis = shared.opened(result, backend, threads, progress)
        if permutations is not None:
            analysis = analysis.with_permutations(permutations)
        found = analyse_regions(analysis, sites, progress)
    folder = shared.new_folder(out or result / "roi")
    write_tsv(folder / "roi.tsv", list(found.rows[0]), found.rows)
    write_json(
        folder / "roi.json",
        {
            "permutations": analysis.permutations,
            "exact": analysis.exact,
            "regions": {
                s.name: {"voxels": len(s.voxels), "maxima": found.maxima[s.name]} for s in sites
            },
        },
    )
    tfce = "p_fwe_tfce" in found.rows[0]
    columns = {
        "region<": shared.text("region"),
        "voxels": lambda row: f"{row['voxels']:,}",
        "g": shared.number("g"),
        "z": shared.number("z"),
        "p": shared.number("p", 4),
        "peak +": shared.place,
        "z +": shared.number("peak_z"),
        "FWE voxel +": shared.number("p_fwe_voxel", 4),
        **({"FWE TFCE +": shared.number("p_fwe_tfce", 4)} if tfce else {}),
        "z -": shared.number("peak_z_neg"),
        "FWE voxel -": shared.number("p_fwe_voxel_neg", 4),
        **({"FWE TFCE -": shared.number("p_fwe_tfce_neg", 4)} if tfce else {}),
    }
    notes = [
        "g, z, p: of the mean effect over the voxels, uncorrected, one-sided positive.",
        f"FWE: within each region by itself, {analysis.permutations:,} permutations; several "
        "regions are several tests, which the last row corrects for together."
        if len(sites) > 1
        else f"FWE: within the region, {analysis.permutations:,} permutations.",
    ]
    shared.show_table("regions of interest", columns, found.rows, notes)
    shared.finish(folder, as_json, {"regions": found.rows})
