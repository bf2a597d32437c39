"""A picture of a correlation template: how strong its links are, and a kernel made of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.errors import OutputError, SettingError
from gpu_sdm.io.tables import write_bytes
from gpu_sdm.ops.virtual_distance import Graph, peak_distance
from gpu_sdm.spaces import grid_affine
from gpu_sdm.stages.bounds import REACH_PER_FWHM, peak_kernel
from gpu_sdm.stages.template import direction_rows
from gpu_sdm.templates import OFFSETS, REFERENCE_FWHM, Template

# (name, axis cut, axis to the right, axis upwards)
_PLANES = (("axial z", 2, 0, 1), ("coronal y", 1, 0, 2), ("sagittal x", 0, 1, 2))
_ENDS = (("L", "R"), ("L", "R"), ("P", "A"))
_TICKS = (-80, -40, 0, 40, 80)
_AROUND_MM = 45
_OUTLINES: dict[str, dict[str, Any]] = {
    "k = .5": {"color": "white", "linewidth": 1.8},
    f"k = .5 of a {REFERENCE_FWHM:g} mm Gaussian": {
        "color": "#56B4E9", "linewidth": 1.8, "linestyle": "--",
    },
}  # fmt: skip


def mean_face_correlation(template: Template) -> np.ndarray:
    """(X, Y, Z) float64 mean correlation with the up to 6 face neighbours; NaN without any."""
    faces = template.r_face.reshape((*template.shape, 3), order="F").astype(np.float64)
    total, count = np.zeros(template.shape), np.zeros(template.shape)
    for axis in range(3):
        # A link to the neighbour below is also that neighbour's link upwards; borders have none.
        for r in (faces[..., axis], np.roll(faces[..., axis], -1, axis)):
            total += r
            count += r > 0
    nowhere = np.full(template.shape, np.nan)
    mean: np.ndarray = np.divide(total, count, out=nowhere, where=count > 0)
    return mean


def kernel_at(template: Template, peak_mm: Sequence[float]) -> np.ndarray:
    """Weight of a peak at every voxel, by a kernel of the default width.

    Parameters
    ----------
    template : Template
        Any.
    peak_mm : (3,) sequence of float
        MNI millimetres.

    Returns
    -------
    (X, Y, Z) float64
        k between 0 and 1.

    Raises
    ------
    SettingError
        If no linked voxel surrounds the peak; the message gives the nearest one.
    """
    peak = np.asarray(peak_mm, np.float64)
    graph = Graph(template.costs, OFFSETS, template.voxel_size, template.domain)
    voxels, far = peak_distance(graph, peak, REACH_PER_FWHM * REFERENCE_FWHM, 1.0, "cpu")
    if not len(voxels):
        linked = np.flatnonzero(template.domain)
        nearest = linked[np.argmin(graph.distance_mm(linked, peak))]
        ijk = np.array(np.unravel_index(nearest, template.shape, order="F"))
        x, y, z = ijk * np.diag(graph.affine)[:3] + graph.affine[:3, 3]
        raise SettingError(
            f"The template has no voxel at the peak ({peak[0]:g}, {peak[1]:g}, {peak[2]:g}); "
            f"the nearest is --peak {x:g},{y:g},{z:g}."
        )
    k = np.zeros(len(template.costs))
    k[voxels] = peak_kernel(far, REFERENCE_FWHM)
    return k.reshape(template.shape, order="F")


def draw(template: Template, peak_mm: Sequence[float], out: Path, title: str) -> None:
    """Draw slices of the mean face correlation and of the kernel around a peak.

    Parameters
    ----------
    template : Template
        Any.
    peak_mm : (3,) sequence of float
        MNI millimetres; the slices go through it.
    out : path
        A .png file.
    title : str
        Heading.

    Raises
    ------
    SettingError
        If the peak lies outside the template.
    OutputError
        If the file cannot be written; no part of it is left.
    """
    if out.suffix.lower() != ".png":
        raise OutputError(f"{out}: the picture is a PNG; end its name with .png.")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent}: there is no such folder; make it first.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    peak = np.asarray(peak_mm, np.float64)
    k = kernel_at(template, peak_mm)
    r = mean_face_correlation(template)
    low, high = np.nanpercentile(r, [2, 98])
    if not high > low:
        low, high = low - 0.01, high + 0.01
    figure = Figure(figsize=(14, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(2, 4, width_ratios=(1, 1, 1.2, 1.15))
    for column in range(3):
        cut = _Cut(template.voxel_size, peak, column)
        strong = cut.show(grid[0, column], r, cmap="viridis", vmin=low, vmax=high)
        cut.show(grid[1, column], r, cmap="gray", vmin=low - (high - low), vmax=high + (high - low))
        shown = np.where(k > 0, k, np.nan)
        near = cut.show(grid[1, column], shown, cmap="inferno", vmin=0, vmax=1)
        cut.outline(grid[1, column], k)
    figure.colorbar(strong, ax=grid[0, :3], label="mean correlation with face neighbours", pad=0.01)
    figure.colorbar(near, ax=grid[1, :3], label=f"kernel k, {REFERENCE_FWHM:g} mm wide", pad=0.01)
    for column, line in enumerate(_OUTLINES.values()):
        grid[1, 0].plot([], [], label=list(_OUTLINES)[column], **line)
    figure.legend(
        *grid[1, 0].get_legend_handles_labels(), loc="outside lower left", ncol=2, facecolor="0.6"
    )
    _directions(grid[0, 3], template)
    _decay(grid[1, 3], template, peak, k)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    write_bytes(out, content.getvalue())


class _Cut:
    """One plane through a peak, in MNI millimetres, x from left to right."""

    def __init__(self, voxel_size: int, peak: np.ndarray, plane: int) -> None:
        self._name, self._cut, self._right, self._up = _PLANES[plane]
        self._ends, self._peak = _ENDS[plane], peak
        affine = grid_affine(voxel_size)
        self._size, self._step, self._origin = voxel_size, np.diag(affine)[:3], affine[:3, 3]

    def _plane(self, volume: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Values (up, right) of the slice, both axes rising, and their millimetres."""
        axis = self._cut
        at = round((self._peak[axis] - self._origin[axis]) / self._step[axis])
        self._at_mm = at * self._step[axis] + self._origin[axis]
        plane = np.take(volume, at, axis)  # its axes are the two others, in order
        mm = []
        for position, other in enumerate((self._right, self._up)):
            here = np.arange(volume.shape[other]) * self._step[other] + self._origin[other]
            if self._step[other] < 0:
                plane, here = np.flip(plane, position), here[::-1]
            mm.append(here)
        return plane.T, mm

    def show(self, axes: Any, volume: np.ndarray, **colours: Any) -> Any:
        plane, (right, up) = self._plane(volume)
        half = self._size / 2
        extent = (right[0] - half, right[-1] + half, up[0] - half, up[-1] + half)
        image = axes.imshow(
            plane, origin="lower", extent=extent, interpolation="nearest", **colours
        )
        axes.set_title(f"{self._name} = {self._at_mm:g}", fontsize=11)
        axes.set_xlabel(f"{'xyz'[self._right]} (mm MNI)")
        axes.set_ylabel(f"{'xyz'[self._up]} (mm)", labelpad=0)
        axes.set_xticks([t for t in _TICKS if extent[0] < t < extent[1]])
        axes.set_yticks([t for t in _TICKS if extent[2] < t < extent[3]])
        axes.set_facecolor("0.93")
        for x, letter in zip((0.03, 0.97), self._ends, strict=True):
            axes.text(x, 0.03, letter, transform=axes.transAxes, ha="left" if x < 0.5 else "right")
        return image

    def outline(self, axes: Any, k: np.ndarray) -> None:
        """Move in on the peak; outline k = .5, and a Gaussian's that knows no anatomy."""
        from matplotlib.patches import Circle

        here, gaussian = _OUTLINES.values()
        plane, (right, up) = self._plane(k)
        if plane.min() < 0.5 < plane.max():
            axes.contour(
                right, up, plane, [0.5], colors=here["color"], linewidths=here["linewidth"]
            )
        x, y = self._peak[self._right], self._peak[self._up]
        axes.add_patch(Circle((x, y), REFERENCE_FWHM / 2, fill=False, **gaussian))
        axes.plot(x, y, "+", color=gaussian["color"], markersize=9)
        axes.set_xlim(x - _AROUND_MM, x + _AROUND_MM)
        axes.set_ylim(y - _AROUND_MM, y + _AROUND_MM)
        for set_ticks, middle in ((axes.set_xticks, x), (axes.set_yticks, y)):
            first = 20 * math.ceil((middle - _AROUND_MM) / 20)
            set_ticks(np.arange(first, middle + _AROUND_MM, 20))


def _directions(axes: Any, template: Template) -> None:
    """Mean and 5-95 % of r by direction."""
    rows = [row for row in direction_rows(template) if row["links"]]
    for height, row in enumerate(reversed(rows)):
        axes.plot([row["r_5"], row["r_95"]], [height, height], color="#0072B2", linewidth=5)
        axes.plot(row["r"], height, "o", color="black", markersize=6)
    axes.set_yticks(range(len(rows)), [str(row["direction"]) for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("r of neighbours (mean, 5-95 %)")
    axes.set_title("by direction", fontsize=11)
    axes.grid(axis="x", alpha=0.3)


def _decay(axes: Any, template: Template, peak: np.ndarray, k: np.ndarray) -> None:
    """K by real distance from the peak, over the voxels of the template."""
    graph = Graph(template.costs, OFFSETS, template.voxel_size, template.domain)
    voxels = np.flatnonzero(template.domain)
    far, found = graph.distance_mm(voxels, peak), k.ravel(order="F")[voxels]
    width = template.voxel_size
    middles, ranges = [], []
    for start in np.arange(0, 2 * REFERENCE_FWHM, width):
        here = found[(far >= start) & (far < start + width)]
        if len(here):
            middles.append(start + width / 2)
            ranges.append([here.mean(), *np.percentile(here, [5, 95])])
    mean, low, high = np.transpose(ranges)
    axes.fill_between(middles, low, high, color="#E69F00", alpha=0.35, label="5-95 % of voxels")
    axes.plot(middles, mean, "o-", color="#B35900", markersize=4, label="mean")
    line = np.linspace(0, 2 * REFERENCE_FWHM, 100)
    sigma = REFERENCE_FWHM / math.sqrt(8 * math.log(2))
    gaussian = np.exp(-(line**2) / (2 * sigma**2))
    axes.plot(line, gaussian, "--", color="#56B4E9", label=f"Gaussian, {REFERENCE_FWHM:g} mm")
    axes.set_xlabel("real distance from the peak (mm)")
    axes.set_ylabel("k", labelpad=0)
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("the same kernel by distance", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.3)
