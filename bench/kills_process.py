"""Run the command line in children of a warm parent, watch where they are, and kill them there."""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
# Where a function is looked up when it is called -> the stage that it is.
STAGES = {
    "gpu_sdm.io:read": "reading",
    "gpu_sdm.finished:read": "reading",
    "gpu_sdm.analysis:load_space": "template and mask",
    "gpu_sdm.analysis:load_template": "template and mask",
    "gpu_sdm.analysis:study_bounds": "bounds",
    "gpu_sdm.problem:estimate": "likelihood",
    "gpu_sdm.problem:impute": "imputation",
    "gpu_sdm.problem:meta": "pooling",
    "gpu_sdm.problem:subject_bank": "subject images",
    "gpu_sdm.pipeline:permute": "permutations",
    "gpu_sdm.output:save_null": "saving the checkpoint",
    "gpu_sdm.pipeline:_maps": "inference",
    "gpu_sdm.pipeline:threshold_tables": "inference",
    "gpu_sdm.pipeline:provenance": "inference",
    "gpu_sdm.result:Result.save": "writing the result",
    "gpu_sdm.output:OutputFolder.finish": "putting the result in its place",
    "gpu_sdm.findings.threshold_files:save": "writing findings",
    "gpu_sdm.findings.jackknife:plain_fold": "a fold of the jackknife",
    "gpu_sdm.findings.jackknife:_write": "writing findings",
    "gpu_sdm.io.tables:write_tsv": "writing tables",
    "gpu_sdm.report.build:report": "the report",
}
START = "start and checks"
NAMES = (START, *dict.fromkeys(STAGES.values()))


class Watch:
    """The stage that a child is in, its file-system operations, and where it is to die."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the children
        self.roots: tuple[str, ...] = ()
        self.kill_at: int | None = None  # instant, counted from 1
        self.instants: list[tuple[str, str, str]] = []  # (kind, stage, what)
        self._on = False

    @property
    def stage(self) -> str:
        """Name of the stage that the last child was in."""
        return NAMES[self._page[0]]

    def enter(self, stage: str) -> int:
        """Note a stage; gives the one before."""
        before = self._page[0]
        self._page[0] = NAMES.index(stage)
        self.instant("stage", stage)
        return before

    def leave(self, before: int) -> None:
        """Go back to an outer stage."""
        self._page[0] = before

    def instant(self, kind: str, what: str) -> None:
        """Count a moment of a child; die there if it is the one."""
        if not self._on:
            return
        self.instants.append((kind, self.stage, what))
        if self.kill_at == len(self.instants):
            os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        if event == "open" or event in CHANGES:
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
            if path.startswith(self.roots):
                self.instant("file system", event.removeprefix("os."))

    def begin(self, roots: Sequence[Path], kill_at: int | None) -> None:
        """Begin to watch, in a child."""
        self._page[0] = 0
        self.roots, self.kill_at = tuple(map(str, roots)), kill_at
        self.instants, self._on = [], True
        sys.addaudithook(self._audit)


def install(watch: Watch) -> None:
    """Let every function of `STAGES`, and fsync, report to the watch."""
    import importlib

    def wrapped(real: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            before = watch.enter(stage)
            try:
                return real(*arguments, **named)
            finally:
                watch.leave(before)

        return call

    for place, stage in STAGES.items():
        module, name = place.split(":")
        owner: Any = importlib.import_module(module)
        *outer, last = name.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, last, wrapped(getattr(owner, last), stage))
    sync = os.fsync

    def fsync(handle: int) -> None:
        watch.instant("file system", "fsync")
        sync(handle)

    os.fsync = fsync


def fork(
    watch: Watch, argv: Sequence[str], roots: Sequence[Path], log: Path, kill_at: int | None = None
) -> int:
    """Start `gpu-sdm ARGV` in a child; gives its process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.argv = ["gpu-sdm", *argv]
        from gpu_sdm import cli

        watch.begin(roots, kill_at)
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        watch._on = False
        log.with_suffix(".instants").write_text(json.dumps(watch.instants))
        log.with_suffix(".modules").write_text("\n".join(sys.modules))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float | None = None) -> int | None:
    """Exit code of a child (-9 where it was killed); None where it still runs then."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            return None
        time.sleep(0.002)
