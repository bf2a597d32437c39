"""How two finished results differ: pooled effects subtracted, studies exchanged between them.

Effects that were imputed with the mean of one result carry that result along: exchanged, they
would make differences look rarer than they are. So the test imputes all studies anew with one
common mean, the one of the null; effects then know nothing of the division that is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, limited_threads, silent
from gpu_sdm.backend import Backend
from gpu_sdm.clusters import COLUMNS, threshold_tables
from gpu_sdm.data import Bounds, Pooled, Study
from gpu_sdm.errors import NumericalError, SettingError
from gpu_sdm.findings.common_grid import CommonGrid
from gpu_sdm.findings.folder import replace_folder
from gpu_sdm.finished import Finished
from gpu_sdm.inference import corrected_maps, uncorrected_maps
from gpu_sdm.io.nifti import MAPS, write_map
from gpu_sdm.io.tables import write_maxima, write_tsv
from gpu_sdm.ops.exceedances import EXCEEDANCES
from gpu_sdm.ops.two_sets_z import TWO_SETS_Z
from gpu_sdm.permute.exact import ExactPlan
from gpu_sdm.permute.maxima import TIE_TOLERANCE
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.problem import complete_effects
from gpu_sdm.spaces import Space
from gpu_sdm.stages.design import design
from gpu_sdm.stages.effects import study_terms
from gpu_sdm.stages.samples import contrasts_of

BLOCK = 4096  # voxels whose permuted maps are held at once
ALIKE = ("imputations", "imputation", "tau2", "compat", "seed", "sample_correlation", "search",
         "fwhm", "anisotropy")  # fmt: skip
OWN = {
    "g": "Difference of Hedges g, first - second",
    "se": "Standard error of the difference of g",
    "z": "z of the difference, studies imputed with a common mean",
    "z_separate": "z of the difference, each result imputed by itself",
    "p_permuted": "Uncorrected permutation p, first > second",
    "p_permuted_neg": "Uncorrected permutation p, first < second",
}


@dataclass(frozen=True, eq=False)
class Contrast:
    """The difference of two results.

    Parameters
    ----------
    grid : CommonGrid
        The results and their common voxels.
    maps : dict of str to (V,) float
        `g se z_separate`: the difference of the two results as they are, first - second. `z`:
        the same with all studies imputed together, which is tested; `p p_neg log_p log_p_neg` of
        it; `p_permuted p_permuted_neg` counted, `p_fwe_voxel` of either side and both.
    maxima : (2, P) float32
        Largest z and -z of each permutation, the observed first.
    clusters : dict of str to list of rows
        Threshold -> cluster table.
    exact : bool
        Whether every way of dividing the studies was used once.
    """

    grid: CommonGrid
    maps: dict[str, np.ndarray]
    maxima: np.ndarray
    clusters: dict[str, list[dict[str, Any]]]
    exact: bool

    def save(self, out: Path) -> Path:
        """Write maps, null and tables to a folder; one of the same two results is replaced."""

        def write(folder: Path) -> None:
            for name in ("maps", "null", "tables"):
                (folder / name).mkdir()
            for name, values in self.maps.items():
                kind = MAPS.get(name, MAPS["p" if name.startswith("p") else "z"])
                description = OWN.get(name, kind.description)
                path = folder / "maps" / f"{name}.nii.gz"
                write_map(path, values, self.grid.space, kind.fill, description, kind.intent)
            write_maxima(folder / "null" / "maxima.tsv", {"voxel": self.maxima})
            for name, rows in self.clusters.items():
                write_tsv(folder / "tables" / f"clusters_{name}.tsv", COLUMNS, rows)

        said = dict(self.grid.said())
        identity = {k: said.pop(k) for k in ("first", "second")}
        said |= {"permutations": self.maxima.shape[1], "exact": self.exact}
        return replace_folder(out, "contrast", identity, said, write)


def _sample(study: Study) -> tuple[object, ...] | None:
    """Give what tells a sample whatever its name; None where nothing does."""
    if study.image is not None:
        return study.n1, study.n2, study.image.digest
    if not len(study.peaks):
        return None
    return study.n1, study.n2, study.peaks.xyz_reported.tobytes(), study.peaks.t.tobytes()


def _refuse_shared(first: Analysis, second: Analysis) -> None:
    ours, theirs = (
        contrasts_of(a.design.dataset.studies) + a.design.dataset.studies for a in (first, second)
    )
    names = sorted({s.name for s in ours} & {s.name for s in theirs})
    if names:
        raise SettingError(
            f"{len(names)} of the studies are in both results ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}); a contrast needs different samples: leave "
            "them out of one, or use gpu-sdm conjunction."
        )
    samples = {_sample(s): s.name for s in ours if _sample(s) is not None}
    for study in theirs:
        if _sample(study) in samples:
            raise SettingError(
                f"study {study.name!r} of the second result has the sizes and findings of "
                f"{samples[_sample(study)]!r} of the first; a contrast needs different samples."
            )


def _refuse_unlike(first: Finished, second: Finished) -> None:
    for result in (first, second):
        settings = result.settings
        if settings.covariates or settings.formula is not None:
            raise SettingError(
                f"{result.folder} is not the mean of its studies (it has covariates or a "
                "formula); a contrast takes means. For an adjusted difference of groups give one "
                "project with a column for the group to gpu-sdm model."
            )
    a, b = first.settings.as_dict(), second.settings.as_dict()
    unlike = [f"{name} is {a[name]!r} and {b[name]!r}" for name in ALIKE if a[name] != b[name]]
    if unlike:
        raise SettingError(
            f"the results were made differently ({'; '.join(unlike)}); run one of them again "
            "with the settings of the other."
        )


def together(analyses: tuple[Analysis, Analysis], space: Space) -> Analysis:
    """Give the analysis of the studies of two results as one: the mean of them all.

    Parameters
    ----------
    analyses : pair of Analysis
        The K1 and the K2 studies.
    space : Space
        The common voxels.

    Returns
    -------
    Analysis
        Of K1 + K2 studies, those of the first in the order of their names, then the others.
    """
    studies: list[Study] = []
    lower, upper = [], []
    for analysis in analyses:
        mine = analysis.design.dataset.studies
        order = np.argsort([s.name for s in mine])
        places = np.searchsorted(analysis.space.index, space.index)
        studies += [mine[k] for k in order]
        lower.append(analysis.bounds.lower[order][:, places])
        upper.append(analysis.bounds.upper[order][:, places])
    first = analyses[0]
    dataset = replace(first.dataset, studies=tuple(studies))
    return replace(
        first,
        dataset=dataset,
        design=design(dataset, (), first.settings.sdm_compat),
        space=space,
        bounds=Bounds(np.concatenate(lower), np.concatenate(upper)),
        reach=None,
        terms=study_terms(dataset.studies),
        notices=(),
        timings={},
    )


def contrast(
    first: Finished,
    second: Finished,
    backend: Backend,
    label_of: Callable[[np.ndarray], list[str]],
    permutations: int | None = None,
    progress: Progress = silent,
) -> Contrast:
    """Compare two results of different samples, first - second.

    Parameters
    ----------
    first, second : Finished
        The results: means, made with the same imputations, tau2, compat and seed.
    backend : Backend
        Where to run; not a device.
    label_of : callable
        Region names of MNI millimetres (n, 3).
    permutations : int, optional
        How many, the observed division included; those of the first result by default. All
        distinct ones where no more are asked for.
    progress : callable
        Called with (stage, done, total).

    Raises
    ------
    SettingError
        If they share a study or a sample, are no means or were made differently.
    SpaceError
        If their grids differ.

    Notes
    -----
    ``z = (g1 - g2) / sqrt(se1**2 + se2**2)``, each set of studies pooled by itself with its own
    tau2. A permutation divides all studies anew into sets of the same sizes. The null: studies
    are exchangeable between the results, their sizes included; a difference in heterogeneity
    alone violates it too.

    For the test the unknown effects are imputed anew with one mean and tau2 for all studies, so
    that nothing depends on the division but the sums over it, and the permutations are exact.
    That draws unreported effects towards each other: z is nearer 0 than `z_separate`.

    Examples
    --------
    `out` and `other` are results of different samples.

    >>> from gpu_sdm import get_backend
    >>> from gpu_sdm.atlas import load_atlas
    >>> from gpu_sdm.finished import open_result
    >>> first, second, cpu = open_result(out), open_result(other), get_backend("cpu")
    >>> found = contrast(first, second, cpu, load_atlas().label_of, permutations=10)
    >>> found.maxima.shape, found.exact
    ((2, 10), False)
    """
    _refuse_unlike(first, second)
    grid = CommonGrid.of(first, second)
    analyses = first.analysis(backend, progress), second.analysis(backend, progress)
    _refuse_shared(*analyses)
    sizes = [len(a.terms.c) for a in analyses]
    plan = PermutationPlan(first.settings.seed, ("contrast",), (sizes[0],), (sizes[1],))
    wanted = first.settings.permutations if permutations is None else permutations
    exact = plan.distinct() <= wanted
    count = plan.distinct() if exact else wanted
    in_first = (ExactPlan(plan) if exact else plan).labels(0, np.arange(count))
    joint = together(analyses, grid.space)
    with limited_threads(backend):
        effects, _ = complete_effects(joint, progress, {})
        z, maxima, reached = _permuted(effects, joint, in_first, progress)
    maps = _maps(grid, z, maxima, reached)
    none = np.full(len(z), np.nan)
    pooled = Pooled(
        maps["g"], maps["se"], z.astype(np.float64), none, none.copy(), none.copy(), none.copy()
    )
    clusters = threshold_tables(maps, pooled, grid.space, label_of)
    return Contrast(grid, maps, maxima, clusters, exact)


def _permuted(
    effects: np.ndarray, analysis: Analysis, in_first: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed z (V,), maxima (2, P), and how often each voxel was reached (2, V)."""
    n_voxels, terms, backend = effects.shape[2], analysis.terms, analysis.backend.name
    maxima = np.full((2, len(in_first)), -np.inf, np.float32)
    observed, reached = np.empty(n_voxels, np.float32), np.empty((2, n_voxels), np.int64)
    compute = TWO_SETS_Z.on(backend)
    for start in range(0, n_voxels, BLOCK):
        voxels = slice(start, min(n_voxels, start + BLOCK))
        here = effects[:, :, voxels]
        z = compute(in_first, here, terms.c, terms.v2, method=analysis.settings.tau2)
        if np.isnan(z).any():
            raise NumericalError(
                "z of the difference is not a number; please report this with both run.json."
            )
        observed[voxels] = z[0]
        reached[:, voxels] = EXCEEDANCES.on(backend)(z, z[0], TIE_TOLERANCE["voxel"])
        np.maximum(maxima, [z.max(axis=1), -z.min(axis=1)], out=maxima)
        progress("permutations", voxels.stop, n_voxels)
    return observed, maxima, reached


def _maps(
    grid: CommonGrid, z: np.ndarray, maxima: np.ndarray, reached: np.ndarray
) -> dict[str, np.ndarray]:
    g, se = (np.asarray(grid.both(name), np.float64) for name in ("g", "se"))
    difference, error = g[0] - g[1], np.sqrt((se**2).sum(axis=0))
    return {
        "g": difference,
        "se": error,
        "z_separate": difference / error,
        "z": z,
        **uncorrected_maps(z),
        "p_permuted": reached[0] / maxima.shape[1],
        "p_permuted_neg": reached[1] / maxima.shape[1],
        **corrected_maps("voxel", z, -z, maxima, TIE_TOLERANCE["voxel"]),
    }
