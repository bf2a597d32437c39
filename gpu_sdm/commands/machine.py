"""Commands about this machine: what is installed, what is cached, how fast it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from gpu_sdm.cache import Entry


def bench(
    project: Annotated[
        Path | None,
        typer.Argument(
            help="SDM project folder whose size is measured; default: 11 studies, 525 subjects.",
            show_default=False,
        ),
    ] = None,
    voxel_size: opt.VoxelSize = 2,
    mask: Annotated[
        Path | None, typer.Option(help="NIfTI mask; default: grey matter of MNI152.")
    ] = None,
    imputations: Annotated[int, typer.Option(min=2, max=10_000, help="Imputed data sets.")] = 50,
    threads: Annotated[int | None, opt.threads_option(None)] = None,
    device: Annotated[int, opt.device_option(None)] = 0,
    device_memory: Annotated[float | None, opt.device_memory_option(None)] = None,
    as_json: opt.Json = False,
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
        shared.print_json(whole)
        return
    terminal.show_bench(workload.sizes(), found, measure.PERMUTATIONS)


def info(as_json: opt.Json = False) -> None:
    """Print versions, devices and paths, fit for a bug report."""
    from gpu_sdm import terminal
    from gpu_sdm.environment import environment

    if as_json:
        shared.print_json(environment())
        return
    terminal.show_pairs("gpu-sdm info", environment())


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete every cached file.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Show the cache of templates, bounds and likelihood maps, or clear it."""
    from gpu_sdm import cache as store
    from gpu_sdm import terminal

    if clear:
        freed = store.clear()
        if as_json:
            shared.print_json({"folder": store.folder(), "freed_bytes": freed})
            return
        terminal.show_pairs("gpu-sdm cache", {"freed": f"{freed / 1e6:.1f} MB"})
        return
    if as_json:
        files = [{"kind": e.kind, "key": e.key, "bytes": e.size} for e in store.entries()]
        shared.print_json({"folder": store.folder(), "files": files})
        return
    _show(store.folder(), store.entries())


def _show(folder: Path, entries: Sequence[Entry]) -> None:
    """List the cache by kind."""
    from rich.markup import escape
    from rich.table import Table

    from gpu_sdm import terminal

    table = Table(title=escape(f"cache {folder}"), title_justify="left")
    for column in ("kind", "files", "MB"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind in (*sorted({e.kind for e in entries}), "all"):
        sizes = [e.size for e in entries if kind in (e.kind, "all")]
        table.add_row(kind, str(len(sizes)), f"{sum(sizes) / 1e6:.1f}")
    terminal.open_console(stderr=False).print(table)
