"""`gpu-sdm grade`: how strong the evidence is at each peak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def grade(
    result: opt.Result,
    threshold: opt.Thresholds = None,
    at: opt.Points = None,
    out: Annotated[Path | None, opt.out_option("grade")] = None,
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
) -> None:
    """Grade the evidence at peaks: convincing, highly suggestive, suggestive, weak, none."""
    from gpu_sdm.errors import SettingError
    from gpu_sdm.findings import grade as findings
    from gpu_sdm.finished import open_result
    from gpu_sdm.io.tables import new_folder, write_tsv

    finished = open_result(result)
    sites = [s for s in shared.chosen_sites(finished, threshold, at, None) if len(s.voxels) == 1]
    if not sites:
        raise SettingError(f"{result} has no peak there; name a point with --at.")
    rows = findings.grade(shared.effects_of(finished, sites, (backend, threads)))
    flat = [{**row, "lacking": "; ".join(row["lacking"])} for row in rows]
    folder = new_folder(out or result / "grade")
    write_tsv(folder / "grade.tsv", list(flat[0]), flat)
    columns = {
        "threshold<": shared.text("threshold"),
        "site<": shared.name,
        "MNI x y z": shared.place,
        "class<": lambda row: f"{row['class']} {row['evidence']}",
        "cases": shared.text("cases"),
        "p": lambda row: f"{row['p_two_sided']:.2g}",
        "I2 %": shared.number("i2", 1),
        "95 % prediction": shared.interval("prediction_low", "prediction_high"),
        "Egger p": shared.number("egger_p", 3),
        "excess p": shared.number("excess_p", 3),
        "for the next class<": shared.text("lacking"),
    }
    notes = [
        "p: two-sided, of the pooled effect, uncorrected. Criteria of umbrella reviews (Fusar-Poli "
        "& Radua 2018); tests of bias at .10, none below 10 studies."
    ]
    shared.show_table("evidence", columns, flat, notes)
    shared.finish(folder, as_json, {"sites": rows})
