"""What the commands on a finished result share: opening it, sites, tables and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis, Progress
    from gpu_sdm.findings.refit import SiteEffects
    from gpu_sdm.findings.sites import Site
    from gpu_sdm.finished import Finished
    from gpu_sdm.result import Result

WIDE = 160  # columns of a table in a log
FOLDED = 12  # characters to which a text may be folded before it goes into a further table


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
            f"{command('report', out)} makes it again."
        )


def command(*words: str | Path | float) -> str:
    """Write a command as it can be pasted into a shell: names with blanks in quotes."""
    import shlex

    return shlex.join(["gpu-sdm", *map(str, words)])


def prepared(finished: Finished, backend: str, threads: int | None, progress: Progress) -> Analysis:
    """Prepare the analysis behind a result again."""
    from gpu_sdm.backend import get_backend

    return finished.analysis(get_backend(backend, threads), progress)


def point(text: str, option: str = "--at") -> tuple[float, float, float]:
    """Read the "x,y,z" of an option.

    Raises
    ------
    SettingError
    """
    from gpu_sdm.errors import SettingError
    from gpu_sdm.io._text import number as read

    numbers = [read(cell) for cell in text.split(",")]
    if len(numbers) != 3 or None in numbers:
        raise SettingError(
            f"{option} is {text!r}; give three numbers with commas, MNI millimetres, such as "
            "-4,-4,56."
        )
    x, y, z = (float(v) for v in numbers if v is not None)
    return x, y, z


def chosen_sites(
    finished: Finished,
    thresholds: Sequence[str] | None,
    points: Sequence[str] | None,
    masks: Sequence[Path] | None,
    clusters: bool = True,
) -> list[Site]:
    """Give the sites that the options name.

    Without any option they are the clusters of the default threshold, unless `clusters` is False.

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
            f"{finished.folder} has no cluster at {', '.join(names)}; name another threshold, or "
            "a point with --at."
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
    result : path
        The folder.
    device : backend and threads
        Where.
    thresholds, points, masks, clusters
        As for `chosen_sites`.
    """
    from gpu_sdm.finished import open_result

    finished = open_result(result)
    sites = chosen_sites(finished, thresholds, points, masks, clusters)
    return finished, effects_of(finished, sites, device)


def effects_of(
    finished: Finished, sites: Sequence[Site], device: tuple[str, int | None]
) -> SiteEffects:
    """Fit the studies of a result again at sites."""
    from gpu_sdm import terminal
    from gpu_sdm.findings.refit import site_effects

    with terminal.StageProgress() as progress:
        return site_effects(prepared(finished, *device, progress), sites, progress)


def show_table(
    title: str,
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> None:
    """Print a table on stderr, then a dim line per note.

    What is wider than the terminal goes into further tables below, which begin with the same
    first columns: those aligned left, which say what a row is of.

    Parameters
    ----------
    title : str
        Above it, as it is: names of files and columns may hold brackets.
    columns : mapping of str to callable
        Heading -> what to write of a row. Headings that end with "<" are aligned left.
    rows, notes
        Content.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from gpu_sdm import terminal

    console = terminal.open_console(wide=WIDE)
    left = [heading.endswith("<") for heading in columns]
    cells = [[h.removesuffix("<") for h in columns]]
    cells += [[write(row) for write in columns.values()] for row in rows]
    width = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, chosen in enumerate(_pages(width, left, console.width)):
        table = Table(
            title=None if number else escape(title), box=box.SIMPLE_HEAD, title_justify="left"
        )
        for c in chosen:
            justify: Literal["left", "right"] = "left" if left[c] else "right"
            table.add_column(escape(cells[0][c]), justify=justify, overflow="fold")
        for row_cells in cells[1:]:
            table.add_row(*(escape(row_cells[c]) for c in chosen))
        console.print(table)
    show_notes(notes)


def _pages(width: Sequence[int], left: Sequence[bool], most: int) -> list[list[int]]:
    """Divide columns among tables of at most so many characters; all have the first columns.

    Texts may be folded, numbers not; columns without a character are left out.
    """
    first = list(range(left.index(False))) if False in left else list(range(len(left)))
    room = [min(w, FOLDED) if at_left else w for w, at_left in zip(width, left, strict=True)]
    for c in first:
        room[c] = min(width[c], most // 3)
    pages, page = [], list(first)
    for c in (c for c in range(len(first), len(left)) if width[c]):
        if len(page) > len(first) and sum(room[i] + 3 for i in (*page, c)) + 1 > most:
            pages.append(page)
            page = list(first)
        page.append(c)
    return [*pages, page]


def show_notes(notes: Sequence[str]) -> None:
    """Print dim lines on stderr."""
    from rich.markup import escape

    from gpu_sdm import terminal

    console = terminal.open_console()
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


def interval(low: str, high: str, digits: int = 2) -> Callable[[Mapping[str, Any]], str]:
    """Make the writer of an interval between two columns; `-` where there is none."""

    def write(row: Mapping[str, Any]) -> str:
        if row[low] != row[low]:
            return "-"
        return f"{row[low]:.{digits}f} to {row[high]:.{digits}f}"

    return write


def number(column: str, digits: int = 2) -> Callable[[Mapping[str, Any]], str]:
    """Make the writer of a column of numbers; `-` where there is none."""

    def write(row: Mapping[str, Any]) -> str:
        value = row[column]
        return "-" if value is None or value != value else f"{value:.{digits}f}"

    return write


def small(column: str) -> Callable[[Mapping[str, Any]], str]:
    """Make the writer of a column of p, three digits however small; `-` where there is none."""

    def write(row: Mapping[str, Any]) -> str:
        p = row[column]
        return "-" if p is None or p != p else f"{p:.3g}"

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
