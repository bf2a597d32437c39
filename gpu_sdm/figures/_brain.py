"""What the brain figures share: volumes in millimetres, the underlay, the scale and its bar."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm import cache
from gpu_sdm.figures.palette import Look, diverging
from gpu_sdm.spaces import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap

# Plane -> (axis cut, axis to the right, axis upwards) of an array whose axes are R, A, S.
PLANES = {"x": (0, 1, 2), "y": (1, 0, 2), "z": (2, 0, 1)}
BRAIN_MM = ((-74.0, 74.0), (-110.0, 77.0), (-72.0, 85.0))  # what is shown along each axis
UNITS = {
    "z": "SDM-Z",
    "g": "Hedges g",
    "se": "standard error of Hedges g",
    "tau2": "\N{GREEK SMALL LETTER TAU}\N{SUPERSCRIPT TWO}",
    "i2": "I\N{SUPERSCRIPT TWO} (%)",
    "h2": "H\N{SUPERSCRIPT TWO}",
    "q": "Q",
    "tfce": "TFCE",
    "log_p": "\N{MINUS SIGN}log\N{SUBSCRIPT ONE}\N{SUBSCRIPT ZERO} p",
}


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume whose axes point right, forward and up.

    Parameters
    ----------
    data : (X, Y, Z) float
        Values; NaN is not drawn.
    origin : (3,) float64
        MNI millimetres of the centre of its first voxel.
    step : float
        Size of a voxel, mm.
    """

    data: np.ndarray
    origin: np.ndarray
    step: float

    def index(self, axis: int, mm: float) -> int:
        """Nearest plane at a place along an axis."""
        return int(
            np.clip(round((mm - self.origin[axis]) / self.step), 0, self.data.shape[axis] - 1)
        )

    def plane(self, name: str, mm: float) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """Give a slice (up, right) and its extent in millimetres."""
        cut, _, _ = PLANES[name]
        at = (slice(None),) * cut + (self.index(cut, mm),)
        return self.data[at].T, self.extent(name)

    def extent(self, name: str) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of a plane in millimetres."""
        _, right, up = PLANES[name]
        half = self.step / 2
        ends = [
            (self.origin[a] - half, self.origin[a] + (self.data.shape[a] - 1) * self.step + half)
            for a in (right, up)
        ]
        return (*ends[0], *ends[1])


def volume_of(values: np.ndarray, space: Space) -> Volume:
    """Give a map (V,) as a volume; NaN outside the mask."""
    # The grid's x axis points left.
    data = space.embed(values, np.nan)[::-1]
    origin = space.affine[:3, 3].copy()
    origin[0] -= (space.shape[0] - 1) * space.voxel_size
    return Volume(data, origin, float(space.voxel_size))


def _packaged() -> dict[str, np.ndarray]:
    """Read nilearn's T1: its values, first axis to the right, and where they lie."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    data = np.asarray(image.dataobj, np.float32)
    affine = np.asarray(image.affine, np.float64)
    if affine[0, 0] < 0:
        data = data[::-1]
        affine[0, 3] += affine[0, 0] * (data.shape[0] - 1)
    return {"data": np.where(data > 0, data, np.nan), "affine": affine}


@functools.cache
def underlay() -> Volume:
    """Give the skull-stripped MNI152 T1 at 1 mm that nilearn carries; NaN outside the brain.

    Kept in the cache, as nilearn takes seconds to import.
    """
    entry = cache.key("underlay", metadata.version("nilearn"))
    stored = cache.kept("underlay", entry, _packaged)
    affine = stored["affine"]
    return Volume(stored["data"], affine[:3, 3], abs(float(affine[0, 0])))


@dataclass(frozen=True)
class Scale:
    """One colour scale for all panels of a figure.

    Parameters
    ----------
    low, high : float
        Weakest and strongest absolute value with a colour.
    positive, negative : bool
        Which sides occur.
    unit : str
        Under the bar.
    fade : bool
        Whether weak values grow transparent.
    """

    low: float
    high: float
    positive: bool
    negative: bool
    unit: str
    fade: bool = False

    def cmap(self) -> ListedColormap:
        """Colours from -high to high."""
        return diverging(self.low, self.high, self.fade)

    def options(self) -> dict[str, Any]:
        """Give what imshow needs."""
        return {"cmap": self.cmap(), "vmin": -self.high, "vmax": self.high}


def scale_of(shown: np.ndarray, name: str = "z", high: float | None = None) -> Scale:
    """Make the scale of a map.

    Parameters
    ----------
    shown : (V,) float
        Values; zero and NaN are not drawn.
    name : str
        Which map; gives the unit.
    high : float, optional
        Strongest value with its own colour; by default the largest, rounded up to two digits.
    """
    drawn = shown[np.isfinite(shown) & (shown != 0)].astype(np.float64)
    unit = UNITS.get(name, name)
    if not len(drawn):
        return Scale(0.0, 1.0 if high is None else high, True, True, unit)
    top = float(np.abs(drawn).max()) if high is None else high
    if high is None:
        digit = 10.0 ** (np.floor(np.log10(top)) - 1)
        top = float(f"{np.ceil(top / digit - 1e-9) * digit:.6g}")
    low = float(np.abs(drawn).min())
    return Scale(
        low if low < top else 0.0, top, bool((drawn > 0).any()), bool((drawn < 0).any()), unit
    )


def hide(values: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    """Give a copy (V,) float32 in which zeros, and what is not to be shown, are NaN."""
    kept = np.asarray(values, np.float32).copy()
    kept[kept == 0] = np.nan
    if shown is not None:
        kept[~np.asarray(shown, bool)] = np.nan
    return kept


def draw_anatomy(axes: Axes, name: str, mm: float) -> None:
    """Draw one slice of the anatomy, in millimetres."""
    grey, extent = underlay().plane(name, mm)
    axes.imshow(grey, origin="lower", extent=extent, cmap="gray", vmin=0.1, vmax=1.15,
                interpolation="bilinear")  # fmt: skip


def draw_slice(
    axes: Axes,
    overlay: Volume,
    name: str,
    mm: float,
    scale: Scale,
    look: Look,
    letters: bool = True,
) -> None:
    """Draw one slice over the anatomy, in millimetres, without a frame."""
    draw_anatomy(axes, name, mm)
    colours, extent = overlay.plane(name, mm)
    axes.imshow(colours, origin="lower", extent=extent, interpolation="nearest", gid="overlay",
                **scale.options())  # fmt: skip
    bare(axes, name, look, letters)


def bare(axes: Axes, name: str, look: Look, letters: bool = True) -> None:
    """Show the whole brain on equal axes without ticks; mark left and right."""
    _, right, up = PLANES[name]
    axes.set_xlim(*BRAIN_MM[right])
    axes.set_ylim(*BRAIN_MM[up])
    axes.set_aspect("equal")
    axes.set_axis_off()
    if right == 0 and letters:
        for x, letter in ((0.0, "L"), (1.0, "R")):
            axes.text(x, 0.98, letter, transform=axes.transAxes, va="top", fontsize=look.small,
                      ha="left" if x < 0.5 else "right", color=look.ink)  # fmt: skip


def millimetres(name: str, mm: float) -> str:
    """Write "z = -12"."""
    return f"{name} = {mm:.0f}".replace("-", "\N{MINUS SIGN}")
