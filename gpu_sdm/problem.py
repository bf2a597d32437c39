"""From a prepared analysis to what the permutations need: effects, pooled map, subjects."""

from __future__ import annotations

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, timed
from gpu_sdm.data import Pooled
from gpu_sdm.permute.engine import Forming, Problem
from gpu_sdm.permute.refit import Refit, relocation_of
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute, known_effects
from gpu_sdm.stages.meta import joint, meta
from gpu_sdm.stages.subjects import SubjectBank, subject_bank


def complete_effects(
    analysis: Analysis, progress: Progress, timings: dict[str, float]
) -> tuple[np.ndarray, dict[str, int]]:
    """Estimate and impute (M, K, V) effects; where all are known take them as they are."""
    settings, backend, space = analysis.settings, analysis.backend, analysis.space
    (x, criterion, discards), terms = analysis.likelihood, analysis.terms
    if analysis.imputations == 1:
        effects = known_effects(analysis.bounds, space)
        return effects, {"voxels_not_converged": 0, "imputation_fallbacks": 0}
    with timed(timings, "likelihood"):
        fit = estimate(
            analysis.bounds,
            terms,
            x,
            criterion,
            discards,
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
            analysis.design.dataset.names,
            settings,
            space,
            backend.name,
            lambda done, total: progress("imputation", done, total),
        )
    counts = {"voxels_not_converged": fit.not_converged, "imputation_fallbacks": fallbacks}
    return effects, counts


def _refit(analysis: Analysis) -> Refit:
    """Gather what a permutation of the data themselves needs."""
    model, settings = analysis.design, analysis.settings
    relocation = None
    if settings.exchange == "peaks":
        assert analysis.template is not None
        relocation = relocation_of(
            model.dataset.studies, analysis.space, analysis.template, settings
        )
    return Refit(
        analysis.bounds,
        analysis.terms,
        model.X,
        model.criterion,
        model.contrast[0],
        analysis.discards,
        model.dataset.names,
        settings,
        analysis.space,
        analysis.backend,
        relocation,
    )


def build_problem(
    analysis: Analysis, progress: Progress, timings: dict[str, float]
) -> tuple[Problem, Pooled, dict[str, int]]:
    """Estimate, impute, pool and simulate subjects: all that the permutations need."""
    settings, backend, space = analysis.settings, analysis.backend, analysis.space
    x, terms, rows = analysis.design.X, analysis.terms, analysis.design.contrast
    effects, counts = complete_effects(analysis, progress, timings)
    with timed(timings, "pooling"):
        pooled = meta(effects, terms, x, rows[0], settings.tau2, space, backend.name)
        if len(rows) > 1:
            pooled = joint(pooled, effects, terms, x, rows, settings.tau2, backend.name)
    bank: SubjectBank | None = None
    with timed(timings, "subjects"):
        if settings.exchange == "subjects" and not analysis.design.moderator:
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
        contrast=rows[0],
        tau2=settings.tau2,
        rescale_sd=not settings.sdm_compat,
        space=space,
        neighbours=space.neighbours(),
        observed_z=pooled.z.astype(np.float32),
        forming=Forming.of(settings.cluster_threshold, space),
        rows=rows if analysis.design.moderator else None,
        own_variance=settings.impute_under == "null",
        refit=_refit(analysis) if analysis.refits else None,
    )
    return problem, pooled, counts
