"""The import order, what the engine may import, and house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gpu_sdm"
RANKS = {
    "errors": 0,
    "checks": 1, "rng": 1, "data": 1, "spaces": 1, "coordinates": 1,
    "statistics": 1,
    "log": 1, "cache": 1, "demo": 2, "config": 2, "templates": 2, "backend": 2, "environment": 3,
    "ops": 3, "io": 3,
    "stages": 4,
    "permute": 5, "template_build": 5, "template_kernels": 5, "template_picture": 5,
    "template_learn": 6,
    "inference": 6, "tails": 6, "clusters": 6, "atlas": 6,
    "analysis": 7, "output": 7, "result": 7,
    "provenance": 8, "problem": 8,
    "distribute": 8,
    "finished": 9, "pipeline": 9, "workload": 8, "forecast": 9, "bench": 9,
    "findings": 10, "decode": 11, "figures": 11, "report": 12, "terminal": 12,
    "commands": 13, "cli": 14,
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"nibabel", "nilearn", "pandas"}
SOURCES = {".py", ".cu", ".cuh", ".h", ".cpp", ".js", ".css"}


def imports(path: Path, everywhere: bool = True):
    """(module, at module level) of every import in a file; type-checking blocks aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(id(n) for n in ast.walk(node))
    for node in ast.walk(tree) if everywhere else tree.body:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "gpu_sdm":
                yield from (f"gpu_sdm.{a.name}" for a in node.names)
            else:
                yield node.module


def home(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    mine = home(path)
    if mine == "__init__":
        return
    for module in imports(path):
        if module.startswith("gpu_sdm."):
            theirs = module.split(".")[1]
            if theirs in ("__version__",) or theirs == mine:
                continue
            assert RANKS[theirs] < RANKS[mine], f"{mine} must not import {theirs}"


def test_every_module_has_a_rank():
    assert {home(p) for p in FILES} - {"__init__"} == set(RANKS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path):
    names = {m.split(".")[0] for m in imports(path)}
    if home(path) not in ("cli", "commands", "terminal"):
        assert not names & {"rich", "typer"}
    if home(path) != "backend":
        assert "cupy" not in names


@pytest.mark.parametrize("folder", ["gpu_sdm", "kernels", "bench", "tests", "examples"])
def test_files_are_one_idea(folder):
    sources = [p for p in (PACKAGE.parent / folder).rglob("*") if p.suffix in SOURCES]
    lines = {str(p): len(p.read_text(encoding="utf-8").splitlines()) for p in sources}
    assert {path: n for path, n in lines.items() if n > 300} == {}


@pytest.mark.parametrize("module", ["gpu_sdm.permute.engine", "gpu_sdm.ops.permuted_z"])
def test_engine_imports_without_nibabel_nilearn_and_pandas(module):
    code = (
        f"import sys, {module}; print(sorted({HEAVY!r} & {{m.split('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
