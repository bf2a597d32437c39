"""`gpu-sdm roi`: regions of interest and small-volume correction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def roi(
    result: opt.Result,
    region: Annotated[
        list[str] | None,
        opt.option(
            opt.WHERE,
            "Structures of an atlas, such as AAL2:Insula_L+Insula_R, or a NIfTI mask; repeat "
            "for several.",
            "--roi",
            metavar="[NAME=]ATLAS:A+B|FILE",
            default="none",
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        opt.option(opt.WHERE, "The regions of a literature: pain-empathy.", default="none"),
    ] = None,
    permutations: Annotated[int | None, opt.permutations_option("those of the result")] = None,
    out: Annotated[Path | None, opt.out_option("roi")] = None,
    backend: opt.CpuBackend = "cpu",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
) -> None:
    """Pooled effect of regions, and family-wise error within them (small-volume correction)."""
    from gpu_sdm import terminal
    from gpu_sdm.findings.regions import regions_of
    from gpu_sdm.findings.roi import analyse_regions
    from gpu_sdm.finished import open_result
    from gpu_sdm.io.tables import new_folder, write_json, write_tsv

    finished = open_result(result)
    sites = regions_of(region or (), preset or (), finished.space)
    with terminal.StageProgress() as progress:
        analysis = shared.prepared(finished, backend, threads, progress)
        if permutations is not None:
            analysis = analysis.with_permutations(permutations)
        found = analyse_regions(analysis, sites, progress)
    folder = new_folder(out or result / "roi")
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
        "p": shared.small("p"),
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
