"""Studies made in memory, for tests of what is said about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import stats

from gpu_sdm.data import Dataset, Peaks, Study


def study(name="smith2001", n1=20, n2=0, t_thr=None, t=(), xyz=None, **covariates) -> Study:
    """A study with peaks of the given heights (NaN: unknown), its threshold p .001 by default."""
    df = n1 + n2 - 2 if n2 else n1 - 1
    t_thr = round(stats.t.isf(0.001, df), 4) if t_thr is None else t_thr
    t = np.array(t, float)
    xyz = np.array([(2 * i, 0, 0) for i in range(len(t))] if xyz is None else xyz, float)
    known, lines = np.isfinite(t), np.arange(1, len(t) + 1)
    peaks = Peaks(
        xyz.reshape(-1, 3), xyz.reshape(-1, 3).copy(), np.where(known, t, t_thr), known, lines,
        "spm_mni", f"{name}.spm_mni.txt",
    )  # fmt: skip
    return Study(name, n1, n2, t_thr, peaks, covariates)


def dataset(*studies: Study) -> Dataset:
    return Dataset(studies, (), Path("project"), {})


def kinds(notices) -> list[str]:
    return [n.kind for n in notices]
