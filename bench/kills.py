"""Kill the real commands at random moments and compare what comes of it, bit for bit: `make kills`.

Usage: python bench/kills.py [--kills 200] [--minutes 5] [--seed 1] [--case NAME] [--write]

Each trial starts a command in a fresh folder, kills it with SIGKILL, perhaps several times, gives
the same command again until it is through, and compares every file with those of an undisturbed
run. Kinds of kill, in turn:

- clock: after a time drawn uniformly from the duration of the whole command;
- file system: just before a random one of its file-system operations (creating, renaming,
  removing a file or folder, fsync), whether of OUT, OUT.partial or the cache;
- stage: as it enters a stage, the stages drawn uniformly;
- command: `python -m gpu_sdm.cli` in a process of its own, after a random time.

The first three run in forks of a parent that has imported everything, as the start of Python takes
longer than these small analyses; they call the same `gpu_sdm.cli.main` and save a checkpoint after
every chunk (the program: every 2 s). Trials accumulate in bench/results/, a call continues there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from kills_cases import Case, do_note, make_cases
from kills_process import Watch, fork, install, wait
from machine import machine

RESULTS = Path(__file__).parent / "results" / "kills-2026-11-22.json"
KINDS = ("clock", "file system", "command", "stage", "clock", "file system")
NOT_COMPARED = {"run.json": ("timings_s",)}  # seconds that each stage took
SECONDS = re.compile(rb"<dd>\d+\.\d s</dd>")  # the same in report.html
SHARED_CACHE = ("template", "mask")  # made once: they belong to no project
WARM = ("gpu_sdm", "typer", "rich", "nibabel", "scipy", "pandas", "matplotlib", "nilearn", "PIL")
AGAIN = 0.35  # chance that a restart is killed too
MOST_TRIES, KILLS_OF_A_TRIAL = 12, 1.5


def content(folder: Path) -> dict[str, Any]:
    """Every file below a folder, by relative path; `NOT_COMPARED` and `SECONDS` left out."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole: Any = path.read_bytes()
        if path.name in NOT_COMPARED:
            whole = json.loads(whole)
            whole = {k: v for k, v in whole.items() if k not in NOT_COMPARED[path.name]}
        if path.name == "report.html":
            whole = SECONDS.sub(b"", whole)
        found[str(path.relative_to(folder))] = whole
    return found


class Harness:
    """The cases, their undisturbed results, and the killing."""

    def __init__(self, home: Path, names: Sequence[str] = (), kills: int = 200):
        self.home, self.watch = home, Watch()
        cases = make_cases(home)
        self.cases = {n: cases[n] for n in names or cases}
        self.block = max(1, round(kills / (KILLS_OF_A_TRIAL * len(self.cases))))
        self.reference: dict[str, dict[str, Any]] = {}
        self.begun: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        self.instants: dict[str, list[list[str]]] = {}
        os.environ["GPU_SDM_CACHE"] = str(home / "cache")
        install(self.watch)
        from gpu_sdm import pipeline
        from gpu_sdm.permute import engine

        engine.SAVE_EVERY, permute = 0.0, pipeline.permute
        pipeline.permute = lambda *a, **k: permute(*a, **(k | {"chunk": engine.TILE}))

    def place(self, case: Case) -> Path:
        """Folder of a case: `start` is copied to `trial`, always at the same path."""
        return self.home / "".join(c if c.isalnum() else "-" for c in case.name)

    def _argv(self, case: Case, command: Sequence[str]) -> list[str]:
        out = str(self.place(case) / "trial" / "out")
        return [out if word == "OUT" else word for word in command]

    def fresh(self, case: Case) -> None:
        """Begin a trial: the folder as before the command, a cache without its results."""
        place = self.place(case)
        shutil.rmtree(place / "trial", ignore_errors=True)
        shutil.copytree(place / "start", place / "trial")
        cache = self.home / "cache"
        for kind in cache.iterdir() if cache.exists() else ():
            if kind.name not in SHARED_CACHE:
                shutil.rmtree(kind)

    def start(self, case: Case, command: Sequence[str], kill_at: int | None = None) -> int:
        """Start a command in a fork."""
        roots = (self.place(case) / "trial", self.home / "cache")
        log = self.place(case) / "log.txt"
        return fork(self.watch, self._argv(case, command), roots, log, kill_at)

    def said(self, case: Case) -> str:
        """Read what the last command printed."""
        return (self.place(case) / "log.txt").read_text(errors="replace")

    def prepare(self, case: Case) -> None:
        """Make the folder a case starts in, then its undisturbed result, and time it."""
        place = self.place(case)
        (place / "trial").mkdir(parents=True)
        for command in case.before:
            if command == ("NOTE",):
                do_note(place / "trial" / "out")
            elif wait(self.start(case, command)) != 0:
                raise SystemExit(f"{case.name}: {self.said(case)}")
        shutil.copytree(place / "trial", place / "start")
        self.begun[case.name] = content(place / "start")
        for _ in range(2):  # the second is timed: the first may compile
            self.fresh(case)
            begin = time.monotonic()
            if wait(self.start(case, case.command)) != 0:
                raise SystemExit(f"{case.name}: {self.said(case)}")
            took = time.monotonic() - begin
        self.seconds[case.name] = {"fork": took}
        self.instants[case.name] = json.loads((place / "log.instants").read_text())
        self.reference[case.name] = content(place / "trial")
        for name in (place / "log.modules").read_text().splitlines():
            if name.split(".")[0] in WARM:
                with suppress(Exception):
                    importlib.import_module(name)

    def _kill_command(self, case: Case, spread: random.Random) -> tuple[bool, str]:
        """Kill a process of its own; gives whether it was still running, and what it had left."""
        command = [sys.executable, "-m", "gpu_sdm.cli", *self._argv(case, case.command)]
        with (self.place(case) / "log.txt").open("wb") as log:
            took = self.seconds[case.name].get("command")
            process = subprocess.Popen(command, stdout=log, stderr=log)
            begin = time.monotonic()
            try:
                process.wait(None if took is None else spread.uniform(0, took))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            if took is None:
                self.seconds[case.name]["command"] = time.monotonic() - begin
        partial = self.place(case) / "trial" / "out.partial"
        left = (
            "permutations or later" if (partial / "checkpoint.npz").exists()
            else "likelihood to subject images" if partial.exists()
            else "start, reading, bounds"
        )  # fmt: skip
        return process.returncode == -signal.SIGKILL, f"(seen from outside) {left}"

    def kill_once(self, case: Case, kind: str, spread: random.Random) -> tuple[bool, str]:
        """Run the command and kill it once; gives whether it was still running, and its stage."""
        if kind == "command":
            return self._kill_command(case, spread)
        moments = [i for i, (k, *_) in enumerate(self.instants[case.name], 1) if k == kind]
        if kind == "clock":
            pid = self.start(case, case.command)
            code = wait(pid, spread.uniform(0, self.seconds[case.name]["fork"]))
            if code is None:
                os.kill(pid, signal.SIGKILL)
                code = wait(pid)
        else:
            if kind == "stage":
                stage = spread.choice(sorted({self.instants[case.name][i - 1][1] for i in moments}))
                moments = [i for i in moments if self.instants[case.name][i - 1][1] == stage]
            code = wait(self.start(case, case.command, spread.choice(moments)))
        return code == -signal.SIGKILL, self.watch.stage

    def lost(self, case: Case) -> list[str]:
        """Name what a kill cost: files that were there and are neither as before nor as after."""
        trial = self.place(case) / "trial"
        if not (trial / "out").exists() and (trial / "out.partial" / "replaced").exists():
            return []  # killed between two renames; the next command puts it back
        now, before, after = content(trial), self.begun[case.name], self.reference[case.name]
        if not case.findings and now.get("out/run.json") != before.get("out/run.json"):
            # The new result stands: of the old one, what is not the run's own may still be moved.
            return [p for p in after if p.startswith("out/maps/") and now.get(p) != after[p]
                    and not p.endswith("mine.txt")]  # fmt: skip
        same = [p for p in before if now.get(p) != before[p]]
        return [p for p in same if now.get(p) != after.get(p)]

    def finish(self, case: Case) -> str:
        """Give the command until it is through; gives what came of it."""
        code = wait(self.start(case, case.command))
        already = code == 1 and "is finished" in self.said(case)
        if code != 0 and not already:
            return f"failed: exit {code}: {self.said(case)[-300:]}"
        wanted = self.reference[case.name]
        report = self.place(case) / "trial" / "out" / "report.html"
        if already and "out/report.html" in wanted and not report.exists():
            wait(self.start(case, ("report", "OUT")))
        now = content(self.place(case) / "trial")
        if now != wanted:
            differing = sorted(p for p in now.keys() | wanted.keys() if now.get(p) != wanted.get(p))
            return f"differs: {', '.join(differing[:6])}"
        return "identical, finished at the kill" if already else "identical"

    def trial(self, number: int, seed: int) -> dict[str, Any]:
        """Kill and resume one command; a trial's draws depend on its number and the seed."""
        spread = random.Random(f"{seed} {number}")
        names = list(self.cases)
        block = number // self.block  # of trials with one case: a new one takes long to prepare
        case, kind = self.cases[names[block % len(names)]], KINDS[(number + block) % len(KINDS)]
        if case.name not in self.reference:
            self.prepare(case)
        if kind == "command" and "command" not in self.seconds[case.name]:
            self.fresh(case)
            self._kill_command(case, spread)  # to its end, to time it
        self.fresh(case)
        kills: list[str] = []
        lost: list[str] = []
        for _ in range(MOST_TRIES):
            killed, stage = self.kill_once(case, kind, spread)
            if killed:
                kills.append(stage)
                lost += self.lost(case)
                if spread.random() > AGAIN:
                    break
            else:
                if kills:
                    break
                self.fresh(case)  # it was through before: another moment
        end = self.finish(case)
        return {"trial": number, "case": case.name, "kind": kind, "kills": kills, "lost": lost,
                "end": end}  # fmt: skip


def summary(trials: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Count over all trials."""
    stages = Counter(stage for t in trials for stage in t["kills"])
    kinds, cases = Counter[str](), Counter[str]()
    for t in trials:
        kinds[t["kind"]] += len(t["kills"])
        cases[t["case"]] += len(t["kills"])
    ends = Counter(t["end"].split(":")[0] for t in trials)
    return {
        "machine": machine(),
        "seed": seed,
        "kills": sum(stages.values()),
        "commands": len(trials),
        "kills_by_stage": dict(stages.most_common()),
        "kills_by_kind": dict(kinds),
        "kills_by_case": dict(cases),
        "ends": dict(ends),
        "resumed_bit_identical": sum(n for end, n in ends.items() if end.startswith("identical")),
        "restarts_failed": ends["failed"],
        "results_that_differ": ends["differs"],
        "files_lost_at_a_kill": sum(len(t["lost"]) for t in trials),
        "not_compared": {
            **{k: list(v) for k, v in NOT_COMPARED.items()},
            "report.html": ["cells of seconds"],
        },
        "trials": list(trials),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", action="append", help="only this one; repeat for several")
    parser.add_argument("--write", action="store_true", help=f"continue and keep {RESULTS.name}")
    asked = parser.parse_args()
    end = time.monotonic() + 60 * asked.minutes
    trials: list[dict[str, Any]] = []
    if asked.write and RESULTS.exists():
        trials = json.loads(RESULTS.read_text())["trials"]
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder), asked.case or (), asked.kills)
        while sum(len(t["kills"]) for t in trials) < asked.kills and time.monotonic() < end:
            trials.append(harness.trial(len(trials), asked.seed))
            bad = trials[-1]["lost"] or not trials[-1]["end"].startswith("identical")
            if bad or len(trials) % 20 == 0:
                print(trials[-1], file=sys.stderr, flush=True)
            if asked.write:
                RESULTS.write_text(json.dumps(summary(trials, asked.seed), indent=1) + "\n")
    counts = summary(trials, asked.seed)
    print(json.dumps({k: v for k, v in counts.items() if k != "trials"}, indent=1))
    sys.exit(bool(counts["restarts_failed"] or counts["results_that_differ"]
                  or counts["files_lost_at_a_kill"]))  # fmt: skip


if __name__ == "__main__":
    main()
