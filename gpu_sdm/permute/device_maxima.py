"""The largest values of z maps that lie on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.ops.tfce import STEP_SUM
from gpu_sdm.permute import launch
from gpu_sdm.permute.null import refuse_nan

if TYPE_CHECKING:
    from gpu_sdm.permute.engine import Problem


def _short(z: Any, blocks: int) -> list[Any]:
    """Cut maps z (P, V) into parts that so many blocks finish in a short launch."""
    rows = max(1, blocks * launch.MAPS_PER_BLOCK // 2)
    return [z[first : first + rows] for first in range(0, len(z), rows)]


class DeviceMaxima:
    """Largest value of each statistic of maps on a device.

    Parameters
    ----------
    problem : Problem
        Neighbours, what forms clusters, and the space for messages.
    device : Device
        Where the maps are.
    statistics : tuple of {"voxel", "tfce", "cluster-extent", "cluster-mass"}
        What the maximum is taken of.
    """

    def __init__(self, problem: Problem, device: Device, statistics: tuple[str, ...]):
        self._problem, self._device, self._statistics = problem, device, statistics
        self._clusters = bool({"cluster-extent", "cluster-mass"} & set(statistics))
        self._max_kernel = device.kernel("max_statistic.cu", "max_statistic")
        if "tfce" in statistics:
            self._tfce_kernel = device.kernel("max_tfce.cu", "max_tfce")
            self._neighbours = device.asarray(problem.neighbours)
            self._step_sum = device.asarray(np.array(STEP_SUM))
        if self._clusters:
            assert problem.forming is not None
            box = problem.forming.neighbours
            self._cluster_kernel = device.kernel(
                "max_cluster.cu", "max_cluster", NEIGHBOURS=box.shape[1]
            )
            self._box = device.asarray(box)
            self._threshold = np.float32(problem.forming.threshold)

    def of(self, z: Any, start: int, blocks: int) -> dict[str, np.ndarray]:
        """Largest values of maps z (P, V), the first of them permutation `start`.

        Parameters
        ----------
        z : (P, V) float32 on the device
            The maps.
        start : int
            Number of the first, for messages.
        blocks : int
            Blocks of the kernels that need scratch; changes no bit.

        Returns
        -------
        dict of str to (2, P) array
            As `maxima_of` of the engine: "voxel" float32, the others float64.

        Raises
        ------
        NumericalError
            If a map holds NaN; names permutation and voxel.
        """
        found = {"voxel": self._max_statistic(z, start)}
        if "tfce" in self._statistics:
            found["tfce"] = self._tfce_of(self._tfce_kernel, z, blocks)
        if self._clusters:
            found["cluster-extent"], found["cluster-mass"] = self._max_cluster(z, blocks)
        return {name: values for name, values in found.items() if name in self._statistics}

    def _max_statistic(self, z: Any, start: int) -> np.ndarray:
        device, (n_maps, n_voxels) = self._device, z.shape
        best = device.empty((2, n_maps), np.float32)
        device.launch(
            self._max_kernel,
            n_maps,
            launch.MAP_BLOCK,
            [z, best, np.int64(n_maps), np.int64(n_voxels)],
        )
        values = device.to_host(best)
        if np.isnan(values).any():
            row = int(np.flatnonzero(np.isnan(values[0]))[0])
            refuse_nan(device.to_host(z[row]), self._problem.space, start + row)
        return values

    def _max_cluster(self, z: Any, blocks: int) -> np.ndarray:
        """Largest extent and mass of each map: (2, 2, P) float64, positive side first."""
        device, n_voxels = self._device, z.shape[1]
        # Less than the scratch of max_tfce, for which the plan has made room.
        scratch = device.empty((blocks, 4 * n_voxels), np.int32)
        parts = []
        for maps in _short(z, blocks):
            best = device.empty((2, 2, len(maps)), np.float64)
            sizes = np.int64(len(maps)), np.int64(n_voxels)
            device.launch(
                self._cluster_kernel,
                min(blocks, 2 * len(maps)),
                launch.MAP_BLOCK,
                [maps, self._box, best, scratch, self._threshold, *sizes],
            )
            parts.append(best)
        return np.concatenate([device.to_host(p) for p in parts], axis=2)

    def enhanced(self, z: Any, blocks: int) -> np.ndarray:
        """TFCE scores (2, P, V) of all voxels of maps z (P, V) on the device; see `of`."""
        kernel = self._device.kernel("tfce_map.cu", "tfce_map")
        return self._tfce_of(kernel, z, blocks, z.shape[1:])

    def _tfce_of(self, kernel: Any, z: Any, blocks: int, each: tuple[int, ...] = ()) -> np.ndarray:
        """Give (2, P, *each) float64 of maps z (P, V) by a kernel that takes some at a time."""
        device, n_voxels = self._device, z.shape[1]
        scratch = device.empty((blocks, launch.scratch_words(n_voxels)), np.int32)
        parts = []
        for maps in _short(z, blocks):
            found = device.empty((2, len(maps), *each), np.float64)
            sizes = np.int64(len(maps)), np.int64(n_voxels)
            device.launch(
                kernel,
                min(blocks, 2 * len(maps)),
                launch.MAP_BLOCK,
                [maps, self._neighbours, self._step_sum, found, scratch, *sizes],
            )
            parts.append(found)
        return np.concatenate([device.to_host(p) for p in parts], axis=1)
