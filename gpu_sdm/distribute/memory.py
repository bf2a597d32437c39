"""What an analysis needs of memory and disk, and how it is laid out where memory is short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpu_sdm.environment import memory_bytes
from gpu_sdm.errors import OutOfMemory
from gpu_sdm.permute import launch
from gpu_sdm.permute.engine import BLOCK, COMPLETE
from gpu_sdm.permute.plan import TILE, TILES_TOGETHER
from gpu_sdm.permute.voxel_blocks import AHEAD
from gpu_sdm.stages.impute import MOST
from gpu_sdm.stages.meta import BLOCK as POOLED

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis

# Python, libraries, template and compiled code, before any study is held.
BASE_BYTES = 900_000_000
UPLOADS = AHEAD + 1  # voxel blocks on their way to a GPU: being read, and in page-locked memory


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the large arrays of an analysis lie.

    Parameters
    ----------
    slabs : bool
        Effects and subject images in files of slabs; else in memory.
    memory : int
        Bytes at the peak, in each process.
    disk : int
        Bytes of those files; 0 without.
    tiles : int
        Tiles of permutations that share one pass over the voxels.
    threads : int
        Blocks of voxels that are worked on at once.
    """

    slabs: bool
    memory: int
    disk: int
    tiles: int
    threads: int


def large_bytes(analysis: Analysis) -> int:
    """Bytes of the effects and of the subject images."""
    v, k = analysis.space.n_voxels, len(analysis.terms.j)
    return 4 * v * (analysis.imputations * k + _subjects(analysis))


def _subjects(analysis: Analysis) -> int:
    if analysis.settings.exchange != "subjects" or analysis.design.moderator:
        return 0
    return int(analysis.terms.n1.sum() + analysis.terms.n2.sum())


def _working(analysis: Analysis, threads: int, tiles: int) -> int:
    """Bytes beside the large arrays: bounds, maps of permutations, blocks of each thread."""
    v, k = analysis.space.n_voxels, len(analysis.terms.j)
    # Building a group's images takes a second copy of it; pooling takes blocks only.
    largest = int(max(analysis.terms.n1.max(), analysis.terms.n2.max()))
    images = 8 * largest * v if _subjects(analysis) else 0
    effects = analysis.imputations * k
    drawn = max(4 * min(MOST, effects * v), 12 * effects * min(POOLED, v))
    sums = 4 * k * TILE * min(BLOCK, v) + 16 * TILE * k * 128
    together = tiles if images or analysis.imputations > 1 else max(tiles, COMPLETE)
    maps = 4 * v * ((together + 1) * TILE + 30)
    upload = 0
    if analysis.backend.device is not None:
        sizes = launch.Sizes(k, analysis.imputations, v, _subjects(analysis))
        upload = UPLOADS * sizes.slab_bytes()
    return BASE_BYTES + 8 * k * v + max(drawn, threads * max(images, sums), upload) + maps


def memory_needed(analysis: Analysis) -> int:
    """Bytes at the peak with everything in memory."""
    return large_bytes(analysis) + _working(analysis, analysis.backend.threads, 1)


def plan_layout(analysis: Analysis, budget: int | None = None, processes: int = 1) -> Layout:
    """Decide where the large arrays lie.

    Parameters
    ----------
    analysis : Analysis
        What is to be done.
    budget : int, optional
        Bytes that may be used; what is free by default.
    processes : int
        That share the memory: this one, and local workers.

    Raises
    ------
    OutOfMemory
        If not even slabs fit; says what is needed, what there is and what would make it smaller.
    """
    free = memory_bytes() if budget is None else budget
    threads = analysis.backend.threads
    whole = memory_needed(analysis)
    if free is None or processes * whole <= free:
        return Layout(False, whole, 0, 1, threads)
    while threads > 1 and processes * _working(analysis, threads, 1) > free:
        threads -= 1
    needed = _working(analysis, threads, 1)
    if processes * needed > free:
        raise OutOfMemory(
            f"this analysis needs {processes * needed / 1e9:.1f} GB of memory even with effects "
            f"and subject images on disk, and {free / 1e9:.1f} GB "
            f"{'are free' if budget is None else 'are allowed'}; use a larger --voxel-size, a "
            "smaller --mask, fewer --workers, or another machine."
        )
    tiles = 1
    while tiles < TILES_TOGETHER and processes * _working(analysis, threads, tiles + 1) <= free:
        tiles += 1
    return Layout(True, _working(analysis, threads, tiles), large_bytes(analysis), tiles, threads)
