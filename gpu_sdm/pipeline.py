"""The main job from top to bottom: prepare, estimate, impute, permute, infer, write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, limited_threads, prepare, silent, timed
from gpu_sdm.atlas import load_atlas
from gpu_sdm.backend import get_backend
from gpu_sdm.clusters import threshold_tables
from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset, Pooled
from gpu_sdm.distribute.layout import laid_out, scratch_of
from gpu_sdm.distribute.stopping import Watched, check_stop, stop_rule, stopped
from gpu_sdm.distribute.workers import Workers
from gpu_sdm.inference import cluster_statistic, corrected_maps, uncorrected_maps, uncorrected_p
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.output import OutputFolder
from gpu_sdm.permute.engine import Problem, permute
from gpu_sdm.permute.maxima import TIE_TOLERANCE
from gpu_sdm.permute.plan import TILE
from gpu_sdm.problem import build_problem
from gpu_sdm.provenance import peak_rows, provenance, study_rows
from gpu_sdm.result import Result, bytes_needed
from gpu_sdm.stages.meta import coefficients

Sides = dict[str, tuple[np.ndarray, np.ndarray]]


def _observed(analysis: Analysis, problem: Problem) -> Sides:
    """Give each statistic (V,) of the observed map, of either side."""
    z = problem.observed_z
    sides = {"voxel": (z, -z)}
    if "tfce" in analysis.settings.statistic:
        compute = TFCE.on(analysis.backend.name)
        sides["tfce"] = compute(z, problem.neighbours), compute(-z, problem.neighbours)
    if (forming := problem.forming) is not None:
        error = TIE_TOLERANCE["voxel"]
        ours, theirs = (
            cluster_statistic(side, forming.neighbours, forming.threshold, error)
            for side in (z, -z)
        )
        sides |= {s: (ours[s], theirs[s]) for s in ours}
    return sides


def _maps(
    analysis: Analysis,
    problem: Problem,
    pooled: Pooled,
    sides: Sides,
    maxima: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """All maps of the output folder, float64 where they were computed so."""
    z, tested = pooled.z.astype(np.float32), analysis.settings.test
    maps: dict[str, np.ndarray] = {
        "g": pooled.g,
        "se": pooled.se,
        "z": z,
        **({} if tested == "z" else {tested: problem.observed_z}),
        **uncorrected_maps(z),
        "tau2": pooled.tau2,
        "i2": pooled.i2,
        "h2": pooled.h2,
        "q": pooled.q,
        "mask": np.ones(len(z)),
    }
    if "tfce" in sides:
        maps["tfce"], maps["tfce_neg"] = sides["tfce"]
    for statistic in analysis.settings.statistic:
        maps |= corrected_maps(
            statistic, *sides[statistic], maxima[statistic], TIE_TOLERANCE.get(statistic, 0.0)
        )
    return maps


def _coefficients(
    analysis: Analysis, problem: Problem, clusters: dict[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Rows of tables/coefficients.tsv: all coefficients of a formula at every cluster peak."""
    found = [(name, row) for name, rows in clusters.items() for row in rows]
    if analysis.settings.formula is None or not found:
        return []
    model = analysis.design
    places = [[row[c] for c in ("x_mm", "y_mm", "z_mm")] for _, row in found]
    grid = {tuple(mm): v for v, mm in enumerate(analysis.space.mm().tolist())}
    voxels = np.array([grid[tuple(map(float, place))] for place in places])
    what = [
        (n, "coefficient", h) for n, h in zip(model.names, np.eye(len(model.names)), strict=True)
    ]
    what += [(n, "tested", h) for n, h in zip(model.tested, model.contrast, strict=True)]
    fits = coefficients(
        problem.effects[:, :, voxels], problem.terms, model.X, [h for *_, h in what], problem.tau2
    )
    return [
        {
            "threshold": name,
            "cluster": row["cluster"],
            **dict(zip(("x_mm", "y_mm", "z_mm"), place, strict=True)),
            "coefficient": label,
            "role": role,
            "estimate": float(fit.g[i]),
            "se": float(fit.se[i]),
            "z": float(fit.z[i]),
            "p_two_sided": float(2 * uncorrected_p(np.abs(fit.z[i]))),
        }
        for i, ((name, row), place) in enumerate(zip(found, places, strict=True))
        for (label, role, _), fit in zip(what, fits, strict=True)
    ]


def disk_needed(analysis: Analysis) -> int:
    """Bytes that the result of an analysis takes at most, with the checkpoints towards it."""
    dataset, notices = analysis.dataset, analysis.notices
    rows = len(dataset.studies) + sum(len(s.peaks) for s in dataset.studies)
    rows += len(notices) + len(dataset.sha256)
    return bytes_needed(analysis.settings, analysis.space, analysis.permutations, rows)


def execute(
    analysis: Analysis,
    *,
    out: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
    chunk: int | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    note: Callable[[str], None] = lambda text: None,
    memory: int | None = None,
    workers: Workers | None = None,
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
        Called with a sentence where memory runs short or a worker is lost.
    note : callable
        Called now and then with how sure the null is by now.
    memory : int, optional
        Bytes that may be used; what is free by default. What does not fit goes to files in
        OUT.partial, where an `out` is given.
    workers : Workers, optional
        Entered workers that do the permutations.

    Raises
    ------
    OutOfMemory
        If not even the files help.
    OutputError
        If `out` cannot be used; what was there stays as it was.
    """
    check_stop(analysis)
    analysis, layout = laid_out(analysis, out, memory, workers, say)
    settings, timings = analysis.settings, dict(analysis.timings)
    claim: AbstractContextManager[OutputFolder | None] = (
        nullcontext()
        if out is None
        else OutputFolder(
            out,
            settings,
            analysis.content(),
            force,
            analysis.permutations,
            space_needed=disk_needed(analysis),
            say=say,
        )
    )
    with claim as folder, limited_threads(analysis.backend):
        scratch = None if folder is None else scratch_of(analysis, layout, folder.partial)
        problem, pooled, counts = build_problem(analysis, progress, timings, scratch, say)
        sides = _observed(analysis, problem)
        rule = stop_rule(analysis, sides)
        with timed(timings, "permutations"):
            null = permute(
                problem,
                analysis.plan,
                analysis.permutations,
                settings.statistic,
                analysis.backend,
                store=folder,
                progress=lambda done: progress("permutations", done, analysis.permutations),
                say=say,
                chunk=layout.tiles * TILE if chunk is None else chunk,
                source=workers,
                decide=Watched(rule, note),
            )
            progress("permutations", null.done, null.done)
        with timed(timings, "inference"):
            maps = _maps(analysis, problem, pooled, sides, null.maxima)
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
            coefficients=_coefficients(analysis, problem, clusters),
            provenance=provenance(analysis, problem, counts, timings, atlas.notice)
            | stopped(analysis, rule, null)
            | ({"layout": asdict(layout)} if layout.slabs else {}),
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

    Examples
    --------
    >>> from gpu_sdm import Settings, read
    >>> settings = Settings(permutations=20, imputations=2, voxel_size=4, mask=mask)
    >>> result = run(read(project), settings, backend="cpu")
    >>> result.maps["z"].shape == (result.space.n_voxels,), result.maxima["tfce"].shape
    (True, (2, 20))
    """
    analysis = prepare(dataset, settings, get_backend(backend, threads), progress)
    return execute(analysis, out=None if out is None else Path(out), force=force, progress=progress)
