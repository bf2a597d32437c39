"""Workers, inputs larger than memory and a model of the time: the figures of docs/scaling.md.

Usage: python bench/scaling.py [--workers] [--huge [--studies 1000]] [--whole] [--model] [--write]

--workers  the same null from this process and from 1, 2 and 4 local workers, with and without one
           of them killed on the way.
--huge     1,000 studies x 50 imputations x the whole mask on disk (54 GB): one tile of 32
           permutations, its maxima, the memory that took; one block compared with memory.
--whole    all stages of 200 studies at 3 mm within 2 GB of memory.
--model    processor seconds of a permutation at several sizes; a model is fitted to some and
           predicts the others.

Processor seconds are counted, not wall time, so that other work on the machine matters little.
`--write` puts what was measured into bench/results/scaling-DATE.json, beside what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parent))

from scaling_memory import huge, whole, workload_of

# Studies, imputations, subjects, voxels of each measured size; the model is fitted to the first.
FITTED = [(10, 20, 200, 50_000), (50, 20, 1000, 50_000), (50, 50, 1000, 50_000),
          (11, 50, 525, 193_768), (20, 10, 4000, 50_000)]  # fmt: skip
PREDICTED = [(21, 50, 600, 193_768), (50, 50, 1000, 193_768), (100, 50, 2000, 193_768),
             (300, 50, 6000, 193_768)]  # fmt: skip


def sha(maxima: dict[str, np.ndarray]) -> str:
    """Content hash of a null."""
    return hashlib.sha256(b"".join(maxima[n].tobytes() for n in sorted(maxima))).hexdigest()


def workers(permutations: int) -> list[dict[str, Any]]:
    """Run one analysis in several ways; every null must be the same."""
    from projects import write_project

    import gpu_sdm
    from gpu_sdm.analysis import prepare
    from gpu_sdm.backend import get_backend
    from gpu_sdm.distribute.workers import Workers
    from gpu_sdm.pipeline import execute

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder) / "project", 11, 525)
        settings = gpu_sdm.Settings(permutations=permutations, voxel_size=4)
        dataset = gpu_sdm.read(Path(folder) / "project")
        analysis = prepare(dataset, settings, get_backend("cpu"))
        for count, kill in [(0, False), (1, False), (1, True), (2, False), (2, True),
                            (4, False), (4, True)]:  # fmt: skip
            rows.append(one_way(analysis, count, kill, execute, Workers))
            print(rows[-1], flush=True)
    return rows


def one_way(analysis: Any, count: int, kill: bool, execute: Any, Workers: Any) -> dict[str, Any]:
    """Run in `count` workers, none for 0, and kill one at a third of the way."""
    killed: list[tuple[int, int]] = []
    said: list[str] = []
    crew = Workers(count=count, backend="cpu", say=said.append) if count else None
    begin = time.monotonic()
    if crew is not None:
        crew.__enter__()

    def progress(stage: str, done: int, total: int) -> None:
        if crew is None or not kill or killed or stage != "permutations" or done < total // 3:
            return
        victim = next(iter(crew.client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        killed.append((victim, done))

    try:
        result = execute(analysis, workers=crew, progress=progress)
        after = [] if crew is None else list(crew.client.run(os.getpid).values())
    finally:
        if crew is not None:
            crew.__exit__(None, None, None)
    return {
        "workers": count,
        "killed_after": killed[0][1] if killed else None,
        "killed_is_gone": bool(killed) and killed[0][0] not in after,
        "computed_again": sum("again" in s for s in said),
        "permutations": analysis.permutations,
        "permutations_s": result.timings["permutations"],
        "in_all_s": time.monotonic() - begin,
        "null_sha256": sha(dict(result.maxima)),
    }


def cost(k: int, m: int, n: int, v: int) -> list[float]:
    """Work of a permutation: effects, products with residuals, sums of each study, maps."""
    return [m * k * v, n * v, k * v, v]


def measured(size: tuple[int, int, int, int]) -> float:
    """Processor seconds of one permutation with both statistics."""
    from gpu_sdm.analysis import limited_threads
    from gpu_sdm.backend import get_backend
    from gpu_sdm.permute.engine import BLOCK, maxima_of, z_tile
    from gpu_sdm.permute.plan import TILE

    k, m, n, v = size
    backend, work = get_backend("cpu", 1), workload_of(k, m, n)
    if v < work.space.n_voxels:
        work = work.first_voxels(v)
    problem = work.problem(min(BLOCK, v))
    with limited_threads(backend), ThreadPoolExecutor(1) as pool:
        z_tile(problem, work.plan, 0, backend, pool)
        begin = time.process_time()
        z_tile(problem, work.plan, TILE, backend, pool)
        tile = (time.process_time() - begin) * v / problem.effects.shape[2]
        maps = work.fields[:4]
        maxima_of(maps[:1], ("voxel", "tfce"), problem, backend, pool)
        begin = time.process_time()
        maxima_of(maps, ("voxel", "tfce"), problem, backend, pool)
        maxima = (time.process_time() - begin) / len(maps)
    return tile / TILE + maxima


def model() -> dict[str, Any]:
    """Fit processor seconds to some sizes and predict the others."""
    seconds = {size: measured(size) for size in FITTED + PREDICTED}
    a = np.array([cost(*size) for size in FITTED])
    b = np.array([seconds[size] for size in FITTED])
    weights, _ = nnls(a / b[:, None], np.ones(len(b)))  # relative errors count
    rows = []
    for size, found in seconds.items():
        said = float(np.dot(cost(*size), weights))
        rows.append({
            **dict(zip(("studies", "imputations", "subjects", "voxels"), size, strict=True)),
            "fitted": size in FITTED, "measured_s": found, "predicted_s": said,
            "ratio": said / found,
        })  # fmt: skip
        print(rows[-1], flush=True)
    names = ("effect", "subject_voxel", "study_voxel", "voxel")
    return {"ns_per": dict(zip(names, (weights * 1e9).tolist(), strict=True)), "points": rows}


def main() -> int:
    """Measure what is asked for; 1 if a null differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("workers", "huge", "whole", "model", "write"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--permutations", type=int, default=640)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="for the files of --huge")
    args = parser.parse_args()
    from machine import machine

    where = machine()
    parts: dict[str, Any] = {"machine": where}
    if args.model:
        parts["model"] = model()
    if args.workers:
        parts["workers"] = workers(args.permutations)
    if args.huge:
        folder = Path(tempfile.mkdtemp(prefix="gpu-sdm-huge-", dir=args.folder))
        try:
            parts["huge"] = huge(args.studies, folder, int(str(where["cores"])))
        finally:
            shutil.rmtree(folder)
        print(json.dumps(parts["huge"], indent=2))
    if args.whole:
        parts["whole"] = whole(200, 2.0, args.folder)
        print(json.dumps(parts["whole"], indent=2))
    if args.write:
        target = Path(__file__).parent / "results" / f"scaling-{where['date']}.json"
        before = json.loads(target.read_text()) if target.exists() else {}
        target.write_text(json.dumps(before | parts, indent=2) + "\n")
    nulls = {row["null_sha256"] for row in parts.get("workers", [])}
    same = len(nulls) <= 1 and parts.get("huge", {}).get("same_bits_as_memory", True)
    print("all the same" if same else "DIFFERENT")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
