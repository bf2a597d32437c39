"""The permutations of one analysis on a device: only maxima come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.ops.permuted_effects import study_coefficients
from gpu_sdm.ops.tfce import STEP_SUM
from gpu_sdm.permute import launch
from gpu_sdm.permute.null import refuse_nan
from gpu_sdm.permute.plan import TILE, PermutationPlan, Plan
from gpu_sdm.permute.weights import DeviceWeights, HostWeights

if TYPE_CHECKING:
    from gpu_sdm.permute.engine import Problem


def device_table(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients of the kernels from those of `study_coefficients`: (K, 7) float32.

    J is folded in (kernels/permuted_effect.cuh): a, b, alpha, beta, gamma, c, v2.
    """
    inverse_j, j, a, b, alpha, beta, gamma, c, v2_j2 = coefficients.T
    columns = (j * a, b, alpha * inverse_j**2, beta, gamma * inverse_j, c, v2_j2 * inverse_j**2)
    return np.stack(columns, axis=1).astype(np.float32)


def general_table(design: np.ndarray, contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal design of the same column space and the contrast in it, both float64.

    The tested combination and its variance do not change, and rounding no longer depends on
    the units of the covariates.
    """
    q, r = np.linalg.qr(design)
    return q, np.linalg.solve(r.T, contrast)


class DeviceEngine:
    """Maxima of tiles of permutations on a device.

    Parameters
    ----------
    problem : Problem
        The analysis.
    plan : Plan
        The permutations. Those of a `PermutationPlan` are drawn on the device.
    device : Device
        The GPU.
    statistics : tuple of {"voxel", "tfce", "cluster-extent", "cluster-mass"}
        What the maximum is taken of.
    say : callable
        Called with a sentence when memory forces smaller steps.

    Raises
    ------
    OutOfMemory
        If the problem does not fit the device.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        device: Device,
        statistics: tuple[str, ...] = ("voxel",),
        say: Callable[[str], None] = lambda sentence: None,
    ):
        self.problem, self.device, self.statistics, self.say = problem, device, statistics, say
        bank, (m, k, v) = problem.bank, problem.effects.shape
        n = sum(len(r) for r in bank.residuals) if bank is not None else 0
        self._clusters = {"cluster-extent", "cluster-mass"} & set(statistics)
        self.sizes = launch.Sizes(k, m, v, n, 32 if self._clusters else 6)
        device.use()
        self.launch = launch.plan_launches(
            self.sizes, device.free_bytes(), device.processors, set(statistics) != {"voxel"}
        )
        coefficients = study_coefficients(problem.terms, problem.rescale_sd, bank is None)
        self._prepare_kernels(coefficients)
        random = isinstance(plan, PermutationPlan) and bank is not None
        self._weights: DeviceWeights | HostWeights = (
            DeviceWeights(plan, coefficients[:, 0], device)  # type: ignore[arg-type]
            if random
            else HostWeights(plan, coefficients[:, 0], device, bank is not None)
        )
        try:
            self._upload()
        except device.memory_error as exc:
            blocks = self.launch.tfce_blocks
            raise launch.too_large(self.sizes, blocks, device.free_bytes()) from exc

    def _prepare_kernels(self, coefficients: np.ndarray) -> None:
        problem, device = self.problem, self.device
        k = self.sizes.n_studies
        self._knobs: dict[str, int | str]
        x, h = problem.design, problem.contrast
        ones = x.shape[1] == 1 and bool((x == 1).all()) and h[0] == 1
        self._mean = ones and problem.tau2 == "dl"
        self._constants = {"TABLE": device.asarray(device_table(coefficients))}
        if self._mean:
            self._cost = 1
            self._knobs = dict(launch.knobs(k, problem.bank is not None))
            file = "permuted_z"
        else:
            reml = problem.tau2 == "reml"
            self._cost = launch.general_cost(x.shape[1], reml)
            self._knobs = launch.general_knobs(k, x.shape[1], reml, problem.bank is not None)
            file = "permuted_z_general"
            basis, combination = general_table(x, h)
            self._constants["DESIGN"] = device.asarray(basis)
            self._constants["CONTRAST"] = device.asarray(combination)
        self._z_kernel = device.kernel(f"{file}.cu", file, **self._knobs)
        self._max_kernel = device.kernel("max_statistic.cu", "max_statistic")
        if "tfce" in self.statistics:
            self._tfce_kernel = device.kernel("max_tfce.cu", "max_tfce")
        if self._clusters:
            assert problem.forming is not None
            joined = problem.forming.neighbours.shape[1]
            self._cluster_kernel = device.kernel("max_cluster.cu", "max_cluster", NEIGHBOURS=joined)

    def _upload(self) -> None:
        """Copy what every permutation reads; residuals in the voxel blocks of the products."""
        problem, device, v = self.problem, self.device, self.sizes.n_voxels
        width = self.launch.voxel_block
        self._blocks = [slice(a, min(a + width, v)) for a in range(0, v, width)]
        self._effects = device.asarray(problem.effects)
        residuals = problem.bank.residuals if problem.bank is not None else ()
        self._residuals = [[device.asarray(r[:, b]) for r in residuals] for b in self._blocks]
        if "tfce" in self.statistics:
            self._neighbours = device.asarray(problem.neighbours)
            self._step_sum = device.asarray(np.array(STEP_SUM))
        if self._clusters:
            assert problem.forming is not None
            self._box = device.asarray(problem.forming.neighbours)
            self._threshold = np.float32(problem.forming.threshold)

    @property
    def group(self) -> int:
        """Permutations that are best asked for at once."""
        return self.launch.tiles * TILE

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Largest values of permutations start..stop-1, which need not be whole tiles."""
        tile = start - start % TILE
        found = self.maxima(tile, -(-(stop - tile) // TILE))
        return {name: values[:, start - tile : stop - tile] for name, values in found.items()}

    def maxima(self, start: int, tiles: int = 1) -> dict[str, np.ndarray]:
        """Largest value of each statistic in the permutations of some tiles.

        Parameters
        ----------
        start : int
            First permutation, a multiple of TILE.
        tiles : int
            How many tiles; the values do not depend on it.

        Returns
        -------
        dict of str to (2, tiles * TILE) array
            As `maxima_of` of the engine: "voxel" float32, the others float64.

        Raises
        ------
        NumericalError
            If a z map holds NaN; names permutation and voxel.
        OutOfMemory
            If the device has run out of memory and no smaller step is left.
        """
        if start % TILE:
            raise ValueError(f"tiles start at {start}, not a multiple of {TILE}")
        self.device.use()
        parts: list[dict[str, np.ndarray]] = []
        done = 0
        while done < tiles:
            now = min(self.launch.tiles, tiles - done)
            try:
                parts.append(self._group(start + done * TILE, now))
            except self.device.memory_error:
                self.device.release()
                self.launch = launch.halve(self.launch, self.sizes, self.device.free_bytes())
                self.say(
                    f"The GPU is short of memory; going on with {self.group} permutations at once "
                    "(the result does not change)."
                )
                continue
            done += now
        return {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}

    def _group(self, start: int, tiles: int) -> dict[str, np.ndarray]:
        z = self.device.empty((tiles * TILE, self.sizes.n_voxels), np.float32)
        for t in range(tiles):
            self.z_tile(start + t * TILE, z[t * TILE : (t + 1) * TILE])
        found = {"voxel": self._max_statistic(z, start)}
        if "tfce" in self.statistics:
            found["tfce"] = self._max_tfce(z)
        if self._clusters:
            found["cluster-extent"], found["cluster-mass"] = self._max_cluster(z)
        return {name: values for name, values in found.items() if name in self.statistics}

    def z_tile(self, start: int, z: Any) -> None:
        """Fill z (TILE, V) on the device with the maps of the tile from `start`."""
        device, sizes = self.device, self.sizes
        weights, share = self._weights.tile(start)
        for name, values in self._constants.items():
            device.constant(self._z_kernel, name, values)
        together = int(self._knobs.get("R", 1))
        for i, block in enumerate(self._blocks):
            width = block.stop - block.start
            sums = share  # not read where whole studies are exchanged
            if weights is not None:
                sums = device.empty((sizes.n_studies, TILE, width), np.float32)
                for k, w in enumerate(weights):
                    device.matmul(w, self._residuals[i][k], sums[k])
            for first, last in launch.voxel_launches(block.start, block.stop, sizes, self._cost):
                items = launch.permuted_z_items(last - first, TILE, together)
                numbers = [
                    sizes.n_imputations, TILE, sizes.n_voxels, block.start, width, first, last,
                ]  # fmt: skip
                if self._mean:
                    numbers.append(sizes.n_studies)
                device.launch(
                    self._z_kernel,
                    launch.grid(items, launch.BLOCK, 8 * device.processors),
                    launch.BLOCK,
                    [sums, share, self._effects, z, *map(np.int64, numbers)],
                )

    def _max_statistic(self, z: Any, start: int) -> np.ndarray:
        device, (n_maps, n_voxels) = self.device, z.shape
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
            refuse_nan(device.to_host(z[row]), self.problem.space, start + row)
        return values

    def _max_cluster(self, z: Any) -> np.ndarray:
        """Largest extent and mass of each map: (2, 2, P) float64, positive side first."""
        device, (n_maps, n_voxels) = self.device, z.shape
        blocks = min(self.launch.tfce_blocks, 2 * n_maps)
        # Less than the scratch of max_tfce, for which the plan has made room.
        scratch = device.empty((blocks, 4 * n_voxels), np.int32)
        best = device.empty((2, 2, n_maps), np.float64)
        sizes = np.int64(n_maps), np.int64(n_voxels)
        device.launch(
            self._cluster_kernel,
            blocks,
            launch.MAP_BLOCK,
            [z, self._box, best, scratch, self._threshold, *sizes],
        )
        return device.to_host(best)

    def _max_tfce(self, z: Any) -> np.ndarray:
        device, (n_maps, n_voxels) = self.device, z.shape
        blocks = self.launch.tfce_blocks
        scratch = device.empty((blocks, launch.scratch_words(n_voxels)), np.int32)
        rows = max(1, blocks * launch.MAPS_PER_BLOCK // 2)
        parts = []
        for first in range(0, n_maps, rows):
            maps = z[first : first + rows]
            best = device.empty((2, len(maps)), np.float64)
            sizes = np.int64(len(maps)), np.int64(n_voxels)
            device.launch(
                self._tfce_kernel,
                min(blocks, 2 * len(maps)),
                launch.MAP_BLOCK,
                [maps, self._neighbours, self._step_sum, best, scratch, *sizes],
            )
            parts.append(best)
        return np.concatenate([device.to_host(p) for p in parts], axis=1)
