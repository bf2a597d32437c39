"""`gpu-sdm jackknife`: the whole analysis again without each study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def jackknife(
    result: opt.Result,
    study: Annotated[
        list[str] | None,
        opt.option(
            None,
            "Leave out this study only; repeat for several, one at a time.",
            "--study",
            metavar="NAME",
            default="each in turn",
        ),
    ] = None,
    threshold: opt.Thresholds = None,
    permutations: Annotated[
        int | None,
        opt.permutations_option(
            "none",
            "Permute every fold too: clusters are then held to their own corrected "
            "threshold; without, to uncorrected p <= .0025.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        opt.option(
            opt.OUTPUT,
            "Folder to write to; folds finished there are not computed again.",
            "--out",
            "-o",
            default="OUT/jackknife",
        ),
    ] = None,
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
) -> None:
    """Leave out one study at a time and see which clusters survive."""
    from gpu_sdm import terminal
    from gpu_sdm.findings.jackknife import jackknife as run
    from gpu_sdm.finished import open_result

    finished, folder = open_result(result), out or result / "jackknife"
    with terminal.StageProgress() as progress, terminal.StopAfterStep(progress) as step:
        try:
            found = run(
                finished,
                shared.prepared(finished, backend, threads, step),
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
