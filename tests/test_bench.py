"""`gpu-sdm bench`: agreement before speed, on every backend, for the size of a project."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from itertools import count

import numpy as np
import pytest
from host_build import HostDevice, needs_compiler
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm import terminal
from gpu_sdm.backend import Backend
from gpu_sdm.bench import PERMUTATIONS, bench
from gpu_sdm.config import Settings
from gpu_sdm.permute import device as device_module
from gpu_sdm.permute import launch
from gpu_sdm.workload import FIELDS, Workload, rate


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    mask = write_mask(tmp_path_factory.mktemp("bench") / "mask.nii.gz", radius=5)
    return Settings(voxel_size=4, mask=mask, imputations=3)


@pytest.fixture(scope="module")
def workload(settings: Settings) -> Workload:
    return Workload.example(settings)


def test_the_example_is_the_stated_size(workload: Workload) -> None:
    assert workload.sizes() == {
        "studies": 11, "subjects": 525, "imputations": 3, "voxels": workload.space.n_voxels,
    }  # fmt: skip


def test_the_noise_is_what_the_engine_expects(workload: Workload) -> None:
    problem = workload.problem()
    assert problem.effects.shape == (3, 11, workload.space.n_voxels)
    assert problem.effects.dtype == np.float32
    assert problem.bank is not None
    for k, images in enumerate(problem.bank.residuals):
        n1 = int(problem.terms.n1[k])
        for group in (images[:n1], images[n1:]):
            if len(group):
                np.testing.assert_allclose(group.mean(axis=0), 0, atol=1e-5)
                np.testing.assert_allclose(group.std(axis=0, ddof=1), 1, rtol=1e-4)
    assert len(np.unique(problem.effects[:, :, 0])) == FIELDS
    neighbouring = np.corrcoef(workload.fields[:, 1:].ravel(), workload.fields[:, :-1].ravel())
    assert neighbouring[0, 1] > 0.7
    assert workload.problem(7).effects.shape[2] == 7


def test_a_project_gives_its_own_size(settings: Settings, tmp_path) -> None:
    dataset = gpu_sdm.read(write_project(tmp_path / "project", 5, two_sample=2))
    found = Workload.of_dataset(dataset, settings)
    assert found.sizes()["studies"] == 5
    assert found.sizes()["subjects"] == sum(s.n for s in dataset.studies)
    np.testing.assert_array_equal(found.terms.n2, [s.n2 for s in dataset.studies])


@pytest.fixture
def one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the fake device, which is slow, from taking many tiles."""
    few = partial(launch.plan_launches, most_tiles=1)
    monkeypatch.setattr(device_module.launch, "plan_launches", few)
    monkeypatch.setattr("gpu_sdm.workload.DEVICE_SECONDS", 0.0)


@needs_compiler
@pytest.mark.usefixtures("one_tile")
def test_every_backend_agrees_and_has_its_speed(workload: Workload) -> None:
    said: list[str] = []
    places = [
        Backend("numpy", "", 1),
        Backend("cpu", "", 2),
        Backend("cuda", "", 2, HostDevice(block=32)),
    ]
    found = bench(workload, places, said.append)
    assert [m.backend for m in found] == ["numpy", "cpu", "cuda"]
    assert found[0].dz == found[0].dtfce == 0
    assert 0 < found[1].dz < 1e-4
    assert 0 < found[2].dz < 1e-4
    assert found[2].where == "host build"
    for m in found:
        assert m.agrees
        assert set(m.rates) == {"voxel", "tfce"}
        assert min(m.rates.values()) > 0
        plain = json.loads(json.dumps(m.as_dict()))
        for name, speed in m.rates.items():
            assert plain["expected_s"][name] == {str(n): n / speed for n in PERMUTATIONS}
    assert found[1].rates["voxel"] > found[0].rates["voxel"]
    assert len(said) == 3


class WrongDevice(HostDevice):
    """Off by a hundredth in the residual products."""

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        super().matmul(a, b, out)
        out *= np.float32(1.01)


@needs_compiler
@pytest.mark.usefixtures("one_tile")
def test_no_speed_without_agreement(
    workload: Workload, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (wrong,) = bench(workload, [Backend("cuda", "", 2, WrongDevice(block=32))])
    assert not wrong.agrees
    assert wrong.dz > 1e-4
    assert wrong.rates == {} == wrong.as_dict()["permutations_per_s"]
    monkeypatch.setenv("COLUMNS", "120")
    terminal.show_bench(workload.sizes(), [wrong], PERMUTATIONS)
    assert "does not agree" in capsys.readouterr().out


@needs_compiler
@pytest.mark.usefixtures("one_tile")
def test_a_device_is_timed_on_itself(workload: Workload) -> None:
    device = HostDevice(block=32)
    assert rate(workload, ("voxel",), Backend("cuda", "", 1, device)) > 0
    assert {name for name, _, _ in device.launches} >= {"permuted_z", "max_statistic"}


@needs_compiler
@pytest.mark.usefixtures("one_tile")
def test_a_device_is_timed_on_what_fits_the_memory(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = workload.sizes()
    whole = 4 * sizes["voxels"] * (sizes["imputations"] * sizes["studies"] + sizes["subjects"])
    made: list[int] = []
    real = Workload.problem

    def problem(self: Workload, n_voxels: int | None = None) -> object:
        made.append(self.space.n_voxels)
        return real(self, n_voxels)

    monkeypatch.setattr(Workload, "problem", problem)
    clock = count()
    monkeypatch.setattr("gpu_sdm.workload.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("gpu_sdm.workload.memory_bytes", lambda: whole)
    place = Backend("cuda", "", 1, HostDevice(block=32))
    part = rate(workload, ("voxel",), place)
    monkeypatch.setattr("gpu_sdm.workload.memory_bytes", lambda: None)
    all_ = rate(workload, ("voxel",), place)
    assert made == [int(0.7 * sizes["voxels"]), sizes["voxels"]]
    assert part == pytest.approx(all_ * made[0] / made[1])  # scaled to all voxels


def test_the_command_prints_a_table_or_json(settings: Settings, tmp_path) -> None:
    project = write_project(tmp_path / "project", 4)
    command = [
        sys.executable, "-m", "gpu_sdm.cli", "bench", str(project), "--voxel-size", "4",
        "--mask", str(settings.mask), "--imputations", "3", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["problem"]["studies"] == 4
    names = [m["backend"] for m in found["backends"]]
    assert names[:2] == ["numpy", "cpu"]
    assert all(m["agrees"] for m in found["backends"])
    if len(names) == 2:
        assert "backend 'cuda' cannot run here: " in done.stderr


def test_the_table_has_each_statistic(
    workload: Workload, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    found = bench(workload, [Backend("cpu", "", 1)])
    terminal.show_bench(workload.sizes(), found, PERMUTATIONS)
    printed = capsys.readouterr().out
    assert "11 studies, 525 subjects" in printed
    assert "voxel + TFCE" in printed
    assert "1 thread" in printed
    assert "100,000" in printed
