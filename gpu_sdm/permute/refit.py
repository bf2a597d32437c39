"""Permutations of the data themselves: bounds are exchanged and everything after is done again.

Where effects are censored, exchanging imputed effects permutes what the observed likelihood has
already made agree, and the observed map is then not one of the permuted ones. Here the sign of a
whole study, or the places of its peaks, change before the likelihood and the imputation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_sdm.backend import Backend
from gpu_sdm.config import Settings
from gpu_sdm.data import Bounds, Study, StudyTerms
from gpu_sdm.errors import SettingError
from gpu_sdm.permute.plan import PermutationPlan, Plan
from gpu_sdm.permute.scores import Scores
from gpu_sdm.rng import philox, stream_key
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import bounds_of_peaks
from gpu_sdm.stages.effects import effect_to_bound, peaks_as_used
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute
from gpu_sdm.stages.meta import meta
from gpu_sdm.stages.peak_sums import in_mask
from gpu_sdm.templates import Template


@dataclass(frozen=True, eq=False)
class PeakPlan(PermutationPlan):
    """Random places of the peaks in the mask; studies known by images flip their sign.

    Parameters
    ----------
    voxels : int
        V, places that a peak may take.
    movable : tuple of int
        Peaks in the mask of each study; those outside stay where they are.
    """

    voxels: int = 0
    movable: tuple[int, ...] = ()

    def choices(self, k: int) -> int:
        """Count what can be drawn for study k."""
        return self.voxels ** self.movable[k] if self.movable[k] else 1

    def weights(self, k: int, permutations: np.ndarray) -> tuple[None, np.ndarray]:
        """No subjects, and the sign of a study known by an image; see `Plan`."""
        return None, self.flips(k, permutations).astype(np.float32)

    def places(self, k: int, permutation: int) -> np.ndarray:
        """Positions in the mask (n,) of the movable peaks of study k."""
        key = stream_key(self.seed, "relocate", self.names[k])
        high, low, _, _ = philox(permutation, np.arange(self.movable[k]), 0, 0, key)
        word = (high.astype(np.uint64) << np.uint64(21)) | (low.astype(np.uint64) >> np.uint64(11))
        return (word.astype(np.float64) * 2.0**-53 * self.voxels).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Relocation:
    """The peaks of K studies, to be put elsewhere.

    Each moved peak keeps its height and its offset from the centre of the nearest voxel.

    Parameters
    ----------
    xyz_mm, g : tuple of (n_k, 3) and (n_k,) arrays
        Peaks and their effects; empty for a study known by an image.
    moves : tuple of (n_k,) bool
        Whether a peak lies in the mask, and so moves.
    b : (K,) float64
        Effect at the threshold of each study; NaN for an image.
    template : Template
        Distances on the same grid.
    fwhm, anisotropy : float
        Of the kernel.
    """

    xyz_mm: tuple[np.ndarray, ...]
    g: tuple[np.ndarray, ...]
    moves: tuple[np.ndarray, ...]
    b: np.ndarray
    template: Template
    fwhm: float
    anisotropy: float

    def moved(self, plan: PeakPlan, permutation: int, space: Space) -> list[np.ndarray]:
        """Peaks (n_k, 3) of every study in MNI mm."""
        centres, placed = space.mm(), []
        for k, (xyz, moves) in enumerate(zip(self.xyz_mm, self.moves, strict=True)):
            xyz = xyz.copy()
            step = np.diag(space.affine)[:3]
            origin = space.affine[:3, 3]
            offset = xyz[moves] - (np.rint((xyz[moves] - origin) / step) * step + origin)
            xyz[moves] = centres[plan.places(k, permutation)] + offset
            placed.append(xyz)
        return placed


def relocation_of(
    studies: Sequence[Study], space: Space, template: Template, settings: Settings
) -> Relocation:
    """Gather the peaks of the studies of a model."""
    peaks = [peaks_as_used(s, settings.sdm_compat) for s in studies]
    b = np.array([np.nan if s.image is not None else effect_to_bound([s])[0] for s in studies])
    return Relocation(
        tuple(xyz for xyz, _ in peaks),
        tuple(g for _, g in peaks),
        tuple(in_mask(space, xyz) for xyz, _ in peaks),
        b,
        template,
        settings.fwhm,
        settings.anisotropy,
    )


def peak_plan(studies: Sequence[Study], seed: int, space: Space, compat: bool) -> PeakPlan:
    """Plan random places of the peaks of these studies.

    Raises
    ------
    SettingError
        If no peak lies in the mask, or studies are means of several contrasts.
    """
    for study in studies:
        if study.contrasts:
            raise SettingError(
                f"exchange is peaks but sample {study.name!r} is the mean of several contrasts, "
                "whose peaks have no place of their own; use exchange subjects or studies."
            )
    movable = tuple(int(in_mask(space, peaks_as_used(s, compat)[0]).sum()) for s in studies)
    if not any(movable):
        raise SettingError(
            "exchange is peaks but no peak lies in the mask; use exchange subjects or studies."
        )
    base = PermutationPlan.of(studies, seed, "peaks")
    return PeakPlan(base.seed, base.names, base.n1, base.n2, "peaks", space.n_voxels, movable)


@dataclass(frozen=True, eq=False)
class Refit:
    """All that leads from bounds to the map of the tested statistic.

    Parameters
    ----------
    bounds : Bounds
        Observed, (K, V).
    terms : StudyTerms
        Constants of the K studies.
    design : (K, Q) float64
    criterion, contrast : (Q,) float64
        Of the leave-one-out rule, and the tested combination.
    discards : int
        Studies that rule drops.
    names : tuple of K str
    settings : Settings
    space : Space
    backend : Backend
        Where to run.
    relocation : Relocation or None
        Where peaks move; None where the signs of whole studies flip.
    """

    bounds: Bounds
    terms: StudyTerms
    design: np.ndarray
    criterion: np.ndarray
    contrast: np.ndarray
    discards: int
    names: tuple[str, ...]
    settings: Settings
    space: Space
    backend: Backend
    relocation: Relocation | None = None

    def permuted(self, plan: Plan, permutation: int) -> Bounds:
        """Bounds of the permuted data."""
        lower, upper = self.bounds.lower.copy(), self.bounds.upper.copy()
        fixed = np.arange(len(lower))
        if self.relocation is not None:
            assert isinstance(plan, PeakPlan)
            listed = np.flatnonzero(np.isfinite(self.relocation.b))
            xyz = self.relocation.moved(plan, permutation, self.space)
            found, _ = bounds_of_peaks(
                [xyz[k] for k in listed],
                [self.relocation.g[k] for k in listed],
                self.relocation.b[listed],
                self.space,
                self.relocation.template,
                fwhm=self.relocation.fwhm,
                anisotropy=self.relocation.anisotropy,
                backend=self.backend.name,
                threads=self.backend.threads,
            )
            lower[listed], upper[listed] = found.lower, found.upper
            fixed = np.setdiff1d(fixed, listed)
        one = np.array([permutation])
        turned = [k for k in fixed if plan.weights(int(k), one)[1][0] < 0]
        lower[turned], upper[turned] = -upper[turned], -lower[turned]
        return Bounds(lower, upper)

    def z(self, plan: Plan, permutation: int) -> np.ndarray:
        """Map (V,) float32 of the tested statistic in one permutation.

        Raises
        ------
        NumericalError
            If a result is not a number.
        """
        bounds, where = self.permuted(plan, permutation), self.backend.name
        if self.settings.test == "score":
            return Scores.of(bounds, self.terms, where).observed()
        fit = estimate(
            bounds,
            self.terms,
            self.design,
            self.criterion,
            self.discards,
            self.space,
            where,
            keep=False,
            search=self.settings.search,
            compat=self.settings.sdm_compat,
        )
        effects, _ = impute(
            bounds, fit, self.terms, self.design, self.names, self.settings, self.space, where
        )
        pooled = meta(
            effects, self.terms, self.design, self.contrast, self.settings.tau2, self.space, where
        )
        return pooled.z.astype(np.float32)
