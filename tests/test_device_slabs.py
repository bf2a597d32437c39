"""Effects and residuals that do not fit the device, or lie in files: the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from host_build import HostDevice, SmallDevice, needs_compiler
from test_device_engine import BOTH, plan_of, problem_of

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import Backend, get_backend
from gpu_sdm.distribute.memory import UPLOADS, memory_needed
from gpu_sdm.distribute.scratch import Scratch
from gpu_sdm.distribute.task import Inputs, chunk_maxima
from gpu_sdm.errors import NumericalError, OutOfMemory
from gpu_sdm.permute import launch
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import TIE_TOLERANCE, Forming, Problem, permute
from gpu_sdm.permute.plan import TILE
from gpu_sdm.permute.voxel_blocks import AHEAD, VoxelBlocks
from gpu_sdm.pipeline import execute
from gpu_sdm.stages.subjects import SubjectBank

pytestmark = needs_compiler

ALL = (*BOTH, "cluster-extent", "cluster-mass")
BLOCKS = 5  # of 64 voxels in the mask of `problem_of`


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "voxel_block", lambda sizes: min(64, sizes.n_voxels))


def in_files(problem: Problem, folder: Path, width: int) -> Problem:
    scratch = Scratch(folder, "key", width)
    effects = scratch.array("effects", problem.effects.shape)
    effects[:, :, :] = problem.effects
    if problem.bank is None:
        return dataclasses.replace(problem, effects=effects)
    own = problem.bank.residuals
    residuals = scratch.rows("subjects", [len(r) for r in own], own[0].shape[1])
    for there, here in zip(residuals, own, strict=True):
        there[:] = here
    bank = SubjectBank(residuals, problem.bank.n1, problem.bank.n2, 0.0)
    return dataclasses.replace(problem, effects=effects, bank=bank)


def large_problem(rng: np.random.Generator) -> Problem:
    """Effects that take more than the maps of a tile."""
    problem = problem_of(rng)
    return dataclasses.replace(problem, effects=np.tile(problem.effects, (10, 1, 1)))


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def planned(monkeypatch: pytest.MonkeyPatch, **changes: int) -> None:
    real = launch.plan_launches
    monkeypatch.setattr(
        launch, "plan_launches", lambda *a, **k: dataclasses.replace(real(*a, **k), **changes)
    )


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize(
    "case",
    [{}, {"exchange": "studies"}, {"covariate": True, "tau2": "reml"}],
    ids=str,
)
@pytest.mark.parametrize(("resident", "width"), [(0, 100), (1, 64), (3, 7), (BLOCKS, 50_000)])
def test_blocks_that_come_and_go_change_no_bit(
    rng: np.random.Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: dict,
    resident: int,
    width: int,
) -> None:
    problem, plan = problem_of(rng, **case), plan_of(case.get("exchange", "subjects"))
    problem = dataclasses.replace(problem, forming=Forming.of(1.0, problem.space))
    whole = DeviceEngine(problem, plan, HostDevice(), ALL)
    assert len(whole._blocks) == whole.launch.resident == BLOCKS
    expected = whole.maxima(0, 3)
    planned(monkeypatch, resident=resident, tiles=2)
    said: list[str] = []
    device = HostDevice()
    engine = DeviceEngine(in_files(problem, tmp_path, width), plan, device, ALL, said.append)
    assert_same(engine.maxima(0, 3), expected)
    second = {name: values[:, TILE : 2 * TILE] for name, values in expected.items()}
    assert_same(engine.rows(TILE, 2 * TILE), second)
    assert len(said) == (resident < BLOCKS)
    if said:
        assert f"{resident} of {BLOCKS} blocks of voxels stay there" in said[0]
        assert f"every {2 * TILE} permutations" in said[0]


def test_slabs_give_the_maxima_of_the_cpu(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks as the engine makes them for this problem and blocks of 64, all of them in passing."""
    problem, plan = problem_of(rng), plan_of()
    expected = permute(problem, plan, 2 * TILE, BOTH, Backend("cpu", "", 1)).maxima
    on_disk = in_files(problem, tmp_path, 100)
    planned(monkeypatch, resident=0, tiles=2)
    for width in (launch.voxel_block, lambda sizes: 64):
        monkeypatch.setattr(launch, "voxel_block", width)
        backend = Backend("cuda", "", 1, HostDevice())
        found = permute(on_disk, plan, 2 * TILE, BOTH, backend).maxima
        np.testing.assert_allclose(found["voxel"], expected["voxel"], atol=TIE_TOLERANCE["voxel"])
        np.testing.assert_allclose(found["tfce"], expected["tfce"], rtol=TIE_TOLERANCE["tfce"])


@pytest.mark.usefixtures("_small_blocks")
def test_the_plan_keeps_to_the_memory_of_the_device(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, plan = large_problem(rng), plan_of()
    expected = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0, 2)
    sizes = DeviceEngine(problem, plan, HostDevice(), BOTH).sizes
    constants = 8_000  # tables and keys of the studies: USABLE leaves room for such
    seen = set()
    for free in (200_000, 280_000, 360_000, 600_000, 1_200_000):
        # With a tile a pass memory goes to blocks that stay; with more, to maps first.
        monkeypatch.setattr(launch, "PASS_TILES", 1 if free == 360_000 else 16)
        device = SmallDevice(free)
        engine = DeviceEngine(problem, plan, device, BOTH)
        assert_same(engine.maxima(0, 2), expected)
        assert engine.launch.needed <= launch.USABLE * free
        assert device.peak <= engine.launch.needed + constants
        seen.add(engine.launch.resident)
        del engine
        assert device.held == 0
    assert 0 in seen
    assert launch.n_blocks(sizes) in seen
    assert len(seen) >= 3


@pytest.mark.usefixtures("_small_blocks")
def test_memory_taken_by_others_is_given_up_step_by_step(rng: np.random.Generator) -> None:
    problem, plan = large_problem(rng), plan_of()
    expected = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0, 2)
    said: list[str] = []
    device = SmallDevice(10_000_000)
    engine = DeviceEngine(problem, plan, device, BOTH, said.append)
    assert engine.launch.resident == BLOCKS
    for left in (600_000, 300_000):
        device.free = left
        assert_same(engine.maxima(0, 2), expected)
    assert engine.launch.resident < BLOCKS
    assert said[0] == (
        "The GPU is short of memory; going on with 128 permutations at once (the result does not "
        "change)."
    )
    assert f"of {BLOCKS} blocks of voxels stay there, the others are copied" in said[-1]
    assert f"for every {TILE} permutations" in said[-1]
    device.free = 100_000
    with pytest.raises(OutOfMemory, match=r"even block of voxels by block, and .* GB are free"):
        engine.maxima(0, 1)


@pytest.mark.usefixtures("_small_blocks")
def test_memory_that_is_short_from_the_start(rng: np.random.Generator) -> None:
    """What was free when the plan was made is not there when it is carried out."""
    problem, plan = large_problem(rng), plan_of()
    expected = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0)

    class Liar(SmallDevice):
        def free_bytes(self) -> int:
            return 10**9

    said: list[str] = []
    engine = DeviceEngine(problem, plan, Liar(220_000), ("voxel",), said.append)
    assert engine.launch.resident < BLOCKS
    assert "blocks of voxels stay there" in said[-1]
    assert_same(engine.maxima(0), {"voxel": expected["voxel"]})
    with pytest.raises(OutOfMemory, match="40 imputations, 71 subjects"):
        DeviceEngine(problem, plan, Liar(100_000), ("voxel",)).maxima(0)


@pytest.mark.usefixtures("_small_blocks")
def test_the_host_is_never_more_than_a_block_ahead(rng: np.random.Generator) -> None:
    log: list[str] = []

    class Logged(HostDevice):
        def asarray(self, host: np.ndarray) -> np.ndarray:
            log.append("copy")
            return super().asarray(host)

        def mark(self) -> int:
            log.append("mark")
            return log.count("mark")

        def wait(self, mark: int) -> None:
            log.append(f"wait {mark}")

    problem = problem_of(rng)
    blocks = VoxelBlocks(problem, Logged(), 64)
    blocks.keep(1)
    for _ in range(2):
        blocks.each(lambda voxels, effects, residuals: log.append("work"))
    copied = waited = marked = 0
    for what in log:
        copied += what == "copy"
        marked += what == "mark"
        if what.startswith("wait"):
            waited += 1
            assert what == f"wait {waited}"  # in order, each once
        assert -(-copied // 6) - waited <= AHEAD  # 6 arrays make a block
    assert copied == 6 * (1 + 2 * (BLOCKS - 1))
    assert marked == 1 + 2 * (BLOCKS - 1)


@pytest.mark.usefixtures("_small_blocks")
def test_nan_in_a_file_names_permutation_and_voxel(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(rng)
    effects = problem.effects.copy()
    effects[2, 1, 200] = np.nan
    broken = in_files(dataclasses.replace(problem, effects=effects), tmp_path, 100)
    x, y, z = problem.space.mm(np.array([200]))[0]
    planned(monkeypatch, resident=1)
    engine = DeviceEngine(broken, plan_of(), HostDevice(), BOTH)
    with pytest.raises(NumericalError, match=rf"MNI \({x:g}, {y:g}, {z:g}\) in permutation 32"):
        engine.maxima(TILE)


def test_a_worker_s_gpu_reads_files(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, plan = problem_of(rng), plan_of()
    expected = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0)
    device = HostDevice()
    monkeypatch.setattr(
        "gpu_sdm.distribute.task.worker_backend", lambda *_: Backend("cuda", "", 1, device)
    )
    inputs = Inputs(str(tmp_path), in_files(problem, tmp_path, 100), plan, BOTH, "cuda", 1)
    assert_same(chunk_maxima(inputs, 0, TILE), expected)
    assert "permuted_z" in {name for name, _, _ in device.launches}


def test_a_whole_analysis_from_files_is_that_of_the_cpu(tmp_path: Path) -> None:
    from projects import write_mask, write_project

    project = write_project(tmp_path / "project", studies=6, two_sample=2)
    settings = gpu_sdm.Settings(
        imputations=3, voxel_size=4, permutations=40,
        mask=write_mask(tmp_path / "mask.nii.gz", radius=8),
    )  # fmt: skip
    on_cpu = prepare(gpu_sdm.read(project), settings, get_backend("cpu", 2))
    device = HostDevice(block=32)
    on_device = dataclasses.replace(on_cpu, backend=Backend("cuda", "a test", 2, device))
    assert memory_needed(on_device) >= memory_needed(on_cpu)
    assert UPLOADS == AHEAD + 1
    said: list[str] = []
    found = execute(
        on_device, out=tmp_path / "out", memory=memory_needed(on_device) - 1, say=said.append
    )
    expected = execute(on_cpu)
    assert found.provenance["layout"]["slabs"]
    assert not any("on the CPU" in sentence for sentence in said)
    assert {"permuted_z", "max_tfce"} <= {name for name, _, _ in device.launches}
    for name, values in expected.maps.items():
        if not name.startswith("p_fwe"):
            np.testing.assert_array_equal(found.maps[name], values)
    for name, maxima in expected.maxima.items():
        kind = {"atol" if name == "voxel" else "rtol": TIE_TOLERANCE[name]}
        np.testing.assert_allclose(found.maxima[name], maxima, **kind)
