"""Mutation without coverage: the short form of the fuzzers that every test run makes."""

from __future__ import annotations

import hashlib
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_judge import Finding
from fuzz_targets import Target, attempt
from peak_memory import peak_mb

LONGEST = 20_000  # bytes of an input
SLOW = 10.0  # seconds of one input; more counts as a hang
ODD = (0, 1, 9, 10, 13, 32, 34, 39, 44, 45, 46, 59, 92, 127, 128, 254, 255)


class Hang(Exception):
    """One input took too long."""


def mutate(
    data: bytes, others: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random
) -> bytes:
    """Change bytes in one to four places, each in one of ten ways."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, length = rng.randrange(len(raw) + 1), rng.choice((1, 1, 2, 4, 8, 30, 200))
        way = rng.randrange(10)
        if way == 0 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(raw):
            raw[at] = rng.choice(ODD)
        elif way == 2:
            raw[at:at] = rng.choice(tokens)
        elif way == 3:
            token = rng.choice(tokens)
            raw[at : at + len(token)] = token
        elif way == 4:
            del raw[at : at + length]
        elif way == 5:
            raw[at:at] = raw[at : at + length] * rng.choice((1, 2, 50))
        elif way == 6:
            del raw[at:]
        elif way == 7:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            raw[at : at + length] = other[start : start + length]
        elif way == 8:  # a cell, a word or a number in place of another
            words = bytes(raw).split(rng.choice((b"\t", b",", b" ", b'"', b"\n")))
            word = rng.choice(words)
            if word:
                start = bytes(raw).find(word)
                raw[start : start + len(word)] = rng.choice([*words[:50], *tokens])
        else:
            raw[at:at] = rng.randbytes(length)
    return bytes(raw[:LONGEST])


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the block after so many seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def signature(error: BaseException) -> str:
    """Kind of an error and the last line of this project that it went through."""
    if isinstance(error, Finding):
        return str(error).split(":")[0]
    place = "?"
    for frame in traceback.extract_tb(error.__traceback__):
        if "gpu_sdm" in frame.filename or "fuzz_" in frame.filename:
            place = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{type(error).__name__} at {place}"


def keep(folder: Path, name: str, data: bytes) -> Path:
    """Store an input that was found out, called by its target and content."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def seeded(
    name: str, target: Target, executions: int, seed: int, scratch: Path, crashers: Path
) -> dict[str, Any]:
    """Give a reader its valid files and so many mutations of them; the same for the same seed.

    Returns
    -------
    dict
        executions, read, refused, seconds, peak_mb (of the process), findings (signature: file).
    """
    rng = random.Random(f"{name} {seed}")
    pool = list(target.seeds())
    counts: Counter[str] = Counter()
    findings: dict[str, str] = {}
    started = time.monotonic()
    for i in range(executions):
        if i < len(target.seeds()):
            data = pool[i]
        else:
            data = mutate(rng.choice(pool), pool, target.tokens, rng)
        try:
            with time_limit(SLOW):
                outcome = attempt(target, data, scratch / name)
        except Exception as error:
            outcome = "finding"
            kind = signature(error)
            if kind not in findings:
                findings[kind] = str(keep(crashers, name, data))
                print(f"{name}: {kind}: {error}", file=sys.stderr)
        if outcome == "read" and len(pool) < 200 and rng.random() < 0.2:
            pool.append(data)  # what can be read is worth changing further
        counts[outcome] += 1
    return {
        "executions": executions,
        "read": counts["read"],
        "refused": counts["refused"],
        "seconds": round(time.monotonic() - started, 2),
        "peak_mb": peak_mb(),
        "findings": findings,
    }
