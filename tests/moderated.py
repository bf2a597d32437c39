"""A project whose effect grows with age, and the models of it that the tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import t as student

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend

PLACE = (0, -16, 18)


def write_moderated(folder: Path, studies: int = 14, seed: int = 3) -> Path:
    """Peaks at `PLACE` grow with age and are missing in the youngest; others lie anywhere."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = ["study\tn1\tt_thr\tage\tgroup\tdrug\tscanner"]
    for k in range(studies):
        n = int(rng.integers(18, 30))
        threshold, age = student.isf(0.001, n - 1), 20 + 2.5 * k + rng.normal()
        t = 0.5 + (age - 20) * 0.14 + 0.3 * rng.normal()
        x, y, z = rng.integers((-15, -30, 5), (15, 0, 30))
        lines = [f"{x} {y} {z} {threshold + rng.exponential(0.5):.3f}"]
        if t > threshold:
            lines.append(f"{PLACE[0]} {PLACE[1]} {PLACE[2]} {t:.3f}")
        (folder / f"s{k:02d}.spm_mni.txt").write_text("\n".join(lines) + "\n")
        group = "adult" if age > 38 else "young"
        rows.append(f"s{k:02d}\t{n}\t{threshold:.4f}\t{age:.1f}\t{group}\t{'ab'[k % 2]}\t3")
    (folder / "sdm_table.txt").write_text("\n".join(rows) + "\n")
    return folder


MODELS = {
    "slope": ("1 + age", ("age",)),
    "slope beside a factor": ("1 + age + drug", ("age",)),
    "groups": ("0 + group", ("adult - young",)),
    "joint": ("1 + age + group", ("age", "adult - young")),
    "mean of a group": ("0 + group", ("adult",)),
    "mean": ("1 + age", ()),
}


def analysis(inputs, formula="1 + age", contrast=("age",), project=None, threads=2, **changes):
    mine = {"imputations": 3, "voxel_size": 4, "permutations": 37, "mask": inputs[1]} | changes
    settings = gpu_sdm.Settings(formula=formula, contrast=contrast, **mine)
    return prepare(gpu_sdm.read(project or inputs[0]), settings, get_backend("cpu", threads))


def peak(result):
    return int(np.argmin(np.linalg.norm(result.space.mm() - PLACE, axis=1)))
