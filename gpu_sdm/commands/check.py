"""`gpu-sdm check`: read an input, compute nothing, and say every error and doubt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from gpu_sdm.findings.check import Checked

LISTED = 6  # messages of one kind that are spelt out; --all or --json gives the rest
THRESHOLDS = "Thresholds"


def check(
    project: opt.Input,
    mask: Annotated[
        Path | None,
        typer.Option(show_default="none", help="Also name the peaks outside this NIfTI mask."),
    ] = None,
    all_: Annotated[
        bool,
        typer.Option("--all", help="Spell out every message, not the first six of a kind."),
    ] = False,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest-thresholds",
            rich_help_panel=THRESHOLDS,
            help="Print a t_thr of every study, ready to paste.",
        ),
    ] = False,
    p: Annotated[
        float | None,
        typer.Option(
            "--p",
            rich_help_panel=THRESHOLDS,
            show_default="column p_thr, else the smallest |t|",
            help="Uncorrected p of the papers' thresholds.",
        ),
    ] = None,
    sides: Annotated[
        int,
        typer.Option(min=1, max=2, rich_help_panel=THRESHOLDS, help="1: one-sided p; 2: two."),
    ] = 1,
    as_json: opt.AsJson = False,
) -> None:
    """Check an input: a table of its studies, its errors, and every doubt; writes nothing.

    Exit code 1 if an analysis would stop at an error, 0 otherwise, doubts or not.
    """
    from gpu_sdm import terminal
    from gpu_sdm.errors import SettingError
    from gpu_sdm.findings import suggest_thresholds as thresholds
    from gpu_sdm.findings.check import check_input

    if not suggest and (p is not None or sides != 1):
        raise SettingError("--p and --sides belong to --suggest-thresholds; add it.")
    found = check_input(project, mask)
    rows = thresholds.suggest_thresholds(found.studies, p, sides) if suggest else []
    _show(found, all_)
    if suggest:
        _show_suggestions(rows)
        for sentence in thresholds.ADVICE:
            terminal.say(sentence)
    for error in found.errors:
        terminal.show_error(str(error))
    if as_json:
        content: dict[str, Any] = {
            "studies": found.rows(),
            "errors": [_error(e) for e in found.errors],
            "warnings": found.doubts(),
        }
        if suggest:
            content["suggested_thresholds"] = rows
        shared.finish(project, True, content)
    elif suggest:
        print("\n".join(thresholds.column(rows)))  # noqa: T201
    elif not found.errors:
        shared.finish(project, False, {})
    if found.errors:
        raise typer.Exit(1)


def _error(error: Any) -> dict[str, Any]:
    path = None if error.path is None else str(error.path)
    return {"message": str(error), "path": path, "line": error.line}


def _lacking(row: Mapping[str, Any]) -> str:
    missing = row["covariates_missing"]
    return ", ".join(missing) if len(missing) <= 3 else str(len(missing))


def _show(found: Checked, everything: bool) -> None:
    from gpu_sdm import terminal

    rows = found.rows()
    columns = {
        "study<": shared.text("study"),
        "n1": shared.text("n1"),
        "n2": shared.text("n2"),
        "df": shared.text("df"),
        "t_thr": shared.number("t_thr", 4),
        "p": shared.small("p_one_sided"),
        "peaks": shared.text("peaks"),
        "unknown": shared.text("unknown_heights"),
        "max |t|": shared.number("largest_t"),
        "from<": lambda row: f"{row['image']} image" if row["image"] else str(row["space"]),
        "missing<": _lacking,
        "<": lambda row: "" if row["used"] else "left out",
    }
    if rows:
        note = "p: one-sided, of t_thr. unknown: peaks whose height is not reported. missing: "
        shared.show_table(str(found.path), columns, rows, [note + "covariates without a value."])
    for doubt in found.doubts():
        kind, messages = doubt["kind"].replace("_", " "), doubt["messages"]
        advice = f" To do: {doubt['advice']}" if doubt["advice"] else ""
        terminal.say(f"warning: {kind}: {doubt['count']}.{advice}")
        shown = messages if everything else messages[:LISTED]
        for message in shown:
            terminal.say(f"  {message}")
        if len(messages) > len(shown):
            terminal.say(f"  ... and {len(messages) - len(shown)} more: --all")
    used = [r for r in rows if r["used"]]
    images = sum(r["image"] is not None for r in used)
    peaks = sum(r["peaks"] for r in used)
    terminal.say(
        f"{len(used)} studies to analyse ({images} images, {peaks} peaks), {len(found.errors)} "
        f"errors, {len(found.notices)} warnings."
    )


def _show_suggestions(rows: list[dict[str, Any]]) -> None:
    columns = {
        "study<": shared.text("study"),
        "df": shared.text("df"),
        "t_thr": shared.number("t_thr", 4),
        "p": shared.small("p_one_sided"),
        "smallest |t|": shared.number("smallest_t", 4),
        "t of p": shared.number("t_of_p", 4),
        "suggested": shared.number("suggested", 4),
        "from<": shared.text("source"),
    }
    shared.show_table("suggested thresholds", columns, rows)
