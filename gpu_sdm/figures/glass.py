"""Glass brains: peaks by study or sign, and maps seen through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.figures._brain import Scale, hide, scale_of, volume_of
from gpu_sdm.figures._outline import outline
from gpu_sdm.figures._sheet import POINT_MM, Sheet
from gpu_sdm.figures.labels import label_points
from gpu_sdm.figures.palette import NEGATIVE, POSITIVE, Look, study_style, styled
from gpu_sdm.spaces import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# View -> (axis looked along, axis to the right, axis upwards).
VIEWS = {"l": (0, 1, 2), "y": (1, 0, 2), "r": (0, 1, 2), "z": (2, 0, 1)}
NAMES = {"l": "left", "y": "from behind", "r": "right", "z": "from above"}
SPANS = {"l": (188.0, 158.0), "y": (148.0, 158.0), "r": (188.0, 158.0), "z": (148.0, 188.0)}
MOST = 21  # studies that a legend has room for
WRITTEN = 6  # peaks whose names stand in the views; more are numbered, with a key
NAME_MM, GAP_MM = 3.6, 2.0  # heading; between views
ROOM_MM, REACH_MM = 8.5, 5.0  # for labels: above and below a view; beside it


class _Views:
    """Four views of one size, in a row or two by two."""

    def __init__(self, look: Look, foot_mm: float, title: str, bar: bool, room: float) -> None:
        from matplotlib.patches import PathPatch

        rows = ("ly", "rz") if look.narrow else ("lyrz",)
        wide = max(sum(SPANS[v][0] for v in row) for row in rows)
        gaps = GAP_MM * (len(rows[0]) + 1)
        shrink = (look.width_mm - gaps) / wide
        high = shrink * max(s[1] for s in SPANS.values())
        block = NAME_MM + high + 2 * room
        self.body = len(rows) * block
        self.sheet = Sheet(look, self.body + foot_mm, title, bar)
        self.axes: dict[str, Axes] = {}
        self.frames: dict[str, np.ndarray] = {}
        self.brains: dict[str, np.ndarray] = {}
        for r, row in enumerate(rows):
            taken = shrink * sum(SPANS[v][0] for v in row) + GAP_MM * (len(row) - 1)
            left = (look.width_mm - taken) / 2
            for name in row:
                across, upwards = (shrink * s for s in SPANS[name])
                top = r * block + NAME_MM + room + (high - upwards) / 2
                axes = self.sheet.axes(left, top, across, upwards)
                paths, (x0, x1, y0, y1) = outline(name, look.background)
                for path, colour in paths:
                    axes.add_patch(PathPatch(path, edgecolor=colour, facecolor="none", alpha=0.7,
                                             linewidth=0.7, gid="outline"))  # fmt: skip
                axes.set_xlim(*_around((x0, x1), SPANS[name][0])[:: -1 if name == "l" else 1])
                axes.set_ylim(*_around((y0, y1), SPANS[name][1]))
                axes.set_axis_off()
                self.sheet.text(left + across / 2, r * block + 0.2, NAMES[name], ha="center",
                                va="top", fontsize=look.small, color=look.muted)  # fmt: skip
                if name in "yz":
                    for x, letter in ((0.05, "L"), (0.95, "R")):
                        axes.text(x, 0.97, letter, transform=axes.transAxes, va="top",
                                  ha="center", fontsize=look.small)  # fmt: skip
                self.axes[name] = axes
                # Labels may reach over the corners of the next view, not over the page's edge.
                start = max(left - REACH_MM, 0.5)
                end = min(left + across + REACH_MM, look.width_mm - 0.5)
                self.frames[name] = self.sheet.frame(
                    start, r * block + NAME_MM, end - start, high + 2 * room
                )
                self.brains[name] = self.sheet.frame(left, top, across, upwards)
                left += across + GAP_MM


def _around(ends: tuple[float, float], span: float) -> tuple[float, float]:
    middle = sum(ends) / 2
    return middle - span / 2, middle + span / 2


def _seen(name: str, xyz: np.ndarray) -> np.ndarray:
    """Which points (n,) bool a view shows: a hemisphere's own, and the midline's in both."""
    if name == "l":
        return xyz[:, 0] <= 0
    return xyz[:, 0] >= 0 if name == "r" else np.ones(len(xyz), bool)


Group = tuple[str, np.ndarray, str, str]  # name, which peaks, colour, marker


def _groups(
    count: int, studies: Sequence[str] | None, sign: np.ndarray | None, look: Look
) -> list[Group]:
    if studies is None and sign is None:
        return [("peak", np.ones(count, bool), POSITIVE, "o")]
    if studies is None:
        side = np.asarray(sign)
        found = [("positive", side >= 0, POSITIVE, "o"), ("negative", side < 0, NEGATIVE, "s")]
        return [group for group in found if group[1].any()]
    names = list(dict.fromkeys(studies))
    of = np.array([names.index(s) for s in studies], int)
    groups = []
    for k, name in enumerate(names):
        colour, marker = study_style(k)
        groups.append((name, of == k, look.ink if colour == "#000000" else colour, marker))
    return groups


@styled
def glass_peaks(
    xyz: np.ndarray,
    studies: Sequence[str] | None = None,
    sign: np.ndarray | None = None,
    *,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw reported peaks.

    Parameters
    ----------
    xyz : (n, 3) float
        MNI millimetres.
    studies : (n,) sequence of str, optional
        Study of each: colours and markers are the studies' (a legend of at most 21).
    sign : (n,) float, optional
        Any number of the peak's sign, e.g. t: colours are the signs' where no studies are given.
    title : str
        Heading; by default the counts.
    look : Look
        Width and background.
    """
    xyz = np.asarray(xyz, np.float64).reshape(-1, 3)
    groups = _groups(len(xyz), studies, sign, look)
    legend = 1 < len(groups) <= MOST
    columns = 3 if look.narrow else 7
    lines = -(-len(groups) // columns) if legend else 0
    foot = lines * look.small * POINT_MM * 1.7 + (2 if legend else 0)
    count = f"{len(xyz):,} peaks" + (f" of {len(groups)} studies" if studies is not None else "")
    views = _Views(look, foot, title or count, False, 0.0)
    for name, axes in views.axes.items():
        _, right, up = VIEWS[name]
        for label, mine, colour, marker in groups:
            at = xyz[mine & _seen(name, xyz)]
            axes.scatter(at[:, right], at[:, up], s=11 if len(xyz) < 300 else 6, color=colour,
                         marker=marker, alpha=0.8, edgecolor=look.ink, linewidth=0.25,
                         clip_on=False, zorder=5, label=label, gid="peaks")  # fmt: skip
    if legend:
        handles, labels = views.axes["z"].get_legend_handles_labels()
        drawn = views.sheet.figure.legend(
            handles, labels, loc="lower center", ncols=columns, columnspacing=1.0,
            handletextpad=0.2, borderaxespad=0.3,
        )  # fmt: skip
        for text in drawn.get_texts():
            text.set_parse_math(False)
    return views.sheet.figure


def project(
    values: np.ndarray, space: Space, view: str
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Look through a map.

    Parameters
    ----------
    values : (V,) float
        The map; NaN is not seen.
    space : Space
        Grid and mask.
    view : {"l", "y", "r", "z"}
        Left hemisphere, from behind, right hemisphere, from above.

    Returns
    -------
    (n, m) float
        The value of largest size along each line of sight (up, right); NaN where there is none.
    tuple of float
        Left, right, bottom and top in millimetres.
    """
    volume = volume_of(values, space)
    axis, _, _ = VIEWS[view]
    data = volume.data
    if view in "lr":
        x = volume.origin[0] + volume.step * np.arange(data.shape[0])
        data = data[x <= 0] if view == "l" else data[x >= 0]
    size = np.where(np.isnan(data), -1, np.abs(data))
    at = np.expand_dims(size.argmax(axis), axis)
    seen = np.take_along_axis(data, at, axis).squeeze(axis)
    return seen.T, volume.extent("xyz"[axis])


@styled
def glass_map(
    values: np.ndarray,
    space: Space,
    shown: np.ndarray | None = None,
    *,
    name: str = "z",
    peaks: np.ndarray | None = None,
    texts: Sequence[str] = (),
    scale: Scale | None = None,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw a map on a glass brain: the value of largest size along each line of sight.

    Parameters
    ----------
    values, space, shown, name, scale, title, look
        As for `slices.slices`.
    peaks : (n, 3) float, optional
        MNI millimetres of the peaks to label.
    texts : (n,) sequence of str
        Their labels. Few stand in the views; many, or any in a narrow figure, are numbered there
        and written below.
    """
    kept = hide(values, shown)
    scale = scale_of(kept, name) if scale is None else scale
    at = np.zeros((0, 3)) if peaks is None else np.asarray(peaks, np.float64).reshape(-1, 3)
    numbered = len(at) > WRITTEN or (look.narrow and len(at) > 0)
    line = look.small * POINT_MM * 1.45
    columns = 1 if look.narrow else 3
    rows = -(-len(at) // columns)
    views = _Views(
        look, rows * line + 2 if numbered else 0.0, title, True,
        ROOM_MM if len(at) and not numbered else 1.0,
    )  # fmt: skip
    for view, axes in views.axes.items():
        seen, extent = project(kept, space, view)
        bounds = axes.get_xlim(), axes.get_ylim()
        axes.imshow(seen, origin="lower", extent=extent, interpolation="nearest", zorder=0.5,
                    aspect="auto", gid="overlay", **scale.options())  # fmt: skip
        axes.set_xlim(bounds[0])
        axes.set_ylim(bounds[1])
    views.sheet.bar(scale)
    written = [str(k + 1) for k in range(len(at))] if numbered else list(texts)
    _label(views, at, written, numbered, look)
    if numbered:
        for k, text in enumerate(texts):
            words = f"{k + 1}  {' '.join(text.split())}"
            x = 3 + (k // rows) * (look.width_mm - 4) / columns
            views.sheet.text(x, views.body + 1 + (k % rows) * line, words, va="top",
                             fontsize=look.small)  # fmt: skip
    return views.sheet.figure


def _label(
    views: _Views, peaks: np.ndarray, texts: Sequence[str], numbered: bool, look: Look
) -> None:
    """Mark the peaks in every view; name each where it shows best, number it everywhere."""
    for view, axes in views.axes.items():
        _, right, up = VIEWS[view]
        at = _seen(view, peaks)
        axes.scatter(peaks[at, right], peaks[at, up], s=6, color=look.ink, linewidth=0, zorder=6,
                     gid="marks")  # fmt: skip
        mine = at if numbered else ((peaks[:, 0] < 0) if view == "l" else (peaks[:, 0] >= 0))
        if mine.any() and (numbered or view in "lr"):
            label_points(
                axes, peaks[mine][:, [right, up]],
                [t for t, m in zip(texts, mine, strict=True) if m], look, views.frames[view],
                None if numbered else views.brains[view][None],
            )  # fmt: skip
