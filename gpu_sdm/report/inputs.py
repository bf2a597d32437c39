"""What was read: how many of what came through, every study, the peaks, every doubt."""

from __future__ import annotations

from collections import Counter

import numpy as np

from gpu_sdm.figures.glass import MOST, glass_peaks
from gpu_sdm.io.tables import MISSING
from gpu_sdm.report.facts import Facts, count
from gpu_sdm.report.html import Html, join, tag
from gpu_sdm.report.pictures import HALF, WIDE, brain
from gpu_sdm.report.tables import columns_of, table


def _step(number: int, name: str, notes: list[str]) -> Html:
    return tag(
        "li",
        tag("strong", f"{number:,}"),
        tag("span", name),
        *(tag("small", note) for note in notes if note),
    )


def flow(facts: Facts) -> Html:
    """Count what was read, what was used and what was not, and why."""
    content = facts.run["content"]
    files = [name for name in content if name not in ("program", "mask", "template", "bounds")]
    left_out = [row["study"] for row in facts.study_rows if row["in_model"] != "true"]
    steps = [
        _step(len(files), "files read", []),
        _step(len(facts.study_rows), "studies in the table", []),
        _step(
            len(facts.used),
            "studies in the model",
            [f"not in it: {', '.join(left_out)}" if left_out else "none left out"],
        ),
    ]
    if facts.images:
        steps.append(_step(facts.images, "with a whole map", []))
    if facts.peaks:
        steps.append(_step(facts.peaks, "peaks reported", [_heights(facts)]))
        judged = [row for row in facts.peak_rows if row["voxels_reached"] != MISSING]
        if judged:
            used = sum(row["voxels_reached"] != "0" for row in judged)
            lost = facts.peaks - used
            outside = sum(row["in_mask"] == "false" for row in judged)
            steps.append(
                _step(
                    used,
                    "peaks that reach the mask",
                    [
                        f"{count(outside, 'peak lies', 'peaks lie')} outside it" if outside else "",
                        f"{lost:,} reach no voxel and say nothing" if lost else "none dropped",
                    ],
                )
            )
    return tag("ol", *steps, class_="flow")


def _heights(facts: Facts) -> str:
    if not facts.unknown_heights:
        return "each with its height"
    return f"{facts.unknown_heights:,} with a sign but no height"


def _peaks(facts: Facts) -> list[Html]:
    if not facts.peaks:
        return []
    xyz = np.array([[float(row[f"{a}_mm"]) for a in "xyz"] for row in facts.peak_rows])
    studies = [row["study"] for row in facts.peak_rows]
    t = np.array([float(row["t"]) for row in facts.peak_rows])
    few = len(set(studies)) <= MOST
    wide, narrow = (
        glass_peaks(xyz, studies, look=look) if few else glass_peaks(xyz, sign=t, look=look)
        for look in (WIDE, HALF)
    )
    up = int((t >= 0).sum())
    by = "study" if few else "sign"
    return [
        tag("h3", "Reported peaks"),
        brain(
            wide,
            f"{len(xyz):,} reported peaks of {len(set(studies))} studies on a glass brain, "
            f"coloured by {by}: {up:,} positive, {len(xyz) - up:,} negative.",
            f"Every reported peak in MNI space, coloured by {by}.",
            narrow,
        ),
        tag(
            "details",
            tag("summary", f"Table of the {len(xyz):,} peaks"),
            table("Peaks as read and as converted", columns_of(facts.peak_columns, facts.peak_rows),
                  facts.peak_rows, "peaks.csv"),
            class_="plain",
        ),
    ]  # fmt: skip


def _notices(facts: Facts) -> list[Html]:
    warnings = facts.run.get("warnings", [])
    if not warnings:
        return [tag("h3", "Doubts about the input"), tag("p", "There were none.")]
    kinds = Counter(notice["kind"] for notice in warnings)
    return [
        tag("h3", "Doubts about the input"),
        *(
            tag(
                "details",
                tag("summary", f"{kind.replace('_', ' ').capitalize()} ({n:,})"),
                tag("ul", *(tag("li", w["message"]) for w in warnings if w["kind"] == kind)),
                class_="plain",
            )
            for kind, n in kinds.items()
        ),
    ]


def inputs(facts: Facts) -> Html:
    """Give the whole section."""
    studies = table(
        "Studies as read",
        columns_of(facts.study_columns, facts.study_rows),
        facts.study_rows,
        "studies.csv",
    )
    return join([flow(facts), tag("h3", "Studies"), studies, *_peaks(facts), *_notices(facts)])
