"""The life of OUT: work in OUT.partial, continue, extend, replace, refuse.

Work happens in OUT.partial (lock, identity of the run, checkpoint). When all is done the result
is written beside the checkpoint and renamed to OUT, so OUT is either absent, the previous
result, or whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from gpu_sdm.config import Settings
from gpu_sdm.errors import CheckpointMismatch, OutputError
from gpu_sdm.io.tables import read_maxima, write_json
from gpu_sdm.permute.checkpoint import load_null, save_null
from gpu_sdm.permute.null import NullState

MARK = "gpu-sdm"  # value of "program" in run.json; a folder without it is not ours to replace


def partial_of(out: Path) -> Path:
    """Folder in which the work towards OUT happens."""
    return out.with_name(out.name + ".partial")


def describe_difference(settings: Settings, content: dict[str, str], stored: dict[str, Any]) -> str:
    """Name what differs between this run and a stored identity; empty if nothing does."""
    found = settings.differences(stored.get("settings", {}))
    theirs = stored.get("content", {})
    for name in sorted(set(content) | set(theirs)):
        if content.get(name) != theirs.get(name):
            state = "new" if name not in theirs else "missing" if name not in content else "changed"
            found.append(f"input {name} is {state}")
    return "; ".join(found)


class OutputFolder:
    """One run's claim on OUT; use as a context manager.

    Parameters
    ----------
    out : path
        The result folder asked for.
    settings : Settings
        This run's settings.
    content : dict
        Name -> content hash of everything else that determines the result.
    force : bool
        Discard unfinished work and replace a finished result.
    permutations : int, optional
        How many are run; those of the settings by default.

    Raises
    ------
    OutputError
        If OUT belongs to something else, is finished, in use, or cannot be written.
    CheckpointMismatch
        If unfinished work has other settings.
    """

    def __init__(
        self,
        out: Path,
        settings: Settings,
        content: dict[str, str],
        force: bool,
        permutations: int | None = None,
    ):
        self.out, self.partial = out.absolute(), partial_of(out.absolute())
        self.settings, self.content = settings, content
        self.force = force
        self.permutations = settings.permutations if permutations is None else permutations
        self.identity = {"program": MARK, "settings": settings.as_dict(), "content": content}
        self._lock: FileLock | None = None

    def __enter__(self) -> OutputFolder:
        stored = self._finished_identity()
        fresh = not self.partial.exists()
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(
                f"{self.partial} cannot be created ({exc.strerror}); choose a folder you may "
                "write to."
            ) from exc
        lock = FileLock(self.partial / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as exc:
            raise OutputError(
                f"{self.out} is being worked on by another process (lock {self.partial / 'lock'}); "
                "wait for it, or choose another --out."
            ) from exc
        except OSError as exc:
            raise OutputError(f"{self.partial} cannot be written ({exc.strerror}).") from exc
        self._lock = lock
        try:
            self._begin(stored)
        except BaseException:
            self._release()
            if fresh:
                shutil.rmtree(self.partial, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _finished_identity(self) -> dict[str, Any] | None:
        """Identity of a finished result at OUT; None where OUT is free."""
        if not self.out.exists():
            return None
        if self.out.is_dir() and not any(self.out.iterdir()):
            return None
        try:
            stored = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        if not isinstance(stored, dict) or stored.get("program") != MARK:
            raise OutputError(
                f"{self.out} exists and is not a gpu-sdm result; choose another --out."
            )
        if self.force:
            return stored
        difference = describe_difference(self.settings, self.content, stored)
        if difference:
            raise CheckpointMismatch(
                f"{self.out} holds a result with other settings ({difference}); choose another "
                "--out, or add --force to replace it."
            )
        if stored.get("exact"):
            raise OutputError(
                f"{self.out} is finished and exact: it holds each of the "
                f"{stored['distinct_permutations']:,} distinct permutations once, and there are "
                "no more; add --force to compute it anew."
            )
        finished = stored["settings"]["permutations"]
        if self.settings.permutations <= finished:
            raise OutputError(
                f"{self.out} is finished with {finished} permutations; ask for more "
                "--permutations to extend it, or add --force to compute it anew."
            )
        return stored

    def _begin(self, finished: dict[str, Any] | None) -> None:
        identity, checkpoint = self.partial / "run.json", self.partial / "checkpoint.npz"
        if self.force:
            checkpoint.unlink(missing_ok=True)
            identity.unlink(missing_ok=True)
        try:
            stored = json.loads(identity.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = None
        if stored is not None:
            difference = describe_difference(self.settings, self.content, stored)
            if difference:
                raise CheckpointMismatch(
                    f"{self.partial} holds unfinished work with other settings ({difference}); "
                    "run with those settings, choose another --out, or add --force to discard it."
                )
        else:
            checkpoint.unlink(missing_ok=True)
        write_json(identity, self.identity)
        if finished is not None and not self.force and not checkpoint.exists():
            maxima = read_maxima(self.out / "null" / "maxima.tsv", self.settings.statistic)
            done = next(iter(maxima.values())).shape[1]
            state = NullState.empty(self.settings.statistic, done)
            state.add(0, maxima)
            save_null(checkpoint, state)

    def load(self) -> NullState:
        """Give the permutations that an earlier run finished."""
        return load_null(
            self.partial / "checkpoint.npz", self.settings.statistic, self.permutations
        )

    def save(self, state: NullState) -> None:
        """Keep the permutations finished so far.

        Raises
        ------
        OutputError
            If the disk is full or read-only; what was saved before stays.
        """
        try:
            save_null(self.partial / "checkpoint.npz", state)
        except OSError as exc:
            raise OutputError(
                f"the checkpoint in {self.partial} cannot be written ({exc.strerror}); "
                f"free some space and give the same command again: {state.done} permutations "
                "or somewhat fewer are kept."
            ) from exc

    def finish(self, write: Callable[[Path], None]) -> Path:
        """Write the whole result with `write(folder)` and move it to OUT."""
        result, old = self.partial / "result", self.out.with_name(self.out.name + ".old")
        try:
            shutil.rmtree(result, ignore_errors=True)
            result.mkdir()
            write(result)
            if self.out.exists():
                shutil.rmtree(old, ignore_errors=True)
                self.out.rename(old)
            result.rename(self.out)
        except OSError as exc:
            raise OutputError(
                f"the result cannot be written to {self.out} ({exc.strerror}); free some space "
                "and give the same command again: the permutations are kept."
            ) from exc
        self._release()
        shutil.rmtree(self.partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        return self.out
