"""What every command does alike: --json, NO_COLOR, completion, --version, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command_line import CLI, analysed, call, invoke, strict

from gpu_sdm import __version__
from gpu_sdm.cli import app

ESCAPE = re.compile("\x1b")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d|10\d)(?:;\d+)*m")
# They print no table: what they say is a sentence and a path.
WITHOUT_TABLE = {"combine", "convert", "prisma", "report"}


def every_command():
    """Name -> command of typer, those of groups as "group command"."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        below = getattr(command, "commands", None)
        found |= {f"{name} {n}": c for n, c in below.items()} if below else {name: command}
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished analysis, made with --json and --log: its folder and what was printed."""
    home = tmp_path_factory.mktemp("habits")
    return home, analysed(home)


def test_every_command_that_prints_a_table_has_json():
    commands = every_command()
    assert len(commands) > 25
    without = {
        name
        for name, c in commands.items()
        if "--json" not in {o for p in c.params for o in p.opts}
    }
    assert without == WITHOUT_TABLE


def test_json_of_an_analysis_is_all_of_stdout(made):
    home, done = made
    found = strict(done.stdout)
    assert found["folder"] == str(home / "out")
    rows = found["clusters"]["fwe-voxel-0.05"]
    assert rows == [] or {"sdm_z", "p", "label"} <= set(rows[0])
    assert "gpu-sdm permute" in done.stderr  # the summary, which stdout holds without --json


def test_json_of_commands_on_a_result(made):
    home, _ = made
    out, at = home / "out", ("--at", "0,-16,16")
    for words in (
        ("threshold", out, "--map", "uncorrected", "--p", "0.01"),
        ("heterogeneity", out, *at), ("bias", out, *at), ("extract", out, *at),
        ("grade", out, *at), ("tail", out, *at),
        ("studies", home / "project"), ("check", home / "project"),
        ("heights", home / "project"), ("info",), ("cache",),
        ("permute", home / "project", "--out", home / "x", "--voxel-size", 4, "--dry-run"),
    ):  # fmt: skip
        done = invoke(*words, "--json")
        assert done.exit_code == 0, (words, done.stderr)
        assert strict(done.stdout), words
        assert not ESCAPE.search(done.stdout + done.stderr), words
    assert not (home / "x").exists()


def test_without_json_the_last_line_is_the_path(made):
    home, _ = made
    done = invoke("threshold", home / "out", "--map", "uncorrected", "--p", "0.01")
    assert Path(done.stdout.splitlines()[-1]).is_dir()


def on_a_terminal(*words: object, **environment: str) -> str:
    """What a command writes on a terminal of 100 columns."""
    import pty

    mine, theirs = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    running = subprocess.Popen(
        [*CLI, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs,
        env=kept | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    running.wait()
    os.close(mine)
    return written.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_no_color(made):
    home, _ = made
    refused = ("check", home / "nothing")
    assert COLOUR.search(on_a_terminal(*refused))  # else the next line could not fail
    assert not ESCAPE.search(on_a_terminal(*refused, NO_COLOR="1"))
    assert not COLOUR.search(on_a_terminal("check", "--help", NO_COLOR="1"))


def test_no_escape_codes_where_there_is_no_terminal():
    for words in (("--help",), ("permute", "--help"), ("check", "nothing"), ("--nonsense",)):
        done = call(*words)
        assert not ESCAPE.search(done.stdout + done.stderr), words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    typed = {
        "bash": {"COMP_WORDS": "gpu-sdm he", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "gpu-sdm he"},
        "fish": {
            "_TYPER_COMPLETE_ARGS": "gpu-sdm he",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }[shell]
    code = "import sys; sys.argv = ['gpu-sdm']; from gpu_sdm.cli import main; main()"
    environment = dict(os.environ, _GPU_SDM_COMPLETE=f"complete_{shell}", **typed)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert "heights" in done.stdout, done.stderr
    assert "heterogeneity" in done.stdout
    assert "permute" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell):
    code = "import sys; sys.argv = ['gpu-sdm']; from gpu_sdm.cli import main; main()"
    environment = dict(os.environ, _GPU_SDM_COMPLETE=f"source_{shell}")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert f"_GPU_SDM_COMPLETE=complete_{shell}" in done.stdout


def test_version():
    done = invoke("--version")
    assert (done.exit_code, done.stdout) == (0, f"gpu-sdm {__version__}\n")


def test_no_arguments_and_wrong_ones():
    assert call().returncode == 2
    assert call("permute").returncode == 2
    assert call("threshold", "x", "--side", "upper").returncode == 2
    assert call("--help").returncode == 0
