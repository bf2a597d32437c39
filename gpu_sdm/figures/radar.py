"""Radar chart: how strongly terms go with one seed, or with several on the same spokes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.errors import SettingError
from gpu_sdm.figures.palette import MARKERS, STUDIES, Look, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_SPOKES = 3
WRAP = 16  # characters of a line of a term
MARKS = 4  # rings
ALPHA = 0.05  # false discovery rate of a full mark


def term_text(term: str) -> str:
    """Write a term or topic as a reader knows it.

    Examples
    --------
    >>> term_text("chronic pain"), term_text("26_emotional_amygdala_negative")
    ('chronic pain', '26: emotional, amygdala, negative')
    """
    number, _, rest = term.partition("_")
    return f"{number}: {rest.replace('_', ', ')}" if number.isdigit() and rest else term


def _said(term: str) -> str:
    """Write a term in short lines."""
    return "\n".join(textwrap.wrap(term_text(term), WRAP)) or term


@styled
def radar(
    values: Mapping[str, Mapping[str, float]],
    *,
    unit: str = "association z",
    found: Mapping[str, Mapping[str, bool]] | None = None,
    title: str = "",
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw terms as spokes and each seed as a line around.

    Parameters
    ----------
    values : mapping
        Seed -> term -> value; every seed the same terms. Values below 0 are drawn at the centre.
    unit : str
        What the values are.
    found : mapping, optional
        Seed -> term -> whether it is significant; marks of the others are open.
    title : str, optional
        By default the seed's name where there is one.
    look : Look
        Width and background.

    Raises
    ------
    SettingError
        If there are fewer than three terms, or seeds differ in theirs.

    Notes
    -----
    Of several seeds, terms are ordered by the seed that they go with most, then by value: each
    seed's own terms make one sector.
    """
    names = list(values)
    terms = list(values[names[0]])
    if len(terms) < LEAST_SPOKES or any(list(v) != terms for v in values.values()):
        raise SettingError(
            f"A radar chart needs the same {LEAST_SPOKES} or more terms of every seed; "
            f"{names[0]!r} has {len(terms)}."
        )
    height = np.array([[values[s][t] for t in terms] for s in names])
    order = np.lexsort((-height.max(axis=0), height.argmax(axis=0)))
    height = np.maximum(height[:, order], 0)
    sure = np.ones(height.shape, bool)
    if found is not None:
        sure = np.array([[found[s][t] for t in terms] for s in names])[:, order]
    terms = [terms[i] for i in order]
    angle = np.linspace(0, 2 * np.pi, len(terms), endpoint=False)
    crowded = len(terms) > 24
    figure = new_figure(look, look.width_mm * (1.08 if len(names) > 1 else 0.92))
    axes: Any = figure.add_subplot(projection="polar")
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    top = max(float(height.max()) * 1.05, 1e-3)
    for k, name in enumerate(names):
        colour, marker = STUDIES[k % len(STUDIES)], MARKERS[k % len(MARKERS)]
        around = np.append(height[k], height[k, 0])
        axes.plot(np.append(angle, angle[0]), around, color=colour, linewidth=1.4, marker=marker,
                  markersize=3.8, markevery=[], label=re.sub(r"\s+", " ", name),
                  gid=f"seed{k + 1}")  # fmt: skip
        _marks(axes, angle, height[k], sure[k], {"color": colour, "marker": marker}, look)
        axes.fill(angle, height[k], color=colour, alpha=0.22 if len(names) == 1 else 0.10)
    axes.set_ylim(0, top)
    _rings(axes, top, len(terms), look)
    axes.set_xticks(angle, [])
    size = look.small if crowded else look.font
    for a, term in zip(angle, terms, strict=True):
        _label(axes, a, term, top, size, crowded)
    heading = title or (names[0] if len(names) == 1 else "")
    engine: Any = figure.get_layout_engine()
    engine.set(h_pad=0.10, rect=(0.03, 0.0, 0.94, 1.0))  # labels beside a circle take room
    figure.suptitle(f"{heading}\n{unit}" if heading else unit, parse_math=False)
    if len(names) > 1:
        figure.legend(loc="outside lower center", ncols=1 if look.narrow else 2)
    return figure


def radar_of_terms(
    seeds: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    look: Look = Look(),  # noqa: B008 -- frozen
) -> Figure:
    """Draw the rows of terms.tsv: z of each term, its mark full where q is at most .05.

    Parameters
    ----------
    seeds : mapping of str to rows
        Seed -> `term`, `z` and `q`; every seed the same terms.
    look : Look
        Width and background.

    Raises
    ------
    SettingError
        As `radar` does.
    """
    values = {name: {row["term"]: row["z"] for row in rows} for name, rows in seeds.items()}
    sure = {name: {row["term"]: row["q"] <= ALPHA for row in rows} for name, rows in seeds.items()}
    unit = f"association z (full marks: FDR q \N{LESS-THAN OR EQUAL TO} {ALPHA:g})"
    return radar(values, unit=unit, found=sure, look=look)


def _marks(  # type: ignore[no-untyped-def]
    axes, angle: np.ndarray, height: np.ndarray, sure: np.ndarray, style: dict[str, str], look: Look
) -> None:
    """Mark the terms with some association (at the centre it would be a heap), full or open."""
    for name, which in (("sure", sure), ("unsure", ~sure)):
        at = which & (height > 0)
        fill = style["color"] if name == "sure" else look.background
        axes.plot(angle[at], height[at], linestyle="none", markersize=3.8, markerfacecolor=fill,
                  markeredgewidth=0.8, gid=name, **style)  # fmt: skip


def _rings(axes, top: float, spokes: int, look: Look) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.ticker import MaxNLocator

    rings = [r for r in MaxNLocator(MARKS, steps=[1, 2, 5, 10]).tick_values(0, top) if 0 < r <= top]
    axes.set_yticks(rings, [])
    for ring in rings:  # between two spokes, over the lines
        axes.text(np.pi / spokes, ring, f"{ring:g}", color=look.muted, fontsize=look.small,
                  ha="center", va="center", zorder=5, bbox={"facecolor": look.background,
                  "edgecolor": "none", "alpha": 0.7, "pad": 0.8})  # fmt: skip
    axes.grid(color=look.faint, linewidth=0.5)
    axes.spines["polar"].set_color(look.faint)


def _label(  # type: ignore[no-untyped-def]
    axes, angle: float, term: str, top: float, size: float, crowded: bool
) -> None:
    """Write a term outside its spoke; along it where there are many."""
    degrees = 90 - np.degrees(angle)  # of the page, counter-clockwise from the right
    x, y = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if crowded:
        left = x < -1e-9
        axes.text(angle, 1.03 * top, _said(term).replace("\n", " "), fontsize=size,
                  rotation=degrees + (180 if left else 0), rotation_mode="anchor",
                  ha="right" if left else "left", va="center", parse_math=False)  # fmt: skip
        return
    ha = "center" if abs(x) < 0.15 else ("left" if x > 0 else "right")
    va = "center" if abs(y) < 0.87 else ("bottom" if y > 0 else "top")
    # Beside the top and the bottom the lines of a term would reach into the circle.
    away = 1.15 if 0.6 <= abs(y) < 0.87 else 1.06
    axes.text(angle, away * top, _said(term), fontsize=size, ha=ha, va=va, parse_math=False)
