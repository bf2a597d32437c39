"""Effects and residuals on a device, by the voxel blocks of the products: kept, or in passing.

What does not fit the device, whether it lies in memory or in files of slabs, is copied there block
after block for every group of permutations. While the device works on one block the host prepares
the next: it reads it and fills page-locked memory; the copy follows the work in the device's queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.permute import launch

if TYPE_CHECKING:
    from gpu_sdm.permute.engine import Problem

LANES = launch.LANES
AHEAD = 2  # blocks in page-locked memory: the one that is worked on and the next
Work = Callable[[slice, Any, list[Any]], None]


def arranged(effects: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Give effects (M, K, B) times scale (K) as permuted_z reads them: (G, M, K, 32) float32.

    The twin of kernels/arrange_effects.cu: groups of 32 voxels, 0 past the last.
    """
    m, k, b = effects.shape
    padded = np.zeros((m, k, -(-b // LANES) * LANES), np.float32)
    padded[:, :, :b] = effects * scale.astype(np.float32)[:, None]
    return np.ascontiguousarray(padded.reshape(m, k, -1, LANES).transpose(2, 0, 1, 3))


class VoxelBlocks:
    """The voxel blocks of one analysis.

    Parameters
    ----------
    problem : Problem
        Its effects (M, K, V) and residuals (N_k, V), in memory or in files.
    device : Device
        Where they go.
    width : int
        Voxels of a block.
    scale : (K,), optional
        What effects are multiplied by when they are arranged for permuted_z; without it they stay
        as they are, (M, K, B).
    """

    def __init__(
        self, problem: Problem, device: Device, width: int, scale: np.ndarray | None = None
    ):
        v = problem.effects.shape[2]
        self.voxels = [slice(a, min(a + width, v)) for a in range(0, v, width)]
        self._effects, self._device = problem.effects, device
        self._residuals = problem.bank.residuals if problem.bank is not None else ()
        self._scale = None if scale is None else device.asarray(scale.astype(np.float32))
        self._arrange = (
            None if scale is None else device.kernel("arrange_effects.cu", "arrange_effects")
        )
        self._kept: list[tuple[Any, list[Any]]] = []
        self._marks: deque[Any] = deque()

    def __len__(self) -> int:
        return len(self.voxels)

    def keep(self, count: int) -> None:
        """Hold the first `count` blocks on the device and no others."""
        self.drop(count)
        while len(self._kept) < count:
            self._kept.append(self._copy(len(self._kept)))
            self._marks.append(self._device.mark())

    def drop(self, count: int) -> None:
        """Let go of all but the first `count` blocks."""
        del self._kept[count:]

    def each(self, work: Work) -> None:
        """Call `work(voxels, effects, residuals (N_k, B) of each study)` for all blocks.

        Nothing of a block may be held beyond the call: its memory goes to the next.
        """
        for i, voxels in enumerate(self.voxels):
            if i < len(self._kept):
                work(voxels, *self._kept[i])
                continue
            work(voxels, *self._copy(i))
            self._marks.append(self._device.mark())

    def _copy(self, i: int) -> tuple[Any, list[Any]]:
        """Copy a block to the device; waits where the device is more than one block behind."""
        while len(self._marks) >= AHEAD:
            self._device.wait(self._marks.popleft())
        voxels, to = self.voxels[i], self._device.asarray
        effects = self._placed(np.asarray(self._effects[:, :, voxels]))
        # Each array by itself, as the kept ones: products may depend on how their inputs align.
        return effects, [to(r[:, voxels]) for r in self._residuals]

    def _placed(self, effects: np.ndarray) -> Any:
        """Copy effects (M, K, B) to the device, one imputation after the other into its place."""
        device = self._device
        if self._arrange is None:
            return device.asarray(effects)
        m, k, b = effects.shape
        groups = -(-b // LANES)
        placed = device.empty((groups, m, k, LANES), np.float32)
        grid = launch.grid(groups * k * LANES, launch.BLOCK, device.processors)
        for i, own in enumerate(effects):
            args = [device.asarray(own), self._scale, placed, *map(np.int64, (i, m, k, b))]
            device.launch(self._arrange, grid, launch.BLOCK, args)
        return placed
