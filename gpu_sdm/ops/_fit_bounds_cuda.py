"""`fit_bounds` on a device: kernels/fit_bounds.cu and kernels/fit_tau2.cu, one thread a voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.errors import OutOfMemory
from gpu_sdm.ops._fit_bounds_plan import BLOCK, LEAST_VOXELS, MAX_DOUBLINGS, plan_fit, words

Fit = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def design_knobs(X: np.ndarray) -> dict[str, int | str]:
    """Compile-time choices of the kernels for a design (K, Q)."""
    mean = X.shape[1] == 1 and bool(np.all(X == 1.0))
    return {"Q": X.shape[1], "MEAN": int(mean), "BLOCK": BLOCK}


class DeviceFit:
    """The likelihood of one set of studies on a device; call it with the bounds of any voxels.

    Parameters
    ----------
    device : Device
        The GPU.
    c, v2, X, crit, discards
        As of `gpu_sdm.ops.fit_bounds.fit_bounds`; at most 8 columns.
    grid : (G,) float64
        Points that bracket tau2.
    n_voxels : int
        Most voxels of a call.

    Raises
    ------
    OutOfMemory
        If the device has no room for it.
    """

    def __init__(
        self,
        device: Device,
        c: np.ndarray,
        v2: np.ndarray,
        X: np.ndarray,
        crit: np.ndarray,
        discards: int,
        grid: np.ndarray,
        n_voxels: int,
    ):
        self.device, self.discards = device, discards
        self.n_studies, self.n_terms = X.shape
        device.use()
        self._n_grid = grid.size
        self.launches = plan_fit(
            self.n_studies,
            self.n_terms,
            grid.size,
            n_voxels,
            device.free_bytes(),
            device.processors,
        )
        knobs = design_knobs(X)
        self._kernels = {
            entry: device.kernel(file, entry, **knobs)
            for file, entry in (
                ("fit_bounds.cu", "fit_bounds_start"),
                ("fit_bounds.cu", "fit_bounds_drop"),
                ("fit_tau2.cu", "fit_tau2_grid"),
                ("fit_tau2.cu", "fit_tau2_valleys"),
            )
        }
        arrays = (np.asarray(a, np.float64) for a in (c, v2, X, crit, grid))
        try:
            self._c, self._v2, self._x, self._crit, self._grid = map(device.asarray, arrays)
        except device.memory_error as exc:
            raise OutOfMemory("the device has no room for the likelihood.") from exc

    def __call__(self, lower: np.ndarray, upper: np.ndarray) -> Fit:
        """Fit voxels; see `gpu_sdm.ops.fit_bounds.fit_bounds`.

        Raises
        ------
        OutOfMemory
            If memory has run out meanwhile and no smaller step is left.
        """
        parts: list[Fit] = []
        first, n_voxels = 0, lower.shape[1]
        while first < n_voxels:
            some = slice(first, min(first + self.launches.voxels, n_voxels))
            try:
                parts.append(self._chunk(lower[:, some], upper[:, some]))
            except self.device.memory_error as exc:
                self.device.release()
                if some.stop - some.start <= LEAST_VOXELS:
                    raise OutOfMemory("the device has no room for the likelihood.") from exc
                self.launches = replace(self.launches, voxels=(some.stop - some.start) // 2)
                continue
            first = some.stop
        beta, tau2, discarded, converged = (
            np.concatenate(p, axis=-1) for p in zip(*parts, strict=True)
        )
        return beta, tau2, discarded, converged

    def _start(self, entry: str, items: int, args: Sequence[Any]) -> None:
        self.device.launch(self._kernels[entry], -(-items // BLOCK), BLOCK, args)

    def _finish(self, entry: str, n: int, args: Sequence[Any], sizes: Sequence[int]) -> None:
        """Launch until no voxel is left unfinished: each launch is short."""
        unfinished = self.device.empty((1,), np.int32)
        numbers = [*map(np.int64, (*sizes, self.n_studies, n, self.launches.passes))]
        while True:
            self.device.fill(unfinished, 0)
            self._start(entry, n, [*args, unfinished, *numbers])
            if not self.device.to_host(unfinished)[0]:
                return

    def _chunk(self, lower: np.ndarray, upper: np.ndarray) -> Fit:
        device, k, q, n = self.device, self.n_studies, self.n_terms, lower.shape[1]
        device.use()
        bounds = [device.asarray(np.asarray(a, np.float32)) for a in (lower, upper)]
        inputs = [*bounds, self._c, self._v2, self._x]
        beta, good = device.empty((q, n), np.float64), device.empty((n,), np.int32)
        keep = device.empty((words(k), n), np.int32)
        self._start("fit_bounds_start", n, [*inputs, beta, good, keep, np.int64(k), np.int64(n)])
        dropped = self._drop(inputs, beta, good, keep)
        tau2 = self._tau2(inputs, beta)
        converged = device.to_host(good) != 0
        return device.to_host(beta), tau2, dropped, converged

    def _drop(self, inputs: list[Any], beta: Any, good: Any, keep: Any) -> np.ndarray:
        """Apply the leave-one-out rule; (discards, V) int16."""
        device, k, (q, n) = self.device, self.n_studies, beta.shape
        found = np.empty((self.discards, n), np.int16)
        if not self.discards:
            return found
        stage, dropped = (device.empty((n,), np.int32) for _ in range(2))
        best = device.empty((n,), np.float64)
        fits, guess, work = (
            device.empty(shape, np.float64) for shape in ((k, q, n), (k, n), (2, k, n))
        )
        marks = [device.empty((words(k), n), np.int32) for _ in range(2)]
        state = [self._crit, beta, good, keep, stage, best, fits, guess, work, *marks, dropped]
        for step in range(self.discards):
            device.fill(stage, 0)
            self._finish("fit_bounds_drop", n, [*inputs, *state], ())
            found[step] = device.to_host(dropped)
        return found

    def _tau2(self, inputs: list[Any], beta: Any) -> np.ndarray:
        device, k, n, points = self.device, self.n_studies, beta.shape[1], self._n_grid
        f = device.empty((points + MAX_DOUBLINGS, n), np.float64)
        for first in range(0, points, self.launches.points):
            last = min(first + self.launches.points, points)
            sizes = map(np.int64, (k, n, first, last))
            self._start("fit_tau2_grid", (last - first) * n, [*inputs, beta, self._grid, f, *sizes])
        cursor, known = (device.empty((n,), np.int32) for _ in range(2))
        least, tau2 = (device.empty((n,), np.float64) for _ in range(2))
        device.fill(cursor, 0)
        state = [beta, self._grid, f, cursor, known, least, tau2]
        self._finish("fit_tau2_valleys", n, [*inputs, *state], (points,))
        return device.to_host(tau2)
