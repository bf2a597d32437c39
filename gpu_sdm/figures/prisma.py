"""PRISMA 2020 flow diagram: how studies were identified, screened and included.

References
----------
.. [1] Page MJ et al. (2021) The PRISMA 2020 statement: an updated guideline for reporting
   systematic reviews. BMJ 372: n71.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from gpu_sdm.figures._sheet import POINT_MM
from gpu_sdm.figures.palette import FONTS, PAGE, Look, new_figure, styled
from gpu_sdm.findings import prisma as boxes
from gpu_sdm.findings.prisma import Box, Flow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW = 120.0  # mm, without a column of other methods
PHASES = ("Identification", "Screening", "Included")
MAIN_TITLE = "Identification of studies via databases and registers"
OTHER_TITLE = "Identification of studies via other methods"
# Filled lightly: text on them keeps its contrast, in print and to colour-blind readers.
TITLES, PHASE = "#FFF0A8", "#D2F0FC"
BAR, GAP, EDGE, PADDING, INDENT = 6.0, 6.0, 1.0, 1.6, 2.0  # mm
LEADING = 1.25  # line height in font sizes


@dataclass(frozen=True)
class _Place:
    """A box that is laid out: edges in mm, y upwards, and its lines with their indents."""

    left: float
    bottom: float
    width: float
    height: float
    lines: tuple[tuple[float, str], ...]

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def top(self) -> float:
        return self.bottom + self.height

    @property
    def x(self) -> float:
        return self.left + self.width / 2

    @property
    def y(self) -> float:
        return self.bottom + self.height / 2


@lru_cache(maxsize=4096)
def _width(text: str, font: float, weight: str = "normal") -> float:
    """Width of a text in mm."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    letters = FontProperties(family=FONTS[0], weight=weight)
    # A blank has no outline: it counts between two letters.
    with_ends, ends = (
        float(TextPath((0, 0), t, size=font, prop=letters).get_extents().width)
        for t in (f"|{text}|", "||")
    )
    return (with_ends - ends) * POINT_MM


def _wrapped(text: str, width: float, font: float, weight: str = "normal") -> list[str]:
    """Break a text into lines of at most `width` mm; a longer word is broken itself."""
    lines, line = [], ""
    for word in text.replace("(n = ", "(n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}").split(" "):
        longer = f"{line} {word}".strip()
        if line and _width(longer, font, weight) > width:
            lines.append(line)
            line = word
        else:
            line = longer
        while _width(line, font, weight) > width and len(line) > 1:
            fits = (i for i in range(len(line), 1, -1) if _width(line[:i], font, weight) <= width)
            cut = next(fits, 1)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line]


def _n(count: int) -> str:
    return f"(n = {count:,})"


def _text(name: str, box: Box) -> list[tuple[float, str]]:
    """Paragraphs of a box with their indents: its name, then its parts."""
    title = name.capitalize()
    if not box.parts:
        return [(0.0, f"{title} {_n(box.n)}")]
    return [(0.0, f"{title}:"), *((INDENT, f"{part or 'Other'} {_n(n)}") for part, n in box.parts)]


def _lines(
    paragraphs: list[tuple[float, str]], width: float, font: float, weight: str = "normal"
) -> tuple[tuple[float, str], ...]:
    inner = width - 2 * PADDING
    found = []
    for indent, text in paragraphs:
        first, *rest = _wrapped(text, inner - indent, font, weight)
        found.append((indent, first))
        found += [(indent + (INDENT if indent else 0), line) for line in rest]
    return tuple(found)


def _grid(flow: Flow) -> list[list[tuple[str, Box] | None]]:
    """Boxes in rows of four columns: main, its side, other methods, their side."""
    pairs = (
        (boxes.IDENTIFIED, boxes.REMOVED, boxes.IDENTIFIED, ""),
        (boxes.SCREENED, boxes.EXCLUDED, "", ""),
        (boxes.SOUGHT, boxes.LOST, boxes.SOUGHT, boxes.LOST),
        (boxes.ASSESSED, boxes.REFUSED, boxes.ASSESSED, boxes.REFUSED),
    )
    return [
        [
            (name, column[name]) if name in column else None
            for name, column in zip(
                names, (flow.main, flow.main, flow.other, flow.other), strict=True
            )
        ]
        for names in pairs
    ]


@styled
def prisma(flow: Flow, *, look: Look | None = None) -> Figure:
    """Draw the flow diagram of a review.

    Parameters
    ----------
    flow : Flow
        From `findings.prisma.read_flow`.
    look : Look, optional
        Width and background; 180 mm wide with a column of other methods, else 120 mm.

    Returns
    -------
    Figure
        Boxes and words of the PRISMA 2020 template for new reviews [1]_.
    """
    look = look or Look(width_mm=PAGE if flow.other else NARROW)
    font, columns = look.font, 4 if flow.other else 2
    line = font * POINT_MM * LEADING
    start = BAR + 2 * EDGE
    width = (look.width_mm - start - EDGE - (columns - 1) * GAP) / columns
    lefts = [start + i * (width + GAP) for i in range(columns)]

    def height(lines: tuple[tuple[float, str], ...]) -> float:
        return len(lines) * line + 2 * PADDING

    included = [
        (name, flow.main[name]) for name in (boxes.STUDIES, boxes.REPORTS) if name in flow.main
    ]
    last = _lines([p for name, box in included for p in _text(name, box)], width, font)
    end_height = max(height(last), _width(PHASES[-1], font, "bold") + 2 * EDGE)
    titles = [(MAIN_TITLE, 0, 2)] + ([(OTHER_TITLE, 2, 4)] if flow.other else [])
    spans = [(lefts[a], lefts[b - 1] + width - lefts[a], text) for text, a, b in titles]
    headed = [(x, w, _lines([(0.0, text)], w, font, "bold")) for x, w, text in spans]
    head = max(height(lines) for *_, lines in headed)
    wanted = [
        [None if b is None else (b, _lines(_text(*b), width, font)) for b in row[:columns]]
        for row in _grid(flow)
    ]
    rows = [row for row in wanted if any(row)]
    heights = [max(height(cell[1]) for cell in row if cell) for row in rows]
    total = 2 * EDGE + head + sum(heights) + end_height + GAP * (len(rows) + 1)
    figure = new_figure(look, total)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, look.width_mm), ylim=(0, total))
    figure.set_layout_engine("none")
    axes.set_axis_off()
    top = total - EDGE
    for x, w, lines in headed:
        _draw(axes, _Place(x, top - head, w, head, lines), look, fill=TITLES, centred=True)
    y = top - head
    placed: list[list[_Place | None]] = []
    for row, tall in zip(rows, heights, strict=True):
        y -= GAP + tall
        placed.append(
            [
                None
                if c is None
                else _Place(x, y + (tall - (h := height(c[1]))) / 2, width, h, c[1])
                for x, c in zip(lefts, row, strict=True)
            ]
        )
    end = _Place(lefts[0], y - GAP - end_height, width, end_height, last)
    for place in (p for each in placed for p in each if p):
        _draw(axes, place, look)
    _draw(axes, end, look)
    _arrows(axes, placed, end, look)
    _phases(axes, placed, end, look)
    return figure


def _draw(axes: Axes, place: _Place, look: Look, fill: str = "none", centred: bool = False) -> None:
    """One box and its text."""
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (place.left, place.bottom), place.width, place.height, facecolor=fill,
            edgecolor=look.ink, linewidth=0.8, gid="box",
        )
    )  # fmt: skip
    ink = look.ink if fill == "none" else "black"
    step = look.font * POINT_MM * LEADING
    y = place.y + step * (len(place.lines) - 1) / 2
    for indent, text in place.lines:
        x = place.x if centred else place.left + PADDING + indent
        axes.text(
            x, y, text, ha="center" if centred else "left", va="center_baseline", color=ink,
            fontsize=look.font, weight="bold" if centred else "normal",
        )  # fmt: skip
        y -= step


def _arrow(axes: Axes, at: tuple[float, float], to: tuple[float, float], look: Look) -> None:
    style = {"arrowstyle": "-|>,head_width=0.18,head_length=0.32", "linewidth": 0.8}
    axes.annotate("", to, at, arrowprops={**style, "color": look.ink, "shrinkA": 0, "shrinkB": 0})


def _arrows(axes: Axes, rows: list[list[_Place | None]], end: _Place, look: Look) -> None:
    """Down each column of the flow, to the right of each box, and into what is included."""
    for column in range(0, len(rows[0]), 2):
        flow = [place for row in rows if (place := row[column]) is not None]
        for above, below in pairwise(flow):
            _arrow(axes, (above.x, above.bottom), (below.x, below.top), look)
        for row in rows:
            here, side = row[column], row[column + 1]
            if here is not None and side is not None:
                _arrow(axes, (here.right, here.y), (side.left, here.y), look)
        final = flow[-1] if flow else None
        if final is None:
            continue
        if column == 0:
            _arrow(axes, (final.x, final.bottom), (end.x, end.top), look)
        else:
            axes.plot([final.x, final.x], [final.bottom, end.y], color=look.ink, linewidth=0.8)
            _arrow(axes, (final.x, end.y), (end.right, end.y), look)


def _phases(axes: Axes, rows: list[list[_Place | None]], end: _Place, look: Look) -> None:
    """Bars at the left that name the phases."""
    from matplotlib.patches import Rectangle

    def extent(some: list[list[_Place | None]]) -> tuple[float, float]:
        places = [p for row in some for p in row if p is not None]
        return min(p.bottom for p in places), max(p.top for p in places)

    spans = (extent(rows[:1]), extent(rows[1:]), (end.bottom, end.top))
    for phase, (low, high) in zip(PHASES, spans, strict=True):
        axes.add_patch(
            Rectangle(
                (EDGE, low), BAR, high - low, facecolor=PHASE, edgecolor=look.ink, linewidth=0.8
            )
        )
        size = min(look.font, look.font * (high - low - 1) / _width(phase, look.font, "bold"))
        axes.text(
            EDGE + BAR / 2, (low + high) / 2, phase, rotation=90, ha="center", va="center",
            fontsize=size, weight="bold", color="black",
        )  # fmt: skip
