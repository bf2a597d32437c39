"""Axial mosaic: slices that together cover every cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.figures._brain import Scale, hide
from gpu_sdm.figures.palette import Look
from gpu_sdm.figures.slices import cuts
from gpu_sdm.spaces import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINE = {False: 8.0, True: 12.0}  # mm between slices of a wide and of a narrow figure


def heights(shown: np.ndarray, space: Space, fine: float) -> list[float]:
    """Places along z of a mosaic.

    Parameters
    ----------
    shown : (V,) bool
        Voxels that the slices must cover; all where there is none.
    space : Space
        Grid and mask.
    fine : float
        Largest step, mm.

    Returns
    -------
    list of float
        Millimetres, on the grid, at equal steps, from a little below the lowest to a little above
        the highest voxel shown.
    """
    step = space.voxel_size
    z = space.mm()[:, 2]
    # A map without a threshold: the last slices of the brain show next to nothing.
    z = (
        z[shown]
        if shown.any() and not shown.all()
        else np.percentile(z, [1, 99]).round() // step * step
    )
    stride = max(1, int(fine / step)) * step
    count = int(np.ceil((z.max() - z.min()) / stride - 1e-9)) + 1
    spare = (count - 1) * stride - (z.max() - z.min())
    first = float(z.min()) - step * (spare // (2 * step))
    return [first + stride * k for k in range(count)]


def columns_of(cells: int, narrow: bool) -> int:
    """Choose how many cells a row has, so that few rows are few cells short."""
    choices = range(3, 6) if narrow else range(5, 9)

    def cost(columns: int) -> int:
        rows = -(-cells // columns)
        return 2 * rows + (rows * columns - cells if rows > 1 else 0)

    return cells if cells < choices[0] else min(choices, key=cost)


def mosaic(
    values: np.ndarray,
    space: Space,
    shown: np.ndarray | None = None,
    *,
    fine: float | None = None,
    name: str = "z",
    scale: Scale | None = None,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw axial slices from the lowest to the highest voxel shown.

    Parameters
    ----------
    values, space, shown, name, scale, title, look
        As for `slices.slices`.
    fine : float, optional
        Largest step, mm; 8, in a narrow figure 12.
    """
    drawn = np.isfinite(hide(values, shown))
    at = heights(drawn, space, FINE[look.narrow] if fine is None else fine)
    return cuts(
        values,
        space,
        at,
        shown=shown,
        name=name,
        scale=scale,
        locator=0.0,
        columns=columns_of(len(at) + 1, look.narrow),
        title=title,
        look=look,
    )
