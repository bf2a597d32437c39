"""`gpu-sdm tail`: small corrected p values from the fitted tail of the null."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def tail(
    result: opt.Result,
    threshold: opt.Thresholds = None,
    at: opt.Points = None,
    out: Annotated[Path | None, opt.out_option("tail")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Corrected p of clusters by a generalised Pareto tail: below what permutations can count."""
    from gpu_sdm.findings.tail import BELOW, tail_table
    from gpu_sdm.finished import open_result
    from gpu_sdm.io.tables import new_folder, write_tsv
    from gpu_sdm.tails import BEYOND

    finished = open_result(result)
    sites = [s for s in shared.chosen_sites(finished, threshold, at, None) if s.kind != "peak"]
    rows = tail_table(finished, sites)
    folder = new_folder(out or result / "tail")
    write_tsv(folder / "tail.tsv", list(rows[0]), rows)
    permutations = next(iter(finished.maxima().values())).shape[1]
    floor = 1 / (BEYOND * permutations)

    def interval(row: Mapping[str, Any]) -> str:
        low, high = row["p_low"], row["p_high"]
        if row["p_tail"] != row["p_tail"] or high <= floor:
            return "-"
        return f"{low:.5f} to {high:.5f}" if low > floor else f"up to {high:.5f}"

    notes = [f"counted over {permutations:,} permutations; the tail is fitted to all but the first"]
    if any(not row["accepted"] for row in rows):
        notes.append("fit no: the maxima contradict it (Anderson-Darling p <= .05); use p counted")
    if any(row["flag"] == BELOW for row in rows):
        notes.append("<: the fitted p lies lower still, farther than the fit can be trusted")
    columns = {
        "threshold<": shared.text("threshold"),
        "site<": shared.name,
        "MNI x y z": shared.place,
        "statistic<": shared.text("statistic"),
        "value": shared.number("value"),
        "p counted": shared.number("p_counted", 4),
        "p tail": lambda row: (
            ("<" if row["flag"] == BELOW else "") + shared.number("p_tail", 5)(row)
        ),
        "95 %": interval,
        "fit<": lambda row: "yes" if row["accepted"] else "no",
        "label<": shared.text("label"),
    }
    shared.show_table("family-wise error beyond the permutations", columns, rows, notes)
    shared.finish(folder, as_json, {"sites": rows})
