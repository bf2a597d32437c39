"""The life of OUT: work in OUT.partial, continue, extend, replace, refuse.

Work happens in OUT.partial (lock, identity of the run, checkpoint). When all is done the result
is written beside the checkpoint and renamed to OUT, so OUT is either absent, the previous
result, or whole. What a replaced OUT held besides the run's own files is carried over.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_sdm.config import Settings
from gpu_sdm.errors import CheckpointMismatch, OutputError
from gpu_sdm.io.claimed import ClaimedFolder, remove
from gpu_sdm.io.replaced import put_back
from gpu_sdm.io.tables import read_maxima, stored_json, sync_folder, write_json
from gpu_sdm.permute.checkpoint import any_null, is_damaged, load_null, remove_null, save_null
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


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


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
        Discard unfinished work and replace a finished result. Unfinished work of the same
        settings that was itself begun so is continued.
    permutations : int, optional
        How many are run; those of the settings by default.
    space_needed : int
        Bytes that the work and the result take on the disk of OUT.
    say : callable
        Called with a sentence on what became of files that were there.

    Raises
    ------
    OutputError
        If OUT belongs to something else, is finished, in use, cannot be written, or its disk has
        no room.
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
        *,
        space_needed: int = 0,
        say: Callable[[str], None] = lambda sentence: None,
    ):
        # A link is followed: work and result belong on the disk that it leads to.
        self.out = out.resolve() if out.is_symlink() else out.absolute()
        self.partial = partial_of(self.out)
        self.settings, self.content = settings, content
        self.force, self.space_needed, self._say = force, space_needed, say
        self.permutations = settings.permutations if permutations is None else permutations
        self.identity = {"program": MARK, "settings": settings.as_dict(), "content": content}
        self._checkpoint = self.partial / "checkpoint.npz"
        self._replaced = self.partial / "replaced"
        self._claim = ClaimedFolder(self.partial, self.out)
        self._found: str | None = None  # run.json of what is to be replaced

    def __enter__(self) -> OutputFolder:
        fresh = not self.partial.exists()
        if fresh:
            self._finished_identity()  # refuse before anything is created
        self._claim.acquire()
        try:
            self._recover()
            self._begin(self._finished_identity())
        except BaseException:
            if fresh or self._worthless():
                self._claim.clear()
            self._claim.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._claim.release()

    def _finished_identity(self) -> dict[str, Any] | None:
        """Identity of a finished result to extend; None where OUT is free or to be replaced."""
        if not self.out.exists():
            return None
        if os.path.ismount(self.out) or not os.access(self.out, os.W_OK):
            raise OutputError(
                f"{self.out} cannot be replaced by a finished result (it is a mounted disk, or "
                "may not be written to); choose another --out."
            )
        if self.out.is_dir() and not any(self.out.iterdir()):
            return None
        stored = stored_json(self.out / "run.json")
        if stored.get("program") != MARK:
            raise OutputError(
                f"{self.out} exists and is not a gpu-sdm result; choose another --out."
            )
        if self.force or self._begun_by_force():
            return None
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

    def _begun_by_force(self) -> bool:
        """Whether the unfinished work is this run's and was begun to replace what is at OUT."""
        stored = stored_json(self.partial / "run.json")
        if "replaces" not in stored:
            return False
        same = not describe_difference(self.settings, self.content, stored)
        return same and stored["replaces"] == _sha256(self.out / "run.json")

    def _recover(self) -> None:
        """Go on where a process was killed while it put a result in the place of another."""
        if self._replaced.exists() and (said := put_back(self._replaced, self.out)):
            self._say(said)

    def _worthless(self) -> bool:
        """Whether nothing in OUT.partial is worth keeping: nobody's, or already in OUT."""
        stored, finished = (stored_json(f / "run.json") for f in (self.partial, self.out))
        if self._replaced.exists():
            return False
        if not stored or "permutations" not in finished:
            return not stored
        settings, most = Settings.from_dict(stored["settings"]), int(finished["permutations"])
        if describe_difference(settings, stored["content"], finished):
            return False
        return load_null(self._checkpoint, settings.statistic, most + 1).done <= most

    def _begin(self, finished: dict[str, Any] | None) -> None:
        identity = self.partial / "run.json"
        forced = self.force or self._begun_by_force()
        if self.force and not self._begun_by_force():
            identity.unlink(missing_ok=True)  # first: a checkpoint without it is nobody's
            remove_null(self._checkpoint)
        stored = stored_json(identity)
        if stored:
            difference = describe_difference(self.settings, self.content, stored)
            if difference:
                raise CheckpointMismatch(
                    f"{self.partial} holds unfinished work with other settings ({difference}); "
                    "run with those settings, choose another --out, or add --force to discard it."
                )
        else:
            remove_null(self._checkpoint)
        self._require_space()
        self._found = _sha256(self.out / "run.json")
        replaces = {"replaces": self._found} if forced else {}
        write_json(identity, self.identity | replaces)
        if finished is not None and not any_null(self._checkpoint):
            maxima = read_maxima(self.out / "null" / "maxima.tsv", self.settings.statistic)
            done = next(iter(maxima.values())).shape[1]
            state = NullState.empty(self.settings.statistic, done)
            state.add(0, maxima)
            self.save(state)

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.partial).free
        if free < self.space_needed:
            raise OutputError(
                f"{self.out.parent} has {free / 1e6:,.1f} MB free and this analysis writes about "
                f"{self.space_needed / 1e6:,.1f} MB; free some space, or choose another --out."
            )

    def load(self) -> NullState:
        """Give the permutations that an earlier run finished."""
        state = load_null(self._checkpoint, self.settings.statistic, self.permutations)
        if is_damaged(self._checkpoint, self.settings.statistic):
            self._say(
                f"{self._checkpoint} is damaged; going on from {state.done} permutations that "
                "were saved before it."
            )
        return state

    def save(self, state: NullState) -> None:
        """Keep the permutations finished so far.

        Raises
        ------
        OutputError
            If the disk is full or read-only; what was saved before stays.
        """
        try:
            save_null(self._checkpoint, state)
        except OSError as exc:
            raise OutputError(
                f"the checkpoint in {self.partial} cannot be written ({exc.strerror}); "
                f"free some space and give the same command again: {state.done} permutations "
                "or somewhat fewer are kept."
            ) from exc

    def finish(self, write: Callable[[Path], None]) -> Path:
        """Write the whole result with `write(folder)` and move it to OUT.

        Raises
        ------
        OutputError
            If that cannot be done: what was at OUT stays, and the permutations are kept.
        """
        result = self.partial / "result"
        if _sha256(self.out / "run.json") != self._found:
            raise OutputError(
                f"another result was put at {self.out} while this one was computed; move it away "
                "and give the same command again: the permutations are kept."
            )
        try:
            remove(result)
            result.mkdir()
            write(result)
            if self.out.exists():
                self.out.rename(self._replaced)
            result.rename(self.out)
        except (OSError, OutputError) as exc:
            if self._replaced.exists() and not self.out.exists():
                self._replaced.rename(self.out)
            remove(result)
            raise OutputError(
                f"the result cannot be written to {self.out} "
                f"({getattr(exc, 'strerror', None) or exc}); free some space and give the same "
                "command again: the permutations are kept."
            ) from exc
        # From here on a killed process leaves nothing that anybody needs but what was replaced.
        (self.partial / "run.json").unlink(missing_ok=True)
        sync_folder(self.out.parent)  # a failing disk must not lose both
        self._recover()
        self._claim.clear()
        return self.out
