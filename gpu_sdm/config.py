"""Settings: every knob of an analysis, its default, its constraint and its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gpu_sdm.checks import Interval, Options
from gpu_sdm.errors import SettingError

STATISTICS = ("voxel", "tfce", "cluster-extent", "cluster-mass")
DEFAULT_STATISTICS = ("voxel", "tfce")
CLUSTER_STATISTICS = ("cluster-extent", "cluster-mass")
CLUSTER_THRESHOLD = 3.0902  # z of a one-sided p of .001
SEARCHES = ("optimum", "sdm-6.21")
EXCHANGES = ("subjects", "studies", "peaks")
TESTS = ("z", "score")
NOISE = re.compile(r"^(scan|gaussian|template):([0-9]*\.?[0-9]+)$")
NOISE_RANGE = {
    "scan": Interval(0, 1, closed="neither"),  # face correlation between neighbouring voxels
    "gaussian": Interval(0, 40, closed="right"),  # full width at half maximum in mm
    "template": Interval(0, 100, closed="right"),  # power of the template's correlation
}

CONSTRAINTS: dict[str, Interval | Options] = {
    "permutations": Interval(1, 2**31 - 1, integer=True),
    "imputations": Interval(2, 10_000, integer=True),
    "seed": Interval(0, 2**63 - 1, integer=True),
    "fwhm": Interval(5, 60),
    "anisotropy": Interval(0, 1),
    "sample_correlation": Interval(0, 1),
    "voxel_size": Options((2, 3, 4)),
    "tau2": Options(("dl", "reml")),
    "imputation": Options(("sdm", "truncated-normal")),
    "impute_under": Options(("model", "null")),
    "exchange": Options(EXCHANGES),
    "test": Options(TESTS),
    "compat": Options((None, "sdm-6.21")),
    "search": Options(SEARCHES),
    "stop_hits": Interval(1, 1_000_000, integer=True),
}
DISCARDS = Interval(0, 1000, integer=True)
# From .5 on the CUDA kernel's sum of the mass is exact (kernels/max_cluster.cu).
FORMING = Interval(0.5, 40)

# More permutations extend a result; files are compared by content, not by where they lie.
NOT_COMPARED = ("permutations", "mask", "template", "bounds")
# What results made before a setting existed were made with.
BEFORE: dict[str, Any] = {
    "formula": None,
    "contrast": [],
    "where": None,
    "impute_under": "model",
    "search": "optimum",
    "test": "z",
    "sample_correlation": 0.5,
    "stop_at": None,
    "stop_hits": 20,
    "stop_statistic": None,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that determines the result of an analysis, apart from the input files.

    Parameters
    ----------
    permutations : int
        Number of permutations, the identity (permutation 0) included.
    imputations : int
        Imputed data sets per study map, at least 2.
    seed : int
        Seed of every random draw.
    fwhm : float
        Width of the anisotropic kernel, mm. 20 is SDM-PSI's.
    anisotropy : float
        1: distances along the correlation template; 0: Euclidean.
    voxel_size : {2, 3, 4}
        Analysis grid, mm.
    mask, template, bounds : path, optional
        Files that replace the built-in mask, correlation template and the bounds step.
    tau2 : {"dl", "reml"}
        Estimator of the between-study variance in pooling.
    imputation : {"sdm", "truncated-normal"}
        Law of the imputed effects; both have the same mean and variance.
    discards : int, optional
        Studies the conservative leave-one-out rule drops; None applies the rule.
    covariates : tuple of str
        Nuisance covariates; the mean at average covariates is tested.
    exchange : {"subjects", "studies", "peaks"}
        What is exchanged under the null: subjects within studies, signs of whole studies, or the
        places of the peaks (images flip their sign). The last two re-estimate everything in each
        permutation where effects are censored.
    test : {"z", "score"}
        What the corrected p values are of: z of the pooled effect, or the score of the mean at
        zero, which the bounds give without any estimate. The latter exchanges studies or peaks and
        takes no covariates.
    noise : str
        Spatial law of the simulated subject images: scan:R, gaussian:FWHM or template:POWER.
    statistic : tuple of {"voxel", "tfce", "cluster-extent", "cluster-mass"}
        Statistics whose family-wise error is controlled.
    cluster_threshold : float, optional
        Forming threshold of the cluster statistics: voxels of z strictly above form clusters.
        3.0902 (one-sided p .001) where a cluster statistic is asked for, else None.
    formula : str, optional
        Linear model of the effects, e.g. "1 + age + C(medication)"; replaces `covariates`.
    contrast : tuple of str
        What of the formula is tested: a coefficient, "a - b", or weights; several are tested
        jointly. Empty: the mean.
    impute_under : {"null", "model"}, optional
        For the test of a slope or a difference: whether effects are imputed without what is
        tested, or from the whole model, as SDM-PSI does (docs/models.md: that is liberal). None:
        "null", and "model" in compat.
    where : str, optional
        Only the studies for which this holds, e.g. "disorder == 'MDD' and age < 40".
    sample_correlation : float
        Correlation of any two contrasts of one sample, 0 to 1; such contrasts are averaged
        (docs/samples.md).
    compat : {None, "sdm-6.21"}
        Reproduce SDM-PSI 6.21's known deviations, to compare with its output (docs/sdm-psi.md).
    search : {"optimum", "sdm-6.21"}
        How the mean of a model without covariates is found: the optimum of the likelihood, or as
        SDM-PSI 6.21 searches it, which gets stuck: to compare with its maps, not to publish.
    stop_at : tuple of three float, optional
        MNI mm of a voxel of the mask: stop when its corrected p is decided (docs/scaling.md).
    stop_hits : int
        Permutations whose maximum must reach the value observed there.
    stop_statistic : str, optional
        Which of `statistic` decides; None: TFCE where it is asked for, else the first.

    Raises
    ------
    SettingError
        If a value lies outside its range.

    Examples
    --------
    >>> Settings(permutations=5000).imputations
    50
    """

    permutations: int = 1000
    imputations: int = 50
    seed: int = 0
    fwhm: float = 20.0
    anisotropy: float = 1.0
    voxel_size: int = 2
    mask: Path | None = None
    template: Path | None = None
    bounds: Path | None = None
    tau2: str = "dl"
    imputation: str = "sdm"
    discards: int | None = None
    covariates: tuple[str, ...] = ()
    formula: str | None = None
    contrast: tuple[str, ...] = ()
    impute_under: str | None = None
    where: str | None = None
    exchange: str = "subjects"
    test: str = "z"
    noise: str = "scan:0.77"
    statistic: tuple[str, ...] = DEFAULT_STATISTICS
    cluster_threshold: float | None = None
    sample_correlation: float = 0.5
    compat: str | None = None
    search: str = "optimum"
    stop_at: tuple[float, float, float] | None = None
    stop_hits: int = 20
    stop_statistic: str | None = None

    def __post_init__(self) -> None:
        if self.impute_under is None:
            object.__setattr__(self, "impute_under", "model" if self.sdm_compat else "null")
        for name, constraint in CONSTRAINTS.items():
            constraint.check(name, getattr(self, name))
        if self.discards is not None:
            DISCARDS.check("discards", self.discards)
        if not self.statistic:
            raise SettingError(f"statistic is empty; ask for some of: {', '.join(STATISTICS)}.")
        for s in self.statistic:
            Options(STATISTICS).check("statistic", s)
        object.__setattr__(
            self, "statistic", tuple(s for s in STATISTICS if s in set(self.statistic))
        )
        self._check_cluster_threshold()
        self._check_stop()
        if len(set(self.covariates)) != len(self.covariates):
            raise SettingError(f"covariates names one twice: {'+'.join(self.covariates)}.")
        if self.formula is not None and self.covariates:
            raise SettingError("formula and covariates exclude each other; name all in formula.")
        self._check_test()
        if self.contrast and self.formula is None:
            raise SettingError("contrast needs a formula, for example --formula '1 + age'.")
        self.noise_law()
        for name in ("mask", "template", "bounds"):
            value = getattr(self, name)
            if value is not None:
                # Absolute: a result folder is opened again from anywhere.
                object.__setattr__(self, name, Path(value).absolute())

    def _check_test(self) -> None:
        """Refuse a score test of what it cannot test."""
        if self.test != "score":
            return
        if self.exchange == "subjects":
            raise SettingError(
                "test is score but exchange is subjects, whose images give no bounds; use "
                "exchange studies (fast) or peaks."
            )
        if self.covariates or self.formula is not None:
            raise SettingError(
                "test is score but the model has covariates or a formula; the score test is of "
                "the mean alone."
            )

    def _check_cluster_threshold(self) -> None:
        """Fill in the default where clusters are asked for; refuse one that nothing uses."""
        asked = any(s in CLUSTER_STATISTICS for s in self.statistic)
        if self.cluster_threshold is not None:
            FORMING.check("cluster_threshold", self.cluster_threshold)
            if not asked:
                raise SettingError(
                    f"cluster_threshold is {self.cluster_threshold:g} but no cluster statistic is "
                    f"asked for; add statistic {' or '.join(CLUSTER_STATISTICS)}."
                )
        elif asked:
            object.__setattr__(self, "cluster_threshold", CLUSTER_THRESHOLD)

    def _check_stop(self) -> None:
        """Fill in which statistic stops; refuse one that is not asked for."""
        if self.stop_at is None:
            if self.stop_statistic is not None:
                raise SettingError("stop_statistic needs stop_at, the peak that it belongs to.")
            return
        place = tuple(float(v) for v in self.stop_at)
        if len(place) != 3 or not all(math.isfinite(v) for v in place):
            raise SettingError(f"stop_at is {self.stop_at}; give three numbers, MNI mm.")
        object.__setattr__(self, "stop_at", place)
        chosen = self.stop_statistic
        if chosen is None:
            chosen = "tfce" if "tfce" in self.statistic else self.statistic[0]
        if chosen not in self.statistic:
            raise SettingError(
                f"stop_statistic is {chosen!r}; it must be one of those asked for: "
                f"{', '.join(self.statistic)}."
            )
        object.__setattr__(self, "stop_statistic", chosen)

    def noise_law(self) -> tuple[str, float]:
        """Kind and parameter of the noise field, e.g. ("scan", 0.77)."""
        found = NOISE.match(self.noise)
        if not found:
            raise SettingError(
                f"noise is {self.noise!r}; write scan:R (face correlation), gaussian:FWHM (mm) "
                "or template:POWER, for example scan:0.77."
            )
        kind, value = found[1], float(found[2])
        NOISE_RANGE[kind].check(f"noise {kind}", value)
        return kind, value

    @property
    def sdm_compat(self) -> bool:
        """Whether SDM-PSI 6.21's deviations are reproduced."""
        return self.compat == "sdm-6.21"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for run.json and fingerprints."""
        return {
            k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v
            for k, v in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Settings:
        """Make the settings of a stored `as_dict` again."""
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in known
        }
        return cls(**values)

    def changed(self, given: Mapping[str, Any]) -> Settings:
        """Give these with others; how effects are imputed follows `compat`, unless it is given."""
        derived = {"impute_under": None} if "compat" in given else {}
        return replace(self, **(derived | dict(given)))

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Name each setting that differs from a stored `as_dict`, `NOT_COMPARED` aside."""
        mine, other = self.as_dict(), BEFORE | other
        return [
            f"{f.name} is {mine[f.name]!r}, there it is {other.get(f.name)!r}"
            for f in fields(self)
            if f.name not in NOT_COMPARED and mine[f.name] != other.get(f.name)
        ]
