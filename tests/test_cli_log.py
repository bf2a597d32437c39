"""--log: what stands in the file after an analysis, an error, a defect, Ctrl-C and a full disk."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from command_line import CLI, analysed, call, strict

from gpu_sdm import __version__, log
from gpu_sdm.errors import OutputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished analysis, made with --json and --log: its folder and what was printed."""
    home = tmp_path_factory.mktemp("habits")
    return home, analysed(home)


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
