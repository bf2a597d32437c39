"""A figure laid out in millimetres, so that all brains of it have one size; its colour bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.figures._brain import Scale
from gpu_sdm.figures.palette import MM, Look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR_MM = 2.2  # height of the bar
FOOT_MM = 11.5  # bar, ticks and unit
POINT_MM = MM / 72
LETTER = 0.62  # mean width of a letter in font sizes, on the safe side


def lines_of(text: str, points: float, width_mm: float) -> list[str]:
    """Break a text into lines that fit a width."""
    import textwrap

    most = max(10, int(width_mm / (points * POINT_MM * LETTER)))
    return [part for line in text.split("\n") for part in textwrap.wrap(line, most) or [""]]


class Sheet:
    """Axes placed in millimetres from the top left corner.

    Parameters
    ----------
    look : Look
        Width and background.
    body_mm : float
        Height between heading and foot.
    title : str
        Heading; broken where it is too long.
    foot : bool
        Whether a colour bar follows.
    """

    def __init__(self, look: Look, body_mm: float, title: str = "", foot: bool = True) -> None:
        self.look = look
        lines = lines_of(title, look.font + 1, look.width_mm - 4) if title else []
        step = (look.font + 1) * POINT_MM * 1.3
        self.top = 1.5 + step * len(lines) + (1.0 if lines else 0.0)
        self.body = body_mm
        self.height = self.top + body_mm + (FOOT_MM if foot else 1.5)
        self.figure = new_figure(look, self.height)
        self.figure.set_layout_engine("none")
        if lines:
            self.figure.text(
                0.5, 1 - 1.5 / self.height, "\n".join(lines), ha="center", va="top",
                fontsize=look.font + 1, linespacing=1.3, parse_math=False, gid="title",
            )  # fmt: skip

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """Add axes; `top` counts from below the heading."""
        w, h = self.look.width_mm, self.height
        box = (left / w, 1 - (self.top + top + height) / h, width / w, height / h)
        return self.figure.add_axes(box, **options)

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        """Write at a place in millimetres from the left and from below the heading."""
        self.figure.text(
            x / self.look.width_mm, 1 - (self.top + y) / self.height, text, parse_math=False,
            **options,
        )  # fmt: skip

    def frame(self, left: float, top: float, width: float, height: float) -> np.ndarray:
        """Left, bottom, right and top of a part of the sheet, in points."""
        low = self.height - self.top - top - height
        return np.array([left, low, left + width, low + height]) / POINT_MM

    def bar(self, scale: Scale) -> None:
        """Add the one colour bar at the foot: each side that occurs, a gap where nothing is."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        look = self.look
        width = look.width_mm * (0.6 if look.narrow else 0.4)
        axes = self.axes((look.width_mm - width) / 2, self.body + 1.5, width, BAR_MM)
        mappable = ScalarMappable(Normalize(-scale.high, scale.high), scale.cmap())
        bar = self.figure.colorbar(mappable, cax=axes, orientation="horizontal")
        low = -scale.high if scale.negative else scale.low
        high = scale.high if scale.positive else -scale.low
        axes.set_xlim(low, high)
        marks = {-scale.high, -scale.low, scale.low, scale.high}
        if scale.low < 0.12 * scale.high and scale.positive and scale.negative:
            marks = {-scale.high, 0.0, scale.high}  # the two would touch
        at = sorted(m for m in marks if low <= m <= high)
        bar.set_ticks(at, labels=[f"{m:.3g}".replace("-", "\N{MINUS SIGN}") for m in at])
        bar.set_label(scale.unit, labelpad=1)
        bar.outline.set_edgecolor(look.muted)
        bar.outline.set_linewidth(0.5)
        axes.set_gid("colour_bar")
