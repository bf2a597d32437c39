"""All that a GPU is asked, in the order of what matters, in one call of bounded length.

Usage: python bench/card.py --out FOLDER [--minutes 9] [--commit HASH] [--steps tests rates ...]

Runs the commands of docs/howto/gpu.md ("Check and measure a card"), each in a process of its own
with a limit; a step that fails or runs out of time does not keep the next from running, and one
for which too little time is left is said to be left out. Everything printed is kept in
FOLDER/STEP.txt, the measured figures in FOLDER/permute-cuda-DATE.json. Ends with a line a step;
exit code 1 where one failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
LEAST_S = 20.0  # a step is not begun with less
SHOWN = 15  # last lines of a step that failed
PYTHON = sys.executable
CUDA_TESTS = tuple(sorted(str(p) for p in (ROOT / "tests").glob("test_cuda*.py")))
# The card's clocks stay as they are.
NCU = ("ncu", "--clock-control", "none", "--set", "detailed", "--kernel-name", "permuted_z",
       "--launch-count", "1")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One command line, by a name, with its limit in seconds."""

    name: str
    line: tuple[str, ...]
    limit_s: float


def _measure(part: str, *more: str) -> tuple[str, ...]:
    return (PYTHON, "bench/permute.py", "--device", part, *more, "--write")


STEPS = (
    Step("tests", (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CUDA_TESTS), 150),
    Step("rates", _measure("rates", "--cases", "50", "11"), 180),
    Step("stages", _measure("stages", "--cases", "50", "11"), 90),
    Step("memcheck", (PYTHON, "bench/sanitize.py", "--tools", "memcheck"), 120),
    Step("racecheck", (PYTHON, "bench/sanitize.py", "--tools", "racecheck"), 120),
    Step("profile", (*NCU, PYTHON, "bench/card.py", "--profile"), 90),
    Step("long", _measure("long"), 120),
    Step("scaling", _measure("scaling"), 120),
    Step("rates135", _measure("rates", "--cases", "135"), 120),
)


def profiled() -> None:
    """Launch what ncu looks at: one tile of permutations of 50 studies."""
    from permute_device import CASES, open_card, workload

    from gpu_sdm.permute.device import DeviceEngine

    device, _ = open_card()
    work = workload(50, CASES[50])
    DeviceEngine(work.problem(), work.plan, device, ("voxel",)).maxima(0)


def run(step: Step, out: Path, limit_s: float, environment: dict[str, str]) -> str:
    """Run a step; "ok", or what became of it."""
    if shutil.which(step.line[0]) is None:
        return f"left out: {step.line[0]} is absent"
    log = out / f"{step.name}.txt"
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                step.line, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment,
                timeout=limit_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s:.0f} s"
    if done.returncode:
        print("\n".join(log.read_text(encoding="utf-8").splitlines()[-SHOWN:]), flush=True)
        return f"FAILED ({done.returncode})"
    return "ok"


def run_all(
    steps: list[Step],
    out: Path,
    seconds: float,
    environment: dict[str, str],
    one: Callable[[Step, Path, float, dict[str, str]], str] = run,
) -> dict[str, str]:
    """Run the steps while there is time; what became of each."""
    end = monotonic() + seconds
    found = {}
    for step in steps:
        begin = monotonic()
        limit = min(step.limit_s, end - begin)
        if limit < LEAST_S:
            found[step.name] = "left out: no time"
        else:
            found[step.name] = one(step, out, limit, environment)
        print(f"{step.name}: {found[step.name]}, {monotonic() - begin:.0f} s", flush=True)
        for path in RESULTS.glob("permute-cuda-*.json"):  # what is measured is never lost
            shutil.copy(path, out)
    return found


def main(arguments: list[str]) -> int:
    """Run the steps; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [step.name for step in STEPS]
    parser.add_argument("--out", type=Path, default=Path("card-output"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--commit", help="of this tree, where git is not at hand")
    parser.add_argument("--steps", nargs="+", choices=names, default=names)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.profile:
        profiled()
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GPU_SDM_REQUIRE_CUDA": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if args.commit:
        environment["GPU_SDM_COMMIT"] = args.commit
    steps = [step for step in STEPS if step.name in args.steps]
    found = run_all(steps, args.out, 60 * args.minutes, environment)
    print("\n".join(f"{name:10} {what}" for name, what in found.items()))
    return int(any(what.startswith("FAILED") for what in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
