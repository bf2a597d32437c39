"""What the fidelity parts compare with: SDM-PSI 6.21's own files of enge2021."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

import gpu_sdm
from gpu_sdm.analysis import Analysis, prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.data import Bounds
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.volumes import read_bounds
from gpu_sdm.permute.plan import ExplicitPlan
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import bounds_of_peaks
from gpu_sdm.stages.effects import effect_to_bound, peaks_as_used
from gpu_sdm.stages.template_learn import widened
from gpu_sdm.template_kernels import read_kernels
from gpu_sdm.template_learn import learn_parts
from gpu_sdm.templates import default_template

HOME = Path(__file__).parents[1]
ALL_DATA = Path(os.environ.get("GPU_SDM_DATA", HOME.parent / "shared" / "data"))
ENGE = ALL_DATA / "enge2021"
OUTPUT = HOME / "fidelity-output"
FOLDS = 5

FILES = {
    "g": "mod1_g",
    "var": "mod1_var",
    "z": "mod1_z",
    "tau2": "mod1_tau2",
    "q": "mod1_h_Q",
    "i2": "mod1_h_i2",
    "h2": "mod1_h_h2",
}
MAPS = tuple(FILES)
SIDES = ("", "_neg")


def enge(start: str, **settings: object) -> Analysis:
    """Prepare enge2021 in SDM-PSI's own mask.

    Parameters
    ----------
    start : {"bounds", "peaks", "learned"}
        From SDM-PSI's own bound maps; from the peak files, with the built-in template; or with
        templates that were learned from the bound maps of other studies (`learned_bounds`).
    **settings
        Further fields of `Settings`.
    """
    compat: dict[str, object] = {"compat": "sdm-6.21", "search": "sdm-6.21"}
    given = compat | {"mask": ENGE / "sdm_mask.nii.gz"}
    if start == "bounds":
        given["bounds"] = ENGE / "pp"
    chosen = gpu_sdm.Settings(**(given | settings))  # type: ignore[arg-type]
    analysis = prepare(gpu_sdm.read(ENGE / "project", compat=True), chosen, get_backend())
    return replace(analysis, bounds=learned_bounds(analysis)) if start == "learned" else analysis


def learned_bounds(analysis: Analysis) -> Bounds:
    """Bounds of the peaks, each study's by a template that its own bound maps had no part in.

    The studies are dealt into `FOLDS` parts; a part's template is learned from all other parts.
    """
    studies = read_kernels(ENGE / "project", ENGE / "pp")
    chosen = analysis.design.dataset.studies
    if [s.name for s in studies] != list(analysis.design.dataset.names):
        raise ValueError("every study of enge2021 has peaks")
    start = widened(default_template(2), analysis.space.mask)
    limits = np.empty((2, len(studies), analysis.space.n_voxels), np.float32)
    for part, template in learn_parts(start, studies, FOLDS):
        held_out = [chosen[k] for k in part]
        places, g = zip(*(peaks_as_used(study, compat=True) for study in held_out), strict=True)
        found, _ = bounds_of_peaks(places, g, effect_to_bound(held_out), analysis.space, template)
        limits[:, part] = found.lower, found.upper
    return Bounds(*limits)


def sdm_bounds(names: tuple[str, ...], space: Space) -> Bounds:
    """SDM-PSI's own bounds of these studies, in this mask."""
    covered, bounds = read_bounds(ENGE / "pp", names, space)
    if covered.digest() != space.digest():
        raise ValueError("SDM-PSI's bounds do not cover the mask")
    return bounds


def sdm_maps(space: Space) -> dict[str, np.ndarray]:
    """SDM-PSI's maps of its mean model by our names, float64; `var` is se^2."""
    return {
        name: read_map(ENGE / "mod1" / f"{file}.nii.gz", space).astype(float)
        for name, file in FILES.items()
    }


def sdm_p(statistic: str, side: str, space: Space) -> np.ndarray:
    """SDM-PSI's corrected p (V,) of a side; its files hold 1 - p, with a minus on that side."""
    stored = read_map(ENGE / "mod1" / f"corrp_{statistic}{side}.nii.gz", space).astype(float)
    return np.round(1 - np.abs(stored), 3)  # a thousand permutations, in single precision


def sdm_maxima() -> dict[str, np.ndarray]:
    """SDM-PSI's maxima: statistic -> (2, 1000), the identity first."""
    rows = np.loadtxt(ENGE / "mod1" / "maxsMinsZ.asc").T
    return {"voxel": rows[:2], "tfce": rows[2:]}


def sdm_signs(n1: list[int], permutations: int) -> ExplicitPlan:
    """SDM-PSI's own sign vectors: a line a study, permutation after permutation."""
    drawn = [np.empty((permutations, n), np.int8) for n in n1]
    with (ENGE / "mod1" / "permutations.asc").open() as lines:
        for p in range(permutations):
            for signs in drawn:
                signs[p] = np.array(next(lines).split(), np.int8)
    return ExplicitPlan(tuple(drawn), tuple(n1), (0,) * len(n1))
