"""JSON files of bounded size, and what is wrong with them in a sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gpu_sdm.errors import InputError

MOST_BYTES = 1 << 28


def json_start(path: Path) -> bytes:
    """Content of a file that may be a JSON object; empty for any other."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        return start + file.read(MOST_BYTES) if start.startswith(b"{") else b""


def load_json(path: Path) -> tuple[Any, str]:
    """Content of a JSON file, and its sha256.

    Raises
    ------
    InputError
        If it is no JSON, or larger than 256 MB.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"is larger than {MOST_BYTES:,} bytes; split it.", path)
    raw = path.read_bytes()
    try:
        return json.loads(raw.decode("utf-8-sig")), hashlib.sha256(raw).hexdigest()
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text (byte {error.start + 1}).", path) from error
    except json.JSONDecodeError as error:
        raise InputError(f"is not valid JSON ({error.msg}).", path, error.lineno) from error
    except (RecursionError, ValueError) as error:
        raise InputError("is JSON that no studyset can be: too deep, or too long a number.", path) \
            from error  # fmt: skip
