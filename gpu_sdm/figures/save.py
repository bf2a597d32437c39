"""A figure to PNG, SVG or PDF: the same bytes for the same figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_sdm.errors import OutputError
from gpu_sdm.figures.palette import SALT
from gpu_sdm.io.tables import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 300
FORMATS = ("png", "svg", "pdf")
# Neither the time nor the version of matplotlib enters a file.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def as_bytes(figure: Figure, kind: str, dpi: int = DPI) -> bytes:
    """Give the content of a file of a figure.

    Parameters
    ----------
    figure : Figure
        From a function of `gpu_sdm.figures`.
    kind : {"png", "svg", "pdf"}
        Format. Text of SVG and PDF stays text.
    dpi : int
        Pixels per inch of PNG, and of pictures inside SVG and PDF.
    """
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"svg.hashsalt": SALT, "svg.fonttype": "none", "pdf.fonttype": 42}
        )
        figure.savefig(content, format=kind, dpi=dpi, metadata=METADATA[kind])
    return content.getvalue()


def as_png(figure: Figure, dpi: int = DPI) -> bytes:
    """Give a figure as PNG."""
    return as_bytes(figure, "png", dpi)


def as_svg(figure: Figure, dpi: int = 150) -> str:
    """Give a figure as SVG, its text as text; `dpi` is that of pictures inside."""
    return as_bytes(figure, "svg", dpi).decode()


def save(figure: Figure, path: Path, dpi: int = DPI) -> Path:
    """Write a figure in the format that the file's name ends with.

    Parameters
    ----------
    figure : Figure
        What to write.
    path : path
        Ends with .png, .svg or .pdf.
    dpi : int
        Pixels per inch, also of pictures inside SVG and PDF.

    Raises
    ------
    OutputError
        If the name ends otherwise, or the file cannot be written; no part of it is left.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise OutputError(f"{path}: figures are .png, .svg or .pdf; end the name with one of them.")
    write_bytes(path, as_bytes(figure, kind, dpi))
    return path
