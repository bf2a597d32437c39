"""From a prepared analysis to what the permutations need: effects, pooled map, subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, timed
from gpu_sdm.data import Pooled
from gpu_sdm.permute.engine import Forming, Problem
from gpu_sdm.permute.refit import Refit, relocation_of
from gpu_sdm.permute.scores import Scores
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute, known_effects
from gpu_sdm.stages.meta import joint, meta
from gpu_sdm.stages.subjects import SubjectBank, subject_bank


class Scratch(Protocol):
    """Files for what does not fit the memory (gpu_sdm.distribute.scratch)."""

    def finished(self, name: str, shape: Sequence[int]) -> dict[str, float] | None:
        """Give the counts of an array that an earlier start completed."""

    def finish(self, name: str, shape: Sequence[int], counts: dict[str, float]) -> None:
        """Note that an array is complete."""

    def array(self, name: str, shape: tuple[int, ...]) -> Any:
        """Open an array."""

    def rows(self, name: str, sizes: Sequence[int], n_voxels: int) -> Sequence[Any]:
        """Open an array as one for each of the sizes."""


def complete_effects(
    analysis: Analysis,
    progress: Progress,
    timings: dict[str, float],
    scratch: Scratch | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Estimate and impute (M, K, V) effects; where all are known take them as they are.

    The likelihood runs on a GPU where there is one and it agrees with the CPU; `say` is called
    where it does not. Where each permutation estimates again, all do so on the CPU.

    Parameters
    ----------
    analysis : Analysis
        From `prepare`.
    progress : callable
        Called with (stage, done, total).
    timings : dict
        Stage -> seconds; what this takes is added.
    scratch : Scratch, optional
        Files for the effects; in memory by default.
    say : callable
        Called with a sentence.

    Returns
    -------
    effects : (M, K, V) float32
        In memory or, with a `scratch`, in a file.
    counts : dict of str to int
        "voxels_not_converged" and "imputation_fallbacks", for run.json.
    """
    settings, backend, space = analysis.settings, analysis.backend, analysis.space
    (x, criterion, discards), terms = analysis.likelihood, analysis.terms
    if analysis.imputations == 1:
        effects = known_effects(analysis.bounds, space)
        return effects, {"voxels_not_converged": 0, "imputation_fallbacks": 0}
    shape = (analysis.imputations, *analysis.bounds.lower.shape)
    if scratch is not None and (kept := scratch.finished("effects", shape)) is not None:
        return scratch.array("effects", shape), {name: int(n) for name, n in kept.items()}
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
            search=settings.search,
            compat=settings.sdm_compat,
            device=None if analysis.refits else backend.device,
            say=say,
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
            into=None if scratch is None else lambda shape: scratch.array("effects", shape),
        )
    counts = {"voxels_not_converged": fit.not_converged, "imputation_fallbacks": fallbacks}
    if scratch is not None:
        scratch.finish("effects", shape, dict(counts))
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
        bounds=analysis.bounds,
        terms=analysis.terms,
        design=model.X,
        criterion=model.criterion,
        contrast=model.contrast[0],
        discards=analysis.discards,
        names=model.dataset.names,
        settings=settings,
        space=analysis.space,
        backend=analysis.backend,
        relocation=relocation,
    )


def _bank(analysis: Analysis, progress: Progress, scratch: Scratch | None) -> SubjectBank:
    """Simulate the subjects, or find them where an earlier start left them."""
    settings, space = analysis.settings, analysis.space
    studies = analysis.design.dataset.studies
    sizes = [s.n for s in studies]
    shape = (sum(sizes), space.n_voxels)
    if scratch is not None and (kept := scratch.finished("subjects", shape)) is not None:
        n1, n2 = (np.array([getattr(s, n) for s in studies], np.int64) for n in ("n1", "n2"))
        residuals = tuple(scratch.rows("subjects", sizes, space.n_voxels))
        return SubjectBank(residuals, n1, n2, kept["infeasible"])
    bank = subject_bank(
        studies,
        space,
        settings.seed,
        settings.noise_law(),
        None if analysis.template is None else analysis.template.r_face[space.index],
        analysis.backend,
        lambda done, total: progress("subjects", done, total),
        into=None if scratch is None else lambda n, v: scratch.rows("subjects", n, v),
    )
    if scratch is not None:
        scratch.finish("subjects", shape, {"infeasible": bank.infeasible})
    return bank


def build_problem(
    analysis: Analysis,
    progress: Progress,
    timings: dict[str, float],
    scratch: Scratch | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> tuple[Problem, Pooled, dict[str, int]]:
    """Estimate, impute, pool and simulate subjects: all that the permutations need.

    Parameters
    ----------
    analysis, progress, timings, scratch, say
        As for `complete_effects`; subject images go to files too.

    Returns
    -------
    problem : Problem
        For `gpu_sdm.permute.engine.permute`.
    pooled : Pooled
        The observed maps.
    counts : dict of str to int
        Those of `complete_effects`.
    """
    settings, backend, space = analysis.settings, analysis.backend, analysis.space
    x, terms, rows = analysis.design.X, analysis.terms, analysis.design.contrast
    effects, counts = complete_effects(analysis, progress, timings, scratch, say)
    with timed(timings, "pooling"):
        pooled = meta(effects, terms, x, rows[0], settings.tau2, space, backend.name)
        if len(rows) > 1:
            pooled = joint(pooled, effects, terms, x, rows, settings.tau2, backend.name)
    bank: SubjectBank | None = None
    with timed(timings, "subjects"):
        if settings.exchange == "subjects" and not analysis.design.moderator:
            bank = _bank(analysis, progress, scratch)
    scores, observed = None, pooled.z.astype(np.float32)
    if settings.test == "score":
        found = Scores.of(analysis.bounds, terms, backend.name)
        scores, observed = None if analysis.refits else found, found.observed()
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
        observed_z=observed,
        forming=Forming.of(settings.cluster_threshold, space),
        rows=rows if analysis.design.moderator else None,
        own_variance=settings.impute_under == "null",
        refit=_refit(analysis) if analysis.refits else None,
        scores=scores,
    )
    return problem, pooled, counts
