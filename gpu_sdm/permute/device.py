"""The permutations of one analysis on a device: only maxima come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.ops.permuted_effects import study_coefficients
from gpu_sdm.permute import launch
from gpu_sdm.permute.device_maxima import DeviceMaxima
from gpu_sdm.permute.plan import TILE, PermutationPlan, Plan
from gpu_sdm.permute.scaled import Scaled
from gpu_sdm.permute.voxel_blocks import VoxelBlocks
from gpu_sdm.permute.weights import DeviceWeights, HostWeights

if TYPE_CHECKING:
    from gpu_sdm.permute.engine import Problem


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
        The analysis; its effects and residuals may lie in files.
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
        if problem.scores is not None:  # the parts of the studies stand where effects do
            problem = replace(problem, effects=problem.scores.parts[None], bank=None)
        self.problem, self.device, self.statistics, self.say = problem, device, statistics, say
        bank, (m, k, v) = problem.bank, problem.effects.shape
        n = sum(len(r) for r in bank.residuals) if bank is not None else 0
        clusters = {"cluster-extent", "cluster-mass"} & set(statistics)
        self.sizes = launch.Sizes(k, m, v, n, 32 if clusters else 6)
        device.use()
        self.launch = launch.plan_launches(
            self.sizes, device.free_bytes(), device.processors, set(statistics) != {"voxel"}
        )
        self._scaled: Scaled | None = None
        if problem.scores is None:
            table = study_coefficients(problem.terms, problem.rescale_sd, bank is None)
            self._scaled = Scaled.of(table)
        self._prepare_kernels()
        random = isinstance(plan, PermutationPlan) and bank is not None
        self._weights: DeviceWeights | HostWeights = (
            DeviceWeights(plan, self._scaled, device)  # type: ignore[arg-type]
            if random
            else HostWeights(plan, self._scaled, device, bank is not None)
        )
        self._upload()

    def _prepare_kernels(self) -> None:
        problem, device, scaled = self.problem, self.device, self._scaled
        k, subjects = self.sizes.n_studies, self.problem.bank is not None
        self._knobs: dict[str, int | str] = {}
        self._constants: dict[str, Any] = {}
        if scaled is None:
            return
        x, h = problem.design, problem.contrast
        ones = x.shape[1] == 1 and bool((x == 1).all()) and h[0] == 1
        self._mean = ones and problem.tau2 == "dl"
        self._constants = {"TABLE": device.asarray(scaled.table.astype(np.float32))}
        if self._mean:
            self._cost = 1
            self._knobs = dict(launch.knobs(k, subjects, scaled.rescale))
            file = "permuted_z"
        else:
            reml = problem.tau2 == "reml"
            self._cost = launch.general_cost(x.shape[1], reml)
            self._knobs = launch.general_knobs(k, x.shape[1], reml, subjects, scaled.rescale)
            file = "permuted_z_general"
            basis, combination = general_table(x, h)
            self._constants["DESIGN"] = device.asarray(basis)
            self._constants["CONTRAST"] = device.asarray(combination)
        self._z_kernel = device.kernel(f"{file}.cu", file, **self._knobs)

    def _upload(self) -> None:
        """Copy what every permutation reads, or as much of it as there is room for."""
        problem, device = self.problem, self.device
        scale = self._scaled.effect if self._scaled is not None else None
        self._blocks = VoxelBlocks(problem, device, self.launch.voxel_block, scale)
        try:
            self._maxima = DeviceMaxima(problem, device, self.statistics)
        except device.memory_error as exc:
            blocks = self.launch.tfce_blocks
            raise launch.too_large(self.sizes, blocks, device.free_bytes()) from exc
        while not self._kept():
            self._shrink()
        if self.launch.resident < len(self._blocks):
            self.say(f"Effects and subject images do not fit the GPU: {self._passes()}")

    def _kept(self) -> bool:
        """Copy the blocks that stay; whether there was room."""
        try:
            self._blocks.keep(self.launch.resident)
        except self.device.memory_error:
            return False
        return True

    def _passes(self) -> str:
        """Say what stays on the device and what goes through it."""
        stay, blocks = self.launch.resident, len(self._blocks)
        return (
            f"{stay} of {blocks} blocks of voxels stay there, the others are copied there for "
            f"every {self.group} permutations (the result does not change)."
        )

    def _shrink(self) -> None:
        """Take the next smaller plan, and say so."""
        self.launch = launch.halve(self.launch, self.sizes, self.device.free_bytes())
        self._blocks.drop(self.launch.resident)
        self.device.release()
        whole = f"going on with {self.group} permutations at once (the result does not change)."
        self.say(
            "The GPU is short of memory; "
            + (whole if self.launch.resident == len(self._blocks) else self._passes())
        )

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
            found = self._group(start + done * TILE, now)
            if found is None:
                self._shrink()
                continue
            parts.append(found)
            done += now
        return {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}

    def _group(self, start: int, tiles: int) -> dict[str, np.ndarray] | None:
        """Maxima of the tiles in flight; None, with nothing held, where memory has run out."""
        try:
            z = self.device.empty((tiles * TILE, self.sizes.n_voxels), np.float32)
            self.fill(start, z)
            return self._maxima.of(z, start, self.launch.tfce_blocks)
        except self.device.memory_error:
            return None

    def enhanced(self, z: np.ndarray) -> np.ndarray:
        """TFCE scores (2, P, V) float64 of all voxels of maps z (P, V), positive side first.

        Where "tfce" is among the statistics. What a voxel gets is what `gpu_sdm.ops.tfce` gives.
        """
        self.device.use()
        on_device = self.device.asarray(np.asarray(z, np.float32))
        return self._maxima.enhanced(on_device, self.launch.tfce_blocks)

    def fill(self, start: int, z: Any) -> None:
        """Fill z (tiles * TILE, V) on the device with the maps of the permutations from `start`."""
        tiles = [z[first : first + TILE] for first in range(0, len(z), TILE)]
        drawn = [self._weights.tile(start + t * TILE) for t in range(len(tiles))]
        for name, values in self._constants.items():
            self.device.constant(self._z_kernel, name, values)

        def work(voxels: slice, effects: Any, residuals: list[Any]) -> None:
            for (weights, share), maps in zip(drawn, tiles, strict=True):
                self._z_block(voxels, effects, residuals, weights, share, maps)

        self._blocks.keep(self.launch.resident)
        self._blocks.each(work)

    def _z_block(
        self,
        voxels: slice,
        effects: Any,
        residuals: list[Any],
        weights: list[Any] | None,
        share: Any,
        z: Any,
    ) -> None:
        """Fill one block of voxels of the maps z (TILE, V)."""
        device, sizes = self.device, self.sizes
        width = voxels.stop - voxels.start
        if self.problem.scores is not None:
            flipped = device.empty((TILE, width), np.float32)
            device.matmul(share, effects[0], flipped)
            z[:, voxels] = flipped
            return
        sums = share  # not read where whole studies are exchanged
        if weights is not None:
            sums = device.empty((sizes.n_studies, TILE, width), np.float32)
            for k, (w, r) in enumerate(zip(weights, residuals, strict=True)):
                device.matmul(w, r, sums[k])
        together, block = int(self._knobs.get("R", 1)), int(self._knobs["BLOCK"])
        for first, last in launch.voxel_launches(voxels.start, voxels.stop, sizes, self._cost):
            items = launch.permuted_z_items(last - first, TILE, together)
            numbers = [
                sizes.n_imputations, TILE, sizes.n_voxels, voxels.start, width, first, last,
            ]  # fmt: skip
            if self._mean:
                numbers.append(sizes.n_studies)
            device.launch(
                self._z_kernel,
                launch.grid(items, block, 8 * device.processors),
                block,
                [sums, share, effects, z, *map(np.int64, numbers)],
            )
