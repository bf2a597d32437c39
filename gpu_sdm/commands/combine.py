"""`gpu-sdm combine`: several contrasts of one sample become one study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpu_sdm.commands import _on_result as shared


def combine(
    project: Annotated[
        Path,
        typer.Argument(help="Any input that permute takes.", show_default=False),
    ],
    studies: Annotated[
        list[str],
        typer.Option(
            "--studies",
            metavar="A,B",
            show_default=False,
            help="Contrasts of one sample: same subjects, same n1 and n2.",
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", show_default=False, help="Name of the study that they become.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            show_default=False,
            help="New project: a folder, or a file ending in .csv, .tsv or .xlsx.",
        ),
    ],
    correlation: Annotated[
        float,
        typer.Option(min=0, max=1, help="Assumed correlation of two contrasts over subjects."),
    ] = 0.5,
) -> None:
    """Copy a project with contrasts of one sample marked as such; permute averages them."""
    from gpu_sdm import terminal
    from gpu_sdm.errors import SettingError
    from gpu_sdm.findings.combine import combine as fill
    from gpu_sdm.findings.combine import named
    from gpu_sdm.io import read_all
    from gpu_sdm.io.convert import convert, format_for

    to = format_for(out)
    if to not in ("sdm", "csv", "tsv", "xlsx"):
        raise SettingError(f"{out}: {to} has no column sample; name a folder, .csv, .tsv or .xlsx.")
    dataset = read_all(project)
    chosen = named(studies, dataset.names)
    filled = fill(dataset, chosen, name, correlation)
    terminal.show_notices(convert(filled, out, to))
    terminal.say(f"{', '.join(chosen)}: contrasts of {name}, one study in what follows. Run:")
    words = ("permute", out, "--out", "RESULT", "--sample-correlation", f"{correlation:g}")
    terminal.say(f"  {shared.command(*words)}")
    print(out)  # noqa: T201 -- the contract: last line of stdout is the path of the result
