"""How a corrected p settles as permutations accumulate, with its binomial 95 % band."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.figures.palette import Look, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST = 10  # permutations before which a p says nothing
POINTS = 400  # of a line
NAMED = 2  # of the names that share a line
COLOURS = {
    "white": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"),
    "black": ("#56B4E9", "#E69F00", "#2FC79A", "#CC79A7", "#FFFFFF"),
}


def running_p(null: np.ndarray, observed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corrected p after each permutation, and its 95 % interval.

    Parameters
    ----------
    null : (P,) float
        Maxima of the side, in the order in which they came; the observed one first.
    observed : float
        The statistic whose p is asked for.

    Returns
    -------
    p, low, high : (P,) float64
        ``(b + 1) / (n + 1)`` of n permuted maxima of which b are as large, where the first of
        `null` is the 1; Clopper and Pearson's interval of b of n (all of (0, 1) where n is 0).

    References
    ----------
    .. [1] Phipson B, Smyth GK (2010) Permutation p-values should never be zero. Stat Appl Genet
       Mol Biol 9:39.
    .. [2] Clopper CJ, Pearson ES (1934) The use of confidence or fiducial limits illustrated in
       the case of the binomial. Biometrika 26:404-413.
    """
    from scipy.special import betaincinv

    above = np.asarray(null, np.float64) >= observed
    n = np.arange(len(above))  # permuted ones so far
    b = np.cumsum(above) - above[0]
    p = np.cumsum(above) / (n + 1)
    low, high = np.zeros(len(n)), np.ones(len(n))
    some, notall = b > 0, b < n
    low[some] = betaincinv(b[some], n[some] - b[some] + 1, 0.025)
    high[notall] = betaincinv(b[notall] + 1, n[notall] - b[notall], 0.975)
    return p, low, high


@styled
def convergence(
    series: Mapping[str, tuple[np.ndarray, float]],
    *,
    alpha: float = 0.05,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw p against the number of permutations.

    Parameters
    ----------
    series : mapping of str to ((P,) float, float)
        Name of a cluster or peak -> maxima of its side and its own statistic.
    alpha : float
        Where a line is drawn.
    title : str
        Heading.
    look : Look
        Width and background.
    """
    figure = new_figure(look, look.width_mm * (0.85 if look.narrow else 0.5))
    axes = figure.add_subplot()
    smallest = 1.0
    for k, (names, (p, low, high)) in enumerate(_together(series)):
        n = np.arange(1, len(p) + 1)
        shown = np.unique(np.geomspace(min(FIRST, len(p)), len(p), POINTS).astype(int)) - 1
        colour = COLOURS[look.background][k % len(COLOURS[look.background])]
        axes.fill_between(n[shown], low[shown], high[shown], color=colour, alpha=0.18, linewidth=0,
                          gid="band")  # fmt: skip
        axes.plot(n[shown], p[shown], color=colour, linewidth=1.4, gid="p",
                  label=f"{_says(names)}: p = {p[-1]:.3g}")  # fmt: skip
        smallest = min(smallest, float(p[shown].min()))
    axes.axhline(alpha, color=look.muted, linewidth=0.9, linestyle="--", gid="alpha",
                 label=f"p = {alpha:g}")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(min(smallest, alpha) / 3, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda v, _: f"{v:,.0f}" if v >= 1 else f"{v:g}")
        axis.set_minor_formatter(lambda v, _: "")
    axes.set_xlabel("permutations")
    axes.set_ylabel("corrected p, 95 % band")
    axes.set_title(title, parse_math=False)
    legend = figure.legend(loc="outside lower center", ncols=1 if look.narrow else 2)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def _together(series: Mapping[str, tuple[np.ndarray, float]]) -> list[tuple[list[str], Curve]]:
    """Join the names whose p is the same after every permutation: one line would hide the rest."""
    found: dict[bytes, tuple[list[str], Curve]] = {}
    for name, (null, observed) in series.items():
        curve = running_p(null, observed)
        found.setdefault(curve[0].tobytes(), ([], curve))[0].append(name)
    return list(found.values())


def _says(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
