"""The documentation site builds without a warning and holds every command (`make docs`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="SPHINX ABSENT: pip install -e '.[dev]'")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_in_the_site(site):
    pages = [p.relative_to(DOCS) for p in DOCS.rglob("*.md") if "generated" not in p.parts]
    assert len(pages) > 20
    for page in pages:
        assert (site / page.with_suffix(".html")).is_file(), page


def test_the_reference_names_every_command_and_its_options(site):
    from gpu_sdm.cli import COMMANDS

    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for commands in COMMANDS.values():
        for command in commands:
            assert f"gpu-sdm {command.__name__}<" in text, command.__name__
    for option in ("--permutations", "--exchange", "--voxel-size"):
        assert option in text


def test_functions_have_their_pages(site):
    page = (site / "reference" / "generated" / "gpu_sdm.run.html").read_text(encoding="utf-8")
    assert "Raises" in page
    assert "Parameters" in page
