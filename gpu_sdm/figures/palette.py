"""Colours that colour-blind readers tell apart, fonts and sizes: what all figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from gpu_sdm.checks import Interval, Options

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap
    from matplotlib.figure import Figure

# Okabe and Ito's, told apart without red against green.
POSITIVE, NEGATIVE = "#D55E00", "#0072B2"
STUDY, IMPUTED = "#0072B2", "#E69F00"
STUDIES = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # a second sign beside the colour
# From the weakest to the strongest: lightness rises, so that strong voxels stand out of grey.
RAMPS = {
    "positive": ("#9E3203", "#D55E00", "#F28E1C", "#FFC64D", "#FFF0A8"),
    "negative": ("#0B3C7D", "#0072B2", "#2E9BD6", "#6CC4F2", "#B9E8FF"),
}
STEPS = 256
FADED = 0.5  # share of the scale below which a map without a threshold fades
FONTS = ("DejaVu Sans", "Verdana", "Arial", "sans-serif")
MM = 25.4  # in an inch
COLUMN, PAGE = 85.0, 180.0  # mm, widths of one and of two columns
SALT = "gpu-sdm"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Look:
    """How a figure is to look.

    Parameters
    ----------
    width_mm : float
        Width of the figure; 85 and 180 mm are the columns of most journals.
    background : {"white", "black"}
        Paper colour.

    Raises
    ------
    SettingError
        If a value lies outside its range.
    """

    width_mm: float = PAGE
    background: str = "white"

    def __post_init__(self) -> None:
        Interval(40, 1000).check("width", self.width_mm)
        Options(("white", "black")).check("background", self.background)

    @property
    def width(self) -> float:
        """Inches."""
        return self.width_mm / MM

    @property
    def narrow(self) -> bool:
        """Whether it is nearer to one column than to two."""
        return self.width_mm < (COLUMN + PAGE) / 2

    @property
    def ink(self) -> str:
        """Colour of text and lines."""
        return "black" if self.background == "white" else "white"

    @property
    def muted(self) -> str:
        """Colour of what stays behind; readable (contrast above 4.5) on the background."""
        return "0.40" if self.background == "white" else "0.70"

    @property
    def faint(self) -> str:
        """Colour of grids and zero lines."""
        return "0.80" if self.background == "white" else "0.35"

    @property
    def study(self) -> str:
        """Colour of studies whose effect is known."""
        return STUDY if self.background == "white" else "#56B4E9"

    @property
    def font(self) -> float:
        """Points of labels and text."""
        return 7.0 if self.narrow else 8.0

    @property
    def small(self) -> float:
        """Points of ticks and notes."""
        return 6.0 if self.narrow else 7.0

    def rc(self) -> dict[str, Any]:
        """Give the settings of matplotlib."""
        return {
            "font.family": "sans-serif",
            "font.sans-serif": list(FONTS),
            "font.size": self.font,
            "axes.titlesize": self.font,
            "axes.labelsize": self.font,
            "xtick.labelsize": self.small,
            "ytick.labelsize": self.small,
            "legend.fontsize": self.small,
            "figure.titlesize": self.font + 1,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.unicode_minus": True,
            "legend.frameon": False,
            "figure.facecolor": self.background,
            "savefig.facecolor": self.background,
            "axes.facecolor": self.background,
            **dict.fromkeys(
                ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
                self.ink,
            ),
        }


@contextmanager
def drawing(look: Look) -> Iterator[None]:
    """Draw with our settings, whatever the user's; they are put back."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in look.rc().items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Draw a figure in its `look`, a keyword of the function."""

    @wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> R:
        look = kwargs.get("look")
        with drawing(look if isinstance(look, Look) else Look()):
            return function(*args, **kwargs)

    return draw


def new_figure(look: Look, height_mm: float) -> Figure:
    """Make an empty figure on a canvas that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(look.width, height_mm / MM), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def ramp(side: str) -> LinearSegmentedColormap:
    """Colours of a side, from the weakest to the strongest.

    Parameters
    ----------
    side : {"positive", "negative"}
        Sign of the effects.
    """
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(f"sdm_{side}", RAMPS[side], STEPS)


def diverging(low: float, high: float, fade: bool = False) -> ListedColormap:
    """Colours of both sides on one scale from -high to high.

    Parameters
    ----------
    low, high : float
        Weakest and strongest absolute value shown; nothing is drawn between -low and low.
    fade : bool
        Whether values below half of `high` grow transparent, as a map without a threshold wants.

    References
    ----------
    .. [1] Taylor PA et al. (2023) Highlight results, don't hide them. NeuroImage 274:120138.
    """
    from matplotlib.colors import ListedColormap

    at = np.linspace(-high, high, 2 * STEPS)
    strength = np.clip((np.abs(at) - low) / max(high - low, 1e-12), 0, 1)
    both = np.where(at[:, None] > 0, ramp("positive")(strength), ramp("negative")(strength))
    if fade:
        both[:, 3] = np.clip(np.abs(at) / (FADED * high), 0, 1)
    # Half a colour's width: the weakest value itself must not fall into the gap.
    both[np.abs(at) < low - high / (2 * STEPS), 3] = 0
    return ListedColormap(both, "sdm_diverging")


def study_style(k: int) -> tuple[str, str]:
    """Colour and marker of study number `k`; the pair repeats after 56."""
    return STUDIES[k % len(STUDIES)], MARKERS[(k // len(STUDIES)) % len(MARKERS)]
