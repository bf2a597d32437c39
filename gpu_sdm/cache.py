"""What is slow to compute and depends on content alone, kept on disk as `.npz` files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpu_sdm import __version__

# A part of every key: entries of another version are never read. Raise the number when the
# meaning of a stored array changes within a version.
CODE_VERSION = f"gpu-sdm {__version__} cache 1"

RESERVE = 100_000_000  # bytes of the disk that are left to results

_KIND = re.compile(r"^[a-z][a-z0-9_-]*$")
_UNREADABLE = (zipfile.BadZipFile, ValueError, EOFError, KeyError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the cache."""

    kind: str
    key: str
    size: int  # bytes


def folder() -> Path:
    """Where entries live: GPU_SDM_CACHE, else a folder `gpu-sdm` in the user's cache folder."""
    chosen = os.environ.get("GPU_SDM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpu-sdm"


def key(*parts: str | bytes | float | np.ndarray | None) -> str:
    """Hash the content an entry depends on.

    Parameters
    ----------
    *parts : str, bytes, number, None or array
        Everything the stored result is a function of, in a fixed order. Arrays count with
        their dtype and shape.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    sha = hashlib.sha256()

    def feed(tag: str, content: bytes | memoryview) -> None:
        # Lengths keep ("ab", "c") apart from ("a", "bc").
        sha.update(f"{tag}:{len(content)}:".encode())
        sha.update(content)

    feed("version", CODE_VERSION.encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part)
            feed(f"array {array.dtype.str} {part.shape}", array.tobytes())
        elif isinstance(part, bytes):
            feed("bytes", part)
        elif isinstance(part, str):
            feed("str", part.encode())
        elif part is None or isinstance(part, (int, float)):
            feed(type(part).__name__, repr(part).encode())
        else:
            raise TypeError(f"a cache key cannot hold a {type(part).__name__}")
    return sha.hexdigest()


def _path(kind: str, entry: str) -> Path:
    if not _KIND.match(kind):
        raise ValueError(f"cache kind {kind!r} must be a lower-case word")
    return folder() / kind / f"{entry}.npz"


def load(kind: str, entry: str) -> dict[str, np.ndarray] | None:
    """Read an entry.

    Parameters
    ----------
    kind : str
        What it holds, a lower-case word.
    entry : str
        Its key.

    Returns
    -------
    dict of arrays, or None
        None where there is no such entry. A damaged file (cut short, a wrong checksum) counts
        as absent and is removed.
    """
    path = _path(kind, entry)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except _UNREADABLE:
        with contextlib.suppress(OSError):
            path.unlink()
    except OSError:
        pass  # absent, or not ours to read: computed afresh
    return None


def store(kind: str, entry: str, **arrays: np.ndarray) -> bool:
    """Write an entry whole or not at all.

    Parameters
    ----------
    kind, entry : str
        As for `load`.
    **arrays : array
        What to keep; not compressed, for speed.

    Returns
    -------
    bool
        False where it could not be written (disk full or nearly, read-only): that is never fatal.
    """
    path = _path(kind, entry)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = sum(array.nbytes for array in arrays.values())
        if shutil.disk_usage(path.parent).free < size + RESERVE:
            return False
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{entry[:16]}-", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        return False
    else:
        temporary = None
        return True
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def kept(kind: str, entry: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Read an entry, or make and keep it: `kind` and `entry` as for `load`."""
    stored = load(kind, entry)
    if stored is None:
        stored = make()
        store(kind, entry, **stored)
    return stored


def trouble() -> str | None:
    """Say in a sentence why nothing can be stored at present; None where it can."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder()):
            pass
        free = shutil.disk_usage(folder()).free
    except OSError as error:
        why = f"{folder()} cannot be written ({error.strerror})"
    else:
        if free >= RESERVE:
            return None
        why = f"the disk of {folder()} has only {free / 1e6:.0f} MB free"
    return f"the cache is not used: {why}; GPU_SDM_CACHE names another folder."


def _files() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for kind in sorted(folder().iterdir()):
            if kind.is_dir() and _KIND.match(kind.name):
                yield from sorted(kind.glob("*.npz"))
                yield from sorted(kind.glob(".*.tmp"))


def entries() -> list[Entry]:
    """List what is stored, by kind and key; files half written are left out."""
    found = []
    for path in _files():
        with contextlib.suppress(OSError):  # another process may clear at the same time
            if path.suffix == ".npz":
                found.append(Entry(path.parent.name, path.stem, path.stat().st_size))
    return found


def clear() -> int:
    """Remove every entry, and what interrupted writers left behind.

    Returns
    -------
    int
        Bytes freed.
    """
    freed = 0
    for path in list(_files()):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed
