"""The folds of a jackknife: an analysis without one study, made once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from gpu_sdm.analysis import Analysis, Progress
from gpu_sdm.data import Bounds, Dataset, Pooled
from gpu_sdm.errors import CheckpointMismatch, OutputError, SettingError
from gpu_sdm.findings.refit import everywhere
from gpu_sdm.io.nifti import read_map, write_named_map
from gpu_sdm.io.tables import new_folder, stored_json, write_json
from gpu_sdm.output import describe_difference
from gpu_sdm.pipeline import execute
from gpu_sdm.stages.bounds import PeakReach, peak_notices
from gpu_sdm.stages.design import Design
from gpu_sdm.stages.effects import study_terms
from gpu_sdm.stages.linear_model import model_of
from gpu_sdm.stages.samples import contrasts_of

MARK = "gpu-sdm jackknife"
MAPS = tuple(f.name for f in fields(Pooled))  # of every fold


def model_without(analysis: Analysis, study: str) -> tuple[Dataset, Design]:
    """Give the studies and the model that are left without one study.

    Raises
    ------
    SettingError
        If it is not in the model, or too few studies are left.
    """
    names = analysis.design.dataset.names
    if study not in names:
        raise SettingError(f"study {study!r} is not in the model; it has: {', '.join(names)}.")
    model = analysis.design.dataset
    gone = {c.name for c in contrasts_of([s for s in model.studies if s.name == study])}
    left = [s.name for s in analysis.dataset.studies if s.name not in gone]
    # Its own identity: a result of these studies is not one of the files' whole table.
    content = {**analysis.dataset.sha256, "without": study}
    dataset = replace(analysis.dataset.subset(left), sha256=content)
    try:
        return dataset, model_of(dataset, analysis.settings)
    except SettingError as exc:
        raise SettingError(f"without study {study!r} {exc}") from exc


def without(analysis: Analysis, study: str) -> Analysis:
    """Leave one study out of an analysis; the bounds of the others are taken over.

    Parameters
    ----------
    analysis : Analysis
        From `prepare` or `Finished.analysis`.
    study : str
        Which study to leave out.

    Raises
    ------
    SettingError
        If it is not in the model, or too few studies are left.

    Notes
    -----
    Bounds of a study depend on its own peaks only, draws on its name: the result is, bit for bit,
    that of a project without this row.
    """
    dataset, model = model_without(analysis, study)
    names = analysis.design.dataset.names
    rows = np.array([i for i, name in enumerate(names) if name != study])
    reach, doubts = None, model.dataset.notices
    if analysis.reach is not None:
        owners = np.repeat(
            np.arange(len(names)), [len(s.parts) for s in analysis.design.dataset.studies]
        )
        contrasts = np.flatnonzero(np.isin(owners, rows))
        keep = np.isin(analysis.reach.study, contrasts)
        reach = PeakReach(
            np.searchsorted(contrasts, analysis.reach.study[keep]).astype(np.int32),
            analysis.reach.peak[keep],
            analysis.reach.in_mask[keep],
            analysis.reach.reached[keep],
        )
        as_read = replace(model.dataset, studies=contrasts_of(model.dataset.studies))
        doubts += peak_notices(as_read, reach)
    left_out = replace(
        analysis,
        dataset=dataset,
        design=model,
        bounds=Bounds(analysis.bounds.lower[rows], analysis.bounds.upper[rows]),
        reach=reach,
        terms=study_terms(model.dataset.studies),
        notices=doubts,
        timings={},
    )
    return left_out.with_permutations(analysis.settings.permutations)


def claim(folder: Path, analysis: Analysis) -> None:
    """Begin work in a folder, or go on with that of the same analysis.

    Raises
    ------
    CheckpointMismatch
        If it holds folds of another analysis.
    OutputError
        If it holds something else, or cannot be written.
    """
    stored = stored_json(folder / "jackknife.json")
    if stored.get("program") == MARK:
        difference = describe_difference(analysis.settings, analysis.content(), stored)
        if difference:
            raise CheckpointMismatch(
                f"{folder} holds folds of another analysis ({difference}); remove it or choose "
                "another --out."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and holds no jackknife; choose another --out.")
    identity = {"settings": analysis.settings.as_dict(), "content": analysis.content()}
    write_json(new_folder(folder) / "jackknife.json", {"program": MARK} | identity)


def plain_fold(analysis: Analysis, folder: Path, progress: Progress) -> dict[str, np.ndarray]:
    """Estimate, impute and pool a fold without permutations, unless its folder has it.

    Parameters
    ----------
    analysis : Analysis
        From `without`.
    folder : path
        Of this fold.
    progress : callable
        Called with (stage, done, total).

    Returns
    -------
    dict of str to (V,) float32
        `g se z tau2 i2 h2 q`.
    """
    content = analysis.content()
    stored = stored_json(folder / "fold.json")
    if stored and not describe_difference(analysis.settings, content, stored):
        return {name: read_map(folder / f"{name}.nii.gz", analysis.space) for name in MAPS}
    pooled, not_converged = everywhere(analysis, progress)
    maps = {name: np.asarray(getattr(pooled, name), np.float32) for name in MAPS}
    new_folder(folder)
    for name, values in maps.items():
        write_named_map(folder, name, values, analysis.space)
    identity = {"settings": analysis.settings.as_dict(), "content": content}
    # Last: what it stands beside is whole.
    write_json(folder / "fold.json", identity | {"voxels_not_converged": not_converged})
    return maps


def permuted_fold(
    analysis: Analysis,
    permutations: int,
    folder: Path,
    progress: Progress,
    say: Callable[[str], None],
) -> dict[str, np.ndarray]:
    """Run a fold with its own permutations, unless its folder has as many.

    Parameters
    ----------
    analysis : Analysis
        From `without`.
    permutations : int
        Number of permutations.
    folder : path
        Of this fold; becomes a result folder like any other, continued where it was interrupted.
    progress : callable
        Called with (stage, done, total).
    say : callable
        Called with a sentence where a device runs short of memory.

    Returns
    -------
    dict of str to (V,) float32
        `g se z tau2 i2 h2 q` and the corrected p maps of both sides.
    """
    analysis = analysis.with_permutations(permutations)
    stored = stored_json(folder / "run.json")
    finished = (
        bool(stored)
        and not describe_difference(analysis.settings, analysis.content(), stored)
        and stored["settings"]["permutations"] >= permutations
    )
    if not finished:
        execute(analysis, out=folder, progress=progress, say=say)
    corrected = [f"p_fwe_{s.replace('-', '_')}" for s in analysis.settings.statistic]
    names = [*MAPS, *corrected, *(f"{name}_neg" for name in corrected)]
    return {name: read_map(folder / "maps" / f"{name}.nii.gz", analysis.space) for name in names}
