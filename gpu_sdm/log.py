"""The log file of `gpu-sdm --log FILE`: what was asked, done and said, with times.

Everything is also on the terminal; the file adds times, versions and how the command ended.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpu_sdm.errors import OutputError

if TYPE_CHECKING:
    import logging

ENDS = {0: "done", 2: "the command line is wrong", 130: "stopped by Ctrl-C"}


class RunLog:
    """An open log file.

    Parameters
    ----------
    path : path
        Appended to.
    say : callable
        Told, once, that the file can no longer be written; the work goes on without it.

    Raises
    ------
    OutputError
        If it cannot be opened.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        import logging

        try:
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise OutputError(
                f"--log {path} cannot be written ({error.strerror}); name a file in a folder that "
                "exists."
            ) from error
        # The process, as several commands may append to one file.
        form = "%(asctime)s %(process)d %(levelname)s %(message)s"
        handler.setFormatter(logging.Formatter(form, "%Y-%m-%dT%H:%M:%S%z"))
        handler.handleError = self._lost  # type: ignore[method-assign]
        self._logger = logging.Logger("gpu_sdm", logging.INFO)
        self._logger.addHandler(handler)
        self._path, self._say, self._lost_it = path, say, False
        self._start, self._stages = time.monotonic(), dict[str, tuple[float, int, int]]()

    def _lost(self, record: logging.LogRecord) -> None:
        if not self._lost_it:
            self._lost_it = True
            self._say(f"warning: --log {self._path} can no longer be written; work goes on.")

    def note(self, text: str, level: str = "info") -> None:
        """Append a message; further lines of it are indented."""
        if not self._lost_it:
            getattr(self._logger, level)("%s", text.replace("\n", "\n    "))

    def stage(self, name: str, done: int, total: int) -> None:
        """Append where a stage starts and ends."""
        if name not in self._stages:
            self.note(f"stage {name}: start, {total:,} steps")
        start, before, _ = self._stages.get(name, (time.monotonic(), -1, total))
        self._stages[name] = start, done, total
        if done >= total > before:
            self.note(f"stage {name}: {done:,} of {total:,}, {time.monotonic() - start:.1f} s")

    def end(self, code: int) -> None:
        """Append how the command ended, and close the file."""
        for name, (start, done, total) in self._stages.items():
            if done < total:
                seconds = time.monotonic() - start
                self.note(f"stage {name}: left at {done:,} of {total:,}, {seconds:.1f} s")
        said = f"exit code {code} ({ENDS.get(code, 'failed')})"
        self.note(
            f"end: {said}, {time.monotonic() - self._start:.1f} s", "info" if not code else "error"
        )
        for handler in self._logger.handlers:
            with suppress(OSError):  # what is left in its buffer may not fit either
                handler.close()


_running: RunLog | None = None


def start(
    path: Path, words: Sequence[str], versions: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Open the log file of this process and write its head; Python's warnings go there too.

    Parameters
    ----------
    path : path
        Appended to.
    words : sequence of str
        The command line.
    versions : mapping of str to str
        Of what computes.
    say : callable
        Told if the file is lost later.

    Raises
    ------
    OutputError
        If the file cannot be opened.
    """
    import shlex
    import warnings

    global _running
    _running = RunLog(path, say)
    note(f"start: {shlex.join(words)}")
    note(f"folder: {Path.cwd()}")
    note(", ".join(f"{name} {version}" for name, version in versions.items()))
    show = warnings.showwarning

    def both(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        show(message, category, filename, lineno, file, line)
        note(f"{category.__name__}: {message} ({filename}:{lineno})", "warning")

    warnings.showwarning = both


def note(text: str, level: str = "info") -> None:
    """Append a message to the log file, if there is one."""
    if _running is not None:
        _running.note(text, level)


def stage(name: str, done: int, total: int) -> None:
    """Append where a stage starts and ends to the log file, if there is one."""
    if _running is not None:
        _running.stage(name, done, total)


@contextmanager
def ended() -> Iterator[None]:
    """Append how what runs inside ends: its exit code, and the traceback of a defect."""
    global _running
    code: Any = 0
    try:
        yield
    except SystemExit as exc:
        code = exc.code
        raise
    except BaseException:
        code = 1
        note(traceback.format_exc().rstrip(), "critical")
        raise
    finally:
        if _running is not None:
            _running.end(code if isinstance(code, int) else int(code is not None))
            _running = None
