"""Markup from Python: whatever is no markup yet is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from typing import Any

VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "source"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Escape what is no `Html`, also for attributes; None is nothing."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(str(value), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Put markup together; what is none is escaped."""
    return Html(between.join(text(part) for part in parts))


def _attribute(name: str, value: Any) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """Give an element.

    Parameters
    ----------
    name : str
        Of the element.
    *children
        What it holds; text is escaped, None left out.
    **attributes
        `class_` stands for class, `aria_label` for aria-label. None and False leave the attribute
        out, True gives it no value.

    Examples
    --------
    >>> print(tag("p", "a < b", class_="note"))
    <p class="note">a &lt; b</p>
    """
    given = "".join(
        _attribute(key, value)
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def data_block(identity: str, content: Mapping[str, Any]) -> Html:
    """Give a block of JSON for the page's own program."""
    # Within a script element nothing is unescaped, and `</script>` would end it.
    packed = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return tag("script", Html(packed), type="application/json", id=identity)


def section(identity: str, heading: str, *children: Any, lead: Any = None) -> Html:
    """Give a section of the page with its heading and, below it, a sentence."""
    return tag(
        "section",
        tag("h2", heading, id=f"{identity}-heading"),
        lead and tag("p", lead, class_="lead"),
        *children,
        id=identity,
        aria_labelledby=f"{identity}-heading",
    )


def picture(data_uri: str, alt: str, caption: Any = None, narrow: str | None = None) -> Html:
    """Give a figure on white ground: its colours hold in the dark too."""
    image = tag("img", src=Html(data_uri), alt=alt, decoding="async")
    if narrow is not None:
        source = tag("source", media="(max-width: 44rem)", srcset=Html(narrow))
        image = tag("picture", source, image)
    return tag("figure", image, caption and tag("figcaption", caption), class_="plate")
