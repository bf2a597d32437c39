"""Tables of the measured pages: laid out as Markdown, put between the markers of a page."""

from __future__ import annotations

from collections.abc import Iterable


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a Markdown table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def between(text: str, name: str, made: str) -> str:
    """Replace what stands between the markers of a name; all else is written by hand.

    Raises
    ------
    ValueError
        If a marker is missing, or stands twice.
    """
    first, last = f"<!-- {name} begins -->", f"<!-- {name} ends -->"
    if text.count(first) != 1 or text.count(last) != 1:
        raise ValueError(f"the text must hold {first!r} and {last!r} once each")
    before, rest = text.split(first)
    return f"{before}{first}\n{made}\n{last}{rest.split(last)[1]}"
