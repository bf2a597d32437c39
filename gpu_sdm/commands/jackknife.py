"""`gpu-sdm jackknife`: the whole analysis again without each study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpu_sdm.commands import _on_result as shared


def jackknife(
    result: shared.Result,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            metavar="NAME",
            show_default="each in turn",
            help="Leave out this study only; repeat for several, one at a time.",
        ),
    ] = None,
    threshold: shared.Thresholds = None,
    permutations: Annotated[
        int | None,
        typer.Option(
            "--permutations",
            "-n",
            min=1,
            show_default="none",
            help="Permute every fold too: clusters are then held to their own corrected "
            "threshold; without, to uncorrected p <= .0025.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            rich_help_panel=shared.OUTPUT,
            show_default="OUT/jackknife",
            help="Folder to write to; folds finished there are not computed again.",
        ),
    ] = None,
    backend: shared.Backend = "auto",
    threads: shared.Threads = None,
    as_json: shared.AsJson = False,
) -> None:
    """Leave out one study at a time and see which clusters survive."""
    from gpu_sdm import terminal
    from gpu_sdm.findings.jackknife import jackknife as run

    folder = out or result / "jackknife"
    with terminal.StageProgress() as progress, terminal.StopAfterStep(progress) as step:
        try:
            finished, analysis = shared.opened(result, backend, threads, step)
            found = run(
                finished,
                analysis,
                folder,
                studies=study or (),
                thresholds=threshold or (),
                permutations=permutations,
                progress=step,
                say=terminal.say,
            )
        except KeyboardInterrupt:
            progress.stop()
            terminal.say(
                f"interrupted; finished folds are kept in {folder}: give the same command again "
                "to go on."
            )
            raise
    columns = {
        "threshold<": shared.text("threshold"),
        "cluster": shared.text("cluster"),
        "MNI x y z": shared.place,
        "survives": lambda row: f"{row['survives']} of {row['folds']}",
        "its peak": lambda row: f"{row['peak_survives']} of {row['folds']}",
        "z": shared.number("z_peak"),
        "weakest z": shared.number("weakest_z_peak"),
        "without<": shared.text("weakest_without"),
        "lost without<": shared.text("lost_without"),
        "label<": shared.text("label"),
    }
    judged = sorted(set(found.judged_by.values()))
    notes = [f"folds are held to {', '.join(judged)}. z: at the peak of the main result."]
    if not found.summary:
        notes.append(f"the main result has no cluster at {', '.join(found.judged_by)}.")
    title = f"jackknife: {len(found.left_out)} folds"
    shared.show_table(title, columns, found.summary, notes)
    content = {"summary": found.summary, "folds": found.folds, "judged_by": found.judged_by}
    shared.finish(folder, as_json, content)
