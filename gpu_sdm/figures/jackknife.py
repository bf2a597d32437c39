"""Jackknife strip: z or g at a cluster's peak without each study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpu_sdm.checks import Options
from gpu_sdm.figures.palette import NEGATIVE, POSITIVE, Look, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_MM, HEAD_MM = 4.2, 20.0
UNITS = {"z": "SDM-Z", "g": "Hedges g"}


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


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
        Where a line is drawn; of the sign of `whole`.
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
    axes.axvline(0, color=look.faint, linewidth=0.8, zorder=0)
    axes.axvline(whole, color=look.ink, linewidth=0.9, zorder=1, label="all studies", gid="whole")
    if threshold is not None:
        axes.axvline(threshold, color=look.muted, linewidth=0.9, linestyle="--", zorder=1,
                     label=f"{threshold_is}: {_signed(threshold)}", gid="threshold")  # fmt: skip
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
    axes.set_ylim(-0.7, count - 0.3)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{UNITS[value]} at the peak without the study")
    axes.set_title(title, parse_math=False)
    figure.legend(loc="outside lower center", ncols=2 if look.narrow else 4)
    return figure
