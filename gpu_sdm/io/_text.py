"""Text files and the numbers in them, read alike whatever the locale or the editor."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path

from gpu_sdm.errors import InputError

# Not float(): it also takes "nan", "1_000" and other scripts' digits.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Signs pasted from articles: minus, en dash, non-breaking hyphen.
LARGEST_T = 1e4  # beyond it a column was misread, and effects would leave float32
DASHES = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2011": "-"})


def read_lines(path: Path) -> tuple[list[str], str]:
    """Lines of a UTF-8 text file (with or without BOM, any line ends) and its sha256.

    Raises
    ------
    InputError
        If the file cannot be read or is not UTF-8 text.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise InputError(
            f"cannot be read ({exc.strerror or exc}); check that it is a file you may read.", path
        ) from exc
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InputError(
            f"is not UTF-8 text (byte {exc.start + 1}); save it as plain text, UTF-8.", path
        ) from exc
    # Not splitlines(): it also splits at form feeds and the like, which editors do not count.
    return re.split(r"\r\n|\r|\n", text), hashlib.sha256(raw).hexdigest()


def number(cell: str) -> float | None:
    """Value of a cell that is a finite decimal number, else None."""
    cell = cell.strip().translate(DASHES)
    if not NUMBER.fullmatch(cell):
        return None
    value = float(cell)
    return value if math.isfinite(value) else None


def shown(cell: str) -> str:
    """Show a cell in a message: quoted, on one line, of bounded length."""
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")


def decimal_comma(cell: str) -> str:
    """Say of a cell like 3,5 how to write it; nothing of any other."""
    comma = re.fullmatch(r"[+-]?\d+,\d+", cell.strip())
    return f" with a decimal point (write {cell.strip().replace(',', '.')})" if comma else ""


def first_text(path: Path, size: int = 65536) -> str:
    """Beginning of a file as text, for recognising its format; "" for a folder or binary file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        raw = file.read(size)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors="ignore")  # recognised, so that the reader can refuse it
    return "" if b"\x00" in raw else raw.decode("utf-8-sig", errors="replace")
