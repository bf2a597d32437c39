"""JSON files of bounded size, and what is wrong with them in a sentence."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from gpu_sdm.errors import InputError
from gpu_sdm.io._text import MOST_BYTES, read_file, shown

# In memory an object or list takes 64 bytes and more, a number 32: bounds that times 25.
MOST_CONTAINERS = 8_000_000
MOST_VALUES = 32_000_000


class _Twice(ValueError):
    """A key that one object has twice."""


def json_start(path: Path) -> bytes:
    """Content of a file that may be a JSON object; empty for any other."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        size = min(os.fstat(file.fileno()).st_size, MOST_BYTES)
        return start + file.read(size) if start.startswith(b"{") else b""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _Twice(key)
    return found


def parsed(text: str, path: Path) -> Any:
    """Content of JSON text; `path` for messages.

    Raises
    ------
    InputError
        If it is no JSON, too deep, or an object holds a key twice (of which one would be lost).
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise InputError(f"is not valid JSON ({error.msg}).", path, error.lineno) from error
    except _Twice as error:
        raise InputError(
            f"is JSON in which one object has the key {shown(str(error))} twice; keep one.", path
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(
            "is JSON that no studyset can be, nor a list of names: too deep, or with too long a "
            "number; export it again.",
            path,
        ) from error


def load_json(path: Path) -> tuple[Any, str]:
    """Content of a JSON file, and its sha256.

    Raises
    ------
    InputError
        If it is no JSON, or too large to be held in memory.
    """
    raw = read_file(path)
    if (
        raw.count(b"{") + raw.count(b"[") > MOST_CONTAINERS
        or raw.count(b",") + raw.count(b":") > MOST_VALUES
    ):
        raise InputError(
            f"holds more than {MOST_CONTAINERS:,} objects and lists, or {MOST_VALUES:,} values; "
            "split it.",
            path,
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 text (byte {error.start + 1}); save it as UTF-8.", path
        ) from error
    return parsed(text, path), hashlib.sha256(raw).hexdigest()
