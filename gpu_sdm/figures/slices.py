"""Slices over the anatomy: three planes through each peak, or chosen places along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.checks import Options
from gpu_sdm.figures._brain import (
    BRAIN_MM,
    PLANES,
    Scale,
    bare,
    draw_anatomy,
    draw_slice,
    hide,
    millimetres,
    scale_of,
    volume_of,
)
from gpu_sdm.figures._sheet import Sheet
from gpu_sdm.figures.palette import Look, styled
from gpu_sdm.spaces import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HAIR_GAP = 9.0  # mm around a peak that the cross leaves free
COLUMNS = {True: 4, False: 7}  # of a narrow and of a wide figure
NAME_MM, GAP_MM = 3.6, 2.0  # heading of a panel; room between blocks


def _span(axis: int) -> float:
    low, high = BRAIN_MM[axis]
    return high - low


def _cross(axes: Axes, plane: str, peak: np.ndarray, look: Look) -> None:
    """Thin hairs that leave the peak itself free."""
    _, right, up = PLANES[plane]
    x, y = float(peak[right]), float(peak[up])
    (left, far), (low, high) = BRAIN_MM[right], BRAIN_MM[up]
    for a, b in ((left, x - HAIR_GAP), (x + HAIR_GAP, far)):
        axes.plot([a, b], [y, y], color=look.ink, linewidth=0.45, alpha=0.75)
    for a, b in ((low, y - HAIR_GAP), (y + HAIR_GAP, high)):
        axes.plot([x, x], [a, b], color=look.ink, linewidth=0.45, alpha=0.75)


@styled
def slices(
    values: np.ndarray,
    space: Space,
    peaks: np.ndarray,
    texts: Sequence[str] = (),
    *,
    shown: np.ndarray | None = None,
    name: str = "z",
    scale: Scale | None = None,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw the sagittal, coronal and axial slice through each peak.

    Parameters
    ----------
    values : (V,) float
        The map; zeros are not drawn.
    space : Space
        Grid and mask.
    peaks : (n, 3) float
        MNI millimetres.
    texts : (n,) sequence of str
        Heading of each, a line.
    shown : (V,) bool, optional
        Voxels to draw; by default all.
    name : str
        Which map it is; gives the unit.
    scale : Scale, optional
        That of another figure.
    title : str
        Heading of the figure.
    look : Look
        Width and background.
    """
    peaks = np.asarray(peaks, np.float64).reshape(-1, 3)
    kept = hide(values, shown)
    scale = scale_of(kept, name) if scale is None else scale
    overlay = volume_of(kept, space)
    columns = 1 if look.narrow or len(peaks) == 1 else 2
    rows = -(-len(peaks) // columns)
    room = look.width_mm / columns - 4 * GAP_MM
    # One size of brain everywhere; a single peak does not fill a whole page.
    shrink = min(room / sum(_span(PLANES[p][1]) for p in PLANES), 0.2)
    wide, high = shrink * sum(_span(PLANES[p][1]) for p in PLANES), shrink * _span(1)
    heading = 4.5 if texts else 0.0
    block = heading + NAME_MM + high + GAP_MM
    sheet = Sheet(look, rows * block, title)
    for k, peak in enumerate(peaks):
        left = (k % columns + 0.5) * look.width_mm / columns - wide / 2 - GAP_MM
        top = (k // columns) * block
        if k < len(texts):
            line = " ".join(texts[k].split())
            sheet.text(left + wide / 2 + GAP_MM, top + 0.5, line, ha="center", va="top")
        for plane, (_, right, up) in PLANES.items():
            across, upwards = shrink * _span(right), shrink * _span(up)
            at = top + heading + NAME_MM + (high - upwards) / 2
            axes = sheet.axes(left, at, across, upwards)
            draw_slice(axes, overlay, plane, float(peak[PLANES[plane][0]]), scale, look)
            _cross(axes, plane, peak, look)
            where = millimetres(plane, float(peak[PLANES[plane][0]]))
            sheet.text(left + across / 2, top + heading + 0.2, where, ha="center", va="top",
                       fontsize=look.small, color=look.muted)  # fmt: skip
            left += across + GAP_MM
    sheet.bar(scale)
    return sheet.figure


@styled
def cuts(
    values: np.ndarray,
    space: Space,
    at_mm: Sequence[float],
    *,
    plane: str = "z",
    shown: np.ndarray | None = None,
    name: str = "z",
    scale: Scale | None = None,
    locator: float | None = None,
    columns: int | None = None,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw slices at given places along an axis.

    Parameters
    ----------
    values, space, shown, name, scale, title, look
        As for `slices`.
    at_mm : sequence of float
        Millimetres along the axis.
    plane : {"z", "y", "x"}
        Axial, coronal or sagittal.
    locator : float, optional
        x of a sagittal slice that is added with a line at each place; not for sagittal slices.
    columns : int, optional
        Slices of a row; 7, in a narrow figure 4.
    """
    Options(tuple(PLANES)).check("plane", plane)
    kept = hide(values, shown)
    scale = scale_of(kept, name) if scale is None else scale
    overlay = volume_of(kept, space)
    _, right, up = PLANES[plane]
    extra = 1 if locator is not None and plane != "x" else 0
    cells = len(at_mm) + extra
    columns = min(cells, COLUMNS[look.narrow] if columns is None else columns)
    rows = -(-cells // columns)
    room = (look.width_mm - 2 * GAP_MM) / columns
    shrink = min(room / _span(right), 0.25)
    across, upwards = shrink * _span(right), shrink * _span(up)
    block = NAME_MM + upwards + 1
    sheet = Sheet(look, rows * block, title)
    first = (look.width_mm - columns * room) / 2
    for k in range(cells):
        middle = first + (k % columns + 0.5) * room
        top = (k // columns) * block
        if k == len(at_mm):
            _locate(sheet, plane, at_mm, float(locator or 0), scale,
                    (middle, top, room, block))  # fmt: skip
            continue
        axes = sheet.axes(middle - across / 2, top + NAME_MM, across, upwards)
        draw_slice(axes, overlay, plane, float(at_mm[k]), scale, look, k % columns == 0)
        sheet.text(middle, top + 0.2, millimetres(plane, float(at_mm[k])), ha="center", va="top",
                   fontsize=look.small, color=look.muted)  # fmt: skip
    sheet.bar(scale)
    return sheet.figure


def _locate(
    sheet: Sheet,
    plane: str,
    at_mm: Sequence[float],
    x: float,
    scale: Scale,
    cell: tuple[float, float, float, float],
) -> None:
    """Draw a small sagittal slice with a line where each of the others is."""
    middle, top, room, block = cell
    look = sheet.look
    wide = room * 0.96
    high = wide * _span(2) / _span(1)
    axes = sheet.axes(middle - wide / 2, top + NAME_MM + (block - NAME_MM - high) / 2, wide, high)
    draw_anatomy(axes, "x", x)
    bare(axes, "x", look, False)
    for mm in at_mm:
        line = axes.axhline if plane == "z" else axes.axvline
        line(mm, color=scale.cmap()(0.0 if scale.negative and not scale.positive else 0.9),
             linewidth=0.5)  # fmt: skip
    sheet.text(middle, top + 0.2, millimetres("x", x), ha="center", va="top",
               fontsize=look.small, color=look.muted)  # fmt: skip
