"""Histogram of the permutation null: maxima of either side, the observed one and the threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.clusters import SIDES
from gpu_sdm.figures.palette import NEGATIVE, POSITIVE, RAMPS, Look, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAYS = {
    "voxel": "maximum of SDM-Z",
    "score": "maximum of the score",
    "tfce": "maximum of TFCE",
    "cluster-extent": "largest cluster (voxels)",
    "cluster-mass": "largest cluster mass",
}
COLOURS = {"positive": POSITIVE, "negative": NEGATIVE}


def fwe_threshold(null: np.ndarray, alpha: float = 0.05) -> float:
    """Smallest of the maxima whose corrected p is at most `alpha`; infinite where none is.

    Parameters
    ----------
    null : (P,) float
        Maxima of one side, the observed one among them.
    alpha : float
        Error rate.
    """
    values = np.sort(np.asarray(null, np.float64))
    # p of the value at rank i: how many are as large; ties share the first rank.
    p = 1 - np.searchsorted(values, values, side="left") / len(values)
    passing = values[p <= alpha * (1 + 1e-9)]
    return float(passing[0]) if len(passing) else float("inf")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@styled
def null(
    maxima: np.ndarray,
    statistic: str = "tfce",
    *,
    alpha: float = 0.05,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw the null of the maximum on both sides.

    Parameters
    ----------
    maxima : (2, P) float
        `Finished.maxima()[statistic]`: positive side first, the observed first.
    statistic : {"voxel", "score", "tfce", "cluster-extent", "cluster-mass"}
        What they are maxima of.
    alpha : float
        Error rate of the threshold that is marked.
    title : str
        Heading.
    look : Look
        Width and background.
    """
    maxima = np.asarray(maxima, np.float64)
    permuted = maxima[:, 1:] if maxima.shape[1] > 1 else maxima
    figure = new_figure(look, look.width_mm * (1.15 if look.narrow else 0.4))
    shape = (2, 1) if look.narrow else (1, 2)
    panels = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).ravel()
    low, high = float(permuted.min()), float(permuted.max())
    bins = np.linspace(low, high if high > low else low + 1, _bins(permuted.shape[1]))
    for axes, side, values, others in zip(panels, SIDES, maxima, permuted, strict=True):
        colour = COLOURS[side] if look.background == "white" else RAMPS[side][2]
        axes.hist(others, bins, color=colour, alpha=0.5, linewidth=0, gid=f"null_{side}")
        cut, observed = fwe_threshold(values, alpha), values[0]
        p = float((values >= observed).mean())
        if np.isfinite(cut):
            axes.axvline(cut, color=look.ink, linewidth=1, linestyle="--", gid="threshold",
                         label=f"corrected p = {alpha:g}: {_number(cut)}")  # fmt: skip
        axes.axvline(observed, color=colour, linewidth=2, gid="observed",
                     label=f"observed: {_number(observed)}, p = {p:.3g}")  # fmt: skip
        axes.set_xlabel(SAYS.get(statistic, statistic))
        axes.set_ylabel("permutations")
        axes.label_outer()
        axes.xaxis.set_major_formatter(lambda x, _: _number(x) if x else "0")
        # Beside the bars there is no place that is free in every null.
        axes.legend(title=side, title_fontsize=look.font, loc="lower center", ncols=2,
                    bbox_to_anchor=(0.5, 1.0), columnspacing=1.2, handlelength=1.5)  # fmt: skip
    text = f"{title}: " if title else ""
    figure.suptitle(f"{text}{maxima.shape[1]:,} permutations", parse_math=False)
    return figure


def _bins(count: int) -> int:
    return int(np.clip(np.sqrt(count) * 1.5, 8, 60)) + 1
