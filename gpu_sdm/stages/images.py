"""Effects of the studies that supply a whole map, the mask that all cover, what is known of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gpu_sdm import cache
from gpu_sdm.config import Settings
from gpu_sdm.data import Bounds, Dataset, ImageFile, Notice, Study
from gpu_sdm.errors import InputError
from gpu_sdm.io.image_effects import StudyMap, image_doubts, read_study_map
from gpu_sdm.io.nifti import write_map
from gpu_sdm.io.volumes import load_space
from gpu_sdm.spaces import Space
from gpu_sdm.stages.effects import study_terms

# A part of the key of cached effects: raise it whenever the numbers change.
CODE_VERSION = "images 1"

Progress = Callable[[int, int], None]


def _effects(study: Study, image: ImageFile, space: Space) -> StudyMap:
    """Read the map of one study, cached by content."""
    terms = study_terms([study])
    entry = cache.key(
        "image", CODE_VERSION, image.digest, image.kind, space.digest(), study.n1, study.n2
    )
    stored = cache.load("image", entry)
    if stored is not None and set(stored) == {"g", "facts"}:
        return StudyMap(stored["g"], *stored["facts"].tolist())
    found = read_study_map(image, space, terms)
    facts = np.array([found.least_t, found.low, found.high, found.variance_ratio])
    cache.store("image", entry, g=found.g, facts=facts)
    return found


def image_effects(
    studies: Sequence[Study],
    space: Space,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Hedges g of studies with images on the analysis mask.

    Parameters
    ----------
    studies : sequence of Study
        K studies, each with an image.
    space : Space
        Grid and mask.
    threads : int, optional
        Images read at once; the result does not depend on it.
    progress : callable, optional
        progress(images done, all images).

    Returns
    -------
    g : (K, V) float32
        NaN where an image has no data.
    notices : tuple of Notice
        As `gpu_sdm.io.image_effects.image_doubts` gives them, in the order of studies.

    Raises
    ------
    InputError
        If an image cannot be read or is not what the table says.
    """
    pairs = [(s, s.image) for s in studies if s.image is not None]
    g = np.empty((len(pairs), space.n_voxels), np.float32)
    notices: list[Notice] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        found = pool.map(lambda pair: _effects(pair[0], pair[1], space), pairs)
        for k, ((study, image), one) in enumerate(zip(pairs, found, strict=True)):
            g[k] = one.g
            notices += image_doubts(study.name, image, one, space)
            if progress is not None:
                progress(k + 1, len(pairs))
    return g, tuple(notices)


def known_notices(
    bounds: Bounds, studies: Sequence[Study], settings: Settings
) -> tuple[Notice, ...]:
    """Say that nothing is imputed, or what keeps an analysis of images alone from that.

    Parameters
    ----------
    bounds : Bounds
        Of the studies, (K, V).
    studies : sequence of Study
        Those of the model; nothing is said where one of them has no image.
    settings : Settings
        Their imputations are what is saved.
    """
    if any(s.image is None for s in studies):
        return ()
    v = bounds.lower.shape[1]
    gaps = int(np.isinf(bounds.lower).any(axis=0).sum())
    if not gaps:
        text = f"every effect is known: 1 imputation in place of {settings.imputations}."
        return (Notice("one_imputation", text),)
    text = f"{gaps:,} of {v:,} voxels have no data in at least one image, so {settings.imputations}"
    text += " imputations are drawn; a mask of the others needs one and is as many times faster"
    text += " (gpu_sdm.stages.images.write_covered_mask)."
    return (Notice("image_gaps", text),)


def write_covered_mask(dataset: Dataset, path: Path | str, settings: Settings) -> int:
    """Write a mask of the voxels that the images of all studies cover.

    An analysis of images alone in such a mask imputes nothing.

    Parameters
    ----------
    dataset : Dataset
        From `gpu_sdm.read`; studies with peaks do not count.
    path : path
        Where; ends with .nii.gz.
    settings : Settings
        Its voxel size and mask, of which a part is taken.

    Returns
    -------
    int
        Number of voxels.

    Raises
    ------
    InputError
        If no study has an image, or there is no voxel that all cover.
    OutputError
        If the file cannot be written.

    Examples
    --------
    `images` is a project whose studies have maps.

    >>> from gpu_sdm import Settings, read
    >>> settings = Settings(voxel_size=4, mask=mask)
    >>> write_covered_mask(read(images), folder / "covered.nii.gz", settings) > 0
    True
    """
    space = load_space(settings)
    studies = [s for s in dataset.studies if s.image is not None]
    if not studies:
        raise InputError("no study has an image (STUDY.nii.gz).", dataset.path)
    covered = np.isfinite(image_effects(studies, space)[0]).all(axis=0)
    if not covered.any():
        raise InputError("no voxel of the mask is covered by the images of all.", dataset.path)
    write_map(Path(path), covered, space, description="Voxels that all images cover")
    return int(covered.sum())
