"""An analysis whose input is read, checked and planned; nothing is written yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import monotonic
from typing import NamedTuple

import numba
import numpy as np

from gpu_sdm import cache
from gpu_sdm.backend import Backend
from gpu_sdm.config import Settings
from gpu_sdm.data import Bounds, Dataset, Notice, StudyTerms
from gpu_sdm.errors import SettingError
from gpu_sdm.inference import permutations_notice
from gpu_sdm.io.volumes import load_space, load_template, read_bounds
from gpu_sdm.ops.study_permuted_z import reduced_design
from gpu_sdm.permute.exact import ExactPlan, plan_permutations
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.permute.refit import peak_plan
from gpu_sdm.permute.study_plan import StudyPlan
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import PeakReach, study_bounds
from gpu_sdm.stages.design import Design
from gpu_sdm.stages.effects import one_sided_notice, study_terms
from gpu_sdm.stages.estimate import default_discards
from gpu_sdm.stages.images import known_notices
from gpu_sdm.stages.impute import n_imputations
from gpu_sdm.stages.linear_model import model_of
from gpu_sdm.stages.samples import composition, contrasts_of, merge_bounds
from gpu_sdm.templates import Template

Progress = Callable[[str, int, int], None]
# A part of every run's identity: raise it when a change alters results, so that unfinished work
# of another version is not continued.
CODE_VERSION = "3"

LIBERAL = (
    "effects that are imputed from a model with {tested} agree with it by construction, so its "
    "test is liberal (20 to 28 % false positives at .05 in simulations where a tenth to a third of "
    "the effects was known); --impute-under null imputes without it."
)


class Likelihood(NamedTuple):
    """The model that is fitted to the bounds and from which effects are imputed."""

    x: np.ndarray  # (K, Q') float64
    criterion: np.ndarray  # (Q',) combination that the leave-one-out rule makes small
    discards: int  # studies that this rule drops


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
    plan : PermutationPlan, ExactPlan or StudyPlan
        What each permutation exchanges; all distinct ones where no more were asked for.
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
    plan: PermutationPlan | ExactPlan | StudyPlan
    notices: tuple[Notice, ...]
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def discards(self) -> int:
        """Studies that the leave-one-out rule drops: D = min(D, K - Q - 1)."""
        k, q = self.design.X.shape
        asked = self.settings.discards
        return max(0, min(default_discards(k) if asked is None else asked, int(k - q - 1)))

    @cached_property
    def likelihood(self) -> Likelihood:
        """The model behind the imputed effects: that of the design, or the null's."""
        model = self.design
        if not model.moderator or self.settings.impute_under == "model":
            return Likelihood(model.X, model.criterion, self.discards)
        x, plain = reduced_design(model.X, model.contrast)
        x = np.ones((len(x), 1)) if plain else x
        return Likelihood(x, np.linalg.lstsq(x, np.ones(len(x)), rcond=None)[0], 0)

    @cached_property
    def imputations(self) -> int:
        """Imputed data sets: as many as asked for, or one where every effect is known."""
        return n_imputations(self.bounds, self.settings.imputations)

    @property
    def refits(self) -> bool:
        """Whether every permutation begins again from the bounds.

        So it must where peaks move, and where something is censored and whole studies are
        exchanged; the parts of a score test only change their signs then.
        """
        exchange = self.settings.exchange
        anew = self.imputations > 1 and self.settings.test == "z"
        return (
            not self.design.moderator and exchange != "subjects" and (exchange == "peaks" or anew)
        )

    @property
    def exact(self) -> bool:
        """Whether every distinct permutation is used once."""
        plan = self.plan
        return plan.exact if isinstance(plan, StudyPlan) else isinstance(plan, ExactPlan)

    @property
    def permutations(self) -> int:
        """Permutations that are run: as many as asked for, or all distinct ones."""
        return self.plan.distinct() if self.exact else self.settings.permutations

    def with_permutations(self, permutations: int) -> Analysis:
        """Plan another number of permutations; all else stays."""
        settings = replace(self.settings, permutations=permutations)
        return replace(self, settings=settings, plan=_plan(self.design, settings, self.space))

    def content(self) -> dict[str, str]:
        """Content hash of everything but the settings that determines the result."""
        found = {"program": CODE_VERSION, "mask": self.space.digest(), **self.dataset.sha256}
        if self.template is not None:
            found["template"] = self.template.digest()
        if made_of := composition(self.design.dataset.studies):
            found["samples"] = made_of
        if self.settings.bounds is not None:
            found["bounds"] = self.bounds.digest()
        if self.exact:  # random permutations cannot be extended to these
            found["exact permutations"] = str(self.plan.distinct())
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
    from threadpoolctl import threadpool_limits  # the engine and its benches do without

    before = numba.get_num_threads()
    numba.set_num_threads(min(backend.threads, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before)


def _plan(
    model: Design, settings: Settings, space: Space
) -> PermutationPlan | ExactPlan | StudyPlan:
    """Plan permutations of whole studies for a moderator, else as the settings say.

    Raises
    ------
    SettingError
        If peaks are to move and there are none.
    """
    studies, count = model.dataset.studies, settings.permutations
    if model.moderator:
        return StudyPlan.of(studies, model.X, settings.seed, count)
    if settings.exchange == "peaks":
        if settings.bounds is not None:
            raise SettingError(
                "exchange is peaks but bounds are read from files; leave out bounds, or use "
                "exchange subjects or studies."
            )
        return peak_plan(studies, settings.seed, space, settings.sdm_compat)
    return plan_permutations(studies, settings.seed, settings.exchange, count)


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
    model = model_of(dataset, settings)
    studies = model.dataset.studies
    contrasts = replace(model.dataset, studies=contrasts_of(studies))
    space = load_space(settings)
    template, reach, doubts = None, None, model.dataset.notices
    with_peaks = settings.bounds is None and any(s.image is None for s in contrasts.studies)
    if with_peaks or settings.noise_law()[0] == "template":
        with timed(timings, "template"):
            template = load_template(settings.template, settings.voxel_size)
    with timed(timings, "bounds"), limited_threads(backend):
        if settings.bounds is not None:
            space, bounds = read_bounds(settings.bounds, contrasts.names, space)
        else:
            bounds, found, reach = study_bounds(
                contrasts,
                space,
                template,
                settings,
                lambda done, total: progress("bounds", done, total),
                backend=backend.name,
                threads=backend.threads,
            )
            doubts += found + known_notices(bounds, contrasts.studies, settings)
        bounds = merge_bounds(bounds, studies)
    plan = _plan(model, settings, space)
    if (
        model.moderator
        and settings.impute_under == "model"
        and n_imputations(bounds, settings.imputations) > 1
    ):
        text = LIBERAL.format(tested=" and ".join(model.tested))
        doubts += (Notice("liberal_moderator", text),)
    if settings.exchange != "peaks" and not model.moderator and settings.bounds is None:
        one_sided = one_sided_notice([s for s in contrasts.studies if s.image is None])
        doubts += (one_sided,) if one_sided else ()
    if why := cache.trouble():
        doubts += (Notice("no_cache", why),)
    few = permutations_notice(min(settings.permutations, plan.distinct()), plan.distinct())
    return Analysis(
        dataset=dataset,
        settings=settings,
        backend=backend,
        design=model,
        space=space,
        template=template,
        bounds=bounds,
        reach=reach,
        terms=study_terms(studies),
        plan=plan,
        notices=doubts + ((few,) if few else ()),
        timings=timings,
    )
