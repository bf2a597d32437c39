"""The values that flow from stage to stage: frozen, arrays read-only, voxels last.

Axis letters, always in this order: P permutations, M imputations, K studies, N subjects of a
study, Q regressors, V voxels of the mask.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# Bounds closer than this are one observed effect: maps are float32.
KNOWN_WIDTH = 1e-5


def _freeze(*arrays: np.ndarray) -> None:
    for a in arrays:
        a.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a user should know of that does not stop the analysis.

    `kind` is a short stable word (counted in run.json), `message` one sentence.
    """

    kind: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Reported peaks of one study; empty for a study without findings.

    Examples
    --------
    >>> from gpu_sdm import read
    >>> peaks = read(project).studies[0].peaks
    >>> peaks.space, peaks.source, peaks.xyz_mm.shape, bool(peaks.known.all())
    ('spm_mni', 'study00.spm_mni.txt', (4, 3), True)
    """

    xyz_mm: np.ndarray  # (n, 3) float64, MNI millimetres after conversion
    xyz_reported: np.ndarray  # (n, 3) float64, as read
    t: np.ndarray  # (n,) float64 signed t; the signed study threshold where the height is unknown
    known: np.ndarray  # (n,) bool; False: only the sign was reported
    lines: np.ndarray  # (n,) int, line in the file, from 1
    space: str  # "spm_mni", "fsl_tal", ..., "no_peaks"
    source: str  # file name
    # Where other statistics than t were reported: (n,) float64 as read, NaN where none, and kinds.
    reported: np.ndarray | None = None
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _freeze(self.xyz_mm, self.xyz_reported, self.t, self.known, self.lines)
        if self.reported is not None:
            _freeze(self.reported)

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def none(cls, space: str, source: str) -> Peaks:
        """Stand for the peaks of a study that has none."""
        place = np.zeros((0, 3))
        empty = np.zeros(0)
        return cls(place, place.copy(), empty, empty > 0, empty.astype(int), space, source)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFile:
    """A study's statistical map, its header checked."""

    path: Path
    kind: str  # "t", "z", "g", "d" or "contrast"
    companion: Path | None  # variance of g or d, standard error of a contrast
    shape: tuple[int, int, int]
    affine: np.ndarray  # (4, 4) float64 voxel to MNI millimetres
    digest: str  # content hash of the file and its companion

    def __post_init__(self) -> None:
        _freeze(self.affine)

    @property
    def grid(self) -> str:
        """Size and voxels in words, "53 x 63 x 46 voxels of 3 x 3 x 3 mm"."""
        edges = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        size, step = (" x ".join(f"{v:.4g}" for v in axes) for axes in (self.shape, edges))
        return f"{size} voxels of {step} mm"


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """One contrast of one sample, or the mean of several contrasts of it.

    Examples
    --------
    >>> from gpu_sdm import read
    >>> study = read(project).studies[0]
    >>> study.name, study.two_sample, study.df == study.n1 - 1, len(study.peaks)
    ('study00', False, True, 4)
    """

    name: str
    n1: int  # patients, or the only group
    n2: int  # controls; 0 for a one-sample study
    t_threshold: float  # |t| a voxel had to pass to be reported; NaN for an image
    peaks: Peaks
    covariates: Mapping[str, float] = field(default_factory=dict)  # NaN where missing
    correction: str = ""  # "corrected" | "uncorrected" | ""
    labels: Mapping[str, str] = field(default_factory=dict)  # text columns; "" where missing
    image: ImageFile | None = None  # its whole map, in place of peaks
    contrasts: tuple[Study, ...] = ()  # what it is the mean of (gpu_sdm.stages.samples)
    averaging: float = 1.0  # variance of that mean, that of one contrast being 1

    @property
    def parts(self) -> tuple[Study, ...]:
        """Its contrasts, as read: the study itself where it is one."""
        return self.contrasts or (self,)

    @property
    def two_sample(self) -> bool:
        """Whether the study compares two groups."""
        return self.n2 > 0

    @property
    def df(self) -> int:
        """Degrees of freedom of its t."""
        return self.n1 + self.n2 - 2 if self.two_sample else self.n1 - 1

    @property
    def n(self) -> int:
        """All its subjects."""
        return self.n1 + self.n2


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What was read: studies in table order, and every doubt about them.

    Examples
    --------
    >>> from gpu_sdm import read
    >>> dataset = read(project)
    >>> dataset.subset(["study01", "study03"]).names
    ('study01', 'study03')
    """

    studies: tuple[Study, ...]
    notices: tuple[Notice, ...]
    path: Path
    sha256: Mapping[str, str]  # input file name -> content hash

    @property
    def names(self) -> tuple[str, ...]:
        """Study names in order."""
        return tuple(s.name for s in self.studies)

    def counts(self) -> dict[str, int]:
        """Count notices by kind."""
        return dict(Counter(n.kind for n in self.notices))

    def subset(self, names: Sequence[str], notices: Sequence[Notice] = ()) -> Dataset:
        """Keep only the named studies (table order kept), with further notices."""
        keep = tuple(s for s in self.studies if s.name in set(names))
        return Dataset(keep, self.notices + tuple(notices), self.path, self.sha256)


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Possible effects of each study: equal where known, infinite where an image has no data."""

    lower: np.ndarray  # (K, V) float32, Hedges g
    upper: np.ndarray  # (K, V) float32

    def __post_init__(self) -> None:
        _freeze(self.lower, self.upper)

    def digest(self) -> str:
        """Content hash."""
        sha = hashlib.sha256(np.ascontiguousarray(self.lower).data)
        sha.update(np.ascontiguousarray(self.upper).data)
        return sha.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class RandomEffects:
    """Most likely coefficients and heterogeneity from the bounds."""

    beta: np.ndarray  # (Q, V) float64 coefficients on the design
    tau2: np.ndarray  # (V,) float64
    discarded: np.ndarray  # (D, V) int16 studies dropped by the leave-one-out rule, in order
    not_converged: int  # voxels whose search failed; 0, but for SDM-PSI's own in compat

    def __post_init__(self) -> None:
        _freeze(self.beta, self.tau2, self.discarded)


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Random-effects meta-analysis pooled over imputations by Rubin's rules, each (V,) float64."""

    g: np.ndarray  # tested coefficient (Hedges g for the mean)
    se: np.ndarray
    z: np.ndarray
    tau2: np.ndarray
    i2: np.ndarray  # percent
    h2: np.ndarray
    q: np.ndarray  # chi-squared with K - Q degrees of freedom

    def __post_init__(self) -> None:
        _freeze(self.g, self.se, self.z, self.tau2, self.i2, self.h2, self.q)


@dataclass(frozen=True, slots=True, eq=False)
class StudyTerms:
    """Constants of the K studies that the numerical code needs, each (K,) float64.

    `variance = c + v2 * g**2` is the sampling variance of Hedges g. Of a study that averages
    several contrasts, c and v2 hold the factor `averaging` and j its root (gpu_sdm.stages.samples).
    """

    j: np.ndarray  # small-sample correction
    c: np.ndarray  # 1/n1, or 1/n1 + 1/n2
    v2: np.ndarray  # 1 - (df - 2) / (df * J**2)
    n1: np.ndarray
    n2: np.ndarray  # 0 for one-sample studies
    averaging: np.ndarray | None = None  # None: every study is one contrast

    def __post_init__(self) -> None:
        _freeze(self.j, self.c, self.v2, self.n1, self.n2)
        if self.averaging is not None:
            _freeze(self.averaging)

    @property
    def factor(self) -> np.ndarray:
        """(K,) variance of what each study averages, that of one contrast being 1."""
        return np.ones(len(self.j)) if self.averaging is None else self.averaging
