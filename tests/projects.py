"""Small SDM projects and masks for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import t as student

from gpu_sdm.spaces import SHAPES, grid_affine


def write_mask(path: Path, voxel_size: int = 4, radius: int = 7) -> Path:
    """A ball of voxels around the middle of the grid (radius 7: about 1,400 voxels at 4 mm)."""
    import nibabel as nib

    shape = SHAPES[voxel_size]
    grid = np.indices(shape).reshape(3, -1).T - np.array(shape) // 2
    ball = (np.linalg.norm(grid, axis=1) <= radius).reshape(shape)
    nib.save(nib.Nifti1Image(ball.astype(np.uint8), grid_affine(voxel_size)), path)
    return path


def write_project(
    folder: Path,
    studies: int = 6,
    *,
    two_sample: int = 0,
    effect_mm: tuple[float, float, float] | None = (0, -16, 18),
    negative_mm: tuple[float, float, float] | None = None,
    seed: int = 1,
    covariate: bool = True,
    noise_peaks: int = 3,
) -> Path:
    """Write a project; the last `two_sample` studies compare two groups.

    Every study reports a strong peak near `effect_mm` (and a negative one near `negative_mm`),
    and `noise_peaks` of either sign anywhere.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    header = "study\tn1\tn2\tt_thr" + ("\tage" if covariate else "")
    rows = [header]
    for k in range(studies):
        n1 = int(rng.integers(12, 26))
        n2 = int(rng.integers(10, 22)) if k >= studies - two_sample else 0
        threshold = student.isf(0.001, n1 + n2 - 2 if n2 else n1 - 1)
        row = f"study{k:02d}\t{n1}\t{n2}\t{threshold:.5f}"
        rows.append(row + (f"\t{rng.uniform(20, 60):.1f}" if covariate else ""))
        lines = []
        for centre, sign in ((effect_mm, 1), (negative_mm, -1)):
            if centre is not None:
                x, y, z = np.round(np.asarray(centre) + rng.normal(0, 3, 3))
                lines.append(f"{x:g} {y:g} {z:g} {sign * (threshold + 1.5 + rng.random()):.3f}")
        for _ in range(noise_peaks):
            x, y, z = np.round(rng.uniform((-40, -60, -20), (40, 30, 50)))
            sign = rng.choice([-1, 1])
            lines.append(f"{x:g} {y:g} {z:g} {sign * (threshold + rng.exponential(0.7)):.3f}")
        (folder / f"study{k:02d}.spm_mni.txt").write_text("\n".join(lines) + "\n")
    (folder / "sdm_table.txt").write_text("\n".join(rows) + "\n")
    return folder


def write_bounds_project(
    folder: Path,
    mask: Path,
    names: list[str],
    n1: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    n2: np.ndarray | None = None,
) -> tuple[Path, Path]:
    """Write a project without peaks and its bounds (K,), the same in every voxel of a mask.

    Gives the project and the folder of bounds, for `Settings.bounds`.
    """
    import nibabel as nib

    project, bounds = folder / "project", folder / "bounds"
    project.mkdir(parents=True)
    bounds.mkdir()
    image = nib.load(mask)
    inside = np.asarray(image.dataobj) > 0
    rows = ["study\tn1\tn2\tt_thr"]
    for k, name in enumerate(names):
        rows.append(f"{name}\t{int(n1[k])}\t{0 if n2 is None else int(n2[k])}\t2")
        (project / f"{name}.no_peaks.txt").write_text("")
        for side, values in (("lower", lower), ("upper", upper)):
            volume = np.where(inside, values[k], 0).astype(np.float32)
            nib.save(nib.Nifti1Image(volume, image.affine), bounds / f"{name}_{side}.nii.gz")
    (project / "sdm_table.txt").write_text("\n".join(rows) + "\n")
    return project, bounds
