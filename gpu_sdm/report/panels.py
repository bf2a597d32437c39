"""A panel for each cluster: where it is, what each study says there, how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_sdm.analysis import Analysis
from gpu_sdm.errors import GpuSdmError
from gpu_sdm.figures._brain import Scale, scale_of
from gpu_sdm.figures.evidence import Strip, Studies, forests, funnels, strips
from gpu_sdm.figures.forest import forest
from gpu_sdm.figures.funnel import funnel
from gpu_sdm.figures.jackknife import jackknife
from gpu_sdm.figures.slices import slices
from gpu_sdm.findings.extract import SUMMARY
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.sites import Site, cluster_sites
from gpu_sdm.report.facts import SAYS, Facts, count
from gpu_sdm.report.html import Html, join, tag
from gpu_sdm.report.pictures import HALF, brain, drawn
from gpu_sdm.report.tables import fixed, p_value

MOST = 12  # clusters with a panel


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the studies say at the peaks, by name of the site."""

    forest: Mapping[str, Studies]
    funnel: Mapping[str, Studies]


def gather(facts: Facts, peaks: Sequence[Site], analysis: Analysis | None) -> Evidence | str:
    """Make the effects of the studies at the peaks again, or say why that cannot be.

    Parameters
    ----------
    facts : Facts
        Of the result.
    peaks : sequence of Site
        Where.
    analysis : Analysis, optional
        Behind the result, where it is at hand.
    """
    from gpu_sdm.backend import get_backend

    try:
        behind = facts.finished.analysis(get_backend("cpu")) if analysis is None else analysis
        at = site_effects(behind, peaks)
        return Evidence(forests(at, facts.finished.map("i2")), funnels(at))
    except GpuSdmError as error:
        return str(error)


def _numbers(found: Evidence, name: str) -> Html:
    spread, small = found.forest[name].summary, found.funnel[name].summary
    pooled = next(row for row in found.forest[name].rows if row["role"] == SUMMARY)

    def interval(low: float, high: float) -> str:
        return f"{fixed(2)(str(low))} to {fixed(2)(str(high))}"

    pairs = [
        ("Hedges g", f"{fixed(2)(str(pooled['g']))} "
         f"({interval(pooled['ci_low'], pooled['ci_high'])})"),
        ("I\N{SUPERSCRIPT TWO}", f"{spread['i2']:.1f} %"),
        ("\N{GREEK SMALL LETTER TAU}\N{SUPERSCRIPT TWO}", f"{spread['tau2']:.4f}"),
        ("Q", f"{spread['q']:.2f} (df {spread['df']}, p {p_value(str(spread['p_q']))})"),
    ]  # fmt: skip
    if np.isfinite(spread["prediction_low"]):
        pairs.append(("A new study", interval(spread["prediction_low"], spread["prediction_high"])))
    if small["egger_p"] is not None:
        pairs.append(("Egger", f"p {p_value(str(small['egger_p']))}"))
    if small["excess_p_exact"] is not None:
        says = f"{small['significant']:.1f}, expected {small['expected']:.1f}"
        pairs.append(("Significant studies", f"{says} (p {p_value(str(small['excess_p_exact']))})"))
    return tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs), class_="pairs")


def _studies(found: Evidence, site: Site, strip: Html) -> list[Html]:
    effects, points = found.forest[site.name], found.funnel[site.name]
    rows, small = effects.rows, points.summary
    where = f"{site.label or 'the peak'} ({', '.join(fixed(0)(str(v)) for v in site.xyz_mm)})"
    pooled = next(row for row in rows if row["role"] == SUMMARY)
    known = sum(bool(row["known"]) for row in rows if row["role"] != SUMMARY)
    egger = "" if small["egger_p"] is None else f" Egger's p is {small['egger_p']:.3f}."
    left = drawn(
        forest(rows, effects.summary, look=HALF),
        f"Forest plot of {len(rows) - 1} studies at {where}: pooled Hedges g {pooled['g']:.2f}, "
        f"95 % interval {pooled['ci_low']:.2f} to {pooled['ci_high']:.2f}; the effect of {known} "
        "studies is known, that of the others imputed within its bounds.",
    )
    right = drawn(
        funnel(points.rows, small, title=where, look=HALF),
        f"Funnel plot of {len(rows) - 1} studies at {where}.{egger}",
    )
    return [
        _numbers(found, site.name),
        tag("div", left, tag("div", right, strip), class_="pictures"),
    ]


def _strip(strip: Strip | None) -> Html:
    if strip is None:
        return tag("p", "The analysis has not been repeated without each study. The command ",
                   tag("code", "gpu-sdm jackknife OUT"), " does so, where OUT is the folder of "
                   "this page.", class_="note")  # fmt: skip
    kept = sum(row["survives"] for row in strip.folds)
    alt = (
        f"Jackknife: the cluster survives in {kept} of {len(strip.folds)} analyses without a study."
    )
    return drawn(jackknife(strip.folds, strip.whole, **strip.line, look=HALF), alt, alt)


def _panel(
    facts: Facts,
    peak: Site,
    size: int,
    shown: np.ndarray,
    scale: Scale,
    found: Evidence | str,
    left_out: Strip | None,
    opened: bool,
) -> Html:
    z = facts.finished.map("z")
    value = float(z[peak.voxels[0]])
    xyz = ", ".join(fixed(0)(str(v)) for v in peak.xyz_mm)
    mm = ",".join(f"{v:g}" for v in peak.xyz_mm)
    name = peak.label or "cluster"
    cuts = slices(z, facts.finished.space, np.array([peak.xyz_mm]), shown=shown, scale=scale,
                  look=HALF)  # fmt: skip
    strip = _strip(left_out)
    return tag(
        "details",
        tag(
            "summary",
            tag("span", f"{peak.cluster}", class_="number"),
            tag("span", name, class_="name"),
            tag("span", f"z {fixed(2)(str(value))} \N{MIDDLE DOT} {count(size, 'voxel', 'voxels')}",
                class_="detail"),
        ),
        tag("p", "Peak at ", tag("span", f"({xyz})", data_mm=mm), " mm MNI."),
        brain(cuts, f"Sagittal, coronal and axial slice of SDM-Z through ({xyz}), {name}."),
        *(
            [tag("p", "The studies' effects cannot be shown: ", found, class_="callout"), strip]
            if isinstance(found, str)
            else _studies(found, peak, strip)
        ),
        class_="panel",
        id=f"cluster-{peak.cluster}",
        open=opened,
    )  # fmt: skip


def panels(facts: Facts, analysis: Analysis | None = None) -> Html:
    """Give the panels of the clusters at the report's threshold.

    Parameters
    ----------
    facts : Facts
        Of the result.
    analysis : Analysis, optional
        Behind the result; without it the project is read again.
    """
    sites = cluster_sites(facts.finished, [facts.threshold])
    if not sites:
        return tag("p", "There is no cluster at any threshold, and so none to look into.")
    pairs = list(zip(sites[::2], sites[1::2], strict=True))
    shown = np.zeros(facts.voxels, bool)
    for _, cluster in pairs:
        shown[cluster.voxels] = True
    chosen = sorted(pairs, key=lambda pair: -len(pair[1].voxels))[:MOST]
    chosen.sort(key=lambda pair: pair[0].cluster)
    folds = strips(facts.finished.folder / "jackknife")
    found = gather(facts, [peak for peak, _ in chosen], analysis)
    scale = scale_of(np.where(shown, facts.finished.map("z"), 0))
    note = f"Clusters of {SAYS[facts.threshold]}."
    if len(pairs) > MOST:
        note += f" The {MOST} largest of {len(pairs)} have a panel."
    return join(
        [
            tag("p", note, class_="note"),
            *(
                _panel(facts, peak, len(cluster.voxels), shown, scale, found,
                       folds.get((str(peak.threshold), str(peak.cluster))), i == 0)
                for i, (peak, cluster) in enumerate(chosen)
            ),
        ]
    )  # fmt: skip
