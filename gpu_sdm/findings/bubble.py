"""A moderator at one place: every study's effect against it, the fitted line and its band."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.data import Dataset
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.extract import Z95
from gpu_sdm.findings.refit import SiteEffects
from gpu_sdm.findings.sites import Site
from gpu_sdm.io.tables import write_bytes, write_tsv
from gpu_sdm.ops.pool import weighted
from gpu_sdm.stages.design import Design
from gpu_sdm.stages.formula import level_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE, BUBBLE = "#0072B2", "#E69F00"  # Okabe and Ito: told apart without red and green
POINTS = 101  # of the line


@dataclass(frozen=True, eq=False)
class Bubbles:
    """What a bubble plot shows.

    Parameters
    ----------
    site : Site
        Where.
    names : tuple of str
        K studies.
    x : (K,) float64
        The moderator; in the table's units where it is a numeric column.
    g, adjusted : (K,) float64
        Mean effect over imputations, and the same with the other coefficients at their average.
    weight : (K,) float64
        Mean of 1 / (variance + tau2), the largest 1.
    at, fitted, low, high : (n,) float64
        The line and its 95 % band.
    label : str
        What is tested.
    ticks : dict of float to str
        Names of places on the x axis, where it is groups.
    estimate, z : float
        The tested coefficient and its z.
    """

    site: Site
    names: tuple[str, ...]
    x: np.ndarray
    g: np.ndarray
    adjusted: np.ndarray
    weight: np.ndarray
    at: np.ndarray
    fitted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    label: str
    ticks: Mapping[float, str]
    estimate: float
    z: float

    def rows(self) -> list[dict[str, Any]]:
        """Give a row per study, for a table beside the picture."""
        columns = (self.names, self.x, self.g, self.adjusted, self.weight)
        keys = ("study", "x", "g", "g_adjusted", "relative_weight")
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def require_moderator(model: Design) -> None:
    """Raise SettingError unless one slope or one difference is tested."""
    tested = " and ".join(model.tested)
    if not model.moderator:
        raise SettingError(
            f"the model tests a mean ({tested}); a bubble plot shows a slope or a difference."
        )
    if len(model.contrast) > 1:
        raise SettingError(
            f"the model tests {tested} jointly; a bubble plot shows one of them: run it with one "
            "--contrast."
        )


def _ticks(model: Design, x: np.ndarray) -> dict[float, str]:
    """Names of the places on the axis, where a factor of the model says what stands there."""
    used = {c for name in model.names for c in _columns(model.dataset, name)}
    for column in sorted(used):
        found: dict[float, set[str]] = {}
        for value, level in zip(
            x.round(9).tolist(), level_values(model.dataset, column), strict=True
        ):
            found.setdefault(value, set()).add(level)
        if len(found) > 1 and sum(map(len, found.values())) == len(set().union(*found.values())):
            return {value: ", ".join(sorted(levels)) for value, levels in found.items()}
    return {}


def _columns(dataset: Dataset, name: str) -> list[str]:
    """Categorical columns that a coefficient is about."""
    first = dataset.studies[0]
    return [
        c
        for c in (*first.labels, *first.covariates)
        if f"C({c})[" in name or f"C(`{c}`)[" in name or (c in first.labels and f"{c}[" in name)
    ]


def bubbles(at: SiteEffects, s: int) -> Bubbles:
    """Compute the bubble plot of site number `s`.

    Parameters
    ----------
    at : SiteEffects
        Effects of the studies of an analysis that tests one moderator.
    s : int
        Which of its sites.

    Notes
    -----
    With h the tested row, x is X h / (h'h), beside which the other coefficients are those of the
    reduced model. Coefficients are pooled by Rubin's rules; the band is the fit at average other
    coefficients plus or minus 1.96 standard errors.

    Raises
    ------
    SettingError
        If a mean or several rows are tested.
    """
    model = at.analysis.design
    require_moderator(model)
    x, h = model.X, model.contrast[0]
    _, _, vt = np.linalg.svd(h[None])
    rest = vt[1:].T  # (Q, Q-1): what the reduced model keeps
    y, v, tau2 = at.effects[:, :, s], at.variances[:, :, s], at.tau2()[:, s]
    fits = [
        weighted((1 / (vm + t))[:, None], ym[:, None], x)
        for ym, vm, t in zip(y, v, tau2, strict=True)
    ]
    beta = np.array([b[0] for b, _, _ in fits])
    cov = np.mean([c[0] for _, c, _ in fits], axis=0)
    if len(y) > 1:
        cov = cov + (1 + 1 / len(y)) * np.cov(beta.T, ddof=1).reshape(cov.shape)
    beta = beta.mean(axis=0)
    moderator = x @ h / (h @ h)
    others = x @ rest
    average = others.mean(axis=0)
    g = y.mean(axis=0)
    adjusted = g - (others - average) @ (rest.T @ beta)
    margin = 0.04 * np.ptp(moderator)
    line = np.linspace(moderator.min() - margin, moderator.max() + margin, POINTS)
    rows = line[:, None] * h + rest @ average
    fitted = rows @ beta
    half = Z95 * np.sqrt(np.einsum("nq,qr,nr->n", rows, cov, rows))
    label, studies = model.tested[0], model.dataset.studies
    shift = 0.0
    if label in studies[0].covariates:  # back to the units of the table
        shift = float(np.mean([st.covariates[label] for st in studies]) - moderator.mean())
    weight = (1 / (v + tau2[:, None])).mean(axis=0)
    return Bubbles(
        site=at.sites[s],
        names=at.names,
        x=moderator + shift,
        g=g,
        adjusted=adjusted,
        weight=weight / weight.max(),
        at=line + shift,
        fitted=fitted,
        low=fitted - half,
        high=fitted + half,
        label=label,
        ticks=_ticks(model, moderator + shift),
        estimate=float(h @ beta),
        z=float(h @ beta / np.sqrt(h @ cov @ h)),
    )


def paint(axes: Axes, shown: Bubbles, ink: str = "black", small: float = 8.0) -> None:
    """Draw a bubble plot on axes.

    Parameters
    ----------
    axes : Axes
        Where.
    shown : Bubbles
        What.
    ink : str
        Colour of outlines.
    small : float
        Points of the legend's text.
    """
    from matplotlib.collections import PathCollection

    axes.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    axes.fill_between(shown.at, shown.low, shown.high, color=LINE, alpha=0.18, linewidth=0,
                      label="95 % band")  # fmt: skip
    axes.plot(shown.at, shown.fitted, color=LINE, linewidth=2, label="fitted")
    axes.scatter(shown.x, shown.adjusted, s=20 + 280 * shown.weight, color=BUBBLE, alpha=0.65,
                 edgecolors=ink, linewidths=0.7, label="study (area: weight)")  # fmt: skip
    if shown.ticks:
        axes.set_xticks(list(shown.ticks), list(shown.ticks.values()), parse_math=False)
    axes.set_xlabel(shown.label, parse_math=False)
    others = not np.allclose(shown.g, shown.adjusted)
    axes.set_ylabel("Hedges g" + (", other terms at their average" if others else ""))
    x, y, z = shown.site.xyz_mm
    axes.set_title(
        f"MNI {x:g} {y:g} {z:g}  {shown.site.label}\n"
        f"{shown.label}: {shown.estimate:.3g}, z = {shown.z:.2f} at this voxel",
        parse_math=False,
    )
    legend = axes.legend(frameon=False, fontsize=small)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([60])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(shown: Bubbles) -> dict[str, bytes]:
    """Draw a bubble plot: "png" and "svg" -> content of the file.

    Raises
    ------
    SettingError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingError(
            "bubble plots need matplotlib; install it (pip install matplotlib)."
        ) from error

    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paint(axes, shown)
    axes.title.set_fontsize(10)
    found = {}
    with matplotlib.rc_context({"svg.hashsalt": "gpu-sdm"}):
        for kind, nothing in (("png", {"Software": None}), ("svg", {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=150, metadata=nothing)
            found[kind] = content.getvalue()
    return found


def write(at: SiteEffects, folder: Path) -> list[Path]:
    """Write PNG, SVG and the numbers of a bubble plot for each site; give the PNGs.

    Parameters
    ----------
    at : SiteEffects
        Effects of the studies.
    folder : path
        An existing folder; files are named bubble_X_Y_Z.
    """
    pictures: list[Path] = []
    for s, site in enumerate(at.sites):
        shown = bubbles(at, s)
        stem = "bubble_" + "_".join(f"{v:g}" for v in site.xyz_mm)
        for kind, content in draw(shown).items():
            write_bytes(folder / f"{stem}.{kind}", content)
        rows: Sequence[Mapping[str, Any]] = shown.rows()
        write_tsv(folder / f"{stem}.tsv", list(rows[0]), rows)
        pictures.append(folder / f"{stem}.png")
    return pictures
