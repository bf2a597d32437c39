"""What the commands on a finished result share: its options, opening it, tables and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis, Progress
    from gpu_sdm.findings.sites import Site
    from gpu_sdm.finished import Finished

WIDE = 160  # columns of a table in a log
WHERE, OUTPUT, DEVICE = "Where", "Output", "Device"

Result = Annotated[
    Path,
    typer.Argument(help="Result folder of gpu-sdm permute.", show_default=False, metavar="OUT"),
]
Thresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        rich_help_panel=WHERE,
        metavar="NAME",
        show_default="the first with a cluster",
        help="Look at the clusters of fwe-tfce, fwe-voxel, uncorrected, ...; repeat for several.",
    ),
]
Points = Annotated[
    list[str] | None,
    typer.Option(
        "--at",
        rich_help_panel=WHERE,
        metavar="X,Y,Z",
        show_default="none",
        help="Also this point, MNI mm; repeat for several.",
    ),
]
Masks = Annotated[
    list[Path] | None,
    typer.Option(
        "--mask",
        rich_help_panel=WHERE,
        show_default="none",
        help="Also the mean over the voxels of this NIfTI mask; repeat for several.",
    ),
]
Backend = Annotated[
    Literal["auto", "cuda", "cpu", "numpy"],
    typer.Option(rich_help_panel=DEVICE, help="As for permute."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=4096, rich_help_panel=DEVICE, show_default="all cores", help="Worker threads."
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=OUTPUT, help="Print the table as JSON on stdout."),
]
NoReport = Annotated[
    bool,
    typer.Option(
        "--no-report",
        rich_help_panel=OUTPUT,
        help="Leave out OUT/report.html; gpu-sdm report OUT makes it later.",
    ),
]


def report_of(analysis: Analysis | None, out: Path, left_out: bool) -> None:
    """Write the page of a result that has just been made; without it the result still stands."""
    from gpu_sdm import terminal

    if left_out:
        return
    try:
        from gpu_sdm.report.build import report

        terminal.say(f"report: {report(out, analysis)}")
    except Exception as error:  # whatever it is, hours of work are done and kept
        reason = " ".join(str(error).split()) or type(error).__name__
        terminal.say(
            f"warning: the result is complete, but report.html could not be made ({reason}); "
            f"gpu-sdm report {out} makes it again."
        )


def out_option(name: str) -> Any:
    """Give the option `--out` of a command whose folder is OUT/name by default."""
    return typer.Option(
        "--out",
        "-o",
        rich_help_panel=OUTPUT,
        show_default=f"OUT/{name}",
        help="Folder to write to; tables found there are replaced.",
    )


def opened(
    result: Path, backend: str, threads: int | None, progress: Progress
) -> tuple[Finished, Analysis]:
    """Open a result and prepare the analysis behind it again."""
    from gpu_sdm.backend import get_backend
    from gpu_sdm.finished import open_result

    finished = open_result(result)
    return finished, finished.analysis(get_backend(backend, threads), progress)


def point(text: str) -> tuple[float, float, float]:
    """Read "x,y,z"."""
    from gpu_sdm.errors import SettingError

    try:
        x, y, z = (float(v) for v in text.replace(" ", "").split(","))
    except ValueError:
        raise SettingError(
            f"--at is {text!r}; give three numbers with commas, MNI millimetres, such as -4,-4,56."
        ) from None
    return x, y, z


def chosen_sites(
    finished: Finished,
    thresholds: Sequence[str] | None,
    points: Sequence[str] | None,
    masks: Sequence[Path] | None,
    clusters: bool = True,
) -> list[Site]:
    """Give the sites that the options name; without any, those of the default threshold.

    Raises
    ------
    SettingError
        If there is none.
    """
    from gpu_sdm.errors import SettingError
    from gpu_sdm.findings import sites as s

    at = s.point_sites(finished.space, [point(p) for p in points or ()])
    at += [s.region_site(finished.space, path) for path in masks or ()]
    names = [s.full_name(t, finished) for t in thresholds or ()]
    if clusters and not names and not at:
        names = [s.default_threshold(finished)]
    found = s.distinct_names(s.cluster_sites(finished, list(dict.fromkeys(names))) + at)
    if not found:
        raise SettingError(
            f"{finished.folder} has no cluster at {', '.join(names) or 'any threshold'}; name "
            "another --threshold, or a point with --at."
        )
    return found


def new_folder(folder: Path) -> Path:
    """Make a folder to write tables into.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    from gpu_sdm.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{folder} cannot be created ({exc.strerror}).") from exc
    return folder


def show_table(
    title: str,
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> None:
    """Print a table on stderr, then a dim line per note.

    Parameters
    ----------
    title : str
        Above it.
    columns : mapping of str to callable
        Heading -> what to write of a row. Headings that end with "<" are aligned left.
    rows, notes
        Content.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for heading in columns:
        left = heading.endswith("<")
        table.add_column(
            heading.removesuffix("<"), justify="left" if left else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(escape(write(row)) for write in columns.values()))
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=WIDE)
    console.print(table)
    for note in notes:
        console.print(escape(note), highlight=False, style="dim", soft_wrap=True)


def place(row: Mapping[str, Any]) -> str:
    """Write where a row of a site is."""
    if row["x_mm"] != row["x_mm"]:
        return str(row["site"])
    return f"{row['x_mm']:g} {row['y_mm']:g} {row['z_mm']:g}"


def name(row: Mapping[str, Any]) -> str:
    """Write which site a row is of, its threshold left out."""
    return f"{row['cluster']} {row['kind']}" if row["cluster"] else str(row["kind"])


def number(column: str, digits: int = 2) -> Callable[[Mapping[str, Any]], str]:
    """Make the writer of a column of numbers; `-` where there is none."""

    def write(row: Mapping[str, Any]) -> str:
        value = row[column]
        return "-" if value is None or value != value else f"{value:.{digits}f}"

    return write


def text(column: str) -> Callable[[Mapping[str, Any]], str]:
    """Make the writer of a column of texts."""
    return lambda row: "" if row[column] is None else str(row[column])


def finish(folder: Path, as_json: bool, content: Mapping[str, Any]) -> None:
    """Write the last of stdout: JSON where it was asked for, else the folder."""
    if as_json:
        from gpu_sdm.io.tables import json_text

        print(json_text({"folder": folder, **content}))  # noqa: T201
    else:
        print(folder)  # noqa: T201
