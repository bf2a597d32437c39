"""`gpu-sdm heterogeneity`: how much the studies differ at clusters, peaks and points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def heterogeneity(
    result: opt.Result,
    threshold: opt.Thresholds = None,
    at: opt.Points = None,
    mask: opt.Masks = None,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Coverage of the prediction interval.")
    ] = 0.95,
    out: Annotated[Path | None, opt.out_option("heterogeneity")] = None,
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
) -> None:
    """Q, I2, H2, tau2 and the prediction interval at clusters, peaks and points."""
    from gpu_sdm.findings.heterogeneity import I2_CAP
    from gpu_sdm.findings.heterogeneity import heterogeneity as describe
    from gpu_sdm.io.tables import new_folder, write_tsv

    finished, effects = shared.effects_at(result, (backend, threads), threshold, at, mask)
    rows = describe(effects, finished.map("i2"), level)
    folder = new_folder(out or result / "heterogeneity")
    write_tsv(folder / "heterogeneity.tsv", list(rows[0]), rows)
    notes = [
        "cluster: each study's mean effect over its voxels, whose I2 errs low; beside it the mean "
        "and the largest I2 of its voxels. A prediction interval holds the true effect of a new "
        "study."
    ]
    if capped := sum(row["i2_capped"] for row in rows):
        notes.append(f"I2 was above {I2_CAP} % at {capped} and is given as {I2_CAP}.")
    columns = {
        "threshold<": shared.text("threshold"),
        "site<": shared.name,
        "MNI x y z": shared.place,
        "g": shared.number("g"),
        "Q": shared.number("q"),
        "df": shared.text("df"),
        "p": shared.small("p_q"),
        "I2 %": shared.number("i2", 1),
        "voxels (max)": lambda row: (
            f"{row['i2_voxels_mean']:.1f} ({row['i2_voxels_max']:.1f})" if row["voxels"] > 1 else ""
        ),
        "tau2": shared.number("tau2", 3),
        f"{100 * level:g} % prediction": shared.interval("prediction_low", "prediction_high"),
        "label<": shared.text("label"),
    }
    shared.show_table("heterogeneity", columns, rows, notes)
    shared.finish(folder, as_json, {"sites": rows})
