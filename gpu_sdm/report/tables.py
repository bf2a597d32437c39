"""Tables of the page: each cell shows a short value and keeps the whole one for the download."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_sdm.io.tables import MISSING
from gpu_sdm.report.facts import number
from gpu_sdm.report.html import Html, join, tag

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def plain(text: str) -> str:
    """Show a cell as it is; a dash where there is nothing."""
    return NONE if text == MISSING else text


def fixed(digits: int) -> Callable[[str], str]:
    """Make the writer of a number with so many decimals."""

    def write(text: str) -> str:
        value = number(text)
        return plain(text) if value is None else f"{value:,.{digits}f}".replace("-", MINUS)

    return write


def short(text: str) -> str:
    """Show a number with four digits that count, whole ones in full."""
    value = number(text)
    if value is None:
        return plain(text)
    whole = value == int(value) if abs(value) < 1e15 else False
    shown = f"{int(value):,}" if whole else f"{value:.4g}"
    return shown.replace("-", MINUS)


def p_value(text: str) -> str:
    """Show a p value.

    Examples
    --------
    >>> p_value("0.0123"), p_value("2e-15")
    ('0.0123', '2.0e\N{MINUS SIGN}15')
    """
    value = number(text)
    if value is None:
        return plain(text)
    if value >= 0.99995:
        return "1"
    if value == 0:
        return f"< 1e{MINUS}300"  # too small for a double
    return (f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}").replace("-", MINUS)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    name : str
        Of the file's column.
    heading : str
        On the page.
    write : callable
        What to show of a cell.
    text : bool
        Aligned left.
    """

    name: str
    heading: str
    write: Callable[[str], str] = short
    text: bool = False


def columns_of(names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[Column]:
    """Make the columns of any table: text aligned left, numbers short, p values as such."""
    columns = []
    for name in names:
        cells = [row[name] for row in rows if row[name] != MISSING]
        numeric = bool(cells) and all(number(cell) is not None for cell in cells)
        heading = name.replace("_", " ")
        is_p = name == "p" or name.startswith("p_") or name.endswith("_p")
        if numeric:
            columns.append(Column(name, heading, p_value if is_p else short))
        else:
            columns.append(Column(name, heading, plain, text=True))
    return columns


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, str]],
    file: str,
    *,
    cell: Callable[[Mapping[str, str], Column], Html | None] = lambda row, column: None,
) -> Html:
    """Give a table that sorts and downloads.

    Parameters
    ----------
    caption : str
        What it shows.
    columns : sequence of Column
        In order.
    rows : sequence of rows
        Cells as the file has them.
    file : str
        Name of the download.
    cell : callable
        Content of a cell in place of its text; None for the text.
    """
    head = tag(
        "tr",
        *(
            tag("th", c.heading, scope="col", data_column=c.name, class_=c.text and "text")
            for c in columns
        ),
    )
    body = join(
        tag(
            "tr",
            *(
                tag(
                    "td",
                    cell(row, c) or c.write(row[c.name]),
                    data_v=row[c.name],
                    class_=c.text and "text",
                )
                for c in columns
            ),
        )
        for row in rows
    )
    whole = tag(
        "table",
        tag("caption", caption),
        tag("thead", head),
        tag("tbody", body),
        class_="sortable",
        data_file=file,
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


CLUSTER = (
    Column("cluster", "#"),
    Column("side", "Sign", plain, text=True),
    Column("label", "Region of the peak", plain, text=True),
    Column("x_mm", "x", fixed(0)),
    Column("y_mm", "y", fixed(0)),
    Column("z_mm", "z", fixed(0)),
    Column("sdm_z", "SDM-Z", fixed(2)),
    Column("p", "p", p_value),
    Column("g", "Hedges g", fixed(2)),
    Column("se", "SE", fixed(3)),
    Column("i2", "I\N{SUPERSCRIPT TWO} %", fixed(1)),
    Column("voxels", "Voxels"),
    Column("mm3", "mm\N{SUPERSCRIPT THREE}"),
)


def _mark(side: str) -> Html:
    return tag(
        "span",
        "+" if side == "positive" else MINUS,
        tag("span", f" {side}", class_="word"),
        class_=f"sign {side}",
    )


def cluster_cell(row: Mapping[str, Any], column: Column) -> Html | None:
    """Give the sign its colour, and let the region's name lead into the maps."""
    if column.name == "side":
        return _mark(row["side"])
    if column.name == "label":
        place = ",".join(row[f"{a}_mm"] for a in "xyz")
        return tag("span", plain(row["label"]) or "show", data_mm=place)
    return None


def cluster_table(name: str, says: str, rows: Sequence[Mapping[str, str]]) -> Html:
    """Give the table of a threshold; `name` is that of its file."""
    caption = f"Clusters: {says}"
    return table(caption, CLUSTER, rows, f"clusters_{name}.csv", cell=cluster_cell)
