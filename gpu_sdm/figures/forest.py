"""Forest plot: every study's effect at one site, what they pool to, where a new study would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.figures.palette import IMPUTED, Look, new_figure, styled
from gpu_sdm.findings.extract import SUMMARY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_MM, HEAD_MM = 4.2, 25.0
LETTERS = 17  # width of the two columns beside the plot, in font sizes


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def p_text(p: float) -> str:
    """Write "p = 0.031", "p < 0.001" or "p > 0.999"."""
    if p < 0.001:
        return "p < 0.001"
    return "p > 0.999" if p > 0.999 else f"p = {p:.3f}"


def place(row: Mapping[str, Any]) -> str:
    """Name a site for a title."""
    if row["x_mm"] is None or row["x_mm"] != row["x_mm"]:
        return str(row["site"])
    xyz = ", ".join(_number(row[f"{a}_mm"], 0) for a in "xyz")
    size = f"  mean of {row['voxels']} voxels" if row["voxels"] > 1 else ""
    return f"{row['label'] or row['kind']} ({xyz}){size}"


def _diamond(axes: Axes, row: Mapping[str, Any], y: float, colour: str) -> None:
    axes.fill(
        [row["ci_low"], row["g"], row["ci_high"], row["g"]],
        [y, y + 0.32, y, y - 0.32],
        color=colour,
        linewidth=0,
        gid="pooled",
    )


@styled
def forest(
    rows: Sequence[Mapping[str, Any]],
    heterogeneity: Mapping[str, Any] | None = None,
    *,
    title: str | None = None,
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw a forest plot of one site.

    Parameters
    ----------
    rows : sequence of rows
        Those of one site from `findings.extract.extract`: a study each, then the pooled one.
    heterogeneity : row, optional
        The site's from `findings.heterogeneity.heterogeneity`: adds the prediction interval and
        the line of Q, I2 and tau2.
    title : str, optional
        By default the site's region and place.
    look : Look
        Width and background.
    """
    studies = [row for row in rows if row["role"] != SUMMARY]
    pooled = next(row for row in rows if row["role"] == SUMMARY)
    count = len(studies)
    below = 2.0 if heterogeneity is None else 3.0
    figure = new_figure(look, HEAD_MM + ROW_MM * (count + below))
    axes = figure.add_subplot()
    axes.axvline(0, color=look.faint, linewidth=0.8, zorder=0)
    axes.axvline(pooled["g"], color=look.muted, linewidth=0.7, linestyle=":", zorder=0)
    heaviest = max(row["weight"] for row in studies)
    for y, row in enumerate(reversed(studies)):
        colour = look.study if row["known"] else IMPUTED
        axes.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, linewidth=1.1,
                  linestyle="-" if row["known"] else (0, (3, 1.2)))  # fmt: skip
        axes.scatter(row["g"], y, s=6 + 42 * row["weight"] / heaviest, marker="s",
                     facecolor=colour if row["known"] else look.background, edgecolor=colour,
                     linewidth=0.9, zorder=3, gid="study")  # fmt: skip
    bottom = -1.4
    _diamond(axes, pooled, bottom, look.ink)
    ticks, names = list(range(count)), [str(row["study"]) for row in reversed(studies)]
    ticks.append(bottom)  # type: ignore[arg-type]
    names.append(f"pooled, {count} studies")
    limits = [row[k] for row in rows for k in ("ci_low", "ci_high")] + [0.0]
    low_y = bottom - 0.9
    if heterogeneity is not None and np.isfinite(heterogeneity["prediction_low"]):
        interval = [heterogeneity["prediction_low"], heterogeneity["prediction_high"]]
        axes.plot(interval, [bottom - 1] * 2, color=look.ink, linewidth=1.6, gid="prediction",
                  solid_capstyle="butt")  # fmt: skip
        ticks.append(bottom - 1)  # type: ignore[arg-type]
        names.append("prediction interval")
        limits += interval
        low_y -= 1
    axes.set_yticks(ticks, names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(low_y, count + 0.4)
    margin = 0.04 * (max(limits) - min(limits))
    axes.set_xlim(min(limits) - margin, max(limits) + margin)
    right = axes.get_yaxis_transform()

    def write(y: float, points: float, text: str, colour: str, align: str) -> None:
        axes.annotate(text, (1, y), xycoords=right, xytext=(points, 0), va="center", ha=align,
                      textcoords="offset points", fontsize=look.small, color=colour,
                      annotation_clip=False)  # fmt: skip

    first, last = 6.0, (6.0 + LETTERS * look.small)
    heights = [*range(count), bottom]
    for row, y in zip([*reversed(studies), pooled], heights, strict=True):
        text = f"{_number(row['g'])} [{_number(row['ci_low'])}, {_number(row['ci_high'])}]"
        write(y, first, text, look.ink, "left")
        if row is not pooled and not look.narrow:
            write(y, last, f"{row['weight']:.1f} %", look.ink, "right")
    write(count, first, "g [95 % CI]", look.muted, "left")
    if not look.narrow:
        write(count, last, "weight", look.muted, "right")
    axes.set_xlabel("Hedges g")
    note = _note(studies, heterogeneity)
    if note:
        figure.supxlabel(note, fontsize=look.small, color=look.ink, linespacing=1.4)
    axes.set_title(place(pooled) if title is None else title, parse_math=False)
    return figure


def _note(studies: Sequence[Mapping[str, Any]], row: Mapping[str, Any] | None) -> str:
    lines = []
    if row is not None:
        tau2, i2 = row["tau2"], row["i2"]
        lines.append(
            f"Q = {row['q']:.2f}, df = {row['df']}, {p_text(row['p_q'])};  "
            f"I\N{SUPERSCRIPT TWO} = {i2:.1f} %,  \N{GREEK SMALL LETTER TAU}"
            f"\N{SUPERSCRIPT TWO} = {tau2:.3f}"
        )
    if not all(s["known"] for s in studies):
        lines.append("hollow, dashed: imputed; the interval spans the imputations (Rubin's rules)")
    return "\n".join(lines)
