"""Options that several commands have, each declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

WHERE, OUTPUT, DEVICE, MODEL, NULL = "Where", "Output", "Device", "Model", "Permutation"


class Statistic(StrEnum):
    """An enum, as typer takes no list of literals."""

    voxel = "voxel"
    tfce = "tfce"
    cluster_extent = "cluster-extent"
    cluster_mass = "cluster-mass"


def option(
    panel: str | None, text: str, *names: str, default: bool | str = True, **more: Any
) -> Any:
    """Give an option: its panel in --help, what it says, its names, what --help calls its default.

    Without a name it is called as its parameter; `more` goes to typer.
    """
    return typer.Option(*names, rich_help_panel=panel, show_default=default, help=text, **more)


def argument(metavar: str | None, text: str) -> Any:
    """Give an argument that has no default."""
    return typer.Argument(metavar=metavar, help=text, show_default=False)


def out_option(name: str) -> Any:
    """Give the option `--out` of a command whose folder is OUT/name by default."""
    text = "Folder to write to; tables found there are replaced."
    return option(OUTPUT, text, "--out", "-o", default=f"OUT/{name}")


PROJECT = "SDM project folder, CSV/TSV/XLSX, Sleuth, NiMARE or NIMADS file."
Project = Annotated[Path, argument(None, PROJECT)]
Input = Annotated[
    Path, argument("INPUT", "Input of gpu-sdm permute, such as an SDM project folder.")
]
Result = Annotated[Path, argument("OUT", "Result folder of gpu-sdm permute.")]

Thresholds = Annotated[
    list[str] | None,
    option(
        WHERE,
        "Look at the clusters of fwe-tfce, fwe-voxel, uncorrected, ...; repeat for several.",
        "--threshold",
        metavar="NAME",
        default="the first with a cluster",
    ),
]
AT = "Also this point, MNI mm; repeat for several."
Points = Annotated[list[str] | None, option(WHERE, AT, "--at", metavar="X,Y,Z", default="none")]
MASKS = "Also the mean over the voxels of this NIfTI mask; repeat for several."
Masks = Annotated[list[Path] | None, option(WHERE, MASKS, "--mask", default="none")]

Backend = Annotated[Literal["auto", "cuda", "cpu", "numpy"], option(DEVICE, "As for permute.")]
CpuBackend = Annotated[Literal["cpu", "numpy"], option(DEVICE, "Where to run.")]


def threads_option(panel: str | None = DEVICE) -> Any:
    """Give the option `--threads`."""
    return option(panel, "Worker threads.", min=1, max=4096, default="all cores")


def device_option(panel: str | None = DEVICE) -> Any:
    """Give the option `--device`."""
    return option(panel, "CUDA device number.", min=0)


def device_memory_option(panel: str | None = DEVICE) -> Any:
    """Give the option `--device-memory`."""
    text = "Most memory to take on the CUDA device."
    return option(panel, text, min=0.5, metavar="GB", default="what is free")


Threads = Annotated[int | None, threads_option()]
VoxelSize = Annotated[int, option(None, "Analysis grid, mm.", min=2, max=4)]
Force = Annotated[bool, option(OUTPUT, "Replace a finished result at --out.", "--force")]
Json = Annotated[bool, option(None, "Print JSON.", "--json")]
AsJson = Annotated[bool, option(OUTPUT, "Print the table as JSON on stdout.", "--json")]
NO_REPORT = "Leave out OUT/report.html; gpu-sdm report OUT makes it later."
NoReport = Annotated[bool, option(OUTPUT, NO_REPORT, "--no-report")]


def permutations_option(default: str, text: str = "Permutations.", panel: str | None = None) -> Any:
    """Give the option `--permutations` that need not be given."""
    return option(panel, text, "--permutations", "-n", min=1, default=default)
