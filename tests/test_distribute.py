"""Workers: the null of one process bit for bit, whoever dies and whatever is computed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from host_build import HostDevice, needs_compiler
from projects import write_mask, write_project
from typer.testing import CliRunner

import gpu_sdm
from gpu_sdm import output
from gpu_sdm.analysis import limited_threads, prepare
from gpu_sdm.backend import Backend, get_backend
from gpu_sdm.cli import app
from gpu_sdm.errors import BackendUnavailable, NumericalError, WorkersLost
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.permute import checkpoint
from gpu_sdm.permute.engine import permute
from gpu_sdm.pipeline import execute
from gpu_sdm.problem import build_problem

distributed = pytest.importorskip(
    "distributed", reason="DASK ABSENT: pip install 'gpu-sdm[dask]' to test workers"
)
from gpu_sdm.distribute import chunks, task  # noqa: E402
from gpu_sdm.distribute.workers import Workers  # noqa: E402

COUNT = 600


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    home = tmp_path_factory.mktemp("distribute")
    project = write_project(home / "project", studies=6, two_sample=2)
    return project, write_mask(home / "mask.nii.gz", radius=7)


def analysis(inputs, **changes):
    mine = {"imputations": 3, "voxel_size": 4, "permutations": COUNT, "mask": inputs[1]} | changes
    return prepare(gpu_sdm.read(inputs[0]), gpu_sdm.Settings(**mine), get_backend("cpu", 1))


@pytest.fixture(scope="module")
def whole(inputs):
    return execute(analysis(inputs))


@pytest.fixture(scope="module")
def two():
    """Two workers for all the tests that kill none."""
    with Workers(count=2, backend="cpu") as found:
        yield found


def running(group: int) -> list[str]:
    """Processes of a group that have not ended."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [r[2] for r in rows if r[0] == str(group) and not r[1].startswith("Z")]


def sha(maxima) -> str:
    joined = b"".join(maxima[name].tobytes() for name in sorted(maxima))
    return hashlib.sha256(joined).hexdigest()


@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_worker_changes_no_bit(inputs, whole, count):
    """SIGKILL of a worker process in the middle; of one alone the inputs die with it."""
    killed, said, done_then = [], [], []
    with Workers(count=count, backend="cpu", say=said.append) as crew:

        def progress(stage, done, total):
            if stage == "permutations" and 100 < done < COUNT and not killed:
                killed.append(next(iter(crew.client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)
                done_then.append(done)

        result = execute(analysis(inputs), workers=crew, progress=progress)
        alive = set(crew.client.run(os.getpid).values())
    print(f"{count} workers, one killed after {done_then[0]} of {COUNT}:", said)
    assert killed
    assert killed[0] not in alive
    assert sha(result.maxima) == sha(whole.maxima)
    for name, values in whole.maps.items():
        assert np.array_equal(result.maps[name], values)
    if count == 1:
        assert any("computed again" in s for s in said)


def test_inputs_travel_once_and_tasks_are_small(inputs, whole, two, monkeypatch):
    client, sizes, sent = two.client, [], []
    submit, scatter = client.submit, client.scatter

    def counted(function, shared, *numbers, **options):
        sizes.append(len(pickle.dumps((function, shared.key, numbers, options["key"]))))
        return submit(function, shared, *numbers, **options)

    def scattered(data, **options):
        sent.append(len(pickle.dumps(data)))
        return scatter(data, **options)

    monkeypatch.setattr(client, "submit", counted)
    monkeypatch.setattr(client, "scatter", scattered)
    result = execute(analysis(inputs), workers=two)
    assert sha(result.maxima) == sha(whole.maxima)
    print(f"inputs {sent[0]:,} bytes once, {len(sizes)} tasks of at most {max(sizes)} bytes")
    assert len(sent) == 1
    assert sent[0] > 1e6
    assert len(sizes) == -(-COUNT // 32)
    assert max(sizes) < 1000


@pytest.mark.parametrize("first", ["workers", "alone"])
def test_interrupted_with_workers_goes_on_without_and_the_other_way(
    inputs, whole, two, tmp_path, first
):
    def stop(stage, done, total):
        if stage == "permutations" and done >= 100:
            raise KeyboardInterrupt

    ways = [two, None] if first == "workers" else [None, two]
    with pytest.raises(KeyboardInterrupt):
        execute(analysis(inputs), out=tmp_path / "o", workers=ways[0], progress=stop)
    saved = output.partial_of(tmp_path / "o") / "checkpoint.npz"
    assert 100 <= checkpoint.load_null(saved, ("voxel", "tfce"), COUNT).done < COUNT
    execute(analysis(inputs), out=tmp_path / "o", workers=ways[1])
    stored = read_maxima(tmp_path / "o" / "null" / "maxima.tsv", ("voxel", "tfce"))
    assert sha(stored) == sha(whole.maxima)


@pytest.mark.parametrize(
    "changes",
    [
        {"exchange": "studies", "permutations": 4},
        {"exchange": "studies", "test": "score"},
        {"statistic": ("cluster-mass",), "permutations": 40},
        {"formula": "1 + age", "contrast": ("age",), "permutations": 40},
    ],
    ids=str,
)
def test_every_kind_of_permutation_runs_on_workers(inputs, two, changes):
    mine = analysis(inputs, **changes)
    assert sha(execute(mine, workers=two).maxima) == sha(execute(mine).maxima)


def test_stopping_early_is_the_same_on_workers(inputs, whole, two):
    """What the workers did beyond the decision does not count."""
    p, z = whole.maps["p_fwe_voxel"], whole.maps["z"]
    place = whole.space.mm()[int(np.argmin(np.where(z > 0, np.abs(p - 0.5), 9)))]
    mine = analysis(inputs, stop_at=tuple(place), stop_hits=20, stop_statistic="voxel")
    ours, theirs = execute(mine), execute(mine, workers=two)
    assert ours.provenance["sequential"] == theirs.provenance["sequential"]
    assert ours.provenance["sequential"]["stopped"]
    assert sha(ours.maxima) == sha(theirs.maxima)


def test_an_error_of_a_worker_is_that_of_the_run(inputs, two):
    prepared = analysis(inputs)
    problem, _, _ = build_problem(prepared, lambda *_: None, {})
    effects = problem.effects.copy()
    effects[0, 0, 5] = np.nan
    with limited_threads(prepared.backend), pytest.raises(NumericalError, match="not a number"):
        permute(
            replace(problem, effects=effects), prepared.plan, 64, ("voxel",), prepared.backend,
            source=two,
        )  # fmt: skip


def test_the_command_runs_on_a_scheduler(inputs, whole, two, tmp_path):
    address = two.client.scheduler.address
    command = [
        "permute", str(inputs[0]), "--out", str(tmp_path / "o"), "--mask", str(inputs[1]),
        "--voxel-size", "4", "--imputations", "3", "-n", str(COUNT), "--dask", address,
        "--backend", "cpu", "--threads", "1", "--no-report",
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "2 workers on cpu, 2 threads in all" in done.output
    stored = read_maxima(tmp_path / "o" / "null" / "maxima.tsv", ("voxel", "tfce"))
    assert sha(stored) == sha(whole.maxima)
    assert json.loads((tmp_path / "o" / "run.json").read_text())["permutations"] == COUNT


def test_ctrl_c_stops_the_workers_too(inputs, tmp_path):
    """The whole process group gets SIGINT, as it does from a terminal."""
    out = tmp_path / "o"
    command = [
        sys.executable, "-m", "gpu_sdm.cli", "permute", str(inputs[0]), "--out", str(out),
        "--mask", str(inputs[1]), "--voxel-size", "4", "--imputations", "3", "-n", "2000000",
        "--workers", "2",
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        saved = output.partial_of(out) / "checkpoint.npz"
        deadline = time.monotonic() + 60
        while not saved.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        begin = time.monotonic()
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    print(f"stopped {time.monotonic() - begin:.1f} s after Ctrl-C")
    assert run.returncode == 130, said
    assert "give the same command again to go on" in said
    assert "Traceback" not in said
    assert checkpoint.load_null(saved, ("voxel", "tfce"), 2_000_000).done > 0
    deadline = time.monotonic() + 10
    while (left := running(run.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_other_versions_are_named(two, monkeypatch):
    from gpu_sdm import environment

    ours = environment.versions()
    monkeypatch.setattr(environment, "versions", lambda: ours | {"numpy": "1.0"})
    here = ours["numpy"].replace(".", r"\.")
    with pytest.raises(BackendUnavailable, match=rf"has numpy {here} and this process 1\.0"):
        Workers(two.client.scheduler.address, backend="cpu").__enter__()


def test_a_chunk_that_kills_its_workers_ends_the_run(inputs, two):
    class Killed:
        key, status = "k", "error"

        def exception(self):
            worker = next(iter(two.client.scheduler_info()["workers"]))
            return distributed.KilledWorker("k", worker, 4)

    sender = chunks.Chunks(two.client, None, 32, lambda sentence: None)
    sender._submit = lambda start, stop: sender._sent.update(k=(start, stop))
    for _ in range(chunks.MOST_DEATHS):
        sender._sent["k"], sender._futures["k"] = (32, 64), Killed()
        sender._take(Killed(), {})
    sender._futures["k"] = Killed()
    with pytest.raises(WorkersLost, match="permutations 32 to 63 were lost with their workers 6"):
        sender._take(Killed(), {})


@needs_compiler
def test_a_gpu_worker_keeps_its_engine_and_is_held_against_the_cpu(inputs, monkeypatch):
    """The kernels of a GPU worker, built for the host; what a task does on such a worker."""
    prepared = analysis(inputs)
    problem, _, _ = build_problem(prepared, lambda *_: None, {})
    names, device = ("voxel", "tfce"), HostDevice()
    monkeypatch.setitem(task._backends, ("cuda", 1), Backend("cuda", "a test", 1, device))
    sent = task.Inputs("one", problem, prepared.plan, names, "cuda", 1)
    found = task.chunk_maxima(sent, 5, 40)
    first = task._engines["one"]
    task.chunk_maxima(sent, 40, 50)
    assert task._engines == {"one": first}
    on_cpu = permute(problem, prepared.plan, 40, names, prepared.backend).maxima
    for name, maxima in first.rows(5, 40).items():
        assert np.array_equal(found[name], maxima)
        kind = {"atol": 1e-4} if name == "voxel" else {"rtol": 1e-3}
        np.testing.assert_allclose(maxima, on_cpu[name][:, 5:40], **kind)
    shifted = replace(problem, observed_z=problem.observed_z + np.float32(0.5))
    wrong = task.Inputs("two", shifted, prepared.plan, names, "cuda", 1)
    with pytest.raises(NumericalError, match="as the observed maxima of"):
        task.chunk_maxima(wrong, 0, 32)
    task._engines.clear()
