"""What other commands have added to a result, and what they could still add."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_sdm.report.facts import Facts, read_rows
from gpu_sdm.report.html import Html, join, tag
from gpu_sdm.report.literature import literature
from gpu_sdm.report.tables import CLUSTER, cluster_cell, columns_of, table

MOST = 400  # rows of a table on the page


@dataclass(frozen=True, slots=True)
class Addition:
    """A command on a finished result.

    Parameters
    ----------
    name : str
        Of the command and of its folder in OUT.
    says : str
        What it adds.
    tables : tuple of str
        Its tables that the page shows.
    """

    name: str
    says: str
    tables: tuple[str, ...] = ()


ADDITIONS = (
    Addition(
        "jackknife", "repeats the analysis without each study: what depends on one?", ("summary",)
    ),
    Addition(
        "heterogeneity",
        "how much the studies differ at each peak, and what to expect of a new one",
        ("heterogeneity",),
    ),
    Addition("bias", "signs that small or negative studies are missing", ("bias",)),
    Addition("extract", "the effect of each study at peaks and regions", ("extract",)),
    Addition("grade", "how strong the evidence for each cluster is, in classes", ("grade",)),
    Addition("roi", "tests of regions that were chosen beforehand", ("roi",)),
    Addition("tail", "estimates of p below what permutations can count", ("tail",)),
    Addition("decode", "what the regions are known for in the published literature"),
    Addition("conjunction", "what this result and another have in common"),
    Addition("contrast", "where this result and another differ"),
)


def made(facts: Facts) -> list[str]:
    """Name the commands whose folder is in the result."""
    return [a.name for a in ADDITIONS if (facts.finished.folder / a.name).is_dir()]


def _show(path: Path, title: str) -> Html:
    columns, rows = read_rows(path)
    if not rows:
        return tag("p", f"{title}: the table is empty.")
    if len(rows) > MOST:
        return tag("p", f"{title}: {len(rows):,} rows, in ", tag("code", path.name), ".")
    return table(title, columns_of(columns, rows), rows, f"{path.stem}.csv")


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + ("" if words.endswith("?") else ".")


def _tables(folder: Path, wanted: Sequence[str]) -> list[Path]:
    if wanted:
        return [path for name in wanted if (path := folder / f"{name}.tsv").is_file()]
    return sorted(folder.rglob("*.tsv"))


def further(facts: Facts) -> Html:
    """Give the tables that other commands have written, and name the commands that have not."""
    there, parts = made(facts), []
    for addition in ADDITIONS:
        folder = facts.finished.folder / addition.name
        if addition.name == "decode":
            parts.append(literature(facts))
            continue
        found = _tables(folder, addition.tables) if addition.name in there else []
        if not found:
            continue
        parts += [
            tag("h3", addition.name.capitalize()),
            tag("p", _sentence(addition.says), class_="note"),
        ]
        for path in found:
            place = path.relative_to(facts.finished.folder).with_suffix("")
            parts.append(_show(path, str(place)))
    missing = [a for a in ADDITIONS if a.name not in there]
    if missing:
        lines = (
            tag("div", tag("dt", tag("code", f"gpu-sdm {a.name} OUT")), tag("dd", a.says))
            for a in missing
        )
        parts += [
            tag("h3", "Not made yet"),
            tag("p", "Each of these commands adds an analysis to this result; OUT is the folder of "
                "this page. Afterwards ", tag("code", "gpu-sdm report OUT"), " shows it here.",
                class_="note"),
            tag("dl", *lines, class_="pairs commands"),
        ]  # fmt: skip
    return join(parts)


def _threshold_folders(facts: Facts) -> Iterator[Path]:
    folder = facts.finished.folder / "thresholds"
    if folder.is_dir():
        yield from (p for p in sorted(folder.iterdir()) if (p / "clusters.tsv").is_file())


def thresholds(facts: Facts) -> list[tuple[str, Html]]:
    """Give the cluster tables of `gpu-sdm threshold`: heading and table of each."""
    known = {c.name: c for c in CLUSTER}
    found = []
    for folder in _threshold_folders(facts):
        columns, rows = read_rows(folder / "clusters.tsv")
        shown = [known.get(c.name, c) for c in columns_of(columns, rows)]
        if rows:
            content = table(f"Clusters of threshold {folder.name}", shown, rows,
                            f"clusters_{folder.name}.csv", cell=cluster_cell)  # fmt: skip
        else:
            content = tag("p", "No cluster passes.")
        found.append((f"Threshold {folder.name}", content))
    return found
