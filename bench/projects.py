"""Synthetic SDM projects of a stated size, the same for everyone (seeded)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import t as student

SITES_MM = ((-44, 18, 4), (44, 18, 4), (-2, 12, 50), (-40, -52, 44), (38, -56, 44))


def write_project(
    folder: Path, studies: int, subjects: int, peaks_per_study: int = 13, seed: int = 0
) -> None:
    """Write `studies` one-sample studies with `subjects` subjects in all.

    Two thirds of the peaks scatter (sd 8 mm) around five sites, the others over the brain.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = np.full(studies, subjects // studies)
    sizes[: subjects % studies] += 1
    sizes[::2] += sizes[0] // 4
    sizes[1::2] -= sizes[0] // 4
    rows = ["study\tn1\tt_thr\tthreshold\tage"]
    for k, n in enumerate(sizes):
        threshold = student.isf(0.001, n - 1)
        rows.append(f"study{k:02d}\t{n}\t{threshold:.5f}\tuncorrected\t{20 + rng.integers(40)}")
        lines = []
        for i in range(peaks_per_study):
            centre = (
                SITES_MM[rng.integers(5)] if i % 3 else rng.uniform((-60, -90, -30), (60, 60, 60))
            )
            x, y, z = np.clip(
                np.asarray(centre) + rng.normal(0, 8, 3), (-68, -100, -48), (68, 68, 74)
            )
            lines.append(f"{x:.0f},{y:.0f},{z:.0f},{threshold + rng.exponential(1.0):.3f}")
        (folder / f"study{k:02d}.other_mni.txt").write_text("\n".join(lines) + "\n")
    (folder / "sdm_table.txt").write_text("\n".join(rows) + "\n")
