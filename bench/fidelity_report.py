"""docs/fidelity.md: its tables come from the figures, its prose stays.

A table lies between `<!-- NAME begins -->` and `<!-- NAME ends -->`; everything else in the
document is written by hand and never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from page import between, table

Content = dict[str, Any]
Row = dict[str, Any]


def number(value: float | int | None, digits: int = 4) -> str:
    """Give a figure to some significant digits, thousands apart; a dash for none."""
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return f"{value:.{digits}f}" if 0.001 <= abs(value) < 1 and digits <= 4 else text


def verdict(row: Row) -> str:
    """Tell whether a bar is met; a missed one cannot be overlooked."""
    return "" if row["met"] is None else "met" if row["met"] else "**MISSED**"


def figures(content: Content, part: str) -> list[Row]:
    """Figures of one part, in the order they were found."""
    return [row for row in content["figures"] if row["part"] == part]


def plain(part: str, digits: int = 4) -> Callable[[Content], str]:
    """Give a section of one row per figure: ours, theirs, bar, met."""

    def section(content: Content) -> str:
        found = figures(content, part)
        others = list(dict.fromkeys(who for row in found for who in row.get("beside", {})))
        rows = [
            (row["what"], row["where"], number(row["ours"], digits),
             number(row["theirs"], digits), row["bar"], verdict(row),
             *(number(row["beside"][who], digits) if who in row.get("beside", {}) else ""
               for who in others))
            for row in found
        ]  # fmt: skip
        heads = ("figure", "where", "ours", "theirs", "bar", "", *others)
        return table(heads, rows) if rows else "Not run yet."

    return section


def by_place(part: str) -> Callable[[Content], str]:
    """Give a section of one row per place and one column per figure, theirs in brackets."""

    def section(content: Content) -> str:
        rows = figures(content, part)
        heads = list(dict.fromkeys(row["what"] for row in rows))
        lines = []
        for where in dict.fromkeys(row["where"] for row in rows):
            cells = {row["what"]: row for row in rows if row["where"] == where}
            shown = [(number(r["ours"]), r["theirs"]) if (r := cells.get(h)) else ("", None)
                     for h in heads]  # fmt: skip
            lines.append((where, *(a if b is None else f"{a} ({number(b)})" for a, b in shown)))
        return table(("", *heads), lines) if rows else "Not run yet."

    return section


def scored_maps(part: str) -> Callable[[Content], str]:
    """Give a section of one row per map and region: share of the mask, r, slope, bias, rmse.

    Of what stands beside ours r and rmse are shown.
    """

    def section(content: Content) -> str:
        cells: dict[tuple[str, str], dict[str, str]] = {}
        shares, rest = {}, []
        scores = ["r", "slope", "bias", "rmse"]
        for row in figures(content, part):
            name, _, score = row["what"].partition(", ")
            if row["what"] == "share of the mask":
                shares[row["where"]] = row["ours"]
            elif score in ("r", "slope", "bias", "rmse"):
                shown = number(row["ours"])
                if row["met"] is not None:
                    shown += f" ({row['bar']}: {verdict(row)})"
                cell = cells.setdefault((name, row["where"]), {})
                cell[score] = shown
                if score in ("r", "rmse"):
                    cell |= {f"{who}, {score}": number(value)
                             for who, value in row.get("beside", {}).items()}  # fmt: skip
            else:
                rest.append(row)
        if not cells:
            return "Not run yet."
        regions = table(
            ("region", "share of the mask"), ((k, f"{v:.1%}") for k, v in shares.items())
        )
        columns = list(dict.fromkeys(scores + [c for cell in cells.values() for c in cell]))
        maps = table(
            ("map", "region", *columns),
            (
                (name, region, *(cell.get(c, "") for c in columns))
                for (name, region), cell in cells.items()
            ),
        )
        others = [
            f"{row['what']}, {row['where']}: {number(row['ours'])}"
            + ("." if row["theirs"] is None else f" (theirs {number(row['theirs'])}).")
            for row in rest
        ]
        return "\n\n".join([regions, maps, "\n".join(others)])

    return section


def bounds(content: Content) -> str:
    """Show means, extremes and the five studies least alike."""
    rows = [row for row in content["tables"].get("studies", []) if row["kernel_r"] is not None]
    if not rows:
        return "Not run yet."
    columns = [name for name in rows[0] if name != "study"]
    worst = sorted(rows, key=lambda row: row["kernel_r"])[:5]
    listed = table(
        ("least alike", *(c.replace("_", ", ") for c in columns)),
        ((row["study"], *(number(row[c]) for c in columns)) for row in worst),
    )
    return by_place("bounds")(content) + "\n\n" + listed


def clusters(start: str) -> Callable[[Content], str]:
    """Give a section of overlaps and of the peaks of one start."""

    def section(content: Content) -> str:
        peaks = content["tables"].get(f"peaks-{start}", [])
        heads = ("SDM-PSI's peak", "its z", "our z there", "our cluster peak, mm", "our local "
                 "peak, mm", "its z")  # fmt: skip
        listed = table(
            heads,
            (
                ("{x_mm:g}, {y_mm:g}, {z_mm:g}".format(**row),
                 *(number(row.get(c), 3) for c in ("z_theirs", "z_ours_there", "cluster_peak_mm",
                                               "local_peak_mm", "local_peak_z")))
                for row in peaks
            ),
        )  # fmt: skip
        kept = [row for row in figures(content, f"clusters-{start}") if " mm to " not in
                f" {row['what']}" and row["what"] != "z there"]  # fmt: skip
        overlap = plain(f"clusters-{start}")({"figures": kept, "tables": {}})
        distances = [row for row in figures(content, f"clusters-{start}")
                     if row["met"] is not None and row["what"].startswith("mm to")]  # fmt: skip
        said = ""
        for what in dict.fromkeys(row["what"] for row in distances):
            same = [row for row in distances if row["what"] == what]
            good = sum(row["met"] for row in same)
            mark = "met" if good == len(same) else "**MISSED**"
            said += (
                f"\n{what[0].upper()}{what[1:]} {same[0]['bar']}: {good} of {len(same)}, {mark}."
            )
        return "\n\n".join(filter(None, [overlap, listed if peaks else "", said.strip()]))

    return section


def null(content: Content) -> str:
    """Show one row per figure and one column per seed."""
    rows = figures(content, "null")
    if not rows:
        return "Not run yet."
    columns = list(dict.fromkeys(row["where"] for row in rows))
    lines = []
    for what in dict.fromkeys(row["what"] for row in rows):
        same = {row["where"]: row for row in rows if row["what"] == what}
        one = next(iter(same.values()))
        bars = {row["bar"] for row in same.values()} - {""}
        cells = [
            f"{number(same[c]['ours'])} {verdict(same[c])}".strip() if c in same else ""
            for c in columns
        ]
        lines.append((what, number(one["theirs"]), *cells, ", ".join(bars)))
    return table(("figure", "theirs", *columns, "bar"), lines)


def summary(content: Content) -> str:
    """Count the bars and list the missed ones."""
    judged = [row for row in content["figures"] if row["met"] is not None]
    missed = [row for row in judged if not row["met"]]
    said = f"{len(judged)} figures have a bar; {len(missed)} miss it."
    if not missed:
        return said
    rows = (
        (row["part"], row["what"], row["where"], number(row["ours"], 5), row["bar"])
        for row in missed
    )
    return said + "\n\n" + table(("part", "missed", "where", "ours", "bar"), rows)


def provenance(content: Content) -> str:
    """Show when each part ran, at which commit, and on what."""
    rows = [
        (f"`python bench/fidelity.py --part {part} --write`", ran["date"], ran["commit"],
         f"{ran['seconds']:,} s")
        for part, ran in content["parts"].items()
    ]  # fmt: skip
    if not rows:
        return "Nothing has been run yet."
    on = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    listed = table(("part", "date", "commit", "took"), rows)
    return (
        f"{listed}\n\nMachine of the last run: {on['processor']}, {on['cores']} cores; {versions}."
    )


SECTIONS: dict[str, Callable[[Content], str]] = {
    "provenance": provenance,
    "summary": summary,
    "bounds": bounds,
    "from-bounds": scored_maps("from-bounds"),
    "from-peaks": scored_maps("from-peaks"),
    "template": by_place("template"),
    "from-learned": scored_maps("from-learned"),
    "clusters-bounds": clusters("bounds"),
    "clusters-peaks": clusters("peaks"),
    "clusters-learned": clusters("learned"),
    "noise": by_place("noise"),
    "rounding": plain("rounding"),
    "null": null,
    "images": by_place("images"),
    "pooling": plain("pooling", 8),
    "variants": by_place("variants"),
}


def renewed(text: str, content: Content) -> str:
    """Replace the generated tables of a document and keep everything else.

    Raises
    ------
    ValueError
        If the document has no place for a section, or more than one.
    """
    for name, section in SECTIONS.items():
        text = between(text, name, section(content))
    return text


def write_report(content: Content, path: Path) -> None:
    """Renew the tables of the document at `path`."""
    path.write_text(renewed(path.read_text(encoding="utf-8"), content), encoding="utf-8")
