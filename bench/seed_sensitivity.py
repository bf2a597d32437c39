"""How much the demo's thresholds and p depend on the seed: 5 seeds of the 21 pain studies."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import gpu_sdm
from gpu_sdm.data import Dataset
from gpu_sdm.inference import critical_value
from gpu_sdm.result import Result

EXAMPLE = Path(__file__).parents[1] / "examples" / "pain21_project.py"
SEEDS = 5
ALPHA = 0.05
VOXEL_SIZE, PERMUTATIONS, IMPUTATIONS = 4, 500, 50


def demo_project(folder: Path) -> Dataset:
    """Write the demo's project and read it."""
    spec = importlib.util.spec_from_file_location("pain21_project", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.write_project(folder)
    return gpu_sdm.read(folder)


def demo_row(result: Result, peak: int) -> dict[str, float]:
    """Figures of one seed; `peak` is the voxel at which p is read."""
    maps, maxima = result.maps, result.maxima
    z = maps["z"]
    row = {
        "seed": float(result.settings.seed),
        "largest z": float(z.max()),
        "z at the peak": float(z[peak]),
    }
    for statistic, label in (("voxel", "z"), ("tfce", "TFCE")):
        p = maps[f"p_fwe_{statistic}"]
        row[f"{label} .05"] = critical_value(maxima[statistic][0], ALPHA)
        row[f"{label} .05 negative"] = critical_value(maxima[statistic][1], ALPHA)
        row[f"p {label} at the peak"] = float(p[peak])
        row[f"voxels {label}"] = float((p <= ALPHA).sum())
    return row


def seed_sensitivity(
    target: Path,
    threads: int,
    *,
    permutations: int = PERMUTATIONS,
    imputations: int = IMPUTATIONS,
    seeds: int = SEEDS,
) -> list[dict[str, float]]:
    """Run the demo with several seeds and keep the table.

    Parameters
    ----------
    target : path
        JSON file to write.
    threads : int
        Worker threads.
    permutations, imputations, seeds : int
        Of each run, and how many.
    """
    rows, peak = [], -1
    with tempfile.TemporaryDirectory() as scratch:
        dataset = demo_project(Path(scratch) / "project")
        for seed in range(seeds):
            settings = gpu_sdm.Settings(
                permutations=permutations,
                imputations=imputations,
                seed=seed,
                voxel_size=VOXEL_SIZE,
            )
            result = gpu_sdm.run(dataset, settings, backend="cpu", threads=threads)
            if peak < 0:
                peak = int(np.argmax(result.maps["z"]))
            rows.append(demo_row(result, peak))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    x, y, z = result.space.mm(np.array([peak]))[0]
    caption = (
        f"The demo ({len(dataset.studies)} pain studies) at {VOXEL_SIZE} mm "
        f"({result.space.n_voxels} voxels), {permutations} permutations, {imputations} "
        f"imputations; the peak is that of seed 0, MNI ({x:g}, {y:g}, {z:g})."
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"caption": caption, "rows": rows}, indent=1) + "\n")
    return rows
