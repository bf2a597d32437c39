"""How the device engine cuts its work: pure functions of sizes, free memory and processors.

What changes bits (tile and voxel block of the residual products) depends on the problem alone;
what memory allows (tiles in flight, blocks of the TFCE kernel) changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpu_sdm.errors import OutOfMemory
from gpu_sdm.permute.plan import TILE

LANES = 32  # voxels side by side in permuted_z
BLOCK = 128  # threads of a permuted_z block
MAP_BLOCK = 512  # threads that share a map in max_statistic and max_tfce
KEPT_STUDIES = 64  # up to here effects and weights wait in registers
SUMS_BYTES = 512 << 20  # residual sums of one voxel block
MOST_TILES = 8  # permutations in flight: 8 tiles fill the largest card with TFCE blocks
USABLE = 0.9  # of the free memory: cuBLAS and the allocator want some
# Study effects of one launch: under 0.5 s on a card of 1 TFLOP/s that also drives a display.
TERMS_PER_LAUNCH = 4_000_000_000
MAPS_PER_BLOCK = 8  # of one max_tfce launch, for the same reason


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
    needed : int
        Bytes on the device.
    """

    voxel_block: int
    tiles: int
    tfce_blocks: int
    needed: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a problem: K studies, M imputations, V voxels, N simulated subjects, neighbours."""

    n_studies: int
    n_imputations: int
    n_voxels: int
    n_subjects: int
    n_neighbours: int = 6  # of a voxel, in all tables that are uploaded

    def resident_bytes(self) -> int:
        """Bytes of what is uploaded once: effects, residuals, neighbours."""
        per_voxel = self.n_imputations * self.n_studies + self.n_subjects + self.n_neighbours
        return 4 * per_voxel * self.n_voxels

    def working_bytes(self, tiles: int, tfce_blocks: int) -> int:
        """Bytes of what a group of tiles needs besides."""
        sums = self.n_studies * TILE * voxel_block(self) if self.n_subjects else 0
        maps = tiles * TILE * self.n_voxels
        weights = TILE * (self.n_subjects + 2 * self.n_studies)
        return 4 * (sums + maps + weights + tfce_blocks * scratch_words(self.n_voxels))


def voxel_block(sizes: Sizes) -> int:
    """Voxels of one residual product: fixed by the problem, because it decides bits."""
    per_voxel = 4 * TILE * sizes.n_studies
    whole = SUMS_BYTES // per_voxel // 8192 * 8192
    return min(max(whole, 8192), sizes.n_voxels)


def scratch_words(n_voxels: int) -> int:
    """32-bit words of scratch of one max_tfce block."""
    return 7 * n_voxels + n_voxels % 2


def knobs(n_studies: int, subjects: bool) -> dict[str, int]:
    """Compile-time choices of permuted_z for a number of studies.

    Notes
    -----
    A thread has 255 registers. Effects and weights of a permutation take 2 K of them; two
    permutations share a thread while that leaves room, and residual means are held as long as
    they cost no more than a loaded value does. tests/kernel_resources.json has the figures.
    """
    keep = n_studies <= KEPT_STUDIES
    together = 2 if n_studies <= 24 or not keep else 1
    return {
        "K": n_studies,
        "R": together,
        "KEEP": int(keep),
        "HOLD_SUMS": int(n_studies * together <= 32),
        "SUBJECTS": int(subjects),
        "BLOCK": BLOCK,
    }


def general_knobs(n_studies: int, n_terms: int, reml: bool, subjects: bool) -> dict[str, int | str]:
    """Compile-time choices of permuted_z_general."""
    return {
        "K": n_studies,
        "Q": n_terms,
        "REML": int(reml),
        "REAL": "float",
        "SUBJECTS": int(subjects),
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
        Largest number of tiles in flight.

    Raises
    ------
    OutOfMemory
        If not even one tile fits; says what is needed and what is there.
    """
    tiles = most_tiles
    blocks = min(2 * TILE * tiles, 2 * processors) if tfce else 0
    plan = LaunchPlan(voxel_block(sizes), tiles, blocks, 0)
    while True:
        needed = sizes.resident_bytes() + sizes.working_bytes(plan.tiles, plan.tfce_blocks)
        if needed <= USABLE * free:
            return replace(plan, needed=needed)
        plan = halve(plan, sizes, free)


def halve(plan: LaunchPlan, sizes: Sizes, free: int) -> LaunchPlan:
    """Give the next smaller plan: half the tiles, then half the TFCE blocks.

    Raises
    ------
    OutOfMemory
        If there is none.
    """
    if plan.tiles > 1:
        return replace(plan, tiles=plan.tiles // 2)
    if plan.tfce_blocks > 1:
        return replace(plan, tfce_blocks=plan.tfce_blocks // 2)
    raise too_large(sizes, plan.tfce_blocks, free)


def too_large(sizes: Sizes, tfce_blocks: int, free: int) -> OutOfMemory:
    """Say what a problem needs on a device and what is there."""
    least = sizes.resident_bytes() + sizes.working_bytes(1, min(tfce_blocks, 1))
    return OutOfMemory(
        f"the permutations need at least {least / USABLE / 1e9:.1f} GB on the device for "
        f"{sizes.n_studies} studies, {sizes.n_imputations} imputations, {sizes.n_subjects} "
        f"subjects and {sizes.n_voxels} voxels, and {free / 1e9:.1f} GB are free; use fewer "
        "imputations, larger voxels, another --device, or --backend cpu."
    )
