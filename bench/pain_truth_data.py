"""The 21 pain maps as studies: g everywhere, and the peaks that each would have reported."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fidelity_images import without_peaks
from null_data import PeakFinder

from gpu_sdm.analysis import Analysis, silent
from gpu_sdm.backend import Backend
from gpu_sdm.clusters import blobs
from gpu_sdm.config import Settings
from gpu_sdm.data import Bounds, Dataset, Pooled, Study, StudyTerms
from gpu_sdm.findings.peaks import local_maxima
from gpu_sdm.io._nifti_file import read_data, read_header
from gpu_sdm.io.image_effects import has_data, read_study_map
from gpu_sdm.io.images import inspect_image
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.problem import complete_effects
from gpu_sdm.spaces import SHAPES, Space, grid_affine
from gpu_sdm.stages.bounds import bounds_of_peaks
from gpu_sdm.stages.design import design
from gpu_sdm.stages.effects import effect_to_bound, peak_effects, study_terms
from gpu_sdm.stages.meta import meta
from gpu_sdm.stages.template import AdjacentMoments
from gpu_sdm.templates import Template, default_mask, default_template, from_correlations

NATIVE = 2  # mm; peaks are taken from the maps as they are, before any resampling
EXTENT = 20  # voxels of 2 mm


class LargeClusters(PeakFinder):
    """SPM's listing of the clusters of at least 20 voxels."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._space = space

    def find(self, t: np.ndarray, threshold: float) -> np.ndarray:
        """Positions in the mask of the peaks above a threshold, cluster by cluster."""
        large = blobs(t > threshold, self._space, EXTENT) > 0
        return super().find(np.where(large, t, -np.inf), threshold)


class EveryMaximum(PeakFinder):
    """Every voxel above the threshold that none of its 26 neighbours exceeds."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._space = space

    def find(self, t: np.ndarray, threshold: float) -> np.ndarray:
        """Positions in the mask of the local maxima above a threshold."""
        return np.sort(local_maxima(t, np.flatnonzero(t > threshold), self._space))


# What a study reports: which maxima, at which one-sided p.
RULES: dict[str, tuple[type[PeakFinder], float]] = {
    "spm": (PeakFinder, 1e-3),
    "extent": (LargeClusters, 1e-3),
    "every": (EveryMaximum, 1e-3),
    "p.0001": (PeakFinder, 1e-4),
    "p.01": (PeakFinder, 1e-2),
}


@dataclass(frozen=True)
class Variant:
    """One way to analyse the peaks.

    Parameters
    ----------
    settings : mapping
        Fields of `Settings` that differ from the default.
    rule : str
        A key of `RULES`.
    own_template : bool
        Correlations of adjacent voxels over the images of the other studies, in place of the
        built-in template.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    rule: str = "spm"
    own_template: bool = False


class Maps:
    """Studies of which the whole map is known.

    Parameters
    ----------
    names : sequence of K str
    n : sequence of K int
        Subjects of each study, one sample.
    native : Space
        2 mm grid and the voxels in which any map has data: peaks may lie outside the analysis
        mask, as published ones do.
    t : (K, voxels of `native`) array
        0 where a map has no data.
    g : (K, voxels of the whole analysis grid) array
        Hedges g in Fortran order; NaN where a map has no data.
    voxel_size : int
        Of the analysis, mm.
    mask : (X, Y, Z) bool, optional
        Analysis mask, the built-in one by default; cut to the voxels that all maps cover.
    imputations : int
        Of every analysis.
    threads : int
        Worker threads.
    """

    def __init__(
        self,
        names: Sequence[str],
        n: Sequence[int],
        native: Space,
        t: np.ndarray,
        g: np.ndarray,
        voxel_size: int,
        mask: np.ndarray | None = None,
        imputations: int = 20,
        threads: int = 1,
    ) -> None:
        self.names, self.n, self.t, self.whole_g = tuple(names), tuple(n), t, g
        covered = np.isfinite(g).all(axis=0).reshape(SHAPES[voxel_size], order="F")
        asked = default_mask(voxel_size) if mask is None else mask
        self.space = Space(voxel_size, asked & covered)
        self.g = g[:, self.space.index].astype(np.float32)
        self.native, self.imputations = native, imputations
        self.backend = Backend("cpu", "truth from images", threads)
        self._studies: dict[str, list[Study]] = {}
        self._bounds: dict[tuple[object, ...], Bounds] = {}

    def studies(self, rule: str) -> list[Study]:
        """Give the reports of all K studies."""
        if rule not in self._studies:
            kind, p = RULES[rule]
            finder = kind(self.native)
            self._studies[rule] = [
                finder.study(name, n, 0, t, p)
                for name, n, t in zip(self.names, self.n, self.t, strict=True)
            ]
        return self._studies[rule]

    def terms(self, rows: Sequence[int]) -> StudyTerms:
        """Constants of some studies."""
        return study_terms([self.studies("spm")[k] for k in rows])

    def template_of(self, rows: Sequence[int]) -> Template:
        """Correlations of adjacent voxels over the images of some studies, whole brain."""
        size = self.space.voxel_size
        moments = AdjacentMoments(SHAPES[size])
        for k in rows:
            moments.add(self.whole_g[k].astype(float).reshape(SHAPES[size], order="F"))
        r = moments.correlations(len(rows))
        return from_correlations(np.where(r > 0, r, 0), size)

    def bounds(self, variant: Variant, others: Sequence[int]) -> Bounds:
        """Bounds of all K studies from their peaks; `others` make the own template."""
        settings = Settings(**dict(variant.settings))
        made_of = tuple(others) if variant.own_template else ()
        key = (settings.fwhm, settings.anisotropy, variant.rule, made_of)
        if key not in self._bounds:
            size = self.space.voxel_size
            studies = self.studies(variant.rule)
            found, _ = bounds_of_peaks(
                [s.peaks.xyz_mm for s in studies],
                [peak_effects(s) for s in studies],
                effect_to_bound(studies),
                self.space,
                self.template_of(others) if variant.own_template else default_template(size),
                fwhm=settings.fwhm,
                anisotropy=settings.anisotropy,
                threads=self.backend.threads,
            )
            if made_of:  # of use to one split only
                return found
            self._bounds[key] = found
        return self._bounds[key]

    def analysis(
        self,
        rows: Sequence[int],
        variant: Variant,
        images: Sequence[int] = (),
        others: Sequence[int] = (),
        seed: int = 0,
    ) -> Analysis:
        """Prepare the analysis of some studies.

        Parameters
        ----------
        rows : sequence of int
            The studies.
        variant : Variant
            How their peaks are used.
        images : sequence of int
            Those of `rows` of which the image is used.
        others : sequence of int
            Studies whose images make the own template.
        seed : int
            Of the imputation.
        """
        rows = list(rows)
        known = np.isin(rows, list(images))
        lower, upper = self.g[rows], self.g[rows]  # copies
        if not known.all():
            peaks = self.bounds(variant, others)
            listed = np.array(rows)[~known]
            lower[~known], upper[~known] = peaks.lower[listed], peaks.upper[listed]
        studies = tuple(self.studies(variant.rule)[k] for k in rows)
        model = design(Dataset(studies, (), Path("pain21"), {}))
        settings = Settings(
            **{"imputations": self.imputations, "seed": seed, **variant.settings},
            voxel_size=self.space.voxel_size,
        )
        return Analysis(
            dataset=model.dataset,
            settings=settings,
            backend=self.backend,
            design=model,
            space=self.space,
            template=None,
            bounds=Bounds(lower, upper),
            reach=None,
            terms=study_terms(studies),
            plan=PermutationPlan.of(studies, seed, "subjects"),
            notices=(),
        )

    def pooled(self, analysis: Analysis, effects: np.ndarray | None = None) -> Pooled:
        """Estimate, impute and pool; or only pool given effects (M, K, V)."""
        if effects is None:
            effects, _ = complete_effects(analysis, silent, {})
        model, tau2 = analysis.design, analysis.settings.tau2
        return meta(effects, analysis.terms, model.X, model.contrast[0], tau2, self.space)

    def truth(self, rows: Sequence[int]) -> Pooled:
        """Random-effects mean of the images of some studies."""
        return self.pooled(self.analysis(rows, Variant(), images=rows))


def read_pain(
    folder: Path,
    voxel_size: int,
    imputations: int = 20,
    threads: int = 1,
    studies: Sequence[str] | None = None,
) -> Maps:
    """Read the 21 maps.

    Parameters
    ----------
    folder : path
        Holds samplesize.csv and STUDY_t.nii.gz.
    voxel_size : int
        Of the analysis, mm.
    imputations, threads : int
        As for `Maps`.
    studies : sequence of str, optional
        Only these.
    """
    with (folder / "samplesize.csv").open(newline="", encoding="ascii") as file:
        rows = [(row["study_id"], int(row["n"])) for row in csv.DictReader(file)]
    rows = [row for row in rows if studies is None or row[0] in studies]
    names, n = zip(*rows, strict=True)
    everywhere = Space(voxel_size, np.ones(SHAPES[voxel_size], bool))
    volumes, g = [], []
    for name, size in rows:
        path = folder / f"{name}_t.nii.gz"
        image = inspect_image(path, name, "t", {f"{name}_t"})[0]
        if image.shape != SHAPES[NATIVE] or not np.allclose(image.affine, grid_affine(NATIVE)):
            raise ValueError(f"{path.name} is not on the {NATIVE} mm grid")
        values = read_data(path, read_header(path))
        volumes.append(np.where(has_data(values), values, 0))
        g.append(read_study_map(image, everywhere, study_terms([without_peaks(name, size)])).g)
    native = Space(NATIVE, np.any([v != 0 for v in volumes], axis=0))
    t = np.stack([native.extract(v) for v in volumes])
    return Maps(names, n, native, t, np.stack(g), voxel_size, None, imputations, threads)
