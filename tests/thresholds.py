"""What the tests of thresholds share: a small result, an atlas of two halves, SDM-PSI's rule."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.atlas import Atlas
from gpu_sdm.findings.threshold import Rule
from gpu_sdm.result import Result
from gpu_sdm.spaces import SHAPES, grid_affine

# The rule of SDM-PSI's own blob report of enge2021.
AT_REPORT = Rule(map="fwe-voxel", p=0.001, extent=50, peak_distance=0)


def _halves() -> Atlas:
    """Left and right halves, in 4 mm voxels; those at x = 2 mm belong to neither."""
    volume = np.zeros(SHAPES[4], int)
    volume[:22], volume[23:] = 2, 1  # x falls with the index
    return Atlas("toy", volume, grid_affine(4), {1: "Left_half", 2: "Right_half"})


HALVES = _halves()


def two_sided_result(home: Path) -> tuple[Path, Result]:
    """A small result with effects of both signs: its folder, and itself."""
    project = write_project(home / "project", studies=6, negative_mm=(12, 0, 30))
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=40, imputations=3
    )
    result = gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return home / "out", result


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a table of tab-separated columns."""
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))
