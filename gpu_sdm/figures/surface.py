"""The cortical surface (fsaverage5, which nilearn carries), lateral and medial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.figures._brain import Scale, hide, scale_of, volume_of
from gpu_sdm.figures._sheet import Sheet
from gpu_sdm.figures.palette import Look, styled
from gpu_sdm.spaces import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
NARROW = (("left", "lateral"), ("right", "lateral"), ("left", "medial"), ("right", "medial"))
NAME_MM = 3.6
MORE = 0.08  # of a cell's width: how far the box of a 3-D plot reaches over it
DEPTHS = 10  # places between white and pial surface


def on_surface(kept: np.ndarray, space: Space, hemisphere: str) -> np.ndarray:
    """Give a map at the vertices of a hemisphere.

    Parameters
    ----------
    kept : (V,) float
        The map; NaN is not shown.
    space : Space
        Grid and mask.
    hemisphere : {"left", "right"}
        Which.

    Returns
    -------
    (n,) float64
        Mean over the shown voxels between white and pial surface; NaN where there is none.
    """
    from nilearn.datasets import load_fsaverage

    mesh = load_fsaverage("fsaverage5")
    white, pial = (
        np.asarray(mesh[name].parts[hemisphere].coordinates, np.float64)
        for name in ("white_matter", "pial")
    )
    volume = volume_of(kept, space)
    total, count = np.zeros(len(white)), np.zeros(len(white))
    # nilearn's vol_to_surf mixes what is shown with the zeros around it, or stops where a vertex
    # has no voxel that is shown.
    for depth in np.linspace(0, 1, DEPTHS):
        ijk = np.rint(((1 - depth) * white + depth * pial - volume.origin) / volume.step)
        i, j, k = np.clip(ijk.astype(int), 0, np.array(volume.data.shape) - 1).T
        here = volume.data[i, j, k]
        seen = np.isfinite(here)
        total[seen] += here[seen]
        count += seen
    mean: np.ndarray = np.divide(total, count, out=np.full(len(white), np.nan), where=count > 0)
    return mean


@styled
def surface(
    values: np.ndarray,
    space: Space,
    shown: np.ndarray | None = None,
    *,
    name: str = "z",
    scale: Scale | None = None,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw a map on the inflated cortex of both hemispheres.

    Parameters
    ----------
    values, space, shown, name, scale, title, look
        As for `slices.slices`.
    """
    from nilearn.datasets import load_fsaverage, load_fsaverage_data
    from nilearn.plotting import plot_surf_stat_map

    kept = hide(values, shown)
    scale = scale_of(kept, name) if scale is None else scale
    mesh = load_fsaverage("fsaverage5")["inflated"]
    sulci = load_fsaverage_data(mesh="fsaverage5", mesh_type="inflated", data_type="sulcal")
    columns = 2 if look.narrow else 4
    wide = look.width_mm / columns
    high = wide * 0.74
    sheet = Sheet(look, (NAME_MM + high) * (len(VIEWS) // columns), title)
    found = {h: on_surface(kept, space, h) for h in ("left", "right")}
    order = NARROW if look.narrow else VIEWS
    for k, (hemisphere, view) in enumerate(order):
        left, top = (k % columns) * wide, (k // columns) * (NAME_MM + high)
        axes = sheet.axes(
            left - MORE * wide,
            top + NAME_MM - MORE * wide - (wide - high) / 2,
            wide * (1 + 2 * MORE),
            wide * (1 + 2 * MORE),
            projection="3d",
        )
        sheet.text(
            left + wide / 2,
            top + 0.2,
            f"{hemisphere}, {view}",
            ha="center",
            va="top",
            fontsize=look.small,
            color=look.muted,
        )
        plot_surf_stat_map(
            mesh.parts[hemisphere],
            found[hemisphere],
            bg_map=sulci.data.parts[hemisphere],
            hemi=hemisphere,
            view=view,
            engine="matplotlib",
            axes=axes,
            figure=sheet.figure,
            colorbar=False,
            bg_on_data=False,
            cmap=scale.cmap(),
            vmin=-scale.high,
            vmax=scale.high,
        )
        axes.patch.set_visible(False)
        axes.set_gid(f"{hemisphere}_{view}")
        for drawn in axes.collections:  # twenty thousand triangles are no file to edit
            drawn.set_rasterized(True)
    sheet.bar(scale)
    return sheet.figure
