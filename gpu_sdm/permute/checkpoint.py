"""Save and load the null between chunks so that a run survives Ctrl-C, kill and power loss."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from gpu_sdm.permute.null import NullState


def save_null(path: Path, state: NullState) -> None:
    """Write the finished maxima; a crash leaves either the old file or the new one, whole."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as f:
        finished = {name: values[:, : state.done] for name, values in state.maxima.items()}
        np.savez(f, allow_pickle=False, **finished)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)


def load_null(path: Path, statistics: tuple[str, ...], permutations: int) -> NullState:
    """Load what was finished; an absent or damaged file means nothing was."""
    state = NullState.empty(statistics, permutations)
    try:
        # A file of our own: numpy leaves the one it opens open where it is damaged.
        with path.open("rb") as f, np.load(f, allow_pickle=False) as stored:
            chunk = {name: stored[name] for name in state.maxima}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return state
    lengths = {values.shape[1] for values in chunk.values()}
    if len(lengths) != 1 or any(np.isnan(values).any() for values in chunk.values()):
        return state
    keep = min(lengths.pop(), permutations)
    if keep:
        state.add(0, {name: values[:, :keep] for name, values in chunk.items()})
    return state
