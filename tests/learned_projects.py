"""Invented templates, and projects with the bound maps that they give."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.stats import t as student

from gpu_sdm.io import read
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import bounds_of_peaks
from gpu_sdm.stages.effects import effect_to_bound, peaks_as_used
from gpu_sdm.stages.template_learn import SummedKernel
from gpu_sdm.templates import Template, default_mask, default_template


def invented_template(seed: int = 3, spread: float = 0.35) -> Template:
    """The built-in template at 4 mm, each direction longer or shorter from place to place."""
    start = default_template(4)
    rng = np.random.default_rng(seed)
    factors = []
    for _ in range(start.costs.shape[1]):
        field = ndimage.gaussian_filter(rng.standard_normal(start.shape), 1.5)
        factors.append(np.exp(spread * field / field.std()).ravel(order="F"))
    costs = np.minimum(start.costs * np.stack(factors, axis=1), 30)  # mm: r within its limits
    return Template(4, np.where(np.isfinite(start.costs), costs, np.inf).astype(np.float32))


def invented_kernels(truth: Template, n: int, seed: int = 5, peaks: int = 8) -> list[SummedKernel]:
    """Studies with peaks anywhere in the mask, and what their kernels sum to under a template."""
    rng = np.random.default_rng(seed)
    space = Space(4, default_mask(4))
    studies = []
    for i in range(n):
        xyz = space.mm(rng.choice(space.n_voxels, peaks)) + rng.integers(-2, 3, (peaks, 3))
        limits, _ = bounds_of_peaks([xyz], [np.zeros(peaks)], np.ones(1), space, truth)
        studies.append(SummedKernel(f"study{i:02d}", space, xyz, 1 + limits.lower[0]))
    return studies


def write_preprocessed(folder: Path, truth: Template, n: int = 6, seed: int = 5) -> Path:
    """Write an SDM project and, in pp, the bound maps of its peaks under a template."""
    rng = np.random.default_rng(seed)
    space = Space(truth.voxel_size, default_mask(truth.voxel_size))
    (folder / "pp").mkdir(parents=True)
    rows = ["study\tn1\tt_thr"]
    for k in range(n):
        n1 = int(rng.integers(12, 26))
        threshold = float(student.isf(0.001, n1 - 1))
        rows.append(f"{folder.name}{k}\t{n1}\t{threshold!r}")
        peaks = space.mm(rng.choice(space.n_voxels, 6)) + rng.integers(-1, 2, (6, 3))
        lines = [f"{x:g} {y:g} {z:g} {threshold + 1 + rng.random():.4f}" for x, y, z in peaks]
        (folder / f"{folder.name}{k}.spm_mni.txt").write_text("\n".join(lines) + "\n")
    (folder / "sdm_table.txt").write_text("\n".join(rows) + "\n")
    dataset = read(folder, compat=True)
    used = [peaks_as_used(s, compat=True) for s in dataset.studies]
    limits, _ = bounds_of_peaks(
        [xyz for xyz, _ in used], [g for _, g in used], effect_to_bound(dataset.studies), space,
        truth,
    )  # fmt: skip
    for k, name in enumerate(dataset.names):
        for side in ("lower", "upper"):
            volume = space.embed(getattr(limits, side)[k])
            nib.save(nib.Nifti1Image(volume, space.affine), folder / "pp" / f"{name}_{side}.nii.gz")
    return folder
