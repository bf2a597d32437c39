"""The outline of a glass brain, as nilearn draws it."""

from __future__ import annotations

import functools
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm import cache

if TYPE_CHECKING:
    from matplotlib.path import Path


def _drawn(view: str, background: str) -> dict[str, np.ndarray]:
    """Draw nilearn's brain: its bounds, a colour and the points and codes of a path for each."""
    from matplotlib.figure import Figure
    from matplotlib.path import Path
    from nilearn.plotting.glass_brain import plot_brain_schematics

    axes = Figure().add_axes((0, 0, 1, 1), facecolor=background)
    bounds = plot_brain_schematics(axes, view)
    paths: dict[Any, list[Path]] = {}
    for patch in axes.patches:
        in_mm = patch.get_transform() - axes.transData
        paths.setdefault(patch.get_edgecolor(), []).append(in_mm.transform_path(patch.get_path()))
    found = {"bounds": np.array(bounds, np.float64), "colours": np.array(list(paths))}
    for i, own in enumerate(paths.values()):
        path = Path.make_compound_path(*own)
        found[f"points{i}"], found[f"codes{i}"] = np.asarray(path.vertices), np.asarray(path.codes)
    return found


@functools.cache
def outline(view: str, background: str) -> tuple[list[tuple[Path, Any]], tuple[float, ...]]:
    """Give nilearn's drawing of a brain: a path for each colour, and its bounds.

    nilearn makes hundreds of patches anew for every view; one path is drawn in a fraction of that.
    Kept in the cache, as nilearn takes seconds to import.
    """
    from matplotlib.path import Path

    entry = cache.key("outline", view, background, metadata.version("nilearn"))
    stored = cache.kept("outline", entry, lambda: _drawn(view, background))
    paths = [
        (Path(stored[f"points{i}"], stored[f"codes{i}"]), tuple(colour))
        for i, colour in enumerate(stored["colours"])
    ]
    return paths, tuple(map(float, stored["bounds"]))
