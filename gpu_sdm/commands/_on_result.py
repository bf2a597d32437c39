"""What the commands on a finished result share: opening it, sites, tables and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis, Progress
    from gpu_sdm.findings.refit import SiteEffects
    from gpu_sdm.findings.sites import Site
    from gpu_sdm.finished import Finished
    from gpu_sdm.result import Result

WIDE = 160  # columns of a table in a log


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


def opened(
    result: Path, backend: str, threads: int | None, progress: Progress
) -> tuple[Finished, Analysis]:
    """Open a result and prepare the analysis behind it again."""
    from gpu_sdm.backend import get_backend
    from gpu_sdm.finished import open_result

    finished = open_result(result)
    return finished, finished.analysis(get_backend(backend, threads), progress)


def point(text: str, option: str = "--at") -> tuple[float, float, float]:
    """Read the "x,y,z" of an option.

    Raises
    ------
    SettingError
    """
    from gpu_sdm.errors import SettingError

    try:
        x, y, z = (float(v) for v in text.replace(" ", "").split(","))
    except ValueError:
        raise SettingError(
            f"{option} is {text!r}; give three numbers with commas, MNI millimetres, such as "
            "-4,-4,56."
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


def effects_at(
    result: Path,
    device: tuple[str, int | None],
    thresholds: Sequence[str] | None,
    points: Sequence[str] | None,
    masks: Sequence[Path] | None,
    clusters: bool = True,
) -> tuple[Finished, SiteEffects]:
    """Open a result and fit its studies again at the sites that the options name.

    Parameters
    ----------
    device : backend and threads
        Where.
    result, thresholds, points, masks, clusters
        As for `opened` and `chosen_sites`.
    """
    from gpu_sdm import terminal
    from gpu_sdm.findings.refit import site_effects

    with terminal.StageProgress() as progress:
        finished, analysis = opened(result, *device, progress)
        sites = chosen_sites(finished, thresholds, points, masks, clusters)
        return finished, site_effects(analysis, sites, progress)


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
    from rich.markup import escape
    from rich.table import Table

    from gpu_sdm import terminal

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for heading in columns:
        left = heading.endswith("<")
        table.add_column(
            heading.removesuffix("<"), justify="left" if left else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(escape(write(row)) for write in columns.values()))
    console = terminal.open_console(wide=WIDE)
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
        print_json({"folder": folder, **content})
    else:
        print(folder)  # noqa: T201 -- the contract: last line of stdout is the path of the result


def found_in(result: Result) -> dict[str, Any]:
    """Give what `--json` prints of an analysis: its clusters by threshold, warnings and times."""
    return {
        "clusters": result.clusters,
        "studies": len(result.studies),
        "warnings": result.provenance["warnings"],
        "timings_s": result.timings,
    }


def print_json(content: Mapping[str, Any]) -> None:
    """Write JSON on stdout; NaN and infinities are null."""
    from gpu_sdm.io.tables import json_text

    print(json_text(content))  # noqa: T201 -- asked for
