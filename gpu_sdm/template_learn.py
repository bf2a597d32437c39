"""A correlation template from the bound maps of SDM-PSI analyses: read, learn, say how well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm import cache
from gpu_sdm.backend import available_cores
from gpu_sdm.checks import Interval
from gpu_sdm.environment import versions
from gpu_sdm.errors import InputError
from gpu_sdm.stages.template import direction_rows, shape_of_domain
from gpu_sdm.stages.template_learn import (
    CODE_VERSION,
    LEAST_KERNEL,
    SWEEPS,
    KernelScore,
    SummedKernel,
    learn,
    score_kernels,
    widened,
)
from gpu_sdm.template_build import Built
from gpu_sdm.template_kernels import read_kernels
from gpu_sdm.templates import Template, default_template, from_correlations

# With fewer than these it learns little beyond where they have peaks (docs/templates.md).
FEW_STUDIES = 25
KEEP_EVERY = 5  # sweeps

Progress = Callable[[str, int, int], None]


def learn_template(
    projects: Sequence[Path],
    bounds: Sequence[Path] = (),
    *,
    folds: int = 2,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Built:
    """Learn the template of SDM-PSI analyses from their bound maps.

    Parameters
    ----------
    projects : sequence of path
        SDM projects.
    bounds : sequence of path
        Their folders of bound maps, one for each; default: pp in each project.
    folds : int
        Parts the studies are dealt into to score the kernels of studies that were not learned
        from; 0 leaves that out. Default 2: each half from the other.
    threads : int, optional
        Studies worked on at once; the result does not depend on it.
    progress : callable, optional
        progress(stage, done, total) after each sweep.
    say : callable, optional
        Told every doubt, before the work.

    Returns
    -------
    Built
        The built-in template, its links lengthened and shortened where the maps show it.

    Raises
    ------
    InputError
        As for `read_kernels`; if the number of folders is not that of projects, or two projects
        hold the same study.
    SettingError
        If `folds` is neither 0 nor between 2 and the number of studies.

    Notes
    -----
    A run that is cut short goes on where it was, to five sweeps, from the cache.
    """
    if bounds and len(bounds) != len(projects):
        raise InputError(
            f"{len(projects)} project(s) and {len(bounds)} folder(s) of bound maps were given; "
            "give --bounds once for each project, in their order."
        )
    studies: list[SummedKernel] = []
    for number, project in enumerate(projects):
        studies += read_kernels(project, bounds[number] if bounds else None)
    if folds:
        Interval(2, len(studies), integer=True).check("folds", folds)
    twice = [name for name, n in Counter(study.name for study in studies).items() if n > 1]
    if twice:
        raise InputError(f"{twice[0]} is in two of the projects; leave one out, or rename it.")
    sizes = sorted({study.space.voxel_size for study in studies})
    if len(sizes) > 1:
        raise InputError(f"the bound maps have voxels of {sizes} mm; give maps of one grid.")
    warnings = []
    if len(studies) < FEW_STUDIES:
        warnings.append(
            f"{len(studies)} studies are few: the template is learned only where their peaks "
            f"reach; with {FEW_STUDIES} or more it also serves others."
        )
        if say is not None:
            say(warnings[0])
    mask = np.logical_or.reduce([study.space.mask for study in studies])
    start = widened(default_template(sizes[0]), mask)
    threads = threads or available_cores()
    held_out = None
    if folds:
        parts = learn_parts(start, studies, folds, threads=threads, progress=progress)
        held_out = _held_out(studies, parts)
    learned = learn_from(start, studies, threads=threads, progress=progress)
    template = from_correlations(learned.r(), sizes[0])  # as a reader of the file will have it
    reach = [study.space.embed(study.kernel > LEAST_KERNEL)[mask] > 0 for study in studies]
    reached = np.sum(reach, axis=0)
    report: dict[str, Any] = {
        "program": "gpu-sdm template learn",
        "versions": versions(),
        "voxel_size": sizes[0],
        "projects": [str(p) for p in projects],
        "bounds": [str(p) for p in bounds],
        "studies": [study.name for study in studies],
        "peaks": sum(len(study.xyz_mm) for study in studies),
        "sweeps": SWEEPS,
        "voxels": int(mask.sum()),
        "share_reached_by_one": float((reached >= 1).mean()),
        "share_reached_by_five": float((reached >= 5).mean()),
        "kernels": {
            "before": score_kernels(start, studies)._asdict(),
            "after": score_kernels(template, studies)._asdict(),
            "held_out": held_out,
        },
        "domain": shape_of_domain(template, mask),
        "directions": direction_rows(template),
        "warnings": warnings,
    }
    return Built(template, report)


def learn_parts(
    start: Template,
    studies: Sequence[SummedKernel],
    folds: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[np.ndarray, Template]]:
    """Deal the studies into parts, and learn for each from those that are not in it.

    Parameters
    ----------
    start, studies, threads, progress
        As for `learn_from`.
    folds : int
        Parts, drawn by a seed of their own.

    Yields
    ------
    (n,) int array
        Rows of the studies of a part.
    Template
        Learned from all others.
    """
    parts = np.array_split(np.random.default_rng(0).permutation(len(studies)), folds)
    for number, part in enumerate(parts, 1):
        others = [s for k, s in enumerate(studies) if k not in part]
        stage = f"part {number} of {folds}"
        yield part, learn_from(start, others, stage, threads=threads, progress=progress)


def _held_out(
    studies: Sequence[SummedKernel], parts: Iterator[tuple[np.ndarray, Template]]
) -> dict[str, Any]:
    """Score the studies of each part under the template learned from the others."""
    scores = [score_kernels(learned, [studies[k] for k in part]) for part, learned in parts]
    means = dict(zip(KernelScore._fields, np.mean(scores, axis=0).tolist(), strict=True))
    return {"folds": len(scores), **means}


def learn_from(
    start: Template,
    studies: Sequence[SummedKernel],
    stage: str = "learning",
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Template:
    """Learn from some studies, beginning with what the cache holds of an earlier run.

    Parameters
    ----------
    start : Template
        Where to begin.
    studies : sequence of SummedKernel
        What is to be met.
    stage : str
        What `progress` is told.
    threads : int, optional
        Studies worked on at once; the result does not depend on it.
    progress : callable, optional
        progress(stage, sweeps done, sweeps) after each sweep.
    """
    content = [part for s in studies for part in (s.space.digest(), s.xyz_mm, s.kernel)]
    entry = cache.key("learned", CODE_VERSION, start.digest(), SWEEPS, *content)
    stored = cache.load("learned", entry)
    done, template = 0, start
    linked = np.isfinite(start.costs)
    if stored is not None:
        done = int(stored["sweeps"])
        costs = start.costs.copy()
        costs[linked] = stored["costs"]
        template = Template(start.voxel_size, costs)

    def after(number: int, reached: Template) -> None:
        if number % KEEP_EVERY == 0 or number == SWEEPS:
            kept = reached.costs[linked]
            cache.store("learned", entry, sweeps=np.array(number), costs=kept)
        if progress is not None:
            progress(stage, number, SWEEPS)

    if progress is not None:
        progress(stage, done, SWEEPS)
    return learn(start=template, studies=studies, done=done, threads=threads, after=after)
