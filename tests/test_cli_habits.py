"""What every command does alike: --json, NO_COLOR, completion, --log, --version, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import typer
from projects import write_mask, write_project
from typer.testing import CliRunner

from gpu_sdm import __version__, log
from gpu_sdm.cli import app
from gpu_sdm.errors import OutputError

ESCAPE = re.compile("\x1b")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d|10\d)(?:;\d+)*m")
# They print no table: what they say is a sentence and a path.
WITHOUT_TABLE = {"combine", "convert", "prisma", "report"}
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
    project = write_project(home / "project", studies=6)
    mask = write_mask(home / "mask.nii.gz", radius=5)
    done = call(
        "--log", home / "run.log", "permute", project, "--out", home / "out", "--mask", mask,
        "--voxel-size", 4, "--imputations", 3, "-n", 60, "--json", "--no-report",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home, done


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


def entries(path: Path) -> list[tuple[str, str]]:
    """(level, message) of each entry of a log file; further lines of a message belong to it."""
    line = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \d+ ([A-Z]+) (.*)")
    found: list[tuple[str, str]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        if got := line.fullmatch(text):
            found.append((got[1], got[2]))
        else:
            assert text.startswith("    "), text
            found[-1] = found[-1][0], found[-1][1] + "\n" + text
    return found


def test_log_of_an_analysis(made):
    home, done = made
    found = entries(home / "run.log")
    said = [message for _, message in found]
    assert said[0].startswith("start: gpu-sdm --log ")
    assert "-n 60" in said[0]
    assert f"gpu-sdm {__version__}" in said[2]
    assert "numba" in said[2]
    assert any(re.fullmatch(r"stage permutations: start, \d+ steps", m) for m in said), said
    assert any(re.fullmatch(r"stage permutations: 60 of 60, [\d.]+ s", m) for m in said), said
    assert re.fullmatch(r"end: exit code 0 \(done\), [\d.]+ s", said[-1])
    # What the terminal cuts short stands in the file in full.
    warned = [m for level, m in found if level == "WARNING"]
    assert len(warned) == len(strict(done.stdout)["warnings"])
    assert len(found) < 80  # a line per step would be thousands


def test_log_is_appended_to_and_changes_no_output(made, tmp_path):
    home, _ = made
    words = ("check", home / "project")
    plain = call(*words)
    for _ in range(2):
        logged = call("--log", tmp_path / "a.log", *words)
        assert (logged.stdout, logged.stderr) == (plain.stdout, plain.stderr)
    assert sum(m.startswith("end: exit code 0") for _, m in entries(tmp_path / "a.log")) == 2


def test_log_after_an_error(tmp_path):
    path = tmp_path / "a.log"
    assert call("--log", path, "check", tmp_path / "nothing").returncode == 1
    found = entries(path)
    assert found[-2][0] == "ERROR"
    assert "nothing" in found[-2][1]
    assert found[-1][1].startswith("end: exit code 1 (failed)")
    assert call("--log", path, "check", "--nonsense").returncode == 2
    assert entries(path)[-1][1].startswith("end: exit code 2 (the command line is wrong)")


def test_log_that_cannot_be_written_is_an_error(tmp_path):
    done = call("--log", tmp_path / "no" / "a.log", "info")
    assert done.returncode == 1
    assert "a.log cannot be written (No such file or directory)" in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_log_of_a_defect_has_its_traceback_and_of_a_warning_its_place(tmp_path):
    code = (
        "import sys, warnings; sys.argv = ['gpu-sdm', '--log', sys.argv[1], 'info']\n"
        "import gpu_sdm.cli, gpu_sdm.environment\n"
        "def broken():\n"
        "    warnings.warn('odd numbers'); raise ZeroDivisionError('a defect')\n"
        "gpu_sdm.environment.environment = broken\n"
        "gpu_sdm.cli.main()\n"
    )
    path = tmp_path / "a.log"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a defect" in done.stderr
    assert "UserWarning: odd numbers" in done.stderr
    *_, warned, defect, end = entries(path)
    assert warned[0] == "WARNING"
    assert warned[1].startswith("UserWarning: odd numbers (")
    assert defect[0] == "CRITICAL"
    assert defect[1].startswith("Traceback")
    assert "ZeroDivisionError: a defect" in defect[1]
    assert end[1].startswith("end: exit code 1 (failed)")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_log_and_exit_code_after_ctrl_c(made, tmp_path):
    home, _ = made
    path = tmp_path / "a.log"
    running = subprocess.Popen(
        [
            *CLI, "--log", str(path), "permute", str(home / "project"), "--out",
            str(tmp_path / "out"), "--mask", str(home / "mask.nii.gz"), "--voxel-size", "4",
            "--imputations", "3", "-n", "5000000", "--no-report",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    while time.monotonic() < until and running.poll() is None:
        if path.exists() and "stage permutations: start" in path.read_text(encoding="utf-8"):
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    said = [message for _, message in entries(path)]
    assert any(m.startswith("interrupted; what is finished is kept") for m in said)
    assert any(re.match(r"stage permutations: left at [\d,]+ of 5,000,000", m) for m in said)
    assert said[-1].startswith("end: exit code 130 (stopped by Ctrl-C)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_log_that_is_lost_costs_one_sentence_and_no_work(tmp_path, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with log.ended():
        log.start(Path("/dev/full"), ["gpu-sdm"], {}, told.append)
        log.note("one")
        log.note("two")
    assert len(told) == 1
    assert "can no longer be written" in told[0]
    with pytest.raises(OutputError, match="cannot be written"):
        log.start(tmp_path, ["gpu-sdm"], {}, told.append)


def test_no_arguments_and_wrong_ones():
    assert call().returncode == 2
    assert call("permute").returncode == 2
    assert call("threshold", "x", "--side", "upper").returncode == 2
    assert call("--help").returncode == 0
