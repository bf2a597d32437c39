"""The design matrix: intercept and mean-centred nuisance covariates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import SettingError

INTERCEPT = "mean"
FEW_STUDIES = 5
# A column whose part outside the others is below this share of it adds rounding noise only.
COLLINEAR = 1e-6
ROUNDING = 1e-12  # a covariate that varies by less than this share of itself is constant
LARGEST = 1e100  # beyond it, and below its inverse, sums of squares overflow or vanish


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Regressors of a model and the studies it is fitted to.

    Attributes
    ----------
    dataset : Dataset
        The K studies that have a value of every covariate, with all notices.
    X : (K, Q) float64
        Ones, then each covariate minus its mean.
    names : tuple of str
        Q column names, "mean" first.
    means : (Q-1,) float64
        Means that were subtracted.
    criterion : (Q,) float64
        Contrast of the leave-one-out rule: what is tested; for the mean, the mean effect at
        average covariates or, in compat mode, at raw covariates = 0. Of several tested rows: the
        mean, so that their order does not matter.
    contrast : (R, Q) float64
        What is tested; several rows jointly.
    tested : tuple of str
        R texts that name the rows.
    moderator : bool
        Whether every row is 0 where all studies have the same effect (a slope, a difference
        between groups): whole studies are then permuted. Otherwise a mean is tested.
    """

    dataset: Dataset
    X: np.ndarray
    names: tuple[str, ...]
    means: np.ndarray
    criterion: np.ndarray
    contrast: np.ndarray
    tested: tuple[str, ...] = (INTERCEPT,)
    moderator: bool = False

    def __post_init__(self) -> None:
        for a in (self.X, self.means, self.criterion, self.contrast):
            a.flags.writeable = False


def covariate_values(dataset: Dataset, names: Sequence[str]) -> tuple[Dataset, np.ndarray]:
    """Take the values of covariates, without the studies that miss one.

    Parameters
    ----------
    dataset : Dataset
        What was read.
    names : sequence of str
        Q - 1 covariates.

    Returns
    -------
    dataset : Dataset
        The K studies with all values; a `covariate_missing` notice for each one left out.
    values : (K, Q-1) float64

    Raises
    ------
    SettingError
        If a covariate is unknown, holds text or has no value at all.
    """
    available = dataset.studies[0].covariates if dataset.studies else {}
    for name in names:
        if name in available:
            continue
        words = [(s.name, s.labels[name]) for s in dataset.studies if s.labels.get(name)]
        if words:
            whose, word = next((w for w in words if not w[1][-1].isdigit()), words[0])
            raise SettingError(
                f"covariate {name!r} is not numeric ({whose} has {word!r}); code it as numbers and "
                "write NA for a missing value, or use it as a factor (gpu-sdm model --formula)."
            )
        raise SettingError(
            f"covariate {name!r} is not in the table; it has: {', '.join(available) or 'none'}."
        )
    values = np.array(
        [[s.covariates[c] for c in names] for s in dataset.studies], np.float64
    ).reshape(len(dataset.studies), len(names))
    missing = np.isnan(values)
    for column, name in enumerate(names):
        if missing[:, column].all():
            raise SettingError(f"covariate {name!r} has no value for any study.")
    left, notices = [], []
    for study, gone in zip(dataset.studies, missing, strict=True):
        if not gone.any():
            left.append(study.name)
            continue
        which = ", ".join(repr(c) for c, g in zip(names, gone, strict=True) if g)
        text = f"study {study.name!r} has no value of {which}; it leaves this model."
        notices.append(Notice("covariate_missing", text))
    return dataset.subset(left, notices), values[~missing.any(axis=1)]


def design(dataset: Dataset, covariates: Sequence[str] = (), compat: bool = False) -> Design:
    """Build the design of the mean effect with nuisance covariates.

    Parameters
    ----------
    dataset : Dataset
        What was read.
    covariates : sequence of str
        Nuisance covariates; the first coefficient is then the mean at average covariates.
    compat : bool
        Leave-one-out criterion at raw covariates = 0, as in SDM-PSI 6.21.

    Returns
    -------
    Design
        Its dataset carries the notices `covariate_missing`, `covariate_constant`, `few_studies`
        and, in compat mode, `zero_outside_covariate_range`.

    Raises
    ------
    SettingError
        If a covariate is unknown, not numeric or collinear with the others, or if fewer than two
        degrees of freedom are left.
    """
    dataset, values = covariate_values(dataset, covariates)
    notices, names, columns, means = [], [INTERCEPT], [np.ones(len(values))], []
    for name, raw in zip(covariates, values.T, strict=True):
        scale = np.abs(raw).max(initial=0.0)
        require_scale(name, raw)
        if len(raw) and np.ptp(raw) <= ROUNDING * scale:
            text = f"covariate {name!r} is {raw[0]:g} in every study; it is left out."
            notices.append(Notice("covariate_constant", text))
            continue
        mean = raw.mean()
        columns.append(raw - mean)
        means.append(mean)
        names.append(name)
        if compat and not raw.min() <= 0 <= raw.max():
            text = f"covariate {name!r} runs from {raw.min():g} to {raw.max():g} and never is 0,"
            text += " where compat sdm-6.21 applies its leave-one-out rule."
            notices.append(Notice("zero_outside_covariate_range", text))
    x = np.stack(columns, axis=1)
    notices += require_studies(x)
    refuse_collinear(x, names)
    raw_zero = np.array([1.0, *(-m for m in means)])
    mean = np.eye(len(names))[:1]
    criterion = raw_zero if compat else mean[0].copy()
    dataset = dataset.subset(dataset.names, notices)
    return Design(dataset, x, tuple(names), np.array(means, np.float64), criterion, mean)


def require_studies(x: np.ndarray) -> list[Notice]:
    """Refuse fewer than two degrees of freedom; warn of few studies."""
    k, q = x.shape
    if k - q < 2:
        raise SettingError(
            f"the model has {q} coefficient{'s' * (q > 1)} for {k} studies; it needs at least "
            f"{q + 2} studies."
        )
    if k >= FEW_STUDIES:
        return []
    text = f"{k} studies: the between-study variance and the result are very uncertain."
    return [Notice("few_studies", text)]


def require_scale(name: str, raw: np.ndarray) -> None:
    """Raise where squares of a covariate's values would overflow or vanish."""
    scale = np.abs(raw).max(initial=0.0)
    if scale > LARGEST or 0 < scale < 1 / LARGEST:
        raise SettingError(
            f"covariate {name!r} runs from {raw.min():g} to {raw.max():g}; rescale it."
        )


def refuse_collinear(x: np.ndarray, names: Sequence[str]) -> None:
    """Raise where a column is, to rounding, a combination of those before it."""
    unit = x / np.linalg.norm(x, axis=0)
    # |r_ii| of a QR of unit columns: the part of column i outside the span of the earlier ones.
    outside = np.abs(np.diag(np.linalg.qr(unit, mode="r")))
    for name, share in zip(names, outside, strict=True):
        if share < COLLINEAR:
            others = ", ".join(n for n in names if n not in (name, INTERCEPT))
            raise SettingError(
                f"covariate {name!r} is a combination of the others ({others}); leave one out."
            )
