"""CONTRIBUTING.md names what there is, and each of its worked diffs applies and passes its test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DIFFS = sorted((ROOT / "docs" / "contributing").glob("*.diff"))
PARTS = ("gpu_sdm", "kernels", "tests", "examples", "docs/contributing", "pyproject.toml")

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None, reason="WORKED DIFFS NOT TESTED: git is absent"
)


def copied(folder: Path) -> Path:
    """The files that the diffs and their tests need, in a folder of their own."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "crashers")
            )
        else:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One copy to which all diffs are applied: they do not touch each other's lines."""
    folder = copied(tmp_path_factory.mktemp("contributing") / "tree")
    for diff in DIFFS:
        # Little context, so that a diff outlives changes nearby.
        done = subprocess.run(
            ["git", "apply", "-C1", str(diff)],
            cwd=folder, capture_output=True, text=True, check=False,
            env=dict(os.environ, GIT_CEILING_DIRECTORIES=str(folder.parent)),
        )  # fmt: skip
        assert done.returncode == 0, f"{diff.name} does not apply; make it anew: {done.stderr}"
    return folder


def added(diff: Path) -> list[str]:
    """Paths of the files that a diff adds."""
    text = diff.read_text(encoding="utf-8")
    return re.findall(r"^--- /dev/null\n\+\+\+ b/(\S+)$", text, re.MULTILINE)


def run(tree: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, capture_output=True, text=True, check=False,
        env=dict(os.environ, PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_a_diff_for_each_kind_of_addition():
    assert [d.stem for d in DIFFS] == ["add-a-kernel", "add-a-reader", "add-a-statistic"]
    for diff in DIFFS:
        assert f"docs/contributing/{diff.name}" in TEXT


@pytest.mark.slow
def test_the_tests_that_the_diffs_add_pass(tree):
    tests = [path for diff in DIFFS for path in added(diff) if path.startswith("tests/")]
    assert len(tests) == len(DIFFS)
    told = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert re.search(r"\b1[0-9] passed", told), told
    assert "failed" not in told


def test_the_diffs_keep_the_house_rules(tree):
    new = [path for diff in DIFFS for path in added(diff) if path.startswith("gpu_sdm/")]
    assert len(new) == len(DIFFS)
    code = (
        "import gpu_sdm.config as c, gpu_sdm.io as i; print(c.__file__, c.STATISTICS, *i.READERS)"
    )
    told = run(tree, "-c", code)
    assert str(tree) in told  # the copy, not the installed package
    assert "local-mean" in told
    assert "study-list" in told
    stems = [Path(p).stem for p in new]
    told = run(
        tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_architecture.py",
        "-k", " or ".join([*stems, "every_module_has_a_rank", "files_are_one_idea"]),
    )  # fmt: skip
    assert "failed" not in told


def folders(root: Path) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("FOLDERS NOT COMPARED: this is no git checkout")
    paths = [Path(p) for p in listed.stdout.splitlines()]
    top = {p.parts[0] for p in paths if len(p.parts) > 1}
    inner = {f"gpu_sdm/{p.parts[1]}" for p in paths if p.parts[0] == "gpu_sdm" and len(p.parts) > 2}
    docs = {f"docs/{p.parts[1]}" for p in paths if p.parts[0] == "docs" and len(p.parts) > 2}
    return top | inner | docs


def test_every_folder_is_told_of_and_every_told_folder_is_there():
    told = set(re.findall(r"^\| `([\w./-]+)/` \|", TEXT, re.MULTILINE))
    assert told == folders(ROOT)


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([\w-]+)", TEXT))
    assert named <= targets
    assert {"demo", "test", "lint", "fidelity", "calibrate", "kills", "fuzz", "docs"} <= named


def test_every_file_it_names_exists():
    named = set(re.findall(r"`((?:gpu_sdm|tests|kernels|docs|bench)/[\w./-]+\.\w+)`", TEXT))
    assert len(named) > 10
    assert [n for n in sorted(named) if "NAME" not in n and not (ROOT / n).exists()] == []
