"""`gpu-sdm conjunction`: where two results both find something."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def conjunction(
    first: opt.Result,
    second: Annotated[Path, opt.argument("OUT2", "Another result folder.")],
    out: Annotated[Path | None, opt.out_option("conjunction/NAME2")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Conjunction of two results: the minimum statistic against the conjunction null."""
    from gpu_sdm.atlas import load_atlas
    from gpu_sdm.findings.conjunction import conjunction as conjoin
    from gpu_sdm.finished import open_result

    found = conjoin(open_result(first), open_result(second), load_atlas().label_of)
    folder = found.save(out or first / "conjunction" / second.absolute().name)
    columns = {
        "threshold<": shared.text("threshold"),
        "side<": lambda row: "+" if row["side"] == "positive" else "-",
        "MNI x y z": shared.place,
        "min z": shared.number("sdm_z"),
        "p": shared.small("p"),
        "z of 1": shared.number("sdm_z_first"),
        "z of 2": shared.number("sdm_z_second"),
        "voxels": lambda row: f"{row['voxels']:,}",
        "label<": shared.text("label"),
    }
    notes = [
        f"{found.grid.sentence()}; p: the larger of the two, for an effect in both.",
        "" if found.rows else "no cluster at any threshold.",
    ]
    shared.show_table("conjunction", columns, found.rows, [n for n in notes if n])
    shared.finish(folder, as_json, {"clusters": found.rows})
