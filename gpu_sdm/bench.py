"""What this machine does for a project: agreement with the reference first, then speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_sdm.analysis import limited_threads
from gpu_sdm.backend import Backend, get_backend
from gpu_sdm.config import DEFAULT_STATISTICS
from gpu_sdm.errors import BackendUnavailable
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import TIE_TOLERANCE, maxima_of, z_tile
from gpu_sdm.permute.plan import TILE
from gpu_sdm.workload import Workload, rate

PERMUTATIONS = (1_000, 10_000, 100_000)
REFERENCE_EFFECTS = 300_000  # imputed effects of the block that the plain reference takes
REFERENCE_VOXELS = (64, 1024)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one backend does.

    Parameters
    ----------
    backend, where : str
        Its name, and the processor or card.
    voxels : int
        Voxels of the block on which it was compared.
    dz : float
        Largest difference of z from the float64 twin, over one tile of permutations.
    dtfce : float
        Largest relative difference of the largest TFCE scores; on a device also of the scores of
        all voxels of its first map from those that the CPU gives the same map.
    rates : dict of str to float
        Permutations per second with "voxel" alone and with "tfce" besides; empty where the
        backend does not agree: speed without agreement is worth nothing.
    """

    backend: str
    where: str
    voxels: int
    dz: float
    dtfce: float
    rates: dict[str, float]

    @property
    def agrees(self) -> bool:
        """Whether it keeps the stated errors."""
        return self.dz <= TIE_TOLERANCE["voxel"] and self.dtfce <= TIE_TOLERANCE["tfce"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; NaN as None."""
        expected = {
            name: {str(n): n / speed for n in PERMUTATIONS} for name, speed in self.rates.items()
        }
        return {
            "backend": self.backend,
            "where": self.where,
            "compared_voxels": self.voxels,
            "max_abs_dz": None if np.isnan(self.dz) else self.dz,
            "max_relative_dtfce": None if np.isnan(self.dtfce) else self.dtfce,
            "agrees": self.agrees,
            "permutations_per_s": self.rates,
            "expected_s": expected,
        }


def backends(
    threads: int | None, device: int, device_memory: int | None, say: Callable[[str], None]
) -> list[Backend]:
    """List every backend that runs here, and say why CUDA is not among them."""
    found = [get_backend("numpy", 1), get_backend("cpu", threads)]
    try:
        found.append(get_backend("cuda", threads, device, device_memory, say))
    except BackendUnavailable as exc:
        say(str(exc))
    return found


Tile = tuple[np.ndarray, np.ndarray, float]


def reference_block(workload: Workload) -> Workload:
    """Keep as many voxels as the plain reference takes."""
    effects = workload.imputations * len(workload.terms.j)
    least, most = REFERENCE_VOXELS
    return workload.first_voxels(min(max(REFERENCE_EFFECTS // effects, least), most))


def first_tile(workload: Workload, backend: Backend) -> Tile:
    """Give z (TILE, V) and the largest TFCE scores (2, TILE) of the first tile.

    And the error of a device's enhanced map.
    """
    problem = workload.problem()
    if backend.device is not None:
        engine = DeviceEngine(problem, workload.plan, backend.device, DEFAULT_STATISTICS)
        z = backend.device.empty((TILE, workload.space.n_voxels), np.float32)
        engine.fill(0, z)
        maps = backend.device.to_host(z)
        wanted = [TFCE.on("cpu")(s * maps[0], problem.neighbours) for s in (1, -1)]
        off = np.abs(engine.enhanced(maps[:1])[:, 0] - wanted).max() / np.max(wanted)
        return maps, engine.maxima(0)["tfce"], float(off)
    with ThreadPoolExecutor(1) as pool:
        z = z_tile(problem, workload.plan, 0, backend, pool)
        return z, maxima_of(z, ("tfce",), problem, backend, pool)["tfce"], 0.0


def errors(own: Tile, reference: Tile) -> tuple[float, float]:
    """Largest difference of z and largest relative one of TFCE between two first tiles."""
    (z, tfce, off), (wanted, largest, _) = own, reference
    relative = np.abs(tfce - largest) / np.maximum(largest, 1e-30)
    return float(np.abs(z - wanted.astype(np.float64)).max()), float(relative.max(initial=off))


def bench(
    workload: Workload,
    places: Sequence[Backend],
    say: Callable[[str], None] = lambda sentence: None,
) -> list[Measured]:
    """Compare and time backends on a problem of the size of an analysis.

    Parameters
    ----------
    workload : Workload
        Sizes and model; its data are noise.
    places : sequence of Backend
        What to measure.
    say : callable
        Called with a sentence before each.

    Returns
    -------
    list of Measured

    Notes
    -----
    All are held to the twin on one tile of permutations of a small block; `rate` then times larger
    pieces.
    """
    block = reference_block(workload)
    found = []
    with limited_threads(get_backend("numpy", 1)):
        reference = first_tile(block, get_backend("numpy", 1))
    for place in places:
        say(f"Measuring {place.name} ...")
        with limited_threads(place):
            dz, dtfce = errors(first_tile(block, place), reference)
            measured = Measured(place.name, _where(place), block.space.n_voxels, dz, dtfce, {})
            if measured.agrees:
                for name, statistics in (("voxel", ("voxel",)), ("tfce", DEFAULT_STATISTICS)):
                    measured.rates[name] = rate(workload, statistics, place)
        found.append(measured)
    return found


def _where(place: Backend) -> str:
    if place.device is not None:
        return place.device.name
    return "1 thread" if place.threads == 1 else f"{place.threads} threads"
