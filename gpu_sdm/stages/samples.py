"""Several contrasts of one sample become one study, so that no sample counts twice.

Subjects i = 1 ... n of a sample take part in m contrasts: y_ik = e_ik + d_k, where e has variance 1
and any two contrasts of a subject correlate r. The study of the sample is the mean of the m
effects, g = mean g_k with g_k = J d_k. With the mean residual of a subject, mean_k e_ik, of
variance

    f = (1 + (m - 1) r) / m,

it is a study of the *same* n subjects whose images are u_i = mean_k y_ik / sqrt(f): residuals of
variance 1, as simulated subjects have them, around d' = d / sqrt(f). Hence, with the one-contrast
constants J, c, v2,

    j' = J sqrt(f)   so that g = j' d',
    c' = f c, v2' = f v2   so that the variance c' + v2' g^2 is f times that of one contrast.

A permutation moves a subject with all its contrasts. The effect of contrast k is then
g_k* = J diff_k / sd_k with sd_k^2 = 1 + alpha d_k^2 + beta m_k^2 + gamma d_k m_k, where m_k is the
permuted mean of group 1 (`gpu_sdm.ops.permuted_effects`). In units of u all of d, m and diff are
divided by sqrt(f), and so

    g* = j' diff' / sd,   sd^2 = 1 + f (alpha d'^2 + beta m'^2 + gamma d' m').

The polynomial needs the factor f, as each contrast is divided by its own standard deviation and not
by the smaller one of their mean. What is left out is of second order in how the contrasts differ
from their mean: it makes the null narrower by about 3 (1 - f) / 2n, n all subjects, and wider where
the effects of the contrasts differ (docs/samples.md). Nothing is left out where they are the same
(r = 1) or where the standard deviation is not estimated again. The factor of v2 is cautious: the
squares, from which that part of the variance comes, correlate r^2 rather than r.

References
----------
.. [1] Borenstein M, Hedges LV, Higgins JPT, Rothstein HR (2009) Introduction to Meta-Analysis,
   chapter 24. Wiley.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from gpu_sdm.data import Bounds, Dataset, Notice, Peaks, Study
from gpu_sdm.errors import InputError
from gpu_sdm.io._table_rows import name_fault
from gpu_sdm.io._text import shown
from gpu_sdm.io.sdm_table import SAMPLE


def averaging_factor(m: int, correlation: float) -> float:
    """Variance of the mean of m values of variance 1 that correlate `correlation`.

    Examples
    --------
    >>> averaging_factor(2, 0.5), averaging_factor(3, 1.0)
    (0.75, 1.0)
    """
    return (1 + (m - 1) * correlation) / m


def sample_label(study: Study) -> str:
    """Text of the study's cell in the column `sample`; "" where it has none."""
    if SAMPLE in study.labels:
        return study.labels[SAMPLE]
    value = study.covariates.get(SAMPLE, math.nan)
    return "" if math.isnan(value) else f"{value:.15g}"


def contrasts_of(studies: Sequence[Study]) -> tuple[Study, ...]:
    """Contrasts as read, in the order of the studies that they make."""
    return tuple(part for study in studies for part in study.parts)


def merge_samples(dataset: Dataset, correlation: float = 0.5) -> Dataset:
    """Make one study of all contrasts of a sample.

    Parameters
    ----------
    dataset : Dataset
        Contrasts; those with the same text or number in the column `sample` have the same subjects.
        An empty cell, or one that no other has, is a study as it stands.
    correlation : float
        r of any two contrasts of a sample, 0 to 1.

    Returns
    -------
    Dataset
        The same object where nothing is to be merged. A merged study stands where its first
        contrast stood, is named after the sample and says in a `sample_merged` notice what it is
        made of. Covariates are means of the values there are; a text on which the contrasts
        disagree is missing.

    Raises
    ------
    InputError
        If contrasts of a sample differ in n1 or n2, or its name is another study's or cannot name
        files.
    """
    groups: dict[str, list[Study]] = {}
    for study in dataset.studies:
        groups.setdefault(sample_label(study), []).append(study)
    groups.pop("", None)
    several = {label: group for label, group in groups.items() if len(group) > 1}
    if not several:
        return dataset
    studies, notices, made = [], list(dataset.notices), set()
    for study in dataset.studies:
        label = sample_label(study)
        if label not in several:
            studies.append(study)
        elif label not in made:
            made.add(label)
            _check(label, several[label], dataset)
            # By name, so that no bit depends on the order of the table.
            parts = tuple(sorted(several[label], key=lambda s: s.name))
            merged, notice = _merged(label, parts, correlation)
            studies.append(merged)
            notices.append(notice)
    return replace(dataset, studies=tuple(studies), notices=tuple(notices))


def _check(label: str, group: Sequence[Study], dataset: Dataset) -> None:
    first = group[0]
    for other in group[1:]:
        if (first.n1, first.n2) != (other.n1, other.n2):
            sizes = " and ".join(f"{s.name} (n1 = {s.n1}, n2 = {s.n2})" for s in (first, other))
            raise InputError(
                f"sample {shown(label)} has contrasts of different sizes: {sizes}; contrasts of "
                f"one sample have the same subjects: mend the sizes or the column {SAMPLE}.",
                dataset.path,
            )
    inside = {s.name for s in group}
    if any(s.name == label and s.name not in inside for s in dataset.studies):
        raise InputError(
            f"sample {shown(label)} has the name of a study that is not one of its contrasts; "
            "name the sample otherwise.",
            dataset.path,
        )
    fault = "begins with a dot" if label.startswith(".") else name_fault(label)
    if fault:
        raise InputError(
            f"sample {shown(label)} {fault}; use letters, digits, dots, - and _.",
            dataset.path,
        )


def _merged(label: str, parts: tuple[Study, ...], correlation: float) -> tuple[Study, Notice]:
    first, differ = parts[0], []
    covariates: dict[str, float] = {}
    for column in first.covariates:
        values = [v for p in parts if not math.isnan(v := p.covariates[column])]
        same = len(set(values)) == 1
        covariates[column] = values[0] if same else float(np.mean(values)) if values else math.nan
        if values and not same:
            differ.append(f"{column} (the mean, {covariates[column]:g}, is used)")
    labels: dict[str, str] = {}
    for column in first.labels:
        texts = {p.labels[column] for p in parts} - {""}
        labels[column] = texts.pop() if len(texts) == 1 else ""
        if texts:
            differ.append(f"{column} (none is used)")
    corrections = {p.correction for p in parts}
    thresholds = {p.t_threshold for p in parts}
    study = Study(
        label,
        first.n1,
        first.n2,
        thresholds.pop() if len(thresholds) == 1 else math.nan,
        Peaks.none("no_peaks", ""),
        covariates,
        corrections.pop() if len(corrections) == 1 else "",
        labels,
        None,
        parts,
        averaging_factor(len(parts), correlation),
    )
    text = f"sample {shown(label)}: one study, the mean of {', '.join(p.name for p in parts)}, "
    text += f"which are taken to correlate {correlation:g}"
    text += f"; they differ in {', '.join(differ)}." if differ else "."
    return study, Notice("sample_merged", text)


def merge_bounds(bounds: Bounds, studies: Sequence[Study]) -> Bounds:
    """Average the bounds of the contrasts of each study.

    Parameters
    ----------
    bounds : Bounds
        One row per contrast, in the order of `contrasts_of`.
    studies : sequence of Study
        K studies.

    Returns
    -------
    Bounds
        (K, V); the same object where every study is one contrast. Known where all contrasts are
        known, infinite where the image of one has no data.
    """
    if not any(s.contrasts for s in studies):
        return bounds
    sizes = [len(s.parts) for s in studies]
    starts = np.cumsum([0, *sizes])
    rows = [slice(a, b) for a, b in pairwise(starts)]
    lower, upper = (
        np.stack([side[row].mean(axis=0, dtype=np.float64) for row in rows]).astype(np.float32)
        for side in (bounds.lower, bounds.upper)
    )
    return Bounds(lower, upper)


def composition(studies: Sequence[Study]) -> str:
    """Say which contrasts make which study; "" where none is merged."""
    merged = [s for s in studies if s.contrasts]
    return "; ".join(f"{s.name} = {' + '.join(p.name for p in s.contrasts)}" for s in merged)
