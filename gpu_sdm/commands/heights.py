"""`gpu-sdm heights`: meta-analysis of peak heights, as in SDM-PSI's preprocessing report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def heights(
    project: opt.Project,
    out: Annotated[
        Path | None,
        opt.option(opt.OUTPUT, "Folder for heights.tsv.", "--out", "-o", default="none"),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Meta-analyse how high the reported peaks are, by kind of threshold and sign."""
    from gpu_sdm.errors import InputError
    from gpu_sdm.findings.peak_heights import peak_heights
    from gpu_sdm.io import read
    from gpu_sdm.io.tables import new_folder, write_tsv

    groups = peak_heights(read(project))
    if not groups:
        raise InputError("no study reports the height of a peak.", project)
    rows = [row for group in groups for row in group.rows()]
    columns = {
        "study<": shared.text("study"),
        "g": shared.number("g", 3),
        "SE": shared.number("se", 3),
        "z": shared.number("z", 3),
        "p": shared.small("p"),
        "95 % interval": shared.interval("ci_low", "ci_high", 3),
    }
    for group in groups:
        df = len(group.studies) - 1
        note = f"tau2 = {group.tau2:.4f}  Q = {group.q:.3f}  df = {df}  p = {group.p_q:.3g}"
        title = f"height of {group.side} peaks, {group.threshold} threshold"
        shared.show_table(title, columns, group.rows(), [note])
    if out is not None:
        write_tsv(new_folder(out) / "heights.tsv", list(rows[0]), rows)
    if out is not None or as_json:
        shared.finish(out or project, as_json, {"heights": rows})
