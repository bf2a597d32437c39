"""`gpu-sdm demo` on a small mask; its project says that its peaks are simulated."""

from __future__ import annotations

import pytest

from gpu_sdm.demo import write_demo
from gpu_sdm.errors import OutputError
from gpu_sdm.io import read


def test_every_file_says_simulated(tmp_path):
    project = write_demo(tmp_path)
    names = [s.name for s in read(project).studies]
    assert len(names) == 11
    assert all(name.endswith("_simulated") for name in names)
    assert "SIMULATED" in (project / "sdm_table.txt").read_text()


def test_a_project_that_is_there_is_left_alone(tmp_path):
    project = write_demo(tmp_path)
    (project / "mine.txt").write_text("kept")
    assert write_demo(tmp_path) == project
    assert (project / "mine.txt").read_text() == "kept"


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another folder"):
        write_demo(tmp_path / "file")
