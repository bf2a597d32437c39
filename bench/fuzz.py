"""Fuzz every reader: `make fuzz`, or `python bench/fuzz.py --minutes 2 --reader flat`.

Coverage-guided with atheris, each reader in a process of its own with limits of memory and of time
per input. `--seeded N` needs no atheris: N mutations of each reader's valid files, the same ones
for the same `--seed`.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MEMORY_MB = 3000  # resident, of one reader's process
ADDRESSES_MB = 12_000  # address space of the seeded form; libraries reserve much of it
INPUT_SECONDS = 20
INSTRUMENTED = [
    "gpu_sdm.io", "gpu_sdm.stages.formula", "gpu_sdm.stages.where", "gpu_sdm.stages.contrast",
    "openpyxl",
]  # fmt: skip
NEEDS = (
    "atheris is not installed, which guides the fuzzing by coverage: pip install atheris, or run "
    "the short form without it: python bench/fuzz.py --seeded 500"
)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="of each reader")
    parser.add_argument("--reader", action="append", help="only this one; repeat for several")
    parser.add_argument("--jobs", type=int, default=1, help="readers at a time")
    parser.add_argument("--corpus", type=Path, help="folder to keep what raised the coverage in")
    parser.add_argument("--crashers", type=Path, default=Path("fuzz-crashers"))
    parser.add_argument("--results", type=Path, help="JSON to write or to continue")
    parser.add_argument("--seeded", type=int, metavar="N", help="N mutations each, no atheris")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def scratch_folder() -> str | None:
    """Give a file system in memory, if there is one: each input is a file."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fuzz_one(name: str, seconds: float, corpus: Path, crashers: Path) -> None:
    """Fuzz one reader in this process until the time is over; never returns."""
    import atheris

    # What is compiled by numba must stay as it is, so only the readers are instrumented.
    with atheris.instrument_imports(include=INSTRUMENTED):
        import fuzz_mutate
        import fuzz_targets
        import openpyxl  # noqa: F401 -- later it would not be instrumented

    target = fuzz_targets.TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(target.seeds()):
        (corpus / f"seed{i}").write_bytes(seed)
    words = corpus.with_name(f"{name}.dict")
    words.write_text(fuzz_targets.dictionary(target))
    known: set[str] = set()
    place = Path(tempfile.mkdtemp(dir=scratch_folder()))

    def test_one(data: bytes) -> None:
        started = time.monotonic()
        try:
            fuzz_targets.attempt(target, data, place / "in")
        except Exception as error:
            kind = fuzz_mutate.signature(error)
        else:
            took = time.monotonic() - started
            kind = "slow" if took > fuzz_mutate.SLOW else ""
        if kind and kind not in known:
            known.add(kind)
            print(f"FINDING {kind} {fuzz_mutate.keep(crashers, name, data)}", file=sys.stderr)

    options = [
        f"-max_total_time={seconds:.0f}", f"-timeout={INPUT_SECONDS}",
        f"-max_len={fuzz_mutate.LONGEST}", f"-rss_limit_mb={MEMORY_MB}", f"-dict={words}",
        f"-artifact_prefix={crashers}/{name}-stop-", "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    warnings.simplefilter("error")
    atheris.Setup([sys.argv[0], *options], test_one)
    atheris.Fuzz()


def start(name: str, args: argparse.Namespace, corpus: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start the process of a reader; its log goes to a file."""
    args.crashers.mkdir(parents=True, exist_ok=True)
    log = corpus / f"{name}.log"
    command = [
        sys.executable, __file__, "--one", name, "--minutes", str(args.minutes),
        "--corpus", str(corpus / name), "--crashers", str(args.crashers),
    ]  # fmt: skip
    one_core = {f"{lib}_NUM_THREADS": "1" for lib in ("OMP", "OPENBLAS", "NUMBA")}
    with log.open("w") as file:
        return subprocess.Popen(command, stderr=file, text=True, env=os.environ | one_core), log


def figures(log: str, code: int, minutes: float) -> dict[str, Any]:
    """Take what libFuzzer says at the end."""

    def last(pattern: str) -> int:
        found = re.findall(pattern, log)
        return int(found[-1]) if found else 0

    findings = re.findall(r"^FINDING (.*) (\S+)$", log, re.MULTILINE)
    if code != 0:
        stop = re.findall(r"ERROR: libFuzzer: (.*)", log) or [log[-300:]]
        findings.append((stop[-1], "stopped"))
    return {
        "executions": last(r"stat::number_of_executed_units: (\d+)"),
        "minutes": round(minutes, 2),
        "edges_covered": last(r"cov: (\d+)"),
        "features": last(r"ft: (\d+)"),
        "corpus": last(r"corp: (\d+)"),
        "peak_mb": last(r"stat::peak_rss_mb:\s+(\d+)"),
        "findings": {kind: Path(file).name for kind, file in findings},
    }


def guided(names: list[str], args: argparse.Namespace, corpus: Path) -> dict[str, Any]:
    """Fuzz readers, some at a time."""
    waiting, running, found = list(names), {}, {}
    while waiting or running:
        while waiting and len(running) < args.jobs:
            name = waiting.pop(0)
            running[name] = (*start(name, args, corpus), time.monotonic())
        for name, (process, log, began) in list(running.items()):
            if process.poll() is None:
                continue
            minutes = (time.monotonic() - began) / 60
            found[name] = figures(log.read_text(errors="replace"), process.returncode, minutes)
            print(f"{name}: {found[name]}", flush=True)
            del running[name]
        time.sleep(0.5)
    return found


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Add the figures of a further run to those of earlier ones."""
    for name, one in new.items():
        before = old.get(name, {})
        old[name] = {
            **{k: before.get(k, 0) + one[k] for k in ("executions", "minutes")},
            **{
                k: max(before.get(k, 0), one[k])
                for k in ("edges_covered", "features", "corpus", "peak_mb")
            },
            "findings": before.get("findings", {}) | one["findings"],
        }
    return old


def versions() -> dict[str, str]:
    """Versions of what was fuzzed, and with what."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("gpu-sdm", "atheris", "numpy", "nibabel", "openpyxl", "formulaic", "nimare",
                 "pyarrow"):  # fmt: skip
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> int:
    """Run; 1 if anything was found."""
    args = arguments()
    if args.one:
        fuzz_one(args.one, args.minutes * 60, args.corpus, args.crashers)
    if args.seeded:
        # Before the libraries: a reader that asks for more memory gets a MemoryError, a finding.
        limit = ADDRESSES_MB << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("error")
    import fuzz_mutate
    import fuzz_targets

    targets = fuzz_targets.available()
    names = args.reader or list(targets)
    wrong = [n for n in names if n not in targets]
    if wrong:
        print(f"no reader {wrong[0]!r} here; there are {', '.join(targets)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        if args.seeded:
            found = {
                name: fuzz_mutate.seeded(
                    name, targets[name], args.seeded, args.seed, Path(scratch), args.crashers
                )
                for name in names
            }
            print(fuzz_targets.as_json(found), end="")
        else:
            try:
                metadata.version("atheris")
            except metadata.PackageNotFoundError:
                print(NEEDS, file=sys.stderr)
                return 2
            corpus = args.corpus or Path(scratch)
            corpus.mkdir(parents=True, exist_ok=True)
            found = guided(names, args, corpus)
    if args.results and not args.seeded:
        import json

        old = json.loads(args.results.read_text()) if args.results.exists() else {}
        readers = merged(old.get("readers", {}), found)
        content = {
            "when": datetime.now(UTC).isoformat(timespec="minutes"),
            "executions": sum(r["executions"] for r in readers.values()),
            "minutes": round(sum(r["minutes"] for r in readers.values()), 1),
            "limits": {"seconds_per_input": INPUT_SECONDS, "memory_mb": MEMORY_MB},
            "versions": versions(),
            "readers": readers,
        }
        args.results.write_text(fuzz_targets.as_json(content))
    return int(any(r["findings"] for r in found.values()))


if __name__ == "__main__":
    sys.exit(main())
