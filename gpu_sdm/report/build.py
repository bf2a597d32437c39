"""The page from top to bottom: read the result, write each section, put all into one file."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from gpu_sdm.analysis import Analysis
from gpu_sdm.clusters import THRESHOLDS
from gpu_sdm.figures.evidence import Z_0025
from gpu_sdm.figures.glass import glass_map
from gpu_sdm.findings.sites import passing
from gpu_sdm.finished import Finished, open_result
from gpu_sdm.io.tables import write_bytes
from gpu_sdm.report.facts import SAYS, Facts
from gpu_sdm.report.further import further, made, thresholds
from gpu_sdm.report.html import Html, join, section, tag
from gpu_sdm.report.inputs import inputs
from gpu_sdm.report.methods import methods
from gpu_sdm.report.nulls import nulls
from gpu_sdm.report.panels import panels
from gpu_sdm.report.pictures import HALF, WIDE, brain
from gpu_sdm.report.provenance import provenance
from gpu_sdm.report.references import Citations
from gpu_sdm.report.tables import cluster_table
from gpu_sdm.report.volumes import viewer_data
from gpu_sdm.report.words import caveats, findings, headline, question, tiles

NAME = "report.html"
SCRIPTS = ("volume.js", "viewer.js", "controls.js", "tables.js")


def _resource(name: str) -> str:
    return (files("gpu_sdm.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _presets(facts: Facts) -> list[dict[str, Any]]:
    """Usual thresholds, as the viewer's buttons."""
    there = [
        ("FWE .05, TFCE", "p_fwe_tfce", "both", 0.05),
        ("FWE .05, voxel", "p_fwe_voxel", "both", 0.05),
        ("FWE .05, extent", "p_fwe_cluster_extent", "both", 0.05),
        ("FWE .05, mass", "p_fwe_cluster_mass", "both", 0.05),
        ("FWE .05, TFCE, two-sided", "p_fwe_tfce", "two-sided", 0.05),
        ("FWE .05, voxel, two-sided", "p_fwe_voxel", "two-sided", 0.05),
        ("Uncorrected .0025", "z", "both", round(Z_0025, 4)),
        ("No threshold", "z", "both", 0.0),
    ]
    return [
        {"label": label, "where": where, "side": side, "t": t}
        for label, where, side, t in there
        if facts.finished.has(where)
    ]


def _start(facts: Facts, presets: list[dict[str, Any]]) -> dict[str, Any]:
    """Show SDM-Z at the report's threshold, the crosshair at its strongest cluster."""
    wanted = THRESHOLDS[facts.threshold].p_map if facts.clusters[facts.threshold] else "z"
    chosen = next((p for p in presets if p["where"] == wanted), presets[-2])
    rows = facts.clusters[facts.threshold]
    if rows:
        top = max(rows, key=lambda row: abs(float(row["sdm_z"])))
        mm = [float(top[f"{a}_mm"]) for a in "xyz"]
    else:
        z = facts.finished.map("z")
        mm = facts.finished.space.mm(np.array([int(np.argmax(np.abs(z)))]))[0].tolist()
    rest = {name: chosen[name] for name in ("where", "side", "t")}
    return {"show": "z", **rest, "mm": mm}


def _glass(facts: Facts) -> Html:
    z, shown = facts.finished.map("z"), np.logical_or(*passing(facts.finished, facts.threshold))
    says = f"SDM-Z of {SAYS[facts.threshold]}"
    if not shown.any():
        return tag("p", "No voxel passes, so there is no map to draw here.", class_="note")
    wide, narrow = (glass_map(z, facts.finished.space, shown, look=k) for k in (WIDE, HALF))
    return brain(
        wide,
        f"Glass brain: {says}, {int(shown.sum()):,} voxels, seen from the left, behind, the right "
        "and above.",
        f"{says}: the strongest voxel along each line of sight.",
        narrow,
    )


def _summary(facts: Facts) -> Html:
    return section(
        "summary",
        "Summary",
        tiles(facts),
        _glass(facts),
        *findings(facts),
        tag("div", tag("h3", "What to know"), tag("ul", *caveats(facts)), class_="callout"),
        lead=headline(facts),
    )


def _clusters(facts: Facts) -> Html:
    parts: list[Any] = []
    for name, rows in facts.clusters.items():
        parts.append(tag("h3", SAYS[name][0].upper() + SAYS[name][1:]))
        if rows:
            parts.append(cluster_table(name, SAYS[name], rows))
        else:
            parts.append(tag("p", "No cluster of at least the usual size passes."))
    for heading, content in thresholds(facts):
        parts += [tag("h3", heading), content]
    lead = (
        "Click a heading to sort, a region to see it in the maps. p is that of the threshold's "
        "map at the peak, one-tailed; the download has every digit."
    )
    return section("clusters", "Clusters", *parts, lead=lead)


def _methods(facts: Facts) -> Html:
    cite = Citations(facts.version)
    paragraphs = methods(facts, made(facts), cite)
    return section(
        "methods",
        "Methods",
        tag("div", *paragraphs, class_="paper", data_copy="the methods paragraph"),
        tag("h3", "References"),
        cite.listing(),
        tag(
            "details",
            tag("summary", "BibTeX"),
            tag("pre", tag("code", cite.bibtex()), data_copy="BibTeX"),
            class_="plain",
        ),
        lead="Ready for a paper: what was done, with this run's numbers.",
    )


def render(finished: Finished, analysis: Analysis | None = None) -> str:
    """Write the page.

    Parameters
    ----------
    finished : Finished
        The result.
    analysis : Analysis, optional
        Behind it, where it is at hand; else the project is read again for the panels, which say
        so where it is gone.

    Returns
    -------
    str
        HTML that loads nothing: pictures, maps and programs are in it.
    """
    facts = Facts(finished)
    presets = _presets(facts)
    sections = {
        "Summary": _summary(facts),
        "Maps": section(
            "maps", "Maps", Html(_resource("viewer.html")),
            viewer_data(finished, _start(facts, presets), presets),
            lead="Choose what to see and the threshold; the count is of the whole map.",
        ),
        "Clusters": _clusters(facts),
        "Each cluster": section("panels", "Cluster by cluster", panels(facts, analysis)),
        "Permutations": section(
            "permutations", "Permutations", *nulls(facts),
            lead="The largest statistic of every permutation is what a voxel has to beat.",
        ),
        "Inputs": section("inputs", "Inputs", inputs(facts)),
        "Methods": _methods(facts),
        "More": section("more", "Further findings", further(facts)),
        "Provenance": section("provenance", "Provenance", provenance(facts)),
    }  # fmt: skip
    style, script = _resource("style.css"), "\n".join(map(_resource, SCRIPTS))
    links = zip(
        ("summary", "maps", "clusters", "panels", "permutations", "inputs", "methods", "more",
         "provenance"), sections, strict=True,
    )  # fmt: skip
    return Template(_resource("page.html")).substitute(
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        title=tag("title", f"{facts.project}: meta-analysis by gpu-sdm"),
        style=style,
        script=script,
        heading=tag("h1", facts.project),
        question=tag("p", question(facts)),
        links=join(tag("li", tag("a", name, href=f"#{identity}")) for identity, name in links),
        sections=join(sections.values(), "\n"),
        version=tag("span", f"gpu-sdm {facts.version}"),
    )


def report(folder: Path | str, analysis: Analysis | None = None) -> Path:
    """Write report.html into a finished result, or replace it.

    Parameters
    ----------
    folder : path
        OUT of `gpu-sdm permute`.
    analysis : Analysis, optional
        Behind it, where it is at hand.

    Returns
    -------
    path
        The page.

    Raises
    ------
    InputError
        If the folder is no finished result.
    OutputError
        If the page cannot be written.
    """
    finished = open_result(folder)
    path = finished.folder / NAME
    write_bytes(path, render(finished, analysis).encode())
    return path
