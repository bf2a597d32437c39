"""The grid as a graph: virtual millimetres between neighbours, and where paths start."""

from __future__ import annotations

import itertools
import math
import threading
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from gpu_sdm.spaces import SHAPES, grid_affine

# A voxel past half-way starts up to one voxel late, and a pole drowns the last of it.
POLE = 0.02


class Graph:
    """A grid whose neighbouring voxels lie a known number of virtual mm apart.

    Parameters
    ----------
    costs : (X*Y*Z, S) float32
        Virtual mm from a voxel to its neighbour at each offset; inf: no link. Voxels in Fortran
        order. No voxel on the border of the grid may have a link.
    offsets : (S, 3) int
        Half of the neighbourhood; a link serves both directions.
    voxel_size : int
        Millimetres.
    domain : (X*Y*Z,) bool
        Voxels a path may start from.
    """

    def __init__(
        self, costs: np.ndarray, offsets: np.ndarray, voxel_size: int, domain: np.ndarray
    ) -> None:
        self.voxel_size = voxel_size
        self.shape = SHAPES[voxel_size]
        self.affine = grid_affine(voxel_size)
        self.costs = np.ascontiguousarray(costs)
        self.steps = offsets @ np.array([1, self.shape[0], self.shape[0] * self.shape[1]])
        self.domain = domain
        self._local = threading.local()

    @cached_property
    def matrix(self) -> Any:
        """Sparse (X*Y*Z, X*Y*Z) matrix of both directions, for the twin."""
        from_, column = np.nonzero(np.isfinite(self.costs))
        to = from_ + self.steps[column]
        cost = self.costs[from_, column].astype(np.float64)
        ends = (np.concatenate([from_, to]), np.concatenate([to, from_]))
        n = len(self.costs)
        return sparse.coo_matrix((np.tile(cost, 2), ends), shape=(n, n)).tocsr()

    def scratch(self) -> np.ndarray:
        """(X*Y*Z,) float64 of this thread, inf everywhere; a call must leave it so."""
        if not hasattr(self._local, "distance"):
            self._local.distance = np.full(len(self.costs), np.inf)
        distance: np.ndarray = self._local.distance
        return distance

    def voxel_of(self, xyz_mm: np.ndarray) -> np.ndarray:
        """(3,) continuous voxel coordinates of a position, exact to a nanometre."""
        ijk: np.ndarray = (xyz_mm - self.affine[:3, 3]) / np.diag(self.affine)[:3]
        return np.round(ijk, 6)

    def distance_mm(self, voxels: np.ndarray, xyz_mm: np.ndarray) -> np.ndarray:
        """(n,) Euclidean millimetres from a position to voxels of the grid."""
        ijk = np.stack(np.unravel_index(voxels, self.shape, order="F"), axis=1)
        apart = (ijk - self.voxel_of(xyz_mm)) * self.voxel_size
        distance: np.ndarray = np.sqrt((apart**2).sum(axis=1))
        return distance

    def sources(self, xyz_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Voxels that surround a position, and the distance at which paths start from them.

        Parameters
        ----------
        xyz_mm : (3,) array
            MNI millimetres.

        Returns
        -------
        voxels : (n,) int64
            At most 8 full-grid indices in the domain: along each axis both neighbours of the
            position, or the one it falls on.
        start_mm : (n,) float64
            Real millimetres to the nearest of them, or to all that are equally near, which is
            SDM-PSI's rule (a peak at odd mm starts from 2, 4 or 8 voxels); more for one that
            is past half-way along an axis, ever more as the position reaches the next voxel.

        Notes
        -----
        Were every surrounding voxel to start at its real distance, 0.1 mm away from the centre
        of a voxel seven more would spring up as sources, and k change by as much as .15.
        """
        at = self.voxel_of(xyz_mm)
        corners = np.array(list(itertools.product(*({math.floor(a), math.ceil(a)} for a in at))))
        corners = corners[((corners >= 0) & (corners < self.shape)).all(axis=1)]
        voxels = corners @ np.array([1, self.shape[0], self.shape[0] * self.shape[1]])
        order = np.argsort(voxels)
        order = order[self.domain[voxels[order]]]
        apart = np.abs(corners[order] - at)  # below 1 everywhere
        past_half = np.maximum(2 * apart - 1, 0) * (1 + POLE / (1 - apart))
        start = np.sqrt((apart**2).sum(axis=1)) + past_half.sum(axis=1)
        return voxels[order], start * self.voxel_size
