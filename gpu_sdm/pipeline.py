"""The main job from top to bottom: prepare, estimate, impute, permute, infer, write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, limited_threads, prepare, silent, timed
from gpu_sdm.atlas import load_atlas
from gpu_sdm.backend import get_backend
from gpu_sdm.clusters import threshold_tables
from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset, Pooled
from gpu_sdm.inference import corrected_maps, uncorrected_maps
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.output import OutputFolder
from gpu_sdm.permute.engine import TIE_TOLERANCE, Problem, permute
from gpu_sdm.provenance import peak_rows, provenance, study_rows
from gpu_sdm.result import Result
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute
from gpu_sdm.stages.meta import meta
from gpu_sdm.stages.subjects import SubjectBank, subject_bank


def build_problem(
    analysis: Analysis, progress: Progress, timings: dict[str, float]
) -> tuple[Problem, Pooled, dict[str, int]]:
    """Estimate, impute, pool and simulate subjects: all that the permutations need."""
    settings, backend, space = analysis.settings, analysis.backend, analysis.space
    x, terms = analysis.design.X, analysis.terms
    contrast = np.eye(x.shape[1])[0]
    names = analysis.design.dataset.names
    with timed(timings, "likelihood"):
        fit = estimate(
            analysis.bounds,
            terms,
            x,
            analysis.design.criterion,
            analysis.discards,
            space,
            backend.name,
            lambda done, total: progress("likelihood", done, total),
        )
    with timed(timings, "imputation"):
        effects, fallbacks = impute(
            analysis.bounds,
            fit,
            terms,
            x,
            names,
            settings,
            space,
            backend.name,
            lambda done, total: progress("imputation", done, total),
        )
    with timed(timings, "pooling"):
        pooled = meta(effects, terms, x, contrast, settings.tau2, space, backend.name)
    bank: SubjectBank | None = None
    with timed(timings, "subjects"):
        if settings.exchange == "subjects":
            bank = subject_bank(
                analysis.design.dataset.studies,
                space,
                settings.seed,
                settings.noise_law(),
                None if analysis.template is None else analysis.template.r_face[space.index],
                backend,
                lambda done, total: progress("subjects", done, total),
            )
    problem = Problem(
        effects=effects,
        bank=bank,
        terms=terms,
        design=x,
        contrast=contrast,
        tau2=settings.tau2,
        rescale_sd=not settings.sdm_compat,
        space=space,
        neighbours=space.neighbours(),
        observed_z=pooled.z.astype(np.float32),
    )
    counts = {"voxels_not_converged": fit.not_converged, "imputation_fallbacks": fallbacks}
    return problem, pooled, counts


def _maps(
    analysis: Analysis, problem: Problem, pooled: Pooled, maxima: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """All maps of the output folder, float64 where they were computed so."""
    z = problem.observed_z
    maps: dict[str, np.ndarray] = {
        "g": pooled.g,
        "se": pooled.se,
        "z": z,
        **uncorrected_maps(z),
        "tau2": pooled.tau2,
        "i2": pooled.i2,
        "h2": pooled.h2,
        "q": pooled.q,
        "mask": np.ones(len(z)),
    }
    sides = {"voxel": (z, -z)}
    if "tfce" in analysis.settings.statistic:
        compute = TFCE.on(analysis.backend.name)
        sides["tfce"] = compute(z, problem.neighbours), compute(-z, problem.neighbours)
        maps["tfce"], maps["tfce_neg"] = sides["tfce"]
    for statistic in analysis.settings.statistic:
        maps |= corrected_maps(
            statistic, *sides[statistic], maxima[statistic], TIE_TOLERANCE[statistic]
        )
    return maps


def execute(
    analysis: Analysis,
    *,
    out: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
    chunk: int | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Result:
    """Do the long work of a prepared analysis.

    Parameters
    ----------
    analysis : Analysis
        From `prepare`.
    out : path, optional
        Result folder; None keeps everything in memory, without checkpoints.
    force : bool
        Discard unfinished work and replace a finished result at `out`.
    progress : callable
        Called with (stage, done, total).
    chunk : int, optional
        Permutations between two saves; the result does not depend on it.
    say : callable
        Called with a sentence where a device runs short of memory.

    Raises
    ------
    OutputError
        If `out` cannot be used; what was there stays as it was.
    """
    settings, timings = analysis.settings, dict(analysis.timings)
    claim: AbstractContextManager[OutputFolder | None] = (
        nullcontext() if out is None else OutputFolder(out, settings, analysis.content(), force)
    )
    with claim as folder, limited_threads(analysis.backend):
        problem, pooled, counts = build_problem(analysis, progress, timings)
        with timed(timings, "permutations"):
            null = permute(
                problem,
                analysis.plan,
                settings.permutations,
                settings.statistic,
                analysis.backend,
                store=folder,
                progress=lambda done: progress("permutations", done, settings.permutations),
                say=say,
                **({} if chunk is None else {"chunk": chunk}),
            )
        with timed(timings, "inference"):
            maps = _maps(analysis, problem, pooled, null.maxima)
            atlas = load_atlas()
            clusters = threshold_tables(maps, pooled, analysis.space, atlas.label_of)
        result = Result(
            settings=settings,
            space=analysis.space,
            maps={name: np.asarray(values, np.float32) for name, values in maps.items()},
            maxima=null.maxima,
            studies=study_rows(analysis),
            peaks=peak_rows(analysis),
            clusters=clusters,
            provenance=provenance(analysis, problem, counts, timings, atlas.notice),
        )
        if folder is not None:
            folder.finish(result.save)
    return result


def run(
    dataset: Dataset,
    settings: Settings,
    *,
    out: Path | str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Result:
    """Run the whole analysis.

    Parameters
    ----------
    dataset : Dataset
        From `gpu_sdm.read`.
    settings : Settings
        What is wanted.
    out : path, optional
        Result folder; None keeps everything in memory.
    backend : {"auto", "cuda", "cpu", "numpy"}
        Where to run.
    threads : int, optional
        Worker threads; all cores by default. Results do not depend on it.
    force : bool
        Replace what is at `out`.
    progress : callable
        Called with (stage, done, total).

    Returns
    -------
    Result

    Raises
    ------
    GpuSdmError
        With one sentence on what is wrong and how to mend it.
    """
    analysis = prepare(dataset, settings, get_backend(backend, threads), progress)
    return execute(analysis, out=None if out is None else Path(out), force=force, progress=progress)
