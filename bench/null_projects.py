"""One null project of the calibration, from subjects to corrected p."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, process_time

import numpy as np
from null_cells import CELLS, Cell
from null_data import SEEDS_PER_BANK, PeakFinder, null_maps, truth_bank

from gpu_sdm.analysis import Analysis, limited_threads, silent, timed
from gpu_sdm.backend import Backend
from gpu_sdm.config import Settings
from gpu_sdm.data import Bounds, Dataset, Pooled, Study
from gpu_sdm.inference import corrected_maps, critical_value, uncorrected_p
from gpu_sdm.permute.engine import TIE_TOLERANCE, Problem, permute
from gpu_sdm.permute.null import NullState
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.permute.refit import peak_plan
from gpu_sdm.problem import build_problem
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import bounds_of_peaks
from gpu_sdm.stages.design import design
from gpu_sdm.stages.effects import effect_to_bound, hedges_g, peak_effects, study_terms
from gpu_sdm.templates import Template, default_mask, default_template

# A part of every line: raise it when the design of a project changes. Others are not counted.
HARNESS = 1
VOXEL_SIZE = 4  # mm
LEVELS = (0.05, 0.01, 0.001)  # of the uncorrected p
SIDES = ("pos", "neg")


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Neither read nor fill the package's cache of bounds and fits: no project comes twice."""
    before = os.environ.get("GPU_SDM_CACHE")
    os.environ["GPU_SDM_CACHE"] = os.devnull  # no folder can be made there, which is never fatal
    try:
        yield
    finally:
        if before is None:
            del os.environ["GPU_SDM_CACHE"]
        else:
            os.environ["GPU_SDM_CACHE"] = before


class Brain:
    """The fixed brain of all projects, and what is derived from it once.

    Parameters
    ----------
    mask : (X, Y, Z) bool, optional
        On the 4 mm grid; the built-in one by default.
    """

    def __init__(self, mask: np.ndarray | None = None) -> None:
        self.space = Space(VOXEL_SIZE, default_mask(VOXEL_SIZE) if mask is None else mask)
        self.template: Template = default_template(VOXEL_SIZE)
        self.peaks = PeakFinder(self.space)
        self.backend = Backend("cpu", "one project to a process", 1)


def _plan(studies: tuple[Study, ...], settings: Settings, space: Space) -> PermutationPlan:
    if settings.exchange == "peaks":
        return peak_plan(studies, settings.seed, space, compat=False)
    return PermutationPlan.of(studies, settings.seed, settings.exchange)


def null_analysis(
    brain: Brain,
    cell: Cell,
    seed: int,
    settings: Settings,
    planted: np.ndarray | float = 0.0,
    bank: np.ndarray | None = None,
) -> Analysis:
    """Simulate a project and find its bounds, as `gpu_sdm.analysis.prepare` would."""
    truth, space = cell.truth, brain.space
    timings: dict[str, float] = {}
    with timed(timings, "bank"):
        if bank is None:
            bank = truth_bank(truth.noise, seed // SEEDS_PER_BANK, space)
    with timed(timings, "truth"):
        sizes, t = null_maps(truth, bank, np.random.default_rng(seed), planted)
    with timed(timings, "peaks"):
        studies = tuple(
            brain.peaks.study(
                f"study{k:02d}", int(n1), int(n2), t[k], truth.p_threshold, truth.one_sided
            )
            for k, (n1, n2) in enumerate(sizes)
        )
    with timed(timings, "bounds"):
        known = np.zeros(truth.studies, bool)
        if cell.images > 0:
            known[:: round(1 / cell.images)] = True
        lower = np.empty(t.shape, np.float32)
        upper = np.empty(t.shape, np.float32)
        listed = [s for s, image in zip(studies, known, strict=True) if not image]
        reach = None
        if listed:
            found, reach = bounds_of_peaks(
                [s.peaks.xyz_mm for s in listed],
                [peak_effects(s) for s in listed],
                effect_to_bound(listed),
                space,
                brain.template,
                fwhm=settings.fwhm,
                anisotropy=settings.anisotropy,
                threads=1,
            )
            lower[~known], upper[~known] = found.lower, found.upper
        if known.any():
            lower[known] = hedges_g(t[known], *sizes[known].T[:, :, None])[0]
            upper[known] = lower[known]
    model = design(Dataset(studies, (), Path("null"), {}))
    return Analysis(
        dataset=model.dataset,
        settings=settings,
        backend=brain.backend,
        design=model,
        space=space,
        template=brain.template,
        bounds=Bounds(lower, upper),
        reach=reach,
        terms=study_terms(studies),
        plan=_plan(studies, settings, space),
        notices=(),
        timings=timings,
    )


@dataclass(frozen=True, eq=False)
class Analysed:
    """A project after its analysis, from the bounds to the null."""

    analysis: Analysis
    problem: Problem
    pooled: Pooled
    counts: dict[str, int]
    null: NullState
    timings: dict[str, float]


def analyse(
    brain: Brain,
    cell: Cell,
    seed: int,
    permutations: int,
    imputations: int,
    planted: np.ndarray | float = 0.0,
    bank: np.ndarray | None = None,
) -> Analysed:
    """Simulate a project of a cell and analyse it; arguments as for `run_project`."""
    settings = Settings(
        permutations=permutations,
        imputations=imputations,
        seed=seed,
        voxel_size=VOXEL_SIZE,
        exchange=cell.exchange,
        **cell.options,
    )
    with without_cache(), limited_threads(brain.backend):
        analysis = null_analysis(brain, cell, seed, settings, planted, bank)
        timings = dict(analysis.timings)
        problem, pooled, counts = build_problem(analysis, silent, timings)
        problem = replace(problem, rescale_sd=cell.rescale_sd)
        with timed(timings, "permutations"):
            null = permute(
                problem, analysis.plan, permutations, settings.statistic, analysis.backend
            )
    return Analysed(analysis, problem, pooled, counts, null, timings)


def run_project(
    brain: Brain,
    name: str,
    seed: int,
    *,
    permutations: int = 200,
    imputations: int = 10,
    planted: np.ndarray | float = 0.0,
    bank: np.ndarray | None = None,
) -> dict[str, object]:
    """Analyse one null project with the package's own functions: one line of the results.

    Parameters
    ----------
    brain : Brain
        Mask and template.
    name : str
        The cell, a key of `CELLS`.
    seed : int
        Of the data and of the analysis.
    permutations, imputations : int
        Of the analysis.
    planted : (V,) array or float
        A true effect of every study, in units of the subjects' SD.
    bank : (B, V) float32, optional
        Subjects to draw from; that of the seed's block by default.

    Returns
    -------
    dict
        All but `seconds` is a function of cell, seed and the two numbers alone.
    """
    cell, begin, cpu = CELLS[name], monotonic(), process_time()
    permutations = cell.permutations or permutations
    made = analyse(brain, cell, seed, permutations, imputations, planted, bank)
    problem, null, z = made.problem, made.null, made.pooled.z
    line: dict[str, object] = {"harness": HARNESS, "cell": name, "seed": seed}
    line |= {"permutations": permutations, "imputations": imputations}
    line["max_z"] = [round(float(x), 5) for x in null.maxima["voxel"][:, 0]]
    for statistic, maxima in null.maxima.items():
        observed = maxima[:, :1]
        maps = corrected_maps(statistic, *observed, maxima, TIE_TOLERANCE[statistic])
        line[f"p_{statistic}"] = [round(float(p[0]), 6) for p in maps.values()]
        line[f"threshold_{statistic}"] = [round(critical_value(m, 0.05), 4) for m in maxima]
    line["p_shares"] = {
        side: [round(float((uncorrected_p(s * z) <= level).mean()), 6) for level in LEVELS]
        for side, s in zip(SIDES, (1, -1), strict=True)
    }
    line["infeasible"] = None if problem.bank is None else round(problem.bank.infeasible, 5)
    line["tau2_mean"] = round(float(made.pooled.tau2.mean()), 6)
    peaks = [len(s.peaks) for s in made.analysis.design.dataset.studies]
    line["peaks_per_study"] = float(np.mean(peaks))
    line["reported"] = sum(n > 0 for n in peaks)
    line |= {k: v for k, v in made.counts.items() if v}
    line["seconds"] = {
        stage: round(s, 3)
        for stage, s in {
            **made.timings,
            "all": monotonic() - begin,
            "cpu": process_time() - cpu,
        }.items()
    }
    return line
