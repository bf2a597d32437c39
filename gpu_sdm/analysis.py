"""An analysis whose input is read, checked and planned; nothing is written yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import numba
from threadpoolctl import threadpool_limits

from gpu_sdm.backend import Backend
from gpu_sdm.config import Settings
from gpu_sdm.data import Bounds, Dataset, Notice, StudyTerms
from gpu_sdm.inference import permutations_notice
from gpu_sdm.io.volumes import load_space, load_template, read_bounds
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import PeakReach, study_bounds
from gpu_sdm.stages.design import Design, design
from gpu_sdm.stages.effects import study_terms
from gpu_sdm.stages.estimate import default_discards
from gpu_sdm.templates import Template

Progress = Callable[[str, int, int], None]
# A part of every run's identity: raise it when a change alters results, so that unfinished work
# of another version is not continued.
CODE_VERSION = "1"


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """An analysis whose input is read and checked and whose bounds are known.

    Parameters
    ----------
    dataset : Dataset
        All that was read; `design.dataset` holds the studies of the model.
    settings, backend
        What was asked for, and where it runs.
    design : Design
        Design matrix and its K studies.
    space : Space
        Grid and mask.
    template : Template or None
        Correlation template, where one is needed.
    bounds : Bounds
        Possible effects of the K studies.
    reach : PeakReach or None
        What became of each peak; None where bounds were read from files.
    terms : StudyTerms
        Constants of the K studies.
    plan : PermutationPlan
        What each permutation exchanges.
    notices : tuple of Notice
        Every doubt about input and settings.
    timings : dict
        Seconds per stage so far.
    """

    dataset: Dataset
    settings: Settings
    backend: Backend
    design: Design
    space: Space
    template: Template | None
    bounds: Bounds
    reach: PeakReach | None
    terms: StudyTerms
    plan: PermutationPlan
    notices: tuple[Notice, ...]
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def discards(self) -> int:
        """Studies that the leave-one-out rule drops: D = min(D, K - Q - 1)."""
        k, q = self.design.X.shape
        asked = self.settings.discards
        return max(0, min(default_discards(k) if asked is None else asked, k - q - 1))

    def content(self) -> dict[str, str]:
        """Content hash of everything but the settings that determines the result."""
        found = {"program": CODE_VERSION, "mask": self.space.digest(), **self.dataset.sha256}
        if self.template is not None:
            found["template"] = self.template.digest()
        if self.settings.bounds is not None:
            found["bounds"] = self.bounds.digest()
        return found


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds of a block to its stage."""
    begin = monotonic()
    yield
    timings[stage] = timings.get(stage, 0.0) + monotonic() - begin


@contextmanager
def limited_threads(backend: Backend) -> Iterator[None]:
    """Limit numba and BLAS; BLAS to one thread, as its bits change with their number."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(backend.threads, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before)


def prepare(
    dataset: Dataset, settings: Settings, backend: Backend, progress: Progress = silent
) -> Analysis:
    """Check everything that can be checked and find the bounds; writes nothing but the cache.

    Parameters
    ----------
    dataset : Dataset
        From `gpu_sdm.read`.
    settings : Settings
        What is wanted.
    backend : Backend
        Where to run.
    progress : callable
        Called with (stage, done, total).

    Raises
    ------
    GpuSdmError
        If input and settings do not fit.
    """
    timings: dict[str, float] = {}
    model = design(dataset, settings.covariates, settings.sdm_compat)
    studies = model.dataset.studies
    space = load_space(settings)
    template, reach, doubts = None, None, model.dataset.notices
    if settings.bounds is None or settings.noise_law()[0] == "template":
        with timed(timings, "template"):
            template = load_template(settings.template, settings.voxel_size)
    with timed(timings, "bounds"), limited_threads(backend):
        if settings.bounds is not None:
            space, bounds = read_bounds(settings.bounds, model.dataset.names, space)
        else:
            assert template is not None
            bounds, found, reach = study_bounds(
                model.dataset,
                space,
                template,
                settings,
                lambda done, total: progress("bounds", done, total),
                backend=backend.name,
                threads=backend.threads,
            )
            doubts += found
    few = permutations_notice(settings.permutations)
    return Analysis(
        dataset,
        settings,
        backend,
        model,
        space,
        template,
        bounds,
        reach,
        study_terms(studies),
        PermutationPlan.of(studies, settings.seed, settings.exchange),
        doubts + ((few,) if few else ()),
        timings,
    )
