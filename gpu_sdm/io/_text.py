"""Text files and the numbers in them, read alike whatever the locale or the editor."""

from __future__ import annotations

import hashlib
import math
import os
import re
from pathlib import Path

from gpu_sdm.errors import InputError

# Not float(): it also takes "nan", "1_000" and other scripts' digits.
# One way to match each text: with \d+\.?\d* a cell of 20,000 digits and a letter took 15 s.
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LONGEST_NUMBER = 1000
MOST_BYTES = 1 << 28  # of a file that is held in memory
MOST_LINES = 4_000_000
# Neither in text nor harmless on a terminal; form feeds come out of articles.
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
# Signs pasted from articles: minus, en dash, non-breaking hyphen.
LARGEST_T = 1e4  # beyond it a column was misread, and effects would leave float32
DASHES = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2011": "-"})


def unreadable(error: OSError, path: Path) -> InputError:
    """Say why the system does not let a file be read."""
    return InputError(
        f"cannot be read ({error.strerror or error}); check that it is a file you may read.", path
    )


def read_file(path: Path) -> bytes:
    """Content of a file of bounded size.

    Raises
    ------
    InputError
        If it cannot be read, is a pipe or device (which could be endless), or has over 256 MB.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(
                "is a pipe or a device and not a file; copy its content into a file.", path
            )
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise InputError(
                    f"has {size:,} bytes, more than the {MOST_BYTES:,} that are read; split it.",
                    path,
                )
            raw = file.read(size + 1)
    except OSError as exc:
        raise unreadable(exc, path) from exc
    if len(raw) > size:
        raise InputError("grows while it is read; copy it, and give the copy.", path)
    return raw


def read_lines(path: Path) -> tuple[list[str], str]:
    """Lines of a UTF-8 text file (with or without BOM, any line ends) and its sha256.

    Raises
    ------
    InputError
        If the file cannot be read, is not UTF-8 text, holds control characters or has more than
        4,000,000 lines.
    """
    raw = read_file(path)
    count = 1 + raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
    if count > MOST_LINES:
        raise InputError(f"has {count:,} lines, more than {MOST_LINES:,}; split it.", path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = 1 + raw.count(b"\n", 0, exc.start)
        raise InputError(
            f"is not UTF-8 text (byte {exc.start + 1}) in line {line}; save it as plain text, "
            "UTF-8.",
            path,
        ) from exc
    control = CONTROL.search(text)
    if control is not None:
        hint = ", as UTF-16 has; save" if control[0] == "\0" else "; remove it, or save"
        line = len(re.findall(r"\r\n|\r|\n", text[: control.start()])) + 1
        raise InputError(
            f"holds the control character {control[0]!r}{hint} the file as plain text, UTF-8.",
            path,
            line,
        )
    # Not splitlines(): it also splits at form feeds and the like, which editors do not count.
    return re.split(r"\r\n|\r|\n", text), hashlib.sha256(raw).hexdigest()


def number(cell: str) -> float | None:
    """Value of a cell that is a finite decimal number, else None."""
    cell = cell.strip()
    if len(cell) > LONGEST_NUMBER:
        return None
    cell = cell.translate(DASHES)
    if not NUMBER.fullmatch(cell):
        return None
    value = float(cell)
    return value if math.isfinite(value) else None


def shown(cell: str, most: int = 40) -> str:
    """Show a cell in a message: quoted, on one line, of at most so many characters."""
    text = repr(cell if len(cell) <= most else cell[: most - 3] + "...")
    if len(text) > 2 * most:  # much of it is escaped, with up to 10 signs for one
        text = repr(cell[: most // 6] + "...")
    return text


def reason(error: Exception) -> str:
    """Say on one line what another library raised."""
    return CONTROL.sub("?", " ".join(str(error).split()))[:200] or type(error).__name__


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
