"""Workers that cannot be had, or not so many: a sentence each."""

from __future__ import annotations

import sys

import pytest
from projects import write_project
from typer.testing import CliRunner

from gpu_sdm.backend import available_cores
from gpu_sdm.cli import app
from gpu_sdm.errors import BackendUnavailable, SettingError

distributed = pytest.importorskip(
    "distributed", reason="DASK ABSENT: pip install 'gpu-sdm[dask]' to test workers"
)
from gpu_sdm.distribute import workers  # noqa: E402
from gpu_sdm.distribute.workers import Workers  # noqa: E402


def test_sentences_where_there_are_no_workers(monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_S", 0.5)
    monkeypatch.setattr(workers, "FIRST_WORKER_S", 0.5)
    with pytest.raises(BackendUnavailable, match=r"no Dask scheduler answers at tcp://127\.0\.0"):
        Workers("tcp://127.0.0.1:9").__enter__()
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(BackendUnavailable, match=r"has had no worker for 0\.5 s"),
    ):
        Workers(empty.scheduler_address).__enter__()
    with pytest.raises(SettingError, match="more than the"):
        Workers(count=2, threads=available_cores())
    with pytest.raises(SettingError, match="either"):
        Workers("tcp://a:1", 2)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'gpu-sdm\[dask\]'"):
        Workers(count=1)


def test_workers_and_threads_do_not_exceed_the_cores():
    cores = available_cores()
    for count in range(1, cores + 1):
        assert 1 <= count * Workers(count=count).threads <= cores
    said = []
    assert Workers(count=2 * cores, say=said.append).threads == 1
    assert "no faster" in said[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2", "--dask", "tcp://a:1"], "give one"),
        (["--workers", "2", "--backend", "cuda"], "dask-cuda"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, said):
    project = write_project(tmp_path / "project", studies=6)
    command = ["permute", str(project), "--out", str(tmp_path / "o"), *options]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, SettingError)
    assert said in str(done.exception)
    assert list(tmp_path.iterdir()) == [project]
