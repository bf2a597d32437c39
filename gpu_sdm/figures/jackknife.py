"""Jackknife strip: z or g at a cluster's peak without each study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpu_sdm.checks import Options
from gpu_sdm.figures.palette import NEGATIVE, POSITIVE, Look, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_MM, HEAD_MM = 4.2, 20.0
MARGIN = 0.06  # of the axis, on both sides
LEAST = 0.15  # width of the axis, of the largest value
# How far away something still belongs to the axis, in widths of the values.
NEAR_THRESHOLD, NEAR_ZERO = 1.5, 0.5
UNITS = {"z": "SDM-Z", "g": "Hedges g"}


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _limits(values: Sequence[float], threshold: float | None) -> tuple[float, float]:
    """Give the ends of the axis: around the values, and what lies near enough to compare with.

    The threshold and zero belong to it unless they would press the values into a corner. The axis
    has a least width: differences that are nothing beside the value shall not look like much.
    """
    low, high = min(values), max(values)
    short = LEAST * max(map(abs, values), default=0) - (high - low)
    if short > 0:
        low, high = low - short / 2, high + short / 2
    for other, near in ((threshold, NEAR_THRESHOLD), (0.0, NEAR_ZERO)):
        if other is not None and max(low - other, other - high) <= near * (high - low):
            low, high = min(low, other), max(high, other)
    margin = MARGIN * (high - low) or 1.0
    return low - margin, high + margin


@styled
def jackknife(
    folds: Sequence[Mapping[str, Any]],
    whole: float,
    *,
    value: str = "z",
    threshold: float | None = None,
    threshold_is: str = "threshold",
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw what leaving out each study does to one cluster's peak.

    Parameters
    ----------
    folds : sequence of rows
        Those of one cluster from `findings.jackknife` (`jackknife.tsv`).
    whole : float
        z or g with all studies.
    value : {"z", "g"}
        What to show.
    threshold : float, optional
        Where a line is drawn; of the sign of `whole`. Far from all values, only the legend
        says it.
    threshold_is : str
        What it is, for the legend.
    title : str
        Heading.
    look : Look
        Width and background.
    """
    Options(tuple(UNITS)).check("value", value)
    found = [float(row[f"{value}_peak"]) for row in folds]
    count = len(folds)
    figure = new_figure(look, HEAD_MM + ROW_MM * count)
    axes = figure.add_subplot()
    low, high = _limits([*found, whole], threshold)
    axes.axvline(0, color=look.faint, linewidth=0.8, zorder=0)
    axes.axvline(whole, color=look.ink, linewidth=0.9, zorder=1, label="all studies", gid="whole")
    if threshold is not None:
        says = f"{threshold_is}: {_signed(threshold)}"
        if not low <= threshold <= high:
            says += f", {'left' if threshold < low else 'right'} of the axis"
        axes.axvline(threshold, color=look.muted, linewidth=0.9, linestyle="--", zorder=1,
                     label=says, gid="threshold")  # fmt: skip
    colour = POSITIVE if whole >= 0 else NEGATIVE
    labels = {True: "cluster survives", False: "cluster lost"}
    for kept, label in labels.items():
        at = [i for i, row in enumerate(folds) if bool(row["survives"]) == kept]
        if at:
            axes.scatter([found[i] for i in at], [count - 1 - i for i in at], s=22, zorder=3,
                         facecolor=colour if kept else look.background, edgecolor=colour,
                         linewidth=1.1, label=label, gid="kept" if kept else "lost")  # fmt: skip
    for i, x in enumerate(found):
        axes.plot([whole, x], [count - 1 - i] * 2, color=colour, linewidth=0.7, zorder=2)
    axes.set_yticks(range(count), [str(row["left_out"]) for row in reversed(folds)],
                    parse_math=False)  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.7, count - 0.3)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{UNITS[value]} at the peak without the study")
    axes.set_title(title, parse_math=False)
    figure.legend(loc="outside lower center", ncols=2 if look.narrow else 4)
    return figure
