"""The correlation template: how far apart neighbouring voxels are in virtual millimetres.

SDM-PSI's own template is not public. An eight-parameter covariance over the MNI152 grey-matter
map that nilearn packages stands in for it; `--template` replaces it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
from scipy import ndimage

from gpu_sdm import cache
from gpu_sdm.errors import SpaceError
from gpu_sdm.spaces import SHAPES, grid_affine

# Half of the 26-neighbourhood, in voxels of the grid (x index up = x mm down), lexicographic:
# (0,0,1) (0,1,-1) (0,1,0) (0,1,1) (1,-1,-1) (1,-1,0) ... (1,1,1). The other half is its mirror.
OFFSETS = np.array([o for o in itertools.product((-1, 0, 1), repeat=3) if o > (0, 0, 0)])

REFERENCE_FWHM = 20.0
# Virtual mm per unit of sqrt(ln(1/r)): sigma sqrt(2) at the reference width.
MM_PER_UNIT = math.sqrt(2) * REFERENCE_FWHM / math.sqrt(8 * math.log(2))
# Neighbours are never nearer than 0.012 mm nor farther than 31.6: keeps every cost positive.
R_MIN, R_MAX = 1e-3, 1 - 1e-6

_BASE_MM = 2  # anatomy is smoothed on this grid, then sampled on the analysis grid
_VALUES = {3.0: 2.7206, 6.0: 3.5151}  # sigma in mm -> weight of the smoothed grey matter
_GRADIENT_SIGMA_MM, _GRADIENT_WEIGHT = 6.0, 21.714
_DAMPING = (0.07609, 0.04453, 0.13732)  # per mm: constant, values, gradient
_STRETCH = np.array([1.0, 0.85332, 0.92326])  # relative weight of squared x, y, z steps
_DOMAIN_SIGMA_MM, _DOMAIN_MIN = 2.0, 0.05
_MASK_SIGMA_MM, _MASK_MIN = 5.0, 0.33


@dataclass(frozen=True, eq=False)
class Template:
    """Distances between neighbouring voxels of the whole grid.

    Parameters
    ----------
    voxel_size : int
        2, 3 or 4 millimetres.
    costs : (X*Y*Z, 13) float32
        Virtual mm, at the reference width of 20 mm, from each voxel to its neighbour at
        `OFFSETS`; inf where either lies outside the domain. Voxels in Fortran order (x fastest),
        as `Space.index`.
    """

    voxel_size: int
    costs: np.ndarray

    def __post_init__(self) -> None:
        self.costs.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid shape (X, Y, Z)."""
        return SHAPES[self.voxel_size]

    @cached_property
    def domain(self) -> np.ndarray:
        """(X*Y*Z,) bool voxels that paths may visit, Fortran order."""
        linked = np.isfinite(self.costs)
        domain: np.ndarray = linked.any(axis=1)
        for step, ahead in zip(index_steps(self.shape), linked.T, strict=True):
            domain |= np.roll(ahead, step)  # never wraps: the border of the grid has no links
        domain.flags.writeable = False
        return domain

    def r(self) -> np.ndarray:
        """(X, Y, Z, 13) float32 correlation with the neighbour at `OFFSETS`; 0 off the domain."""
        return np.stack(
            [correlations(c).reshape(self.shape, order="F") for c in self.costs.T], axis=-1
        )

    @cached_property
    def r_face(self) -> np.ndarray:
        """(X*Y*Z, 3) float32 correlation with the -x, -y and -z neighbour; 0 off the domain."""
        faces = np.zeros((len(self.costs), 3), np.float32)
        for axis, step in enumerate(index_steps(self.shape, np.eye(3, dtype=int))):
            column = int(np.flatnonzero((np.eye(3, dtype=int)[axis] == OFFSETS).all(axis=1))[0])
            faces[step:, axis] = correlations(self.costs[:-step, column])
        faces.flags.writeable = False
        return faces

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256(f"template {self.voxel_size}".encode())
        sha.update(np.ascontiguousarray(self.costs).data)
        return sha.hexdigest()

    def digest(self) -> str:
        """Content hash."""
        return self._digest


def index_steps(shape: tuple[int, int, int], offsets: np.ndarray = OFFSETS) -> np.ndarray:
    """(n,) int difference of Fortran-order index between a voxel and its neighbours at offsets."""
    steps: np.ndarray = offsets @ np.array([1, shape[0], shape[0] * shape[1]])
    return steps


def costs_of(r: np.ndarray) -> np.ndarray:
    """Virtual mm between neighbours of correlation r, float32; inf where r is 0 or less."""
    linked = r > 0
    clipped = np.clip(r, R_MIN, R_MAX, dtype=np.float64)
    return np.where(linked, MM_PER_UNIT * np.sqrt(-np.log(clipped)), np.inf).astype(np.float32)


def correlations(costs: np.ndarray) -> np.ndarray:
    """Correlation of neighbours at this many virtual mm, float32; 0 where inf."""
    return np.exp(-((costs.astype(np.float64) / MM_PER_UNIT) ** 2)).astype(np.float32)


def from_correlations(r: np.ndarray, voxel_size: int) -> Template:
    """Template from correlations of neighbouring voxels.

    Parameters
    ----------
    r : (X, Y, Z, 13) array
        Correlation of each voxel with its neighbour at `OFFSETS`; 0 or less: not neighbours.
    voxel_size : int
        2, 3 or 4 millimetres.

    Returns
    -------
    Template
        Voxels on the border of the grid are left out, so that no path wraps around.

    Raises
    ------
    SpaceError
        If the shape is not that of the grid, a value is NaN or above 1, or no voxel has a
        neighbour.
    """
    shape = SHAPES[voxel_size]
    if r.shape != (*shape, len(OFFSETS)):
        raise SpaceError(
            f"The template has shape {r.shape}; at {voxel_size} mm it must have "
            f"{(*shape, len(OFFSETS))}: the correlations with {len(OFFSETS)} neighbours."
        )
    bad = ~(r <= 1 + 1e-6)
    if bad.any():
        where = np.argwhere(bad)[0]
        x, y, z = grid_affine(voxel_size)[:3] @ np.append(where[:3], 1)
        raise SpaceError(
            f"The template holds {r[tuple(where)]} at MNI ({x:g}, {y:g}, {z:g}), map "
            f"{where[3] + 1}; correlations must not exceed 1 nor be NaN."
        )
    inner = np.zeros(shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    costs = np.empty((int(np.prod(shape)), len(OFFSETS)), np.float32)
    for column, offset in enumerate(OFFSETS):
        both = inner & np.roll(inner, tuple(-offset), (0, 1, 2))
        costs[:, column] = costs_of(np.where(both, r[..., column], 0)).ravel(order="F")
    if not np.isfinite(costs).any():
        raise SpaceError("The template links no voxel to a neighbour: every correlation is 0.")
    return Template(voxel_size, costs)


def default_template(voxel_size: int) -> Template:
    """Build the template from packaged anatomy, or take it from the cache.

    Parameters
    ----------
    voxel_size : int
        2, 3 or 4 millimetres; scales of the model are in mm, whatever the grid.

    Notes
    -----
    r = K(u,v) / sqrt(K(u,u) K(v,v)), with K a sum of damped inner products of smoothed grey
    matter and of its gradient; fitted to bound maps of a public SDM-PSI run. On 25 studies not
    used to fit it, the summed kernels correlate .94 with SDM-PSI's. Coarser grids sample the
    features of the 2 mm grid, so that the field is the same one.
    """
    entry = cache.key("template", voxel_size, _model(), metadata.version("nilearn"))

    def make() -> dict[str, np.ndarray]:
        return {"costs": from_correlations(_model_correlations(voxel_size), voxel_size).costs}

    return Template(voxel_size, cache.kept("template", entry, make)["costs"])


def default_mask(voxel_size: int) -> np.ndarray:
    """(X, Y, Z) bool analysis mask: grey matter smoothed by 5 mm above .33; cached.

    At 2 mm it holds 194,192 voxels and overlaps SDM-PSI's own with a Dice of .925.
    """
    entry = cache.key("mask", voxel_size, _MASK_SIGMA_MM, _MASK_MIN, metadata.version("nilearn"))

    def make() -> dict[str, np.ndarray]:
        smooth = _sample(_smooth(_grey_matter(), _MASK_SIGMA_MM), voxel_size)
        return {"mask": smooth > _MASK_MIN}

    return cache.kept("mask", entry, make)["mask"]


def _model() -> str:
    values = (_VALUES, _GRADIENT_SIGMA_MM, _GRADIENT_WEIGHT, _DAMPING, _STRETCH.tolist())
    return repr((values, _DOMAIN_SIGMA_MM, _DOMAIN_MIN, R_MIN, R_MAX, _BASE_MM))


def _grey_matter() -> np.ndarray:
    """MNI152 grey matter on the 2 mm grid, from nilearn's package: nothing is downloaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn's, about versions to come
        from nilearn.datasets import load_mni152_gm_template

        image = load_mni152_gm_template(resolution=1)
    data = np.asarray(image.get_fdata())
    to_image = np.linalg.inv(image.affine) @ grid_affine(_BASE_MM)
    return ndimage.affine_transform(
        data, to_image[:3, :3], to_image[:3, 3], output_shape=SHAPES[_BASE_MM], order=1
    )


def _smooth(volume: np.ndarray, sigma_mm: float, order: Any = 0) -> np.ndarray:
    return ndimage.gaussian_filter(volume, sigma_mm / _BASE_MM, order=order)


def _sample(volume: np.ndarray, voxel_size: int, order: Any = 1) -> np.ndarray:
    """Values of a 2 mm volume at the voxels of the analysis grid (same first voxel, same axes)."""
    if voxel_size == _BASE_MM:
        return volume
    scale = np.full(3, voxel_size / _BASE_MM)
    shape = SHAPES[voxel_size]
    return ndimage.affine_transform(volume, scale, output_shape=shape, order=order, mode="nearest")


def _domain(grey: np.ndarray, voxel_size: int) -> np.ndarray:
    inside = _smooth(grey, _DOMAIN_SIGMA_MM) > _DOMAIN_MIN
    wide = ndimage.binary_dilation(inside, np.ones((3, 3, 3), bool))
    return _sample(wide.astype(np.uint8), voxel_size, order=0) > 0


def _model_correlations(voxel_size: int) -> np.ndarray:
    """(X, Y, Z, 13) float32 correlations of the model; 0 off its domain."""
    grey = _grey_matter()
    # (weight, damping, channels): channels of one term are multiplied voxel by voxel and summed.
    terms = [(weight, _DAMPING[1], [_smooth(grey, sigma)]) for sigma, weight in _VALUES.items()]
    per_sigma = _GRADIENT_SIGMA_MM / _BASE_MM  # the gradient is per 2 mm
    gradient = [
        per_sigma * _smooth(grey, _GRADIENT_SIGMA_MM, order=tuple(axis))
        for axis in np.eye(3, dtype=int).tolist()
    ]
    terms.append((_GRADIENT_WEIGHT, _DAMPING[2], gradient))
    terms = [
        (w, length, [_sample(c, voxel_size) for c in channels]) for w, length, channels in terms
    ]
    own = 1 + sum(w * sum(c**2 for c in channels) for w, _, channels in terms)
    domain = _domain(grey, voxel_size)
    r = np.zeros((*domain.shape, len(OFFSETS)), np.float32)
    for column, offset in enumerate(OFFSETS):
        back = tuple(-offset)
        q = voxel_size**2 * float(offset**2 @ _STRETCH)  # mm^2
        shared = np.full(domain.shape, math.exp(-q * _DAMPING[0] ** 2))
        for weight, length, channels in terms:
            product = sum(c * np.roll(c, back, (0, 1, 2)) for c in channels)
            shared += weight * math.exp(-q * length**2) * product
        value = np.clip(shared / np.sqrt(own * np.roll(own, back, (0, 1, 2))), R_MIN, R_MAX)
        r[..., column] = np.where(domain & np.roll(domain, back, (0, 1, 2)), value, 0)
    return r
