"""A correlation template from one's own subjects: read, correlate, say what was left out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.checks import Interval
from gpu_sdm.environment import versions
from gpu_sdm.errors import InputError, OutputError, SpaceError
from gpu_sdm.io._nifti_file import sha256
from gpu_sdm.io.subject_maps import SubjectFile, find_images, inspect, read_maps
from gpu_sdm.io.tables import write_json
from gpu_sdm.io.volumes import read_mask, save_template
from gpu_sdm.spaces import SHAPES
from gpu_sdm.stages.template import AdjacentMoments, direction_rows, shape_of_domain
from gpu_sdm.templates import Template, default_mask, from_correlations

LEAST_SUBJECTS = 10
FEW_SUBJECTS = 30
ENDINGS = (".nii.gz", ".nii")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A template and how it came about."""

    template: Template
    report: dict[str, Any]  # fit for JSON


def sidecar(out: Path) -> Path:
    """Path of the JSON beside a template file."""
    ending = next((e for e in ENDINGS if out.name.endswith(e)), out.suffix)
    return out.with_name(out.name.removesuffix(ending) + ".json")


def check_out(out: Path, force: bool = False) -> None:
    """Raise OutputError unless a template can be written to `out`."""
    if not out.name.endswith(ENDINGS):
        raise OutputError(f"{out}: a template is a NIfTI file; end its name with .nii.gz.")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent}: there is no such folder; make it first.")
    for path in (out, sidecar(out)):
        if path.is_dir() or (path.exists() and not force):
            raise OutputError(f"{path} exists; choose another --out, or --force to replace it.")


def build_template(
    images: Sequence[Path | str],
    voxel_size: int = 2,
    *,
    mask: Path | None = None,
    min_subjects: int | None = None,
    without: Path | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Built:
    """Correlate adjacent voxels over subjects.

    Parameters
    ----------
    images : sequence of path
        Maps of subjects in MNI space: files (3-D, or 4-D with subjects last), folders, patterns.
    voxel_size : int
        2, 3 or 4 millimetres; default 2. Maps on another grid are interpolated linearly.
    mask : path, optional
        Voxels that paths may visit; default: all with data.
    min_subjects : int, optional
        Subjects with data at both voxels that a pair must have; default: all of them.
    without : path, optional
        A file that folders and patterns do not give: the one to be written.
    progress : callable, optional
        progress("subjects", done, total) after each map.
    say : callable, optional
        Told every doubt, before the work.

    Returns
    -------
    Built
        Pairs with r <= 0 are not neighbours. Voxels where data is missing (NaN, infinity, or a
        background of zeros) or does not vary are left out and counted.

    Raises
    ------
    InputError
        If an image cannot be used, or there are fewer than 10 maps.
    SettingError
        If `min_subjects` does not lie between 10 and the number of maps.
    SpaceError
        If an image does not overlap the grid or the mask, or no voxel is linked.

    Notes
    -----
    Pearson's r over subjects in each of the 13 directions of `gpu_sdm.templates.OFFSETS`,
    accumulated in float64. One map is held at a time: memory does not grow with their number.

    References
    ----------
    .. [1] Radua et al. 2014, Front Psychiatry 5:13.
    """
    files = [inspect(path) for path in find_images(images, without)]
    subjects = sum(f.maps for f in files)
    if subjects < LEAST_SUBJECTS:
        raise InputError(
            f"{subjects} map(s) of subjects were given; a correlation over subjects needs at "
            f"least {LEAST_SUBJECTS}, better {FEW_SUBJECTS} or more."
        )
    least = subjects if min_subjects is None else min_subjects
    Interval(LEAST_SUBJECTS, subjects, integer=True).check("min-subjects", least)
    inside = np.ones(SHAPES[voxel_size], bool) if mask is None else read_mask(mask, voxel_size)
    warnings = _doubts(files, subjects, voxel_size)
    if say is not None:
        for sentence in warnings:
            say(sentence)
    block = _block(inside)
    moments = AdjacentMoments(inside[block].shape)
    for done, values in enumerate(_checked(files, inside, voxel_size), 1):
        moments.add(values[block])
        if progress is not None:
            progress("subjects", done, subjects)

    pairs = moments.correlations(least)
    r = np.zeros((*inside.shape, pairs.shape[-1]))
    r[block] = np.where(pairs > 0, pairs, 0)
    try:
        template = from_correlations(r, voxel_size)
    except SpaceError as error:
        raise SpaceError(
            f"No two adjacent voxels have data in {least} maps and a positive correlation; "
            "check that the maps lie in MNI space, or lower --min-subjects."
        ) from error
    covered, varies = moments.coverage, moments.varies()
    linked = int(template.domain.sum())
    report = {
        "program": "gpu-sdm template build",
        "versions": versions(),
        "voxel_size": voxel_size,
        "subjects": subjects,
        "min_subjects": least,
        "mask": None if mask is None else {"file": str(mask), "sha256": sha256(mask)},
        "voxels": {
            "looked_at": int(inside.sum()),
            "no_data_at_all": int((inside[block] & (covered == 0)).sum()),
            "left_out_for_missing_data": int(((covered > 0) & (covered < least)).sum()),
            "left_out_for_no_variance": int(((covered >= least) & ~varies).sum()),
            "left_out_without_neighbour": int(((covered >= least) & varies).sum()) - linked,
            "linked": linked,
        },
        "pairs_with_r_not_positive": int((pairs <= 0).sum()),
        "domain": shape_of_domain(template, default_mask(voxel_size) if mask is None else inside),
        "directions": direction_rows(template),
        "warnings": warnings,
        "images": [
            {
                "file": str(f.path),
                "sha256": f.sha256,
                "maps": f.maps,
                "interpolated": not f.same_grid(voxel_size),
            }
            for f in files
        ],
    }
    return Built(template, report)


def write_template(built: Built, out: Path) -> None:
    """Write a template for `--template`, and beside it how it came about as JSON.

    Raises
    ------
    OutputError
        If a file cannot be written; no part of it is left.
    """
    save_template(built.template, out)
    written = {"template": {"file": out.name, "sha256": sha256(out)}}
    write_json(sidecar(out), built.report | written)


def _block(inside: np.ndarray) -> tuple[slice, ...]:
    """Smallest block of the grid that holds a mask: the moments need no more."""
    ends = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(e[0]), int(e[-1]) + 1) for e in ends)


def _doubts(files: Sequence[SubjectFile], subjects: int, voxel_size: int) -> list[str]:
    found = []
    moved = [f for f in files if not f.same_grid(voxel_size)]
    if moved:
        found.append(
            f"{len(moved)} of {len(files)} files do not lie on the {voxel_size} mm analysis grid "
            f"and are taken to it by linear interpolation; the first is {moved[0].path}."
        )
    coarse = [f for f in moved if f.step_mm() > 1.05 * voxel_size]
    if coarse:
        found.append(
            f"{len(coarse)} files have voxels of {coarse[0].step_mm():.3g} mm, larger than the "
            f"grid's {voxel_size}: neighbours interpolated from the same voxels correlate more "
            "than data would; take a larger --voxel-size."
        )
    if subjects < FEW_SUBJECTS:
        error = (1 - 0.8**2) / math.sqrt(subjects - 1)
        found.append(
            f"{subjects} subjects are few: where r is .8 its sampling error is {error:.2f}, and "
            f"such errors shorten the paths; {FEW_SUBJECTS} or more are better."
        )
    return found


def _checked(
    files: Sequence[SubjectFile], inside: np.ndarray, voxel_size: int
) -> Iterator[np.ndarray]:
    """Every map, NaN out of the mask; raise where one is empty, constant or a repetition."""
    seen: dict[bytes, str] = {}
    for file in files:
        for i, values in enumerate(read_maps(file, voxel_size)):
            name = f"{file.path}, map {i + 1}" if file.stacked else str(file.path)
            values[~inside] = np.nan
            there = values[np.isfinite(values)]
            if not there.size:
                raise SpaceError(
                    f"{name}: there is no data (other than 0 and NaN) in the mask on the "
                    f"{voxel_size} mm analysis grid; is it in MNI space?"
                )
            if there.size > 1 and np.ptp(there) <= 1e-6 * np.abs(there).max():
                raise InputError(f"the map is constant ({there[0]:g}); leave it out.", name)
            digest = hashlib.sha256(there.tobytes()).digest()
            if digest in seen:
                raise InputError(f"holds the same values as {seen[digest]}; leave one out.", name)
            seen[digest] = name
            yield values
