"""Every reader under fire: mutations with a fixed seed, crashers of old, and hypothesis.

The fuzzers themselves are bench/fuzz.py (`make fuzz`), guided by coverage.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import fuzz
import fuzz_targets
import pytest
from fuzz_judge import Finding
from fuzz_mutate import Hang, mutate, seeded, time_limit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import write_project

from gpu_sdm.errors import InputError

HOME = Path(__file__).parents[1]
CRASHERS = sorted((Path(__file__).parent / "crashers").iterdir())
TARGETS = fuzz_targets.available()
SEED, EXECUTIONS = 20261122, 250  # of each reader: about 20 s in all
MOST_MB = 900  # of the process; the libraries alone take 150, with NiMARE 420


@pytest.fixture(scope="module")
def fired(tmp_path_factory):
    """Figures of the seeded run, in a process of limited memory."""
    folder = tmp_path_factory.mktemp("crashers")
    command = [sys.executable, "-W", "error", fuzz.__file__, "--seeded", str(EXECUTIONS)]
    command += ["--seed", str(SEED), "--crashers", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    total = sum(f["executions"] for f in found.values())
    print(f"mutated inputs: {total:,} of {len(found)} readers, read: "
          f"{sum(f['read'] for f in found.values()):,}, refused: "
          f"{sum(f['refused'] for f in found.values()):,}")  # fmt: skip
    return found


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_end_in_a_dataset_or_a_sentence(fired, name):
    figures = fired[name]
    assert figures["findings"] == {}
    assert figures["executions"] == EXECUTIONS == figures["read"] + figures["refused"]
    assert figures["read"] >= len(TARGETS[name].seeds())  # the valid files at least
    assert figures["refused"] > EXECUTIONS / 10
    assert figures["peak_mb"] < MOST_MB


@pytest.mark.parametrize("path", CRASHERS, ids=lambda p: p.name)
def test_crashers_of_old(path, tmp_path):
    name = path.name.rpartition("-")[0]
    if name not in TARGETS:
        pytest.skip(f"{name} needs NiMARE and pyarrow, which are not installed")
    with time_limit(10):
        fuzz_targets.attempt(TARGETS[name], path.read_bytes(), tmp_path / "in")


def test_there_are_crashers():
    assert len(CRASHERS) >= 8


@pytest.mark.parametrize("name", [n for n in TARGETS if n not in ("parquet", "template")])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_bytes(name, data, tmp_path):
    """Bytes of hypothesis, alone or spliced into a valid file."""
    target = TARGETS[name]
    base = data.draw(st.sampled_from([b"", *target.seeds()]))
    at, end = sorted(data.draw(st.tuples(*[st.integers(0, len(base))] * 2)))
    piece = data.draw(st.binary(max_size=40) | st.sampled_from(list(target.tokens)))
    with time_limit(10):
        outcome = fuzz_targets.attempt(target, base[:at] + piece + base[end:], tmp_path / "in")
    assert outcome in ("read", "refused")


def test_the_same_seed_gives_the_same_inputs():
    target = TARGETS["flat"]
    runs = [
        [mutate(target.seeds()[0], target.seeds(), target.tokens, rng) for _ in range(200)]
        for rng in (random.Random(7), random.Random(7), random.Random(8))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) > 150


def _leaky(error: Exception | None, said: str = "") -> fuzz_targets.Target:
    def run(data: bytes, folder: Path) -> None:
        if b"!" in data:
            raise error if error is not None else InputError(said)

    return fuzz_targets.Target("leaky", lambda: [b"fine", b"no!"], run)


@pytest.mark.parametrize(
    "target",
    [_leaky(KeyError("x")), _leaky(None, "two\nlines."), _leaky(None, "no full stop"),
     _leaky(None, "\x1b[2J."), _leaky(None, "x" * 2000 + "."), _leaky(MemoryError()),
     _leaky(RecursionError("deep"))],
    ids=["key", "lines", "stop", "escape", "long", "memory", "recursion"],
)  # fmt: skip
def test_what_the_fuzzers_would_find_is_found_and_kept(target, tmp_path):
    found = seeded("leaky", target, 40, 1, tmp_path / "scratch", tmp_path / "crashers")
    assert len(found["findings"]) == 1
    kept = Path(next(iter(found["findings"].values())))
    assert b"!" in kept.read_bytes()
    with pytest.raises((Finding, KeyError, MemoryError, RecursionError)):
        fuzz_targets.attempt(target, kept.read_bytes(), tmp_path / "again")


def _for_ever():
    with time_limit(0.05):
        while True:
            pass


def test_a_hang_is_found():
    with pytest.raises(Hang):
        _for_ever()


def test_without_atheris_a_sentence_says_what_to_do(tmp_path):
    """In an interpreter that cannot see the site packages of this one's user."""
    code = (
        "import sys; sys.argv = ['fuzz.py', '--reader', 'maxima']; import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'atheris': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        f"m.version = version; sys.path.insert(0, {str(Path(fuzz.__file__).parent)!r})\n"
        "import fuzz; sys.exit(fuzz.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "pip install atheris" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_guided_run_counts_and_finds(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed: no coverage-guided fuzzing")
    command = [sys.executable, fuzz.__file__, "--minutes", "0.06", "--reader", "sdm"]
    command += ["--corpus", str(tmp_path / "c"), "--crashers", str(tmp_path / "x")]
    command += ["--results", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    ran = json.loads((tmp_path / "r.json").read_text())["readers"]
    assert set(ran) == {"sdm"}
    found = ran["sdm"]
    print(found["executions"], "inputs,", found["edges_covered"], "edges")
    assert found["executions"] > 20
    assert found["edges_covered"] > 20
    assert found["findings"] == {}


def test_the_commands_of_the_page_run(tmp_path):
    """Those of docs/hostile.md, on a small project."""
    page = (HOME / "docs" / "hostile.md").read_text(encoding="utf-8")
    write_project(tmp_path / "demo-project", studies=3)
    (tmp_path / "bench").symlink_to(HOME / "bench")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    places = (Path(sys.executable).parent, os.environ["PATH"])
    env = os.environ | {"PATH": os.pathsep.join(map(str, places)), "NO_COLOR": "1"}
    for block in blocks:
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "fuzz-crashers").exists()


def test_the_page_names_every_reader_and_the_counts_of_the_last_run():
    page = (HOME / "docs" / "hostile.md").read_text(encoding="utf-8")
    results = json.loads((HOME / "bench" / "results" / "fuzz-2026-11-22.json").read_text())
    assert set(results["readers"]) == set(fuzz_targets.TARGETS)
    assert f"{results['executions']:,} inputs" in page
    for name, figures in results["readers"].items():
        assert figures["minutes"] >= 2, name
        row = f"| `{name}` | {fuzz_targets.TARGETS[name].title} | {figures['executions']:,} | "
        assert row in page, name
