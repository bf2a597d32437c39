"""The scaling curves as a picture: time above, peak memory below, one column an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from peers_curves import AXES

from gpu_sdm.figures.palette import NEGATIVE, PAGE, POSITIVE, Look, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEMORY = "#009E73"  # of the same palette of Okabe and Ito


def _ticks(ax: Axes, values: np.ndarray) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    ax.set_xscale("log")
    ax.set_xticks(values, [f"{v / 1000:.3g}k" if v >= 10_000 else f"{v:g}" for v in values])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", labelrotation=45)


def _decimal(ax: Axes, low: float, high: float) -> None:
    """Logarithmic from below `low` to above `high`, numbers written out."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    ax.set_yscale("log")
    ax.set_ylim(0.7 * low, 1.5 * high)
    steps = [m * 10.0**e for e in range(-4, 4) for m in (1, 2, 5)]
    ax.set_yticks([s for s in steps if 0.7 * low <= s <= 1.5 * high])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


@styled
def curves_figure(peers: dict[str, Any], *, look: Look | None = None) -> Figure:
    """Draw what was measured; a dotted line is proportion to the last point.

    Parameters
    ----------
    peers : dict
        Content of bench/results/peers-DATE.json.
    look : Look, optional
        Width and background.
    """
    look = look or Look(PAGE)
    figure = new_figure(look, 92)
    panels = figure.subplots(2, len(AXES), squeeze=False, sharey="row")
    every = {axis: peers["parts"].get(f"curve-{axis}", {}).get("rows", []) for axis in AXES}
    points = [row for rows in every.values() for row in rows]
    seconds = [row[f"{clock}_s"] / row["permutations"] for row in points for clock in
               ("wall", "cpu")]  # fmt: skip
    memory = [row["peak_gb"] for row in points]
    for (axis, rows), (top, bottom) in zip(every.items(), panels.T, strict=True):
        if not rows:
            continue
        x = np.array([row[axis] for row in rows], float)
        n = np.array([row["permutations"] for row in rows], float)
        wall, cpu = (np.array([row[f"{c}_s"] for row in rows]) / n for c in ("wall", "cpu"))
        for y, colour, marker, name in (
            (wall, POSITIVE, "o", f"wall, {rows[0]['threads']} threads"),
            (cpu, NEGATIVE, "s", "processor"),
        ):
            top.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1, label=name)
        proportion = wall[-1] if axis == "permutations" else wall[-1] * x / x[-1]
        top.plot(x, proportion + 0 * x, color=look.muted, linestyle=":", linewidth=0.8,
                 label="in proportion")  # fmt: skip
        bottom.plot(x, [row["peak_gb"] for row in rows], color=MEMORY, marker="^", markersize=3,
                    linewidth=1)  # fmt: skip
        bottom.set_xlabel(axis)
        for ax in (top, bottom):
            _ticks(ax, x)
            ax.grid(color=look.faint, linewidth=0.3)
        top.tick_params(axis="x", labelbottom=False)
    if points:
        _decimal(panels[0, 0], min(seconds), max(seconds))
        _decimal(panels[1, 0], min(memory), max(memory))
    panels[0, 0].set_ylabel("seconds a permutation")
    panels[1, 0].set_ylabel("peak memory, GB")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
    return figure
