"""Funnel plot: effects against their standard errors, contours of p, Egger's line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.figures.forest import p_text
from gpu_sdm.figures.palette import IMPUTED, POSITIVE, Look, new_figure, styled
from gpu_sdm.findings.extract import Z95

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# |z| of two-sided p .10, .05, .01 and the grey between them.
CONTOURS = (
    (1.6448536269514722, ".10"),
    (Z95, ".05"),
    (2.5758293035489004, ".01"),
)


@styled
def funnel(
    rows: Sequence[Mapping[str, Any]],
    bias: Mapping[str, Any] | None = None,
    *,
    title: str | None = None,
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw a funnel plot of one site.

    Parameters
    ----------
    rows : sequence of rows
        Those of one site from `findings.bias.funnel`.
    bias : row, optional
        The site's from `findings.bias.bias`: adds Egger's line and p.
    title : str, optional
        By default the site's name.
    look : Look
        Width and background.

    Notes
    -----
    Dotted: pooled g -+ 1.96 SE, where 95 % of homogeneous studies lie. Shaded: where a study by
    itself has two-sided p < .10, .05, .01. Egger's line is the tested
    effect at each standard error, other terms of the model as in the analysis.
    """
    g, se = (np.array([row[k] for row in rows], np.float64) for k in ("g", "se"))
    known = np.array([row["known"] for row in rows], bool)
    pooled = float(rows[0]["pooled_g"])
    figure = new_figure(look, look.width_mm * (0.85 if look.narrow else 0.6))
    axes = figure.add_subplot()
    top = 1.08 * float(se.max())
    wide = 1.1 * max(float(np.abs(g - pooled).max()), Z95 * top, abs(pooled) + 0.1)
    left, right = min(pooled - wide, -0.05), max(pooled + wide, 0.05)
    greys = ("0.93", "0.86", "0.78") if look.background == "white" else ("0.16", "0.23", "0.31")
    for (z, p), grey in zip(CONTOURS, greys, strict=True):
        for sign in (-1, 1):
            edge = sign * 10 * (abs(left) + abs(right))
            axes.fill([0, sign * z * top, edge, edge], [0, top, top, 0], color=grey, linewidth=0,
                      zorder=0, label=f"p < {p}" if sign > 0 else None)  # fmt: skip
    axes.plot([pooled, pooled], [0, top], color=look.ink, linewidth=0.9)
    for sign in (-1, 1):
        axes.plot([pooled, pooled + sign * Z95 * top], [0, top], color=look.ink, linewidth=0.7,
                  linestyle=":", label="95 % around pooled g" if sign > 0 else None)  # fmt: skip
    if known.any():
        axes.scatter(g[known], se[known], s=18, color=look.study, edgecolor=look.background,
                     linewidth=0.4, zorder=3, label="study", gid="known")  # fmt: skip
    if not known.all():
        axes.scatter(g[~known], se[~known], s=18, facecolor="none", edgecolor=IMPUTED,
                     linewidth=1.1, zorder=3, label="imputed study", gid="imputed")  # fmt: skip
    says = _egger_says(bias)
    if bias is not None and bias["egger_z"] is not None and bias["egger_regressor"] == "se":
        ends = np.array([0.0, top])
        line = bias["egger_g_at_0"] + bias["egger_slope"] * ends
        axes.plot(line, ends, color=POSITIVE, linewidth=1.3, label="Egger", gid="egger")
    axes.set_xlim(left, right)
    axes.set_ylim(top, 0)
    axes.set_xlabel("Hedges g")
    axes.set_ylabel("standard error")
    name = str(rows[0]["site"]) if title is None else title
    axes.set_title(name + (f"\n{says}" if says else ""), parse_math=False)
    figure.legend(loc="outside lower center", ncols=3 if look.narrow else 6)
    return figure


def _egger_says(bias: Mapping[str, Any] | None) -> str:
    if bias is None:
        return ""
    if bias["egger_z"] is None:
        return "Egger: no regression"
    on = "" if bias["egger_regressor"] == "se" else " on 1/\N{SQUARE ROOT}n"
    return f"Egger{on}: z = {bias['egger_z']:.2f}, {p_text(bias['egger_p'])}"
