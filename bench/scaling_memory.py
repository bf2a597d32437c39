"""Inputs larger than memory, measured: a tile of permutations from disk, and a whole analysis."""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

GROUP = 20  # subjects of a study


def workload_of(k: int, m: int, subjects: int) -> Any:
    """Noise of a size: one-sample studies of equal groups."""
    import gpu_sdm
    from gpu_sdm.data import Peaks, Study
    from gpu_sdm.workload import Workload

    sizes = np.full(k, subjects // k)
    sizes[: subjects % k] += 1
    studies = tuple(
        Study(f"study{i}", int(n), 0, 3.0, Peaks.none("no_peaks", "")) for i, n in enumerate(sizes)
    )
    settings = gpu_sdm.Settings(imputations=m)
    return Workload._of_studies(studies, np.ones((k, 1)), settings)


class Memory:
    """Most memory of its own that this process had inside the context, in bytes."""

    def __enter__(self) -> Memory:
        self.peak, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(line for line in lines if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(own.split()[1]) * 1024)

    def __exit__(self, *what: object) -> None:
        self._end.set()
        self._thread.join()


def huge(k: int, folder: Path, threads: int) -> dict[str, Any]:
    """One tile of permutations of k studies from disk, and one block of it from memory."""
    from gpu_sdm.analysis import limited_threads
    from gpu_sdm.backend import get_backend
    from gpu_sdm.distribute.scratch import Scratch
    from gpu_sdm.environment import memory_bytes
    from gpu_sdm.permute.engine import BLOCK, maxima_of, z_tile
    from gpu_sdm.stages.subjects import SubjectBank

    backend, work = get_backend("cpu", threads), workload_of(k, 50, GROUP * k)
    scratch = Scratch(folder, "bench")
    large = 4 * work.space.n_voxels * (50 * k + GROUP * k)
    scratch.reserve(large)
    found: dict[str, Any] = {
        **work.sizes(), "threads": threads, "bytes_on_disk": large, "memory_free": memory_bytes()
    }  # fmt: skip

    def timed(name: str, do: Any) -> Any:
        wall, cpu = time.monotonic(), time.process_time()
        value = do()
        found[f"{name}_s"] = time.monotonic() - wall
        found[f"{name}_cpu_s"] = time.process_time() - cpu
        print(name, {n: v for n, v in found.items() if n.startswith(name)}, flush=True)
        return value

    with Memory() as memory, limited_threads(backend), ThreadPoolExecutor(threads) as pool:
        problem = timed("writing", lambda: work.problem_on_disk(scratch))
        found["memory_writing"] = memory.peak
        memory.peak = 0
        z = timed("tile", lambda: z_tile(problem, work.plan, 0, backend, pool))
        timed("maxima", lambda: maxima_of(z, ("voxel", "tfce"), problem, backend, pool))
        found["memory_tile"] = memory.peak
        block = slice(3 * BLOCK, 4 * BLOCK)
        inside = replace(
            problem,
            effects=np.array(problem.effects[:, :, block]),
            bank=SubjectBank(
                tuple(np.array(r[:, block]) for r in problem.bank.residuals),
                problem.bank.n1, problem.bank.n2, 0.0,
            ),
        )  # fmt: skip
        again = timed("block", lambda: z_tile(inside, work.plan, 0, backend, pool))
        found["same_bits_as_memory"] = bool(np.array_equal(z[:, block], again))
    found["finite"] = bool(np.isfinite(z).all())
    return found


def whole(k: int, gigabytes: float, folder: Path | None) -> dict[str, Any]:
    """Run all stages of an analysis of k studies at 3 mm that may use only so much memory."""
    from projects import write_project

    import gpu_sdm
    from gpu_sdm.analysis import prepare
    from gpu_sdm.backend import get_backend
    from gpu_sdm.distribute.memory import memory_needed
    from gpu_sdm.pipeline import execute

    with tempfile.TemporaryDirectory(dir=folder) as home, Memory() as memory:
        write_project(Path(home) / "project", k, GROUP * k)
        settings = gpu_sdm.Settings(permutations=64, voxel_size=3)
        analysis = prepare(gpu_sdm.read(Path(home) / "project"), settings, get_backend("cpu"))
        cpu = time.process_time()
        result = execute(analysis, out=Path(home) / "out", memory=int(gigabytes * 1e9))
        return {
            "studies": k, "imputations": 50, "subjects": GROUP * k,
            "voxels": analysis.space.n_voxels, "permutations": 64,
            "in_memory_bytes": memory_needed(analysis), "allowed_bytes": int(gigabytes * 1e9),
            "layout": result.provenance["layout"], "memory_peak": memory.peak,
            "cpu_s": time.process_time() - cpu, "timings_s": dict(result.timings),
            "voxels_not_converged": result.provenance["voxels_not_converged"],
        }  # fmt: skip
