"""A problem of the size of an analysis, filled with noise: what speed is measured on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

from gpu_sdm.analysis import Analysis
from gpu_sdm.backend import Backend
from gpu_sdm.backend.cuda import Device
from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset, Peaks, Study, StudyTerms
from gpu_sdm.environment import memory_bytes
from gpu_sdm.io.volumes import load_space
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import BLOCK, Forming, Problem, maxima_of, z_tile
from gpu_sdm.permute.plan import TILE, PermutationPlan, Plan
from gpu_sdm.permute.scores import Scores
from gpu_sdm.spaces import Space
from gpu_sdm.stages.design import design
from gpu_sdm.stages.effects import study_terms
from gpu_sdm.stages.samples import merge_samples
from gpu_sdm.stages.subjects import SubjectBank

if TYPE_CHECKING:
    from gpu_sdm.distribute.scratch import Scratch

FIELDS = 17  # distinct noise fields, repeated; prime, so that no study count falls in step
PLAIN_BLOCK = 512  # voxels on which the plain reference is timed
DEVICE_SECONDS = 1.0  # at least so long is a device timed
HOST_SHARE = 0.7  # of the free memory, for the inputs of a device that is timed
SMOOTHNESS = 2.0  # SD in voxels of the filter: TFCE meets clusters as in a z map
# Groups of the built-in example: 11 studies, 525 subjects.
N1 = (60, 24, 36, 30, 52, 28, 44, 22, 40, 26, 50)
N2 = (0, 22, 0, 0, 0, 25, 0, 20, 0, 26, 20)


@dataclass(frozen=True, eq=False)
class Workload:
    """The sizes and the model of an analysis, without its effects.

    Parameters
    ----------
    settings : Settings
        What is wanted.
    terms : StudyTerms
        Constants of the K studies.
    design : (K, Q) float64
        Ones and mean-centred covariates.
    plan : Plan
        What each permutation exchanges.
    space : Space
        Grid and mask.
    known : bool
        Every effect is known: one imputation, whatever the settings ask for.
    """

    settings: Settings
    terms: StudyTerms
    design: np.ndarray
    plan: Plan
    space: Space
    known: bool = False

    @classmethod
    def of(cls, analysis: Analysis) -> Workload:
        """Take that of a prepared analysis."""
        x, known = analysis.design.X, analysis.imputations == 1
        return cls(analysis.settings, analysis.terms, x, analysis.plan, analysis.space, known)

    @classmethod
    def of_dataset(cls, dataset: Dataset, settings: Settings) -> Workload:
        """Take that of a project as it was read; no bounds are needed."""
        dataset = merge_samples(dataset, settings.sample_correlation)
        model = design(dataset, settings.covariates, settings.sdm_compat)
        return cls._of_studies(model.dataset.studies, model.X, settings)

    @classmethod
    def example(cls, settings: Settings) -> Workload:
        """11 studies of both kinds with 525 subjects on the grid of the settings."""
        none = np.zeros((0, 3))
        peaks = Peaks(none, none.copy(), none[:, 0].copy(), np.zeros(0, bool),
                      np.zeros(0, int), "no_peaks", "")  # fmt: skip
        studies = tuple(
            Study(f"study{k}", a, b, 3.0, peaks)
            for k, (a, b) in enumerate(zip(N1, N2, strict=True))
        )
        return cls._of_studies(studies, np.ones((len(N1), 1)), settings)

    @classmethod
    def _of_studies(cls, studies: tuple[Study, ...], x: np.ndarray, settings: Settings) -> Workload:
        plan = PermutationPlan.of(studies, settings.seed, settings.exchange)
        return cls(settings, study_terms(studies), x, plan, load_space(settings))

    @property
    def subjects(self) -> int:
        """All simulated subjects; 0 where whole studies are exchanged."""
        if self.settings.exchange != "subjects":
            return 0
        return int(self.terms.n1.sum() + self.terms.n2.sum())

    @property
    def imputations(self) -> int:
        """Imputed data sets."""
        return 1 if self.known else self.settings.imputations

    def sizes(self) -> dict[str, int]:
        """Name the sizes that decide the speed."""
        return {
            "studies": len(self.terms.j),
            "subjects": self.subjects,
            "imputations": self.imputations,
            "voxels": self.space.n_voxels,
        }

    @cached_property
    def fields(self) -> np.ndarray:
        """(FIELDS, V) float32: smooth noise of variance 1."""
        rng = np.random.default_rng(0)
        found = np.empty((FIELDS, self.space.n_voxels), np.float32)
        for row in found:
            noise = rng.standard_normal(self.space.shape, np.float32)
            row[:] = self.space.extract(gaussian_filter(noise, SMOOTHNESS))
        found /= np.sqrt((found**2).mean(axis=1, keepdims=True))
        return found

    def first_voxels(self, n_voxels: int) -> Workload:
        """Keep the first voxels of the mask in scan order."""
        mask = np.zeros(self.space.mask.size, bool)
        mask[self.space.index[:n_voxels]] = True
        space = Space(self.space.voxel_size, mask.reshape(self.space.shape, order="F"))
        return replace(self, space=space)

    def problem(self, n_voxels: int | None = None) -> Problem:
        """Give the engine something to do.

        Parameters
        ----------
        n_voxels : int, optional
            Voxels of effects and residuals, the first of the mask; all by default. Grid and
            observed map are always whole.
        """
        fields, settings = self.fields[:, :n_voxels], self.settings
        m, k, v = self.imputations, len(self.terms.j), fields.shape[1]
        effects = np.empty((m, k, v), np.float32)
        for i, row in enumerate(effects.reshape(m * k, v)):
            np.multiply(fields[i % FIELDS], np.float32(0.3), out=row)
        return Problem(
            effects=effects,
            bank=self._bank(fields) if self.subjects else None,
            terms=self.terms,
            design=self.design,
            contrast=np.eye(self.design.shape[1])[0],
            tau2=settings.tau2,
            rescale_sd=not settings.sdm_compat,
            space=self.space,
            neighbours=self.space.neighbours(),
            observed_z=self.fields[0],
            forming=Forming.of(settings.cluster_threshold, self.space),
            scores=Scores(effects[0]) if settings.test == "score" else None,
        )

    def problem_on_disk(self, scratch: Scratch) -> Problem:
        """Give the engine the same as `problem`, effects and residuals in files of slabs."""
        m, k, v = self.imputations, len(self.terms.j), self.space.n_voxels
        bank = self._bank(self.fields[:, :1])
        effects: Any = scratch.array("effects", (m, k, v))
        residuals: Any = scratch.rows("subjects", [len(r) for r in bank.residuals], v)
        for first in range(0, v, BLOCK):
            block = slice(first, min(first + BLOCK, v))
            fields = self.fields[:, block]
            effects[:, :, block] = np.resize(np.float32(0.3) * fields, (m, k, fields.shape[1]))
            for r, images in zip(residuals, self._bank(fields).residuals, strict=True):
                r[:, block] = images
        on_disk = SubjectBank(residuals, bank.n1, bank.n2, 0.0)
        return replace(self.problem(1), effects=effects, bank=on_disk)

    def _bank(self, fields: np.ndarray) -> SubjectBank:
        """Make unit residuals as those of simulated subjects from the same few fields."""
        sizes = self.terms.n1.astype(np.int64), self.terms.n2.astype(np.int64)
        rng = np.random.default_rng(1)
        residuals = []
        for groups in zip(*sizes, strict=True):
            parts = []
            for n in groups[: 1 + (groups[1] > 0)]:
                images = fields[rng.integers(FIELDS, size=n)]
                images *= rng.standard_normal((n, 1), np.float32)
                images -= images.mean(axis=0)
                images /= np.sqrt((images**2).sum(axis=0) / np.float32(n - 1))
                parts.append(images)
            residuals.append(np.concatenate(parts))
        return SubjectBank(tuple(residuals), *sizes, 0.0)


def seconds(work: Callable[[], object], warm_up: bool = True) -> float:
    """Time a call; by default the second, as the first compiles or loads what was compiled."""
    if warm_up:
        work()
    begin = monotonic()
    work()
    return monotonic() - begin


def _host_rate(workload: Workload, statistics: tuple[str, ...], backend: Backend) -> float:
    # One thread works on one block; the others are taken to do as much beside it.
    v, compiled = workload.space.n_voxels, backend.name != "numpy"
    problem = workload.problem(min(BLOCK if compiled else PLAIN_BLOCK, v))
    with ThreadPoolExecutor(1) as pool:
        tile = seconds(lambda: z_tile(problem, workload.plan, 0, backend, pool), compiled)
        tile *= v / problem.effects.shape[2]
        maxima = TILE * seconds(
            lambda: maxima_of(problem.observed_z[None], statistics, problem, backend, pool),
            compiled,
        )
    return float(TILE * backend.threads / (tile + maxima))


def _device_rate(workload: Workload, statistics: tuple[str, ...], device: Device) -> float:
    whole, free = workload.space.n_voxels, memory_bytes()
    needed = 4 * whole * (workload.imputations * len(workload.terms.j) + workload.subjects)
    if free is not None and needed > HOST_SHARE * free:
        # What an analysis keeps in files; the speed of a part, without the copies to the device.
        workload = workload.first_voxels(max(1, int(whole * HOST_SHARE * free / needed)))
    engine = DeviceEngine(workload.problem(), workload.plan, device, statistics)
    engine.maxima(0)  # compiles, or loads what was compiled
    done, begin = 0, monotonic()
    while done == 0 or monotonic() - begin < DEVICE_SECONDS:
        group = engine.group
        engine.maxima(done, group // TILE)
        done += group
    return done / (monotonic() - begin) * workload.space.n_voxels / whole


def rate(workload: Workload, statistics: tuple[str, ...], backend: Backend) -> float:
    """Measure permutations per second.

    Parameters
    ----------
    workload : Workload
        What to do.
    statistics : tuple of {"voxel", "tfce", "cluster-extent", "cluster-mass"}
        What the maximum is taken of.
    backend : Backend
        Where. On the CPU one tile of a block of voxels and one map are timed and scaled up; a
        device does whole tiles of the whole problem, or of as much of it as fits the memory.

    Raises
    ------
    OutOfMemory
        If the problem does not fit the device.
    """
    if backend.device is not None:
        return _device_rate(workload, statistics, backend.device)
    return _host_rate(workload, statistics, backend)
