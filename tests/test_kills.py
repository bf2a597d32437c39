"""The kill harness in small: real commands, SIGKILL, the same command again, the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kills
import pytest
from kills_cases import make_cases
from kills_process import NAMES

CASES = (
    "peaks: voxel and TFCE",
    "more permutations for a result with findings and notes",
    "threshold",
)


def test_killed_commands_go_on_to_the_same_bits():
    # A process of its own: this one may have threads, which a fork would not have.
    arguments = [word for case in CASES for word in ("--case", case)]
    done = subprocess.run(
        [sys.executable, kills.__file__, "--kills", "10", "--seed", "7", *arguments],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    counts = json.loads(done.stdout)
    print(counts["kills_by_stage"])
    assert counts["kills"] >= 10
    assert counts["resumed_bit_identical"] == counts["commands"] > 0
    assert counts["files_lost_at_a_kill"] == counts["restarts_failed"] == 0
    assert len(counts["kills_by_kind"]) >= 3
    assert len(counts["kills_by_stage"]) >= 3


def test_the_harness_sees_what_is_lost_and_what_differs(tmp_path):
    harness = kills.Harness.__new__(kills.Harness)
    harness.home = tmp_path
    cases = make_cases(tmp_path)
    adds, replaces = cases["threshold"], cases["another result replaced by --force"]
    before = {"out/run.json": {"a": 1}, "out/maps/z.nii.gz": b"z", "out/notes.txt": b"mine"}
    after = before | {"out/run.json": {"a": 2}, "out/maps/z.nii.gz": b"new"}
    harness.begun = {adds.name: before, replaces.name: before}
    harness.reference = {adds.name: before | {"out/t.tsv": b"t"}, replaces.name: after}

    def found(case, **changes):
        trial = harness.place(case) / "trial"
        for name, value in (before | changes).items():
            path = trial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if value is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return harness.lost(case)

    assert found(adds) == found(replaces) == []
    assert found(adds, **{"out/notes.txt": None}) == ["out/notes.txt"]
    assert found(adds, **{"out/maps/z.nii.gz": b"half"}) == ["out/maps/z.nii.gz"]
    assert found(replaces, **{"out/maps/z.nii.gz": b"half"}) == ["out/maps/z.nii.gz"]
    assert found(replaces, **{"out/run.json": {"a": 2}}) == ["out/maps/z.nii.gz"]
    assert found(replaces, **{"out/run.json": {"a": 2}, "out/maps/z.nii.gz": b"new"}) == []


def test_times_are_all_that_is_not_compared(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"seed": 1, "timings_s": {"bounds": 3.2}}))
    (tmp_path / "z").write_bytes(b"1")
    assert kills.content(tmp_path) == {"run.json": {"seed": 1}, "z": b"1"}
    assert kills.NOT_COMPARED == {"run.json": ("timings_s",)}


def test_the_kept_counts_hold():
    """The published run: at least 200 kills in every part of the work, nothing lost."""
    if not kills.RESULTS.exists():
        pytest.fail(f"{kills.RESULTS} is missing; make kills writes it")
    kept = json.loads(kills.RESULTS.read_text())
    again = kills.summary(kept["trials"], kept["seed"])
    same = ("kills", "kills_by_stage", "ends", "resumed_bit_identical")
    assert {k: kept[k] for k in same} == {k: again[k] for k in same}
    assert kept["kills"] >= 200
    assert kept["resumed_bit_identical"] == kept["commands"]
    assert kept["files_lost_at_a_kill"] == 0
    inside = {stage for stage in kept["kills_by_stage"] if not stage.startswith("(")}
    assert inside <= set(NAMES)
    assert {
        "bounds", "likelihood", "imputation", "subject images", "permutations", "inference",
        "saving the checkpoint", "writing the result", "putting the result in its place",
        "writing findings", "a fold of the jackknife",
    } <= inside  # fmt: skip
    text = (Path(kills.__file__).parents[1] / "docs" / "resume.md").read_text()
    assert f"{kept['kills']} kills" in text
