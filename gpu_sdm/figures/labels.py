"""Labels of points that overlap neither one another nor the points, with lines to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.figures.palette import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

ANGLES = np.deg2rad(np.arange(0, 360, 15))
RADII = (3.0, 6.0, 10.0, 16.0, 24.0, 34.0)  # points from the peak to the box
STEP = 2.0  # points between the places tried elsewhere
GAP = 2.5  # points around a box


def peak_text(label: str, xyz_mm: Sequence[float], line: str = "\n") -> str:
    """Write a peak's region and place, e.g. "Insula_R (38, 14, -4)" with real minus signs."""
    place = ", ".join(f"{v:.0f}" for v in xyz_mm).replace("-", "\N{MINUS SIGN}")
    return f"{label}{line}({place})" if label else f"({place})"


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas in which boxes (n, 4) of left, bottom, right, top and boxes (m, 4) meet: (n, m)."""
    a, b = np.atleast_2d(a)[:, None], np.atleast_2d(b)[None]
    wide = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    high = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    area: np.ndarray = np.clip(wide, 0, None) * np.clip(high, 0, None)
    return area


def place_boxes(
    points: np.ndarray,
    sizes: np.ndarray,
    frame: Sequence[float] | np.ndarray,
    avoid: np.ndarray | None = None,
) -> np.ndarray:
    """Find a box for each point's label.

    Parameters
    ----------
    points : (n, 2) float
        Where the points are.
    sizes : (n, 2) float
        Width and height of each label.
    frame : (4,) float
        Left, bottom, right and top of the room there is.
    avoid : (m, 4) float, optional
        Boxes that labels keep out of if they can.

    Returns
    -------
    (n, 4) float64
        Left, bottom, right, top; one after the other the nearest that meets no point, no earlier
        box and keeps inside the frame, or the one that does so least.
    """
    placed = np.empty((0, 4))
    points = np.asarray(points, np.float64)
    dots = np.hstack([points - GAP, points + GAP])
    turn = np.array([[np.cos(a), np.sin(a)] for a in ANGLES])
    left, bottom, right, top = frame
    grid = np.stack(np.meshgrid(np.arange(left, right, STEP), np.arange(bottom, top, STEP)), -1)
    for point, size in zip(points, np.asarray(sizes, np.float64), strict=True):
        half = size / 2 + GAP
        # Around the point, where the box touches the circle; failing that, anywhere.
        centres = np.vstack([*(point + turn * (r + half) for r in RADII), grid.reshape(-1, 2)])
        boxes = np.hstack([centres - half, centres + half])
        out = np.clip([left, bottom] - boxes[:, :2], 0, None)
        out += np.clip(boxes[:, 2:] - [right, top], 0, None)
        cost = 10 * overlap(boxes, dots).sum(1) + 10 * out @ (2 * half)[::-1]
        if len(placed):
            cost += 10 * overlap(boxes, placed).sum(1)
        if avoid is not None:
            cost += 0.02 * overlap(boxes, avoid).sum(1)
        nearest = np.clip(point, boxes[:, :2], boxes[:, 2:])
        cost += 0.1 * np.linalg.norm(point - nearest, axis=1)
        placed = np.vstack([placed, boxes[np.argmin(cost)]])
    return _uncross(points, placed, dots, np.asarray(frame, np.float64))


def _uncross(
    points: np.ndarray, boxes: np.ndarray, dots: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    """Exchange the places of two labels where that shortens their lines: these then cross less."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2

    def cost(at: np.ndarray) -> float:
        these = np.hstack([at - half, at + half])
        meet = overlap(these, these)
        out = np.clip(frame[:2] - these[:, :2], 0, None) + np.clip(
            these[:, 2:] - frame[2:], 0, None
        )
        bad = meet.sum() - np.trace(meet) + overlap(these, dots).sum() + 100 * out.sum()
        return 10 * float(bad) + float(np.linalg.norm(at - points, axis=1).sum())

    for i in range(len(points)):
        for j in range(i):
            other = middle.copy()
            other[[i, j]] = middle[[j, i]]
            # Side by side they keep the room that both had, whatever their widths.
            first, last = (i, j) if other[i, 0] < other[j, 0] else (j, i)
            low = min(middle[i, 0] - half[i, 0], middle[j, 0] - half[j, 0])
            high = max(middle[i, 0] + half[i, 0], middle[j, 0] + half[j, 0])
            if high - low >= 2 * (half[i, 0] + half[j, 0]):
                other[first, 0], other[last, 0] = low + half[first, 0], high - half[last, 0]
            if cost(other) < cost(middle) - 1e-9:
                middle = other
    return np.hstack([middle - half, middle + half])


def label_points(
    axes: Axes,
    xy: np.ndarray,
    texts: Sequence[str],
    look: Look,
    frame: np.ndarray | None = None,
    avoid: np.ndarray | None = None,
) -> list[Annotation]:
    """Write labels beside points of axes whose layout is done.

    Parameters
    ----------
    axes : Axes
        Where; call `figure.draw_without_rendering()` before unless it is laid out by hand.
    xy : (n, 2) float
        Points in data coordinates.
    texts : (n,) sequence of str
        What to write.
    look : Look
        Colours and sizes.
    frame : (4,) float, optional
        Left, bottom, right and top of the room there is, points of the figure; by default the
        axes.
    avoid : (m, 4) float, optional
        Boxes (same) that labels keep out of if they can.
    """
    from matplotlib.text import Text

    figure = axes.get_figure(root=True)
    renderer = figure.canvas.get_renderer()  # type: ignore[union-attr]
    scale = 72 / figure.dpi  # type: ignore[union-attr] # points of a pixel
    notes = [
        axes.annotate(
            text, tuple(point), xytext=(0, 0), textcoords="offset points", fontsize=look.small,
            ha="center", va="center", color=look.ink, parse_math=False, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": look.ink, "linewidth": 0.5, "shrinkA": 0,
                        "shrinkB": 1.5},
            bbox={"boxstyle": "square,pad=0.12", "facecolor": look.background, "alpha": 0.85,
                  "edgecolor": "none"}, zorder=10, gid="label",
        )
        for point, text in zip(np.asarray(xy, np.float64).tolist(), texts, strict=True)
    ]  # fmt: skip
    if not notes:
        return notes
    points = axes.transData.transform(np.asarray(xy, np.float64)) * scale
    sizes = []
    for note in notes:
        note.set_in_layout(False)
        box = Text.get_window_extent(note, renderer)  # without the line to the point
        sizes.append((box.width * scale, box.height * scale))
    if frame is None:
        room = axes.get_window_extent(renderer)
        frame = np.array([room.x0, room.y0, room.x1, room.y1]) * scale
    boxes = place_boxes(points, np.array(sizes), frame, avoid)
    for note, point, box in zip(notes, points, boxes, strict=True):
        note.set_position(((box[0] + box[2]) / 2 - point[0], (box[1] + box[3]) / 2 - point[1]))
    return notes
