"""Bubble plot of a moderator, in the look of the other figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_sdm.figures.palette import Look, new_figure, styled
from gpu_sdm.findings.bubble import Bubbles, paint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def bubble(shown: Bubbles, *, look: Look = Look()) -> Figure:  # noqa: B008 -- frozen
    """Draw a bubble plot.

    Parameters
    ----------
    shown : Bubbles
        From `findings.bubble.bubbles`.
    look : Look
        Width and background.
    """
    figure = new_figure(look, look.width_mm * (0.9 if look.narrow else 0.6))
    paint(figure.add_subplot(), shown, look.ink, look.small)
    return figure
