"""Arrays larger than memory: files in slabs of voxels, read one slab at a time.

A file holds an array (R, V) float32 as slabs (R, w) of neighbouring voxels one after the other,
so that what a block of voxels needs lies together on disk.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from gpu_sdm.errors import OutputError

WIDTH = 8192  # voxels of a slab: a block of the engine


class SlabArray:
    """A float32 array (..., V) in a file of slabs; what is asked for comes as a NumPy array.

    Understands `array[..., voxels]` (a slice or numbers of voxels), all other axes whole, the
    same for assignment, assignment to a slice of the rows of (R, V), `len` and `shape`. Pickles
    as the path of its file.

    Parameters
    ----------
    path : path
        The file.
    shape : tuple of int
        (..., V).
    width : int
        Voxels of a slab. What is read does not depend on it.
    first, rows : int
        Which rows of the file are its own; rows is the number in the file.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        width: int = WIDTH,
        first: int = 0,
        rows: int | None = None,
    ):
        self.path, self.shape, self.width, self.first = Path(path), tuple(shape), width, first
        self._own = math.prod(shape[:-1])
        self.rows = self._own if rows is None else rows
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return SlabArray, (self.path, self.shape, self.width, self.first, self.rows)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its own rows."""
        return 4 * math.prod(self.shape)

    def _slab(self, i: int) -> np.ndarray:
        """Give slab i (own rows, w): mapped, not copied, and given back with the array."""
        start = i * self.width
        w = min(self.width, self.shape[-1] - start)
        offset = 4 * (self.rows * start + self.first * w)
        before = offset % mmap.ALLOCATIONGRANULARITY
        size = 4 * self._own * w
        try:
            with self.path.open("rb") as file:
                # Copy on write: NumPy sees a plain writable array, as it does of one in memory.
                view = mmap.mmap(
                    file.fileno(), size + before, access=mmap.ACCESS_COPY, offset=offset - before
                )
        except (OSError, ValueError) as exc:
            raise OutputError(
                f"{self.path} cannot be read ({exc}); every worker must see the folder of --out "
                "under the same path, and it must stay while the work goes on."
            ) from exc
        if hasattr(mmap, "MADV_WILLNEED"):
            view.madvise(mmap.MADV_WILLNEED)
        flat = np.frombuffer(view, np.float32, self._own * w, before)
        return flat.reshape(self._own, w)

    def _range(self, index: Any) -> slice | np.ndarray:
        """Give the voxels of `[:, :, voxels]`; refuse what would need another order on disk."""
        *others, voxels = index if isinstance(index, tuple) else (index,)
        whole = all(o == slice(None) for o in others) and len(others) == self.ndim - 1
        if not whole or (isinstance(voxels, slice) and voxels.step not in (None, 1)):
            raise IndexError(f"of an array in slabs only [..., voxels] can be read, not {index}")
        if isinstance(voxels, slice):
            return slice(*voxels.indices(self.shape[-1])[:2])
        return np.asarray(voxels)

    def __getitem__(self, index: Any) -> np.ndarray:
        voxels = self._range(index)
        if isinstance(voxels, np.ndarray):
            out = np.empty((self._own, len(voxels)), np.float32)
            slab = voxels // self.width
            for i in np.unique(slab):
                out[:, slab == i] = self._slab(i)[:, voxels[slab == i] - i * self.width]
            return out.reshape(*self.shape[:-1], len(voxels))
        pieces = [
            self._slab(i)[:, max(a, 0) : b] for i, a, b in self._parts(voxels.start, voxels.stop)
        ]
        n = max(voxels.stop - voxels.start, 0)
        if not pieces:
            pieces = [np.empty((self._own, 0), np.float32)]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
        return joined.reshape(*self.shape[:-1], n)

    def __setitem__(self, index: Any, values: np.ndarray) -> None:
        if isinstance(index, slice) and index.step in (None, 1) and self.ndim == 2:
            rows = slice(*index.indices(self.shape[0])[:2])
            self._write(rows, slice(0, self.shape[1]), values)
            return
        voxels = self._range(index)
        if isinstance(voxels, np.ndarray):
            raise IndexError("an array in slabs is written by slices of voxels")
        self._write(slice(0, self._own), voxels, np.reshape(values, (self._own, -1)))

    def _write(self, rows: slice, voxels: slice, values: np.ndarray) -> None:
        """Write values (rows, voxels).

        Raises
        ------
        OutputError
            If the disk is full.
        """
        done = 0
        try:
            with self._lock, self.path.open("r+b") as file:
                for i, a, b in self._parts(voxels.start, voxels.stop):
                    piece = np.ascontiguousarray(values[:, done : done + b - a], np.float32)
                    done += b - a
                    w = min(self.width, self.shape[-1] - i * self.width)
                    base = self.rows * i * self.width + (self.first + rows.start) * w
                    if b - a == w:
                        file.seek(4 * base)
                        file.write(piece.data)
                        continue
                    for r, row in enumerate(piece):
                        file.seek(4 * (base + r * w + a))
                        file.write(row.data)
        except OSError as exc:
            raise OutputError(
                f"{self.path} cannot be written ({exc.strerror}); free some space and give the "
                "same command again."
            ) from exc

    def _parts(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Slabs that hold voxels start..stop-1, and which voxels of each."""
        found = []
        for i in range(start // self.width, -(-stop // self.width)):
            base = i * self.width
            found.append((i, max(start - base, 0), min(stop - base, self.width)))
        return found
