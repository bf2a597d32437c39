"""A study's statistical map as Hedges g on the analysis grid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gpu_sdm.data import ImageFile, Notice, StudyTerms
from gpu_sdm.errors import InputError
from gpu_sdm.io._nifti_file import read_data, read_header
from gpu_sdm.io._text import LARGEST_T, shown
from gpu_sdm.io.images import KINDS
from gpu_sdm.spaces import Space
from gpu_sdm.statistics import t_of_z

HOLE = 8  # voxels; fewer zeros in one place are values that happen to be 0
HALF = 0.5 - 1e-9  # least share of what is interpolated that must be there
PICKED = 1e-4  # voxels; centres this close coincide
VARIANCE_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class StudyMap:
    """A study's map on the analysis mask, and what is needed to judge it."""

    g: np.ndarray  # (V,) float32 Hedges g; NaN where the image has no data
    least_t: float  # smallest |t| of the voxels with data
    low: float  # smallest and largest value as stored
    high: float
    variance_ratio: float  # median of given / from n; NaN where no variance is given

    def __post_init__(self) -> None:
        self.g.flags.writeable = False


def has_data(values: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool where a map holds data.

    Not where it is not finite, nor where its zeros are its background: 8 or more face-connected
    voxels, or any at the image's edge. Maps rounded to a few digits hold true zeros; these lie
    alone.
    """
    with_data: np.ndarray = np.isfinite(values)
    label, count = ndimage.label(values == 0)
    if count:
        background = np.bincount(label.ravel(), minlength=count + 1) >= HOLE
        for axis in range(3):
            for end in (0, -1):
                background[np.unique(np.take(label, end, axis))] = True
        background[0] = False
        with_data &= ~background[label]
    return with_data


def positions(affine: np.ndarray, space: Space) -> np.ndarray:
    """(3, V) where the analysed voxels lie in an image of that affine, in its voxels."""
    to_image = np.linalg.inv(affine) @ space.affine
    at = to_image[:3, :3] @ space.ijk().T + to_image[:3, 3:]
    whole = np.rint(at)
    # Coinciding centres take the value itself, not a mixture by the last bits of an inverse.
    picked: np.ndarray = np.where(np.abs(at - whole) < PICKED, whole, at)
    return picked


def resampling(image: ImageFile, space: Space) -> str:
    """Say how an image comes to the analysis grid: "none", "voxels picked" or "linear"."""
    if image.shape == space.shape and np.allclose(image.affine, space.affine, atol=1e-3):
        return "none"
    at = positions(image.affine, space)
    return "voxels picked" if (at == np.rint(at)).all() else "linear"


def read_study_map(image: ImageFile, space: Space, terms: StudyTerms) -> StudyMap:
    """Read a study's map as Hedges g on the analysis mask.

    Parameters
    ----------
    image : ImageFile
        From `inspect_image`.
    space : Space
        Grid and mask.
    terms : StudyTerms
        Constants of this one study, each (1,).

    Returns
    -------
    StudyMap

    Raises
    ------
    InputError
        If the data cannot be read, cover no voxel of the mask or are no such statistic.

    Notes
    -----
    g, not the statistic, is interpolated linearly between the 8 surrounding voxels; those without
    data count neither in the value nor in its weight, and where they make up more than half the
    voxel is missing.
    """
    values = read_data(image.path, read_header(image.path))
    there = has_data(values)
    given = None
    if image.companion is not None:
        given = read_data(image.companion, read_header(image.companion))
        with np.errstate(invalid="ignore"):
            there &= np.isfinite(given) & (given > 0)
    at = positions(image.affine, space)
    needed = _needed(at, image.shape) & there
    if not needed.any():
        raise InputError(
            "holds no data in the analysis mask, only 0, NaN or nothing; give the whole map in MNI "
            "space.",
            image.path,
        )
    stored = values[needed]
    beside = None if given is None else given[needed].astype(np.float64)
    g = _hedges_g(stored.astype(np.float64), beside, image, terms)
    least, most = np.abs(g).min(), np.abs(g).max()
    unit = float(terms.j[0] * np.sqrt(terms.c[0]))
    if not most <= LARGEST_T * unit:
        raise InputError(
            f"amounts to |t| = {most / unit:.4g}, which is no {KINDS[image.kind]} of a study of "
            f"{int(terms.n1[0] + terms.n2[0])} subjects; correct the file, or what it holds in "
            "the table's column image.",
            image.path,
        )
    on_mask = interpolated(g, needed, at)
    if not np.isfinite(on_mask).any():
        raise InputError("holds data for less than half of every voxel of the mask.", image.path)
    ratio = np.nan
    if beside is not None and image.kind != "contrast":
        scale = terms.j[0] ** 2 if image.kind == "d" else 1.0
        ratio = float(np.median(scale * beside / (terms.c[0] + terms.v2[0] * g**2)))
    return StudyMap(
        on_mask.astype(np.float32),
        float(least) / unit,
        float(stored.min()),
        float(stored.max()),
        ratio,
    )


def _hedges_g(
    x: np.ndarray, beside: np.ndarray | None, image: ImageFile, terms: StudyTerms
) -> np.ndarray:
    j, unit = terms.j[0], terms.j[0] * np.sqrt(terms.c[0])
    n1, n2 = terms.n1[0], terms.n2[0]
    g = x
    if image.kind == "d":
        g = j * x
    elif image.kind == "z":
        g = unit * t_of_z(x, n1 + n2 - 2 if n2 else n1 - 1)
    elif image.kind == "contrast" and beside is not None:
        g = unit * x / beside
    elif image.kind != "g":
        g = unit * x
    return g


def _needed(at: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(X, Y, Z) bool: the image's voxels that any analysed voxel is interpolated from."""
    needed = np.zeros(shape, bool)
    low = np.floor(at).astype(np.int64)
    for corner in itertools.product((0, 1), repeat=3):
        ijk = low + np.array(corner)[:, None]
        used = ((ijk >= 0) & (ijk < np.array(shape)[:, None])).all(axis=0)
        # A voxel centre on a plane has no weight beyond it.
        used &= ~((at == low) & (np.array(corner)[:, None] == 1)).any(axis=0)
        needed[tuple(ijk[:, used])] = True
    return needed


def interpolated(values: np.ndarray, there: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate linearly between the voxels that have data.

    Parameters
    ----------
    values : (n,) float
        Those of the voxels with data, in the order of the image.
    there : (X, Y, Z) bool
        Which these are.
    at : (3, V) float
        Where, from `positions`.

    Returns
    -------
    (V,) float64
        NaN where under half of the weight lies on voxels with data.
    """
    volume = np.zeros(there.shape)

    def here() -> np.ndarray:
        return ndimage.map_coordinates(volume, at, order=1, mode="grid-constant", cval=0.0)

    volume[there] = 1
    share = here()
    volume[there] = values
    missing = share < HALF
    return np.where(missing, np.nan, here() / np.where(missing, 1.0, share))


def image_doubts(study: str, image: ImageFile, found: StudyMap, space: Space) -> list[Notice]:
    """Name what a user should know of a study's map.

    Kinds `image_resampled`, `image_missing_voxels`, `image_thresholded`, `image_not_statistic`,
    `image_variance_differs`.
    """
    doubts, name = [], image.path.name

    def add(kind: str, text: str) -> None:
        doubts.append(Notice(kind, f"{name}: {text}"))

    if resampling(image, space) == "linear":
        add(
            "image_resampled",
            f"{image.grid}; g was interpolated linearly onto the {space.voxel_size} mm grid.",
        )
    missing = int(np.isnan(found.g).sum())
    if missing:
        add(
            "image_missing_voxels",
            f"{missing:,} of {len(found.g):,} voxels of the mask have no data; there the effect of "
            f"study {shown(study)} is unknown, not 0.",
        )
    if found.least_t > 1:
        add(
            "image_thresholded",
            f"no |t| is below {found.least_t:.3g}, so the map looks thresholded: what it lacks "
            "would be taken as unknown; use the map before thresholding, or its peaks.",
        )
    if image.kind in ("t", "z") and found.low >= 0 and found.high <= 1:
        add(
            "image_not_statistic",
            f"all values lie in [{found.low:.3g}, {found.high:.3g}]; is it a map of p and not of "
            f"{image.kind}?",
        )
    if abs(found.variance_ratio - 1) > VARIANCE_TOLERANCE:
        add(
            "image_variance_differs",
            f"its variance is {found.variance_ratio:.3g} times (median) that of the n in the "
            "table, which is used; check n and the kind of effect.",
        )
    return doubts
