"""The launch plan is a pure function of sizes, memory and processors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpu_sdm.errors import OutOfMemory
from gpu_sdm.permute import launch
from gpu_sdm.permute.launch import Sizes
from gpu_sdm.permute.plan import TILE

BRAIN = 193_768  # voxels of the 2 mm mask
SMALL = Sizes(11, 50, BRAIN, 525)
MIDDLE = Sizes(50, 50, BRAIN, 1_000)
LARGE = Sizes(135, 50, BRAIN, 3_000)
HUGE = Sizes(1_000, 50, BRAIN, 20_000)
GB = 10**9


@pytest.mark.parametrize("sizes", [SMALL, MIDDLE], ids=["K=11", "K=50"])
def test_usual_problems_fit_a_6_gb_card(sizes: Sizes) -> None:
    plan = launch.plan_launches(sizes, int(5.6 * GB), 30, tfce=True)
    assert plan.tiles >= 1
    assert plan.tfce_blocks >= 30
    assert plan.needed <= 5.6 * GB


def test_memory_decides_what_is_in_flight_and_no_bit() -> None:
    large = launch.plan_launches(MIDDLE, 140 * GB, 132, tfce=True)
    small = launch.plan_launches(MIDDLE, int(3.95 * GB), 30, tfce=True)
    assert large.tiles > small.tiles
    assert large.tfce_blocks == 264
    assert large.voxel_block == small.voxel_block == launch.voxel_block(MIDDLE)


def test_the_count_of_bytes_is_what_the_arrays_take() -> None:
    sizes = Sizes(3, 4, 100, 20)
    whole = 4 * 3 * 128 + 3 * 100  # effects in groups of 32 voxels; one imputation on its way there
    assert sizes.input_bytes(1) == 4 * (whole + 20 * 100 + 6 * 100)
    assert sizes.input_bytes(0) == sizes.input_bytes(1)  # the only block is there in passing
    assert sizes.slab_bytes() == 4 * (4 * 3 + 20) * 100
    scratch = 2 * launch.scratch_words(100)
    assert sizes.working_bytes(2, 2) == 4 * (
        3 * TILE * 100 + 2 * TILE * 100 + 2 * TILE * (20 + 3 + 4) + scratch
    )


@pytest.mark.parametrize(
    ("sizes", "free", "stay"),
    [(LARGE, 5.6 * GB, 3), (LARGE, 2 * GB, 0), (HUGE, 5.6 * GB, 0), (HUGE, 24 * GB, 6)],
)
def test_what_does_not_fit_at_once_goes_through_in_blocks(
    sizes: Sizes, free: float, stay: int
) -> None:
    """Blocks on the device and permutations of a pass: the fewest bytes to copy for a tile."""
    plan = launch.plan_launches(sizes, int(free), 30, tfce=True)
    blocks = launch.n_blocks(sizes)
    assert stay <= plan.resident < blocks
    assert plan.tiles == launch.PASS_TILES
    assert plan.voxel_block == launch.voxel_block(sizes)
    working = sizes.working_bytes(plan.tiles, plan.tfce_blocks)
    assert plan.needed == sizes.input_bytes(plan.resident) + working <= launch.USABLE * free
    assert plan.needed + sizes.slab_bytes() > launch.USABLE * free  # no other block could stay


def test_the_table_of_the_docs_is_the_plan() -> None:
    page = (Path(__file__).parents[1] / "docs" / "howto" / "gpu.md").read_text(encoding="utf-8")
    for sizes in (SMALL, MIDDLE, LARGE, HUGE):
        (row,) = re.findall(
            rf"^\| {sizes.n_studies:,}, {sizes.n_subjects:,} \| (.*) \|$", page, re.MULTILINE
        )
        for says, free in zip(row.split(" | "), (2, 6, 24), strict=True):
            try:
                plan = launch.plan_launches(sizes, free * GB, 30, tfce=True)
            except OutOfMemory as exc:
                needs = str(exc).split("at least ")[1].split(" on the")[0]
                assert says == f"refused: needs {needs}"
                continue
            stays, blocks = plan.resident, launch.n_blocks(sizes)
            start = "all stays" if stays == blocks else f"{stays} of {blocks}"
            assert says.startswith(start)


def test_more_memory_never_means_more_to_copy() -> None:
    for sizes in (LARGE, HUGE):
        copies = []
        for free in range(4 * GB, 80 * GB, GB // 2):
            plan = launch.plan_launches(sizes, free, 30, tfce=True)
            stays = plan.resident == launch.n_blocks(sizes)
            copies.append(0 if stays else (launch.n_blocks(sizes) - plan.resident) / plan.tiles)
        assert copies == sorted(copies, reverse=True)
        assert copies[-1] == 0 < copies[0]


@pytest.mark.parametrize("sizes", [SMALL, MIDDLE, LARGE, HUGE, Sizes(2_000, 50, BRAIN, 50_000)])
def test_blocks_are_even_and_fit_a_small_card(sizes: Sizes) -> None:
    width, blocks = launch.voxel_block(sizes), launch.n_blocks(sizes)
    assert width % launch.LEAST_WIDTH == 0
    sums = 4 * sizes.n_studies * TILE * width
    assert sizes.slab_bytes() + sums <= launch.SLAB_BYTES or width == launch.LEAST_WIDTH
    last = sizes.n_voxels - (blocks - 1) * width
    assert width - blocks * launch.LEAST_WIDTH <= last <= width


def test_what_does_not_fit_says_what_it_needs_and_what_is_there() -> None:
    with pytest.raises(OutOfMemory, match=r"need at least 3\.8 GB .* 1000 studies.* 3\.5 GB are"):
        launch.plan_launches(HUGE, int(3.5 * GB), 30, tfce=True)
    with pytest.raises(OutOfMemory, match="use fewer imputations, larger voxels"):
        launch.plan_launches(SMALL, 10**6, 30, tfce=False)


def test_halving_goes_from_tiles_to_blocks_to_passes_to_an_error() -> None:
    plan = launch.plan_launches(MIDDLE, 140 * GB, 132, tfce=True)
    seen = []
    with pytest.raises(OutOfMemory):  # noqa: PT012
        while True:
            seen.append((plan.tiles, plan.tfce_blocks, plan.resident))
            plan = launch.halve(plan, MIDDLE, GB)
    assert seen[:5] == [(8, 264, 4), (4, 264, 4), (2, 264, 4), (1, 264, 4), (1, 132, 4)]
    assert seen[-3:] == [(1, 1, 4), (1, 1, 1), (1, 1, 0)]
    plan = launch.plan_launches(LARGE, 6 * GB, 30, tfce=True)
    assert launch.halve(plan, LARGE, GB).resident == plan.resident // 2
    for sizes in (SMALL, MIDDLE, LARGE, HUGE):  # every step asks for less
        plan = launch.plan_launches(sizes, 140 * GB, 132, tfce=True)
        bytes_ = [plan.needed]
        with pytest.raises(OutOfMemory):  # noqa: PT012
            while True:
                plan = launch.halve(plan, sizes, GB)
                working = sizes.working_bytes(plan.tiles, plan.tfce_blocks)
                bytes_.append(sizes.input_bytes(plan.resident) + working)
        assert bytes_ == sorted(set(bytes_), reverse=True)


def test_without_tfce_no_scratch_is_asked_for() -> None:
    assert launch.plan_launches(SMALL, 6 * GB, 30, tfce=False).tfce_blocks == 0


@pytest.mark.parametrize("sizes", [SMALL, MIDDLE, LARGE, Sizes(600, 200, BRAIN, 0)], ids=str)
@pytest.mark.parametrize("cost", [1, launch.general_cost(2, True)])
def test_launches_cover_every_voxel_once_and_stay_short(sizes: Sizes, cost: int) -> None:
    width = launch.voxel_block(sizes)
    covered = 0
    for first in range(0, sizes.n_voxels, width):
        for a, b in launch.voxel_launches(first, min(first + width, sizes.n_voxels), sizes, cost):
            assert a == covered
            covered = b
            terms = (b - a) * TILE * sizes.n_studies * sizes.n_imputations
            assert terms * cost <= 4_000_000_000 or b - a == launch.LANES  # no launch is smaller
    assert covered == sizes.n_voxels


@pytest.mark.parametrize("n_studies", [2, 11, 24, 50, 135, 600, 2_000])
@pytest.mark.parametrize("n_voxels", [1, BRAIN, 2**31 // TILE + 1, 2**31 - 1])
def test_offsets_of_32_bits_hold(n_studies: int, n_voxels: int) -> None:
    width = launch.voxel_block(Sizes(n_studies, 50, n_voxels, 100))
    assert 1 <= width <= n_voxels
    assert TILE * width < 2**31
    chosen = launch.knobs(n_studies, True)
    together = chosen["R"]
    items = launch.permuted_z_items(n_voxels, TILE, together)
    assert items * together >= n_voxels * TILE  # beyond 2^31: counted in 64 bits
    assert launch.grid(items, chosen["BLOCK"], 132) <= 32 * 132


def test_grid_is_never_empty_and_never_more_than_the_work() -> None:
    assert launch.grid(1, 128, 132) == 1
    assert launch.grid(129, 128, 132) == 2
    assert launch.grid(2**40, 128, 132) == 32 * 132


def test_registers_bound_what_a_thread_keeps() -> None:
    for k in range(2, 1_000):
        chosen = launch.knobs(k, True)
        means = k * chosen["R"]
        held = 2 * chosen["KEEP"] * chosen["R"] + means * (chosen["SUMS"] == 2)
        threads = chosen["BLOCK"] * chosen["BLOCKS"]
        assert held <= min(255, 65536 // threads) - 36
        assert chosen["KEEP"] == k or chosen["KEEP"] % 8 == 0
        assert TILE % chosen["R"] == 0
        assert chosen["BLOCK"] % launch.LANES == 0
        shared = 4 * means * chosen["BLOCK"] * (chosen["SUMS"] == 1)
        assert shared <= 48 << 10
        assert shared * chosen["BLOCKS"] <= 220 << 10  # of a multiprocessor of an H200: 227


def test_scratch_of_every_block_starts_on_8_bytes() -> None:
    assert all(launch.scratch_words(v) % 2 == 0 for v in range(1, 20))
