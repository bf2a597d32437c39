"""`gpu-sdm demo`: a first analysis with what the package brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the project and its result.")
    ] = Path("gpu-sdm-demo"),
    permutations: Annotated[
        int, typer.Option("--permutations", "-n", min=1, help="Permutations.")
    ] = 500,
    voxel_size: Annotated[int, typer.Option(min=2, max=4, help="Analysis grid, mm.")] = 4,
) -> None:
    """Write a small project (eleven studies, SIMULATED peaks) and analyse it."""
    from gpu_sdm import terminal
    from gpu_sdm.commands.permute import permute
    from gpu_sdm.demo import write_demo

    project, out = write_demo(folder), folder / "result"
    terminal.say(
        "The peaks of this project are SIMULATED (11 case-control studies on pain empathy in mental "
        f"disorders, their real sizes and thresholds). It is the same as: gpu-sdm permute {project} "
        f"--out {out} --voxel-size {voxel_size} --permutations {permutations}"
    )
    permute(project, out, permutations=permutations, voxel_size=voxel_size)
    terminal.say(
        f"What comes next: gpu-sdm threshold {out} --map uncorrected --p 0.0025, gpu-sdm jackknife "
        f"{out}, gpu-sdm bias {out}; gpu-sdm --help lists all."
    )
