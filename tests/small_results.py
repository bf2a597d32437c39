"""Finished results that several tests open: small ones, and one whose every effect is known."""

from __future__ import annotations

from pathlib import Path

import metafor_reference as metafor
import numpy as np
from projects import write_bounds_project, write_mask, write_project

import gpu_sdm
from gpu_sdm.analysis import Analysis
from gpu_sdm.findings.sites import Site
from gpu_sdm.finished import Finished, open_result
from gpu_sdm.stages.effects import hedges_g

CPU = gpu_sdm.get_backend("cpu")
MIDDLE = [Site("middle", "point", np.array([3]), (0.0, 0.0, 0.0))]


def small_result(home: Path) -> tuple[Path, Finished, Analysis]:
    """Seven studies of either sign, two of two samples, and a covariate."""
    project = write_project(home / "project", 7, two_sample=2, negative_mm=(10, -30, 30))
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=20, imputations=5,
        covariates=("age",),
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    finished = open_result(home / "out")
    return home, finished, finished.analysis(CPU)


def known_result(home: Path, method: str) -> Analysis:
    """An analysis whose every effect is known: metansue's complete example in each voxel."""
    names = [f"s{k + 1:02d}" for k in range(10)]
    n = np.array(metafor.N)
    y = hedges_g(np.array(metafor.T), n)[0]
    mask = write_mask(home / "mask.nii.gz", radius=1)
    project, folder = write_bounds_project(home, mask, names, n, y, y)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=mask, permutations=2, bounds=folder, tau2=method, statistic=("voxel",)
    )
    gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return open_result(home / "out").analysis(CPU)
