"""The program as users start it: in a process of its own, or within this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from projects import write_mask, write_project
from typer.testing import CliRunner

from gpu_sdm.cli import app

CLI = [sys.executable, "-m", "gpu_sdm.cli"]


def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *map(str, words)], capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "FORCE_COLOR"} | environment,
    )  # fmt: skip


def invoke(*words: object):
    """The command within this process: its exit code, stdout and stderr."""
    return CliRunner().invoke(app, [str(w) for w in words])


def strict(text: str):
    """JSON as other programs read it: NaN and Infinity are no part of it."""

    def refuse(literal):
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


def analysed(home: Path) -> subprocess.CompletedProcess[str]:
    """An analysis of home/project with --json and --log, in home/out and home/run.log."""
    project = write_project(home / "project", studies=6)
    mask = write_mask(home / "mask.nii.gz", radius=5)
    done = call(
        "--log", home / "run.log", "permute", project, "--out", home / "out", "--mask", mask,
        "--voxel-size", 4, "--imputations", 3, "-n", 60, "--json", "--no-report",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done
