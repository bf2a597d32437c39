"""What the peaks of one study add up to at each analysed voxel."""

from __future__ import annotations

import itertools

import numpy as np

from gpu_sdm.spaces import Space


class PeakSums:
    """Running sums over the peaks of one study, one value per analysed voxel."""

    def __init__(self, n_voxels: int) -> None:
        # Weights 1/D^2; weights times k; times k g; peaks right here (D = 0), and their g.
        self.w, self.wk, self.wkg, self.here, self.g = np.zeros((5, n_voxels))

    def add(self, voxels: np.ndarray, distance_mm: np.ndarray, k: np.ndarray, g: float) -> None:
        """Add a peak: the voxels it reaches, their distances, kernel weights, and its effect."""
        at_peak = distance_mm == 0
        here, far = voxels[at_peak], voxels[~at_peak]
        weight = 1 / distance_mm[~at_peak] ** 2
        self.w[far] += weight
        self.wk[far] += weight * k[~at_peak]
        self.wkg[far] += weight * k[~at_peak] * g
        self.here[here] += 1
        self.g[here] += g

    def kernel(self) -> np.ndarray:
        """Weighted mean (V,) of the kernels: 0 where no peak is in reach, 1 where one is here."""
        share = np.divide(self.wk, self.w, out=np.zeros_like(self.w), where=self.w > 0)
        share[self.here > 0] = 1
        return share

    def limits(self, b: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limit (V,) of a study whose effect at the threshold is b."""
        reached, here = self.w > 0, self.here > 0
        pull = np.divide(self.wkg, self.w, out=np.zeros_like(self.w), where=reached)
        room = b * (1 - self.kernel())
        lower, upper = pull - room, pull + room
        lower[here] = upper[here] = self.g[here] / self.here[here]  # equal D = 0 share equally
        return lower, upper


def in_mask(space: Space, xyz_mm: np.ndarray) -> np.ndarray:
    """(n,) bool whether a voxel nearest to each position is analysed (a tie: any of them)."""
    at = (xyz_mm - space.affine[:3, 3]) / np.diag(space.affine)[:3]
    found = np.zeros(len(at), bool)
    for side in itertools.product((-1e-6, 1e-6), repeat=3):
        ijk = np.rint(at + side).astype(int)
        inside = ((ijk >= 0) & (ijk < space.shape)).all(axis=1)
        found[inside] |= space.mask[tuple(ijk[inside].T)]
    return found
