"""Save and load the null between chunks so that a run survives Ctrl-C, kill and power loss."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gpu_sdm.permute.null import NullState

DIGEST = "sha256"  # zip's own checksums miss a shape that became smaller


def _before(path: Path) -> Path:
    return path.with_name(path.name + ".before")


def _digest(maxima: Mapping[str, np.ndarray]) -> np.ndarray:
    sha = hashlib.sha256()
    for name in sorted(maxima):
        values = np.ascontiguousarray(maxima[name])
        sha.update(f"{name} {values.dtype.str} {values.shape} ".encode())
        sha.update(values.tobytes())
    return np.frombuffer(sha.digest(), np.uint8)


def save_null(path: Path, state: NullState) -> None:
    """Write the finished maxima beside those of the last call, which are kept as NAME.before.

    A crash leaves the old file or the new one, whole, under one of the two names.

    Raises
    ------
    OSError
        If it cannot be written; what was saved before stays, and nothing half written.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as f:
            finished = {name: values[:, : state.done] for name, values in state.maxima.items()}
            np.savez(f, allow_pickle=False, **finished, **{DIGEST: _digest(finished)})
            f.flush()
            os.fsync(f.fileno())
        if path.exists():
            path.replace(_before(path))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it would take what space is left
        raise


def remove_null(path: Path) -> None:
    """Remove what `save_null` wrote, of a killed process too."""
    for each in (path, _before(path), path.with_name(path.name + ".new")):
        each.unlink(missing_ok=True)


def any_null(path: Path) -> bool:
    """Whether `save_null` wrote here, readable or not."""
    return path.exists() or _before(path).exists()


def _read(path: Path, state: NullState, permutations: int) -> bool:
    """Enter what a file holds; False where it is absent or damaged."""
    try:
        # A file of our own: numpy leaves the one it opens open where it is damaged.
        with path.open("rb") as f, np.load(f, allow_pickle=False) as stored:
            held = {name: stored[name] for name in stored.files}
    except Exception:
        return False
    digest = held.pop(DIGEST, None)
    if (
        digest is None
        or not np.array_equal(digest, _digest(held))
        or set(held) != set(state.maxima)
    ):
        return False
    keep = min(next(iter(held.values())).shape[1], permutations)
    if keep:
        state.add(0, {name: values[:, :keep] for name, values in held.items()})
    return True


def load_null(path: Path, statistics: tuple[str, ...], permutations: int) -> NullState:
    """Load what was finished; absent or damaged files mean nothing was.

    Where the file is absent or damaged (the values are under a checksum), that of the save before
    is taken.
    """
    state = NullState.empty(statistics, permutations)
    if not _read(path, state, permutations):
        _read(_before(path), state, permutations)
    return state


def is_damaged(path: Path, statistics: tuple[str, ...]) -> bool:
    """Whether a file is there that cannot be read."""
    return path.exists() and not _read(path, NullState.empty(statistics, 1), 1)
