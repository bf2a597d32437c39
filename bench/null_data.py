"""Simulated studies without a true effect: subjects, t maps and the peaks a study would report.

Subjects come from a bank of 2,048 images of one noise law, rebuilt every 32 seeds; a project
draws its subjects from it without replacement and gives each a random sign.

The bank is built by the package's own ops as ONE large group. That is the population law, not
that of a small standardised sample: with 2,048 subjects the sample correlations are those of the
population to 2 %, the random signs make every subject symmetric about 0 whatever the bank's mean,
and what standardising does to a voxel's variance cancels in t. Measured on this mask: correlation
of scan:0.77 at 1, 2, 4, 8 and 16 voxels .767 .588 .340 .098 .006 in a group of 2,000, and
.766 .587 .340 .099 .003 in groups of 20, as the analysis simulates them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student

from gpu_sdm.backend import Backend
from gpu_sdm.data import Peaks, Study
from gpu_sdm.spaces import Space
from gpu_sdm.stages.subjects import subject_bank

BANK = 2048  # subjects; the largest project has 50 studies of at most 30
SEEDS_PER_BANK = 32
SMALLEST, LARGEST = 12, 30  # subjects of a group
# What SPM's table of results lists unless told otherwise: clusters joined by faces and edges,
# up to 3 local maxima of each, more than 8 mm apart.
MAXIMA_PER_CLUSTER, APART_MM = 3, 8.0
SPM_LINKS = [o for o in itertools.product((-1, 0, 1), repeat=3) if 0 < np.abs(o).sum() < 3]


@dataclass(frozen=True)
class Truth:
    """What the studies of a null project are made of.

    Parameters
    ----------
    studies : int
        K.
    noise : tuple of str and float
        Law of the subjects' images, as `Settings.noise_law` gives it.
    two_sample : bool
        Whether each study compares two groups.
    tau2 : float
        Variance over studies of the subjects' mean, in units of the subjects' variance. The
        study effects are fields of the same noise law with mean zero.
    sizes : pair of int, optional
        Fixed sizes of the groups; by default each is drawn from 12..30.
    sd : pair of float
        Standard deviation of the subjects of either group.
    p_threshold : float
        One-sided uncorrected p at which every study reports peaks, on each side.
    one_sided : bool
        Whether studies report the peaks of the positive side alone.
    """

    studies: int = 20
    noise: tuple[str, float] = ("scan", 0.77)
    two_sample: bool = False
    tau2: float = 0.0
    sizes: tuple[int, int] | None = None
    sd: tuple[float, float] = (1.0, 1.0)
    p_threshold: float = 0.001
    one_sided: bool = False


@lru_cache(maxsize=4)
def truth_bank(noise: tuple[str, float], block: int, space: Space, size: int = BANK) -> np.ndarray:
    """Images (size, V) float32 of the subjects that the projects of a block of seeds draw from."""
    empty = Peaks(np.zeros((0, 3)), np.zeros((0, 3)), *np.zeros((3, 0)), "none", "none")
    one_group = Study(f"truth {block}", size, 0, float("nan"), empty)
    backend = Backend("cpu", "one project to a process", 1)
    # Analyses have the seeds 0, 1, ...: -1 is a stream of its own.
    return subject_bank([one_group], space, -1, noise, None, backend).residuals[0]


def _mean_and_squares(images: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (V,) of the signed images and sum of squares (V,) about it."""
    mean = (signs @ images).astype(np.float64) / len(images)
    return mean, np.einsum("nv,nv->v", images, images, dtype=np.float64) - len(images) * mean**2


def study_t(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], effect: np.ndarray | float = 0.0
) -> np.ndarray:
    """Compute the t map (V,) of one study.

    Parameters
    ----------
    groups : sequence of one or two pairs
        Images (n, V) and signs (n,) of the subjects of each group.
    effect : (V,) array or float
        True mean of group 1.
    """
    sizes = [len(images) for images, _ in groups]
    moments = [_mean_and_squares(*group) for group in groups]
    difference = effect + moments[0][0] - (moments[1][0] if len(groups) == 2 else 0.0)
    variance = sum(ss for _, ss in moments) / (sum(sizes) - len(groups))
    return difference / np.sqrt(variance * sum(1 / n for n in sizes))


def null_maps(
    truth: Truth, bank: np.ndarray, rng: np.random.Generator, planted: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the t maps of a project.

    Parameters
    ----------
    truth : Truth
        What they are made of.
    bank : (B, V) float32
        From `truth_bank`.
    rng : Generator
        Of the project; sizes are drawn first, so that cells share them.
    planted : (V,) array or float
        A true effect of every study, in units of the subjects' SD: the harness must find it.

    Returns
    -------
    sizes : (K, 2) int
        Group sizes, n2 = 0 for one sample.
    t : (K, V) float64
    """
    sizes = rng.integers(SMALLEST, LARGEST + 1, (truth.studies, 2))
    if truth.sizes is not None:
        sizes[:] = truth.sizes
    if not truth.two_sample:
        sizes[:, 1] = 0
    drawn = iter(rng.permutation(len(bank)))
    signs = rng.choice(np.array([-1, 1], np.float32), len(bank))
    maps = np.empty((truth.studies, bank.shape[1]))
    for k, pair in enumerate(sizes):
        groups = []
        for n, sd in zip(pair, truth.sd, strict=True):
            if n:
                rows = list(itertools.islice(drawn, int(n)))
                images = bank[rows] if sd == 1 else bank[rows] * np.float32(sd)
                groups.append((images, signs[rows]))
        effect = planted
        if truth.tau2 > 0:
            row = next(drawn)
            effect = effect + np.sqrt(truth.tau2) * signs[row] * bank[row]
        maps[k] = study_t(groups, effect)
    return sizes, maps


class PeakFinder:
    """Local maxima of a map as SPM's table of results lists them.

    Parameters
    ----------
    space : Space
        Grid and mask.
    """

    def __init__(self, space: Space) -> None:
        padded = np.full(tuple(s + 2 for s in space.shape), space.n_voxels, np.int64)
        i, j, k = (space.ijk() + 1).T
        padded[i, j, k] = np.arange(space.n_voxels)
        # (V, 18); outside the mask the position V, where a map is given -inf.
        self._near = np.stack([padded[i + a, j + b, k + c] for a, b, c in SPM_LINKS], axis=1)
        self._mm = space.mm()

    def find(self, t: np.ndarray, threshold: float) -> np.ndarray:
        """Positions in the mask of the peaks above a threshold, cluster by cluster."""
        passing = np.flatnonzero(t > threshold)
        if not len(passing):
            return passing
        padded = np.append(t, -np.inf)
        near = self._near[passing]
        highest = padded[near].max(axis=1) <= t[passing]
        place = np.full(len(padded), -1)
        place[passing] = np.arange(len(passing))
        rows, columns = np.nonzero(place[near] >= 0)
        links = (np.ones(len(rows), bool), (rows, place[near[rows, columns]]))
        graph = coo_matrix(links, shape=(len(passing),) * 2)
        cluster = connected_components(graph, directed=False)[1][highest]
        maxima = passing[highest]
        order = np.lexsort((-t[maxima], cluster))
        listed: dict[int, list[int]] = {}
        for c, v in zip(cluster[order], maxima[order], strict=True):
            kept = listed.setdefault(int(c), [])
            apart = np.linalg.norm(self._mm[kept] - self._mm[v], axis=1) if kept else APART_MM + 1
            if len(kept) < MAXIMA_PER_CLUSTER and np.all(apart > APART_MM):
                kept.append(int(v))
        return np.array(list(itertools.chain.from_iterable(listed.values())), np.int64)

    def study(
        self, name: str, n1: int, n2: int, t: np.ndarray, p: float, one_sided: bool = False
    ) -> Study:
        """Report the peaks of both sides of a t map (V,), thresholded at a one-sided p."""
        threshold = float(student.isf(p, n1 + n2 - 2 if n2 else n1 - 1))
        sides = (t,) if one_sided else (t, -t)
        at = np.concatenate([self.find(side, threshold) for side in sides])
        peaks = Peaks(
            self._mm[at],
            self._mm[at].copy(),
            t[at],
            np.ones(len(at), bool),
            np.arange(1, len(at) + 1),
            "spm_mni",
            f"{name}.spm_mni.txt",
        )
        return Study(name, n1, n2, threshold, peaks)
