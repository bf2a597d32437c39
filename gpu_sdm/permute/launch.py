"""How the device engine cuts its work: pure functions of sizes, free memory and processors.

What changes bits (tile and voxel block of the residual products) depends on the problem alone;
what memory allows (voxel blocks that stay on the device, tiles in flight, blocks of the TFCE
kernel) changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpu_sdm.errors import OutOfMemory
from gpu_sdm.permute.plan import TILE
from gpu_sdm.permute.scaled import row_length

LANES = 32  # voxels side by side in permuted_z: a group of arrange_effects
BLOCK = 128  # threads of a block, but for what says otherwise
MAP_BLOCK = 512  # threads that share a map in max_statistic and max_tfce
KEPT_STUDIES = 64  # at most so many studies' effects and variances wait in registers
SHARED_FLOATS = 12_288  # of a block: what every card has without being asked
SLAB_BYTES = 1 << 30  # effects, residuals and residual sums of one voxel block
LEAST_WIDTH = 8192  # voxels of a block: below, starting the products takes longer than they do
MOST_TILES = 8  # permutations in flight: 8 tiles fill the largest card with TFCE blocks
PASS_TILES = 16  # that share one pass over voxel blocks which do not stay on the device
USABLE = 0.9  # of the free memory: cuBLAS and the allocator want some
# Study effects of one launch: under 0.5 s on a card of 1 TFLOP/s that also drives a display.
TERMS_PER_LAUNCH = 4_000_000_000
MAPS_PER_BLOCK = 8  # of one launch of max_tfce or max_cluster, for the same reason


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How much is done at once.

    Parameters
    ----------
    voxel_block : int
        Voxels of one residual product.
    tiles : int
        Tiles of permutations in flight.
    tfce_blocks : int
        Blocks of the TFCE kernel, each with its own scratch; 0 without TFCE.
    resident : int
        Voxel blocks whose effects and residuals stay on the device; the others are copied there,
        one after the other, for every group of tiles.
    needed : int
        Bytes on the device.
    """

    voxel_block: int
    tiles: int
    tfce_blocks: int
    resident: int
    needed: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a problem: K studies, M imputations, V voxels, N simulated subjects, neighbours."""

    n_studies: int
    n_imputations: int
    n_voxels: int
    n_subjects: int
    n_neighbours: int = 6  # of a voxel, in all tables that are uploaded

    def slab_bytes(self) -> int:
        """Bytes of effects and residuals of one voxel block."""
        per_voxel = self.n_imputations * self.n_studies + self.n_subjects
        return 4 * per_voxel * voxel_block(self)

    def input_bytes(self, resident: int) -> int:
        """Bytes of effects, residuals and neighbours where so many voxel blocks stay.

        Where not all of them do, one more is there in passing; and one imputation of a block, on
        its way to its place.
        """
        voxels = min((resident + 1) * voxel_block(self), self.n_voxels)
        effects = self.n_imputations * self.n_studies * (-(-voxels // LANES) * LANES)
        passing = self.n_studies * voxel_block(self)
        others = self.n_subjects * voxels + self.n_neighbours * self.n_voxels
        return 4 * (effects + passing + others)

    def working_bytes(self, tiles: int, tfce_blocks: int) -> int:
        """Bytes of what a group of tiles needs besides."""
        sums = self.n_studies * TILE * voxel_block(self) if self.n_subjects else 0
        maps = tiles * TILE * self.n_voxels
        weights = tiles * TILE * (self.n_subjects + self.n_studies + row_length(self.n_studies))
        return 4 * (sums + maps + weights + tfce_blocks * scratch_words(self.n_voxels))


def voxel_block(sizes: Sizes) -> int:
    """Voxels of one residual product: fixed by the problem, because it decides bits.

    Even parts of the mask, of at most SLAB_BYTES where LEAST_WIDTH allows it: what a small card
    takes at once.
    """
    per_voxel = 4 * ((TILE + sizes.n_imputations) * sizes.n_studies + sizes.n_subjects)
    most = max(SLAB_BYTES // per_voxel // LEAST_WIDTH, 1) * LEAST_WIDTH
    part = -(-sizes.n_voxels // -(-sizes.n_voxels // most))
    return min(-(-part // LEAST_WIDTH) * LEAST_WIDTH, sizes.n_voxels)


def n_blocks(sizes: Sizes) -> int:
    """Voxel blocks of a problem."""
    return -(-sizes.n_voxels // voxel_block(sizes))


def scratch_words(n_voxels: int) -> int:
    """32-bit words of scratch of one max_tfce block."""
    return 7 * n_voxels + n_voxels % 2


def knobs(n_studies: int, subjects: bool, rescale: bool = True) -> dict[str, int]:
    """Compile-time choices of permuted_z for a number of studies.

    Notes
    -----
    A thread has at most 255 registers, and fewer where more threads share a multiprocessor.
    Effects and variances of a permutation take 2 K of them: two permutations share a thread, and
    with it each effect, while that leaves 384 threads or more. Residual means wait in registers
    where they are few, else in shared memory, for which blocks get smaller; with more than 192
    studies they are read again for each imputation. tests/kernel_resources.json has the figures:
    up to 64 studies nothing spills.
    """
    together = 2 if n_studies <= 22 else 1
    kept = n_studies if n_studies <= 56 else min(n_studies // 8 * 8, KEPT_STUDIES)
    means = n_studies * together
    block = next((b for b in (128, 64) if means * b <= SHARED_FLOATS), BLOCK)
    in_registers = means <= 32
    threads = 512 if n_studies <= (13, 30)[together == 1] else 384 if n_studies <= 50 else 256
    return {
        "K": n_studies,
        "R": together,
        "KEEP": kept,
        "SUMS": 2 if in_registers else 1 if means * block <= SHARED_FLOATS else 0,
        "SUBJECTS": int(subjects),
        "RESCALE": int(rescale and subjects),
        "BLOCK": block,
        "BLOCKS": threads // block,
    }


def general_knobs(
    n_studies: int, n_terms: int, reml: bool, subjects: bool, rescale: bool = True
) -> dict[str, int | str]:
    """Compile-time choices of permuted_z_general."""
    return {
        "K": n_studies,
        "Q": n_terms,
        "REML": int(reml),
        "REAL": "float",
        "SUBJECTS": int(subjects),
        "RESCALE": int(rescale and subjects),
        "BLOCK": BLOCK,
    }


def grid(items: int, block: int, processors: int) -> int:
    """Blocks for grid-stride loops: enough for the items, at most 32 for each multiprocessor."""
    return max(1, min(-(-items // block), 32 * processors))


def permuted_z_items(n_voxels: int, n_permutations: int, together: int) -> int:
    """Threads that permuted_z has work for."""
    return -(-n_voxels // LANES) * LANES * -(-n_permutations // together)


def general_cost(n_terms: int, reml: bool) -> int:
    """How many times the arithmetic of permuted_z a study effect takes with Q coefficients."""
    return (n_terms + 2) * (20 if reml else 2)


def voxel_launches(first: int, last: int, sizes: Sizes, cost: int = 1) -> list[tuple[int, int]]:
    """Cut voxels first..last-1 so that one launch of a tile stays short."""
    terms = TILE * sizes.n_studies * sizes.n_imputations * cost
    step = max(LANES, TERMS_PER_LAUNCH // terms // LANES * LANES)
    return [(a, min(a + step, last)) for a in range(first, last, step)]


def plan_launches(
    sizes: Sizes, free: int, processors: int, tfce: bool, most_tiles: int = MOST_TILES
) -> LaunchPlan:
    """Fit the engine into the free memory of a device.

    Parameters
    ----------
    sizes : Sizes
        The problem.
    free : int
        Free bytes, or what --device-memory allows.
    processors : int
        Multiprocessors of the device.
    tfce : bool
        Whether TFCE or a cluster statistic is asked for.
    most_tiles : int
        Largest number of tiles in flight where everything stays on the device.

    Raises
    ------
    OutOfMemory
        If not even one tile and one voxel block fit; says what is needed and what is there.
    """
    tiles = most_tiles
    blocks = min(2 * TILE * tiles, 2 * processors) if tfce else 0
    plan = LaunchPlan(voxel_block(sizes), tiles, blocks, n_blocks(sizes), 0)
    while plan.resident == n_blocks(sizes):
        needed = sizes.input_bytes(plan.resident) + sizes.working_bytes(
            plan.tiles, plan.tfce_blocks
        )
        if needed <= USABLE * free:
            return replace(plan, needed=needed)
        if plan.tiles == 1 and plan.tfce_blocks <= 1:
            break
        plan = halve(plan, sizes, free)
    return _plan_passes(sizes, free, blocks)


def _plan_passes(sizes: Sizes, free: int, most_blocks: int) -> LaunchPlan:
    """Fit the engine where voxel blocks must come and go: the fewest copies for a tile.

    Raises
    ------
    OutOfMemory
        If not even one block and one tile fit.
    """
    found: list[LaunchPlan] = []
    for tiles in (PASS_TILES >> i for i in range(PASS_TILES.bit_length())):
        blocks, kept = most_blocks, n_blocks(sizes) - 1
        while True:
            working = sizes.working_bytes(tiles, blocks)
            while kept > 0 and working + sizes.input_bytes(kept) > USABLE * free:
                kept -= 1
            needed = working + sizes.input_bytes(kept)
            if needed <= USABLE * free:
                found.append(LaunchPlan(voxel_block(sizes), tiles, blocks, kept, needed))
                break
            if blocks <= 1:
                break
            blocks //= 2
    if not found:
        raise too_large(sizes, most_blocks, free)
    return min(found, key=lambda plan: (n_blocks(sizes) - plan.resident) / plan.tiles)


def halve(plan: LaunchPlan, sizes: Sizes, free: int) -> LaunchPlan:
    """Give the next smaller plan: half of one thing.

    Of the voxel blocks that stay, where already some do not; then of the tiles, of the TFCE
    blocks, and of the voxel blocks where all stayed so far.

    Raises
    ------
    OutOfMemory
        If there is none.
    """
    blocks = n_blocks(sizes)
    if 0 < plan.resident < blocks:
        return replace(plan, resident=plan.resident // 2)
    if plan.tiles > 1:
        return replace(plan, tiles=plan.tiles // 2)
    if plan.tfce_blocks > 1:
        return replace(plan, tfce_blocks=plan.tfce_blocks // 2)
    if plan.resident == blocks > 1:
        # With all but one there would still be as many: one is there in passing.
        return replace(plan, resident=(blocks - 1) // 2)
    raise too_large(sizes, plan.tfce_blocks, free)


def too_large(sizes: Sizes, tfce_blocks: int, free: int) -> OutOfMemory:
    """Say what a problem needs on a device and what is there."""
    least = sizes.input_bytes(0) + sizes.working_bytes(1, min(tfce_blocks, 1))
    return OutOfMemory(
        f"the permutations need at least {least / USABLE / 1e9:.1f} GB on the device for "
        f"{sizes.n_studies} studies, {sizes.n_imputations} imputations, {sizes.n_subjects} "
        f"subjects and {sizes.n_voxels} voxels, even block of voxels by block, and "
        f"{free / 1e9:.1f} GB are free; use fewer imputations, larger voxels, another --device, "
        "or --backend cpu."
    )
