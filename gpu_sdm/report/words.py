"""The result in words, for a reader who reads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_sdm.report.facts import SAYS, Facts, count
from gpu_sdm.report.html import Html, join, tag
from gpu_sdm.report.tables import fixed, p_value, plain

CORRECTED = tuple(name for name in SAYS if name.startswith("fwe"))


def question(facts: Facts) -> str:
    """Say what was asked."""
    s = facts.settings
    if s.formula is not None:
        what = f"whether {' and '.join(facts.tested)} of the model {s.formula} differs from zero"
    elif s.covariates:
        what = (
            "where the mean effect, with "
            f"{' and '.join(s.covariates)} held at the mean, differs from zero"
        )
    else:
        what = "where the mean effect differs from zero"
    return (
        f"This meta-analysis of {count(facts.studies, 'study', 'studies')} "
        f"({facts.subjects:,} subjects) asks {what}."
    )


def _cluster(row: Mapping[str, str]) -> Html:
    place = ", ".join(fixed(0)(row[f"{a}_mm"]) for a in "xyz")
    numbers = f"z = {fixed(2)(row['sdm_z'])}, p = {p_value(row['p'])}, g = {fixed(2)(row['g'])}"
    mm = ",".join(row[f"{a}_mm"] for a in "xyz")
    where = join([tag("strong", plain(row["label"]) or "cluster"), " ",
                  tag("span", f"({place})", data_mm=mm)])  # fmt: skip
    return join([where, f": {numbers}; {count(int(row['voxels']), 'voxel', 'voxels')}"])


LISTED = 6


def findings(facts: Facts) -> list[Html]:
    """Say what is significant at each threshold, the corrected ones first."""
    parts = []
    for name in (n for n in SAYS if n in facts.clusters):
        rows = facts.clusters[name]
        up = sum(row["side"] == "positive" for row in rows)
        signs = " and ".join(
            f"{n} {side}" for n, side in ((up, "positive"), (len(rows) - up, "negative")) if n
        )
        says = SAYS[name][0].upper() + SAYS[name][1:]
        if not rows:
            parts.append(tag("p", tag("b", f"{says}:"), " nothing is significant."))
            continue
        voxels = sum(int(row["voxels"]) for row in rows)
        sentence = (
            f" {count(len(rows), 'cluster', 'clusters')} ({signs}), "
            f"{count(voxels, 'voxel', 'voxels')} in all."
        )
        parts.append(tag("p", tag("b", f"{says}:"), sentence))
        if name == facts.threshold:
            largest = sorted(rows, key=lambda row: -int(row["voxels"]))[:LISTED]
            parts.append(tag("ul", *(tag("li", _cluster(row)) for row in largest), class_="found"))
            if len(rows) > LISTED:
                parts.append(
                    tag("p", f"The {LISTED} largest are listed; the table has all.", class_="note")
                )
    return parts


def headline(facts: Facts) -> str:
    """One sentence for the top of the page."""
    corrected = [name for name in CORRECTED if name in facts.clusters]
    name = next((n for n in corrected if facts.clusters[n]), None)
    if name is None:
        return "Nothing is significant after correction for multiple tests."
    rows = facts.clusters[name]
    return (
        f"{count(len(rows), 'cluster is', 'clusters are')} significant after correction for "
        f"multiple tests ({SAYS[name]})."
    )


def tiles(facts: Facts) -> Html:
    """Give the numbers that one looks for first."""
    corrected = next((n for n in CORRECTED if n in facts.clusters), None)
    numbers: list[tuple[Any, str]] = [
        (facts.studies, "studies"),
        (facts.subjects, "subjects"),
        *([(facts.peaks, "peaks")] if facts.peaks else []),
        *([(facts.images, "images")] if facts.images else []),
        (facts.permutations, "permutations"),
        (facts.voxels, f"voxels of {facts.settings.voxel_size} mm"),
    ]
    if corrected:
        numbers.append((len(facts.clusters[corrected]), "corrected clusters"))
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", f"{value:,}")) for value, name in numbers),
        class_="tiles",
    )


AGAIN = "estimated again"  # in run.json's words on the null
NULLS = {
    "subjects": "Every p value is a comparison with data in which no study has any effect; they "
    "are made by exchanging the subjects within every study. That test finds too much in two "
    "situations: where the studies' true effects differ although their mean is zero, and, judged "
    "voxel by voxel, where reported peaks are all that is known. Exchanging whole studies, or "
    "moving the peaks over the brain, avoids this.",
    "studies": "Every p value is a comparison with data in which the effect of a study is as "
    "likely to be positive as negative; they are made by turning the signs of whole studies.",
    "peaks": "Every p value is a comparison with data in which peaks lie anywhere in the mask; "
    "they are made by moving the reported peaks over it with their heights, and by turning the "
    "signs of whole maps.",
    "moderator": "Every p value is a comparison with data in which what is tested has nothing to "
    "do with the effects of the studies; they are made by permuting between studies what the rest "
    "of the model leaves unexplained.",
}
ONE_SIDED = (
    "Hardly a peak is of the other sign: it seems that most studies looked at one side alone. What "
    "nobody looked for counts as not there, so that studies which agree by chance look like an "
    "effect of that side, and the p values below are too small; a test that moves the peaks does "
    "not mind."
)
SIDES = (
    "Positive and negative effects are tested one by one, each at its own 5 %, as SDM-PSI does. "
    "Someone who would have taken either sign for a finding should look at the two-sided test, "
    "which the maps below offer."
)


def caveats(facts: Facts) -> list[Html]:
    """Say what a reader must know before believing."""
    null = NULLS["moderator" if facts.moderator else facts.settings.exchange]
    if AGAIN in facts.run["null"]:
        null += " Everything is estimated again for each of them."
    if facts.settings.test == "score":
        null += " What is tested is the score: how hard the bounds of the studies pull the mean "
        null += "away from zero. It needs no estimate; z and g are shown beside it."
    said = [
        tag("li", tag("b", "What p means. "), null),
        tag("li", tag("b", "Two directions. "), SIDES),
    ]
    if "one_sided_reports" in facts.run["warning_counts"]:
        said.insert(1, tag("li", tag("b", "Reports of one side. "), ONE_SIDED))
    if not facts.exact:
        error = (0.05 * 0.95 / facts.permutations) ** 0.5
        said.append(
            tag(
                "li",
                tag("b", "Precision. "),
                f"With {facts.permutations:,} permutations no corrected p can be below "
                f"{1 / facts.permutations:.2g}, and a p of .05 is known to within a standard error "
                f"of {error:.3f}. More permutations make it more precise.",
            )
        )
    return said
