"""Each malformed input through the commands: exit 1, one sentence, no traceback, nothing written.

The counts printed at the end (`pytest -s tests/test_hostile_cli.py`) are those of docs/hostile.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import hostile_inputs as hostile
import pytest
import test_bad_inputs
import test_hostile_images
from projects import write_mask, write_project
from typer.main import get_command

from gpu_sdm import cli

COMMAND = get_command(cli.app)  # built once: for each of 600 calls it would take a minute
COUNTS: Counter[tuple[str, str]] = Counter()
ALL = ("check", "convert", "permute")
# The studies of a project are counted after those of unknown threshold have been left out, which
# `convert` keeps.
KEPT = {"one study left"}
INPUTS = {
    **{("project", n): (hostile.project(**{k.replace(".", "__"): v for k, v in files.items()}), "")
       for n, (files, _) in test_bad_inputs.FILES.items()},
    **{("table", n): case for n, case in hostile.TEXT.items()},
    **{("foci", n): case for n, case in hostile.SLEUTHS.items()},
    **{("JSON", n): case for n, case in hostile.JSON.items()},
    **{("XLSX", n): case for n, case in hostile.XLSX.items()},
    **{("place", n): case for n, case in hostile.PLACES.items()},
    **{("parquet", n): case for n, case in hostile.PARQUET.items()},
    **{("image", n): (lambda f, c=content: test_hostile_images.project(f, c), "")
       for n, (content, _) in hostile.IMAGES.items()},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _print_counts():
    yield
    kinds = sorted({kind for kind, _ in COUNTS})
    for kind in kinds:
        counts = ", ".join(f"{command} {COUNTS[kind, command]}" for command in
                           sorted({c for k, c in COUNTS if k == kind}))  # fmt: skip
        print(f"malformed {kind}: {counts}")
    inputs = len(INPUTS) + sum(v for (k, _), v in COUNTS.items() if k in ("option", "result"))
    print(f"malformed inputs tried: {inputs}, commands run on them: {COUNTS.total()}, all refused")


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder with a hash of its content."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file() and not p.is_symlink() else p.lstat().st_mode
        for p in sorted(folder.rglob("*"))
    }  # fmt: skip


def run(monkeypatch, capsys, *args: object) -> tuple[int, str, str]:
    """Run a command as a user does; exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["gpu-sdm", *map(str, args)])
    monkeypatch.setattr(cli, "app", COMMAND)
    code: object = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return int(code or 0), out, err


def refused(code: int, out: str, err: str, said: str = "") -> list[str]:
    """The sentences of a refusal; fails unless it is one."""
    assert code == 1, (code, out, err[-500:])
    assert "Traceback" not in err
    assert "\x1b" not in err
    sentences = [line for line in err.split("\n") if line.startswith("error: ")]
    assert sentences, err
    for line in sentences:
        assert line.endswith("."), line
        assert len(line) < 1200, line
    assert said in err, err
    return sentences


def commands(kind: str, name: str) -> list[str]:
    if kind == "image" and name in hostile.DATA:
        return ["permute"]  # only it reads the data
    return [c for c in ALL if not (name in KEPT and c == "convert")]


@pytest.mark.parametrize("case", INPUTS, ids=lambda c: f"{c[0]}: {c[1]}"[:60])
def test_input(case, tmp_path, monkeypatch, capsys):
    make, said = INPUTS[case]
    if case[0] == "parquet" and importlib.util.find_spec("nimare") is None:
        pytest.skip("NiMARE is not installed: no parquet here")
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in")
    before = tree(tmp_path)
    for command in commands(*case):
        args = {
            "check": (),
            "convert": (tmp_path / "out.csv",),
            "permute": (
                "--out",
                tmp_path / "out",
                "--voxel-size",
                4,
                "--permutations",
                1,
                "--backend",
                "cpu",
            ),
        }[command]
        if command == "convert" and case[0] == "image":
            args = (tmp_path / "out",)
        found = run(monkeypatch, capsys, command, path, *args)
        sentences = refused(*found, said)
        assert command == "check" or len(sentences) == 1
        assert not found[1].strip() or command == "permute", found[1]
        assert tree(tmp_path) == before, "something was written"
        COUNTS[case[0], command] += 1


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    write_mask(folder / "mask.nii.gz")
    write_project(folder / "project", studies=3)
    return folder


@pytest.mark.parametrize("option", ["--mask", "--template", "--bounds"])
@pytest.mark.parametrize("name", ["empty", "text", "gzip cut short", "gzip damaged", "gigantic",
                                  "size zero", "complex", "affine nan", "offset nan", "volumes",
                                  "gzip checksum"])  # fmt: skip
def test_files_of_options(option, name, good, tmp_path, monkeypatch, capsys):
    content = hostile.IMAGES[name][0]
    path = tmp_path / "it.nii.gz"
    path.write_bytes(content)
    before = tree(tmp_path)
    found = run(
        monkeypatch, capsys, "permute", good / "project", "--out", tmp_path / "out",
        "--voxel-size", 4, "--permutations", 1, "--backend", "cpu", option, path,
    )  # fmt: skip
    assert len(refused(*found)) == 1
    assert tree(tmp_path) == before
    COUNTS["option", option] += 1


RUNS = {
    "empty": "", "text": "no json", "cut": '{"program": "gpu-sdm", "settings": {',
    "list": "[]", "deep": "[" * 100_000, "settings missing": '{"program": "gpu-sdm"}',
    "number": "9" * 5000, "nul": "\0",
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("command", ["threshold", "heterogeneity", "bias"])
def test_folders_that_are_no_result(name, command, tmp_path, monkeypatch, capsys):
    (tmp_path / "run.json").write_text(RUNS[name])
    before = tree(tmp_path)
    found = run(monkeypatch, capsys, command, tmp_path)
    assert len(refused(*found, "is not a finished gpu-sdm result")) == 1
    assert tree(tmp_path) == before
    COUNTS["result", command] += 1


def test_a_process_of_its_own_says_the_same(tmp_path):
    """As installed: what the interpreter itself might print would be seen."""
    for kind, name in [("table", "open quote"), ("image", "gigantic"), ("JSON", "json deep")]:
        (tmp_path / name).mkdir()
        path = INPUTS[kind, name][0](tmp_path / name)
        command = [sys.executable, "-m", "gpu_sdm.cli", "check", str(path)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert found.returncode == 1
        assert found.stdout == ""
        assert "Traceback" not in found.stderr
        assert re.search(r"^error: .*\.$", found.stderr, re.MULTILINE)


def test_the_counts_of_the_page():
    """What docs/hostile.md says was tried is what this file tries."""
    page = (Path(__file__).parents[1] / "docs" / "hostile.md").read_text(encoding="utf-8")
    options, results = 3 * 11, 3 * len(RUNS)
    inputs = len(INPUTS) + options + results
    tried = sum(len(commands(*case)) for case in INPUTS) + options + results
    assert inputs >= 250
    assert f"**in all: {inputs}**" in page
    assert f"are {tried} commands" in page
