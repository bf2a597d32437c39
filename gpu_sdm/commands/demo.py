"""`gpu-sdm demo`: a first analysis with what the package brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpu_sdm.commands import _options as opt

FOLDER = Path("gpu-sdm-demo")


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the project and its result.")] = FOLDER,
    permutations: Annotated[
        int, typer.Option("--permutations", "-n", min=1, help="Permutations.")
    ] = 500,
    voxel_size: opt.VoxelSize = 4,
    force: Annotated[bool, typer.Option("--force", help="Compute a finished result anew.")] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Write a small project (eleven studies, SIMULATED peaks) and analyse it."""
    from gpu_sdm import terminal
    from gpu_sdm.commands._on_result import command
    from gpu_sdm.commands.permute import permute
    from gpu_sdm.demo import write_demo

    project, out = write_demo(folder), folder / "result"
    same = ("permute", project, "--out", out, "--voxel-size", voxel_size)
    terminal.say(
        "The peaks of this project are SIMULATED (11 case-control studies on pain empathy in "
        "mental disorders, their real sizes and thresholds). It is the same as: "
        + command(*same, "--permutations", permutations)
    )
    permute(
        project, out, permutations=permutations, voxel_size=voxel_size, force=force, as_json=as_json
    )
    further = (
        ("threshold", out, "--map", "uncorrected", "--p", 0.0025), ("jackknife", out), ("bias", out)
    )  # fmt: skip
    terminal.say(
        f"What comes next: {', '.join(command(*words) for words in further)}; "
        "gpu-sdm --help lists all."
    )
