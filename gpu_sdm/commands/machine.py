"""Commands about this machine: what is installed, what is cached, how fast it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def bench(
    project: Annotated[
        Path | None,
        typer.Argument(
            help="SDM project folder whose size is measured; default: 11 studies, 525 subjects.",
            show_default=False,
        ),
    ] = None,
    voxel_size: Annotated[int, typer.Option(min=2, max=4, help="Analysis grid, mm.")] = 2,
    mask: Annotated[
        Path | None, typer.Option(help="NIfTI mask; default: grey matter of MNI152.")
    ] = None,
    imputations: Annotated[int, typer.Option(min=2, max=10_000, help="Imputed data sets.")] = 50,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=4096, show_default="all cores", help="Worker threads."),
    ] = None,
    device: Annotated[int, typer.Option(min=0, help="CUDA device number.")] = 0,
    device_memory: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            metavar="GB",
            show_default="what is free",
            help="Most memory to take on the CUDA device.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure every backend of this machine: agreement with the reference, then speed."""
    from gpu_sdm import bench as measure
    from gpu_sdm import terminal
    from gpu_sdm.config import Settings
    from gpu_sdm.io import read
    from gpu_sdm.workload import Workload

    settings = Settings(voxel_size=voxel_size, mask=mask, imputations=imputations)
    workload = (
        Workload.example(settings)
        if project is None
        else Workload.of_dataset(read(project), settings)
    )
    most = None if device_memory is None else int(device_memory * 1e9)
    places = measure.backends(threads, device, most, terminal.say)
    found = measure.bench(workload, places, terminal.say)
    if as_json:
        whole = {"problem": workload.sizes(), "backends": [m.as_dict() for m in found]}
        print(json.dumps(whole, indent=1))  # noqa: T201 -- asked for
        return
    terminal.show_bench(workload.sizes(), found, measure.PERMUTATIONS)


def info() -> None:
    """Print versions, devices and paths, fit for a bug report."""
    from gpu_sdm import terminal
    from gpu_sdm.environment import environment

    terminal.show_pairs("gpu-sdm info", environment())


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete every cached file.")] = False,
) -> None:
    """Show the cache of templates, bounds and likelihood maps, or clear it."""
    from gpu_sdm import cache as store
    from gpu_sdm import terminal

    if clear:
        freed = store.clear()
        terminal.show_pairs("gpu-sdm cache", {"freed": f"{freed / 1e6:.1f} MB"})
        return
    terminal.show_cache(store.folder(), store.entries())
