"""A folder in which one process at a time may work."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_sdm.errors import OutputError

if TYPE_CHECKING:
    from filelock import FileLock

ATTEMPTS = 3  # at a lock that another process removes as it finishes


def remove(path: Path) -> None:
    """Remove a file, a link or a folder as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def abandoned(path: Path, suffix: str) -> list[Path]:
    """List the `.NAME.PID.SUFFIX` beside a path whose process was killed at its work."""
    found: list[Path] = []
    if os.name != "posix":  # elsewhere one cannot ask whether a process runs
        return found
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.{suffix}"):
        process = left.name.removesuffix(f".{suffix}").rpartition(".")[2]
        if process.isdecimal() and not _runs(int(process)):
            found.append(left)
    return found


class ClaimedFolder:
    """A folder and the lock in it; the system frees the lock of a killed process.

    Parameters
    ----------
    path : path
        The folder.
    purpose : path
        What is made in it, for messages.
    """

    def __init__(self, path: Path, purpose: Path):
        self.path, self.purpose = path, purpose
        self._lock: FileLock | None = None

    def acquire(self) -> None:
        """Make the folder where it is absent and claim it.

        Raises
        ------
        OutputError
            If it cannot be written, or another process works in it.
        """
        from filelock import FileLock, Timeout  # the engine and its benches do without

        path = self.path / "lock"
        for _ in range(ATTEMPTS):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise OutputError(
                    f"{self.path} cannot be created ({exc.strerror}); choose a folder you may "
                    "write to."
                ) from exc
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout as exc:
                raise OutputError(
                    f"{self.purpose} is being worked on by another process (lock {path}); wait "
                    "for it, or choose another --out."
                ) from exc
            except OSError as exc:
                raise OutputError(
                    f"{self.path} cannot be written ({exc.strerror}); choose a folder you may "
                    "write to."
                ) from exc
            self._lock = lock
            if path.exists():
                return
            self.release()  # that of a process which has just finished, removed by it
        raise OutputError(f"{self.purpose} is being worked on by other processes; wait for them.")

    def release(self) -> None:
        """Give the lock back; the folder stays."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def clear(self) -> None:
        """Remove the folder with everything in it and give the lock back."""
        lock = self.path / "lock"
        with contextlib.suppress(OSError):
            for entry in list(self.path.iterdir()):
                if entry != lock:
                    remove(entry)
        # While it is held, so that nobody else's is removed; Windows lets only closed files go.
        for give_back in (False, True):
            if give_back:
                self.release()
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)
                self.path.rmdir()
                break
        self.release()
