"""Figures of `gpu_sdm.figures` as parts of the page."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from gpu_sdm.figures.palette import Look
from gpu_sdm.figures.save import as_png, as_svg
from gpu_sdm.report.html import Html, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, HALF = Look(width_mm=180), Look(width_mm=90)
PIXELS = {True: 170, False: 250}  # per inch, of wide and of narrow pictures of the brain


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def drawn(figure: Figure, alt: str, caption: Any = None) -> Html:
    """Give a figure of lines and text; each is a picture of its own, so that names do not meet."""
    return picture(_uri("svg+xml", as_svg(figure).encode()), alt, caption)


def brain(figure: Figure, alt: str, caption: Any = None, narrow: Figure | None = None) -> Html:
    """Give a figure of the brain, as pixels; `narrow` is its shape for telephones."""
    small = None if narrow is None else _uri("png", as_png(narrow, PIXELS[False]))
    content = as_png(figure, PIXELS[narrow is not None])
    return picture(_uri("png", content), alt, caption, narrow=small)
