"""`gpu-sdm contrast`: how two results of different samples differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def contrast(
    first: opt.Result,
    second: Annotated[Path, opt.argument("OUT2", "Result folder of other samples.")],
    permutations: Annotated[
        int | None,
        opt.permutations_option(
            "those of the first result", "Divisions of the studies, the observed one included."
        ),
    ] = None,
    out: Annotated[Path | None, opt.out_option("contrast/NAME2")] = None,
    backend: opt.CpuBackend = "cpu",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
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
        "p": shared.small("p"),
        "g1 - g2": shared.number("g"),
        "voxels": lambda row: f"{row['voxels']:,}",
        "label<": shared.text("label"),
    }
    count = found.maxima.shape[1]
    drawn = f"all {count:,} divisions of the studies" if found.exact else f"{count:,} divisions"
    notes = [f"{found.grid.sentence()}; {drawn}, each side at its own alpha."]
    shared.show_table("contrast, first - second", columns, rows, notes)
    shared.finish(folder, as_json, {"clusters": rows})
