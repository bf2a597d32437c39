"""What a paper says of its samples: totals, weighted means, and whether the groups are alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from gpu_sdm.data import Study
from gpu_sdm.findings.study_columns import Columns, size, value

PAIR = ("patients", "controls")


@dataclass(frozen=True)
class Compared:
    """Totals of the groups and tests between them.

    Parameters
    ----------
    totals : list of rows
        `group`, `studies`, `subjects`, `age_mean` (weighted by subjects), `age_studies` and
        `female_percent`, `female`, `female_studies`; NaN where no column says.
    tests : list of rows
        `quantity`, `test`, `statistic`, `df`, `p`, `patients`, `controls` (means over studies,
        or females), `studies` that have both, `left_out` the others.
    notes : list of str
        What could not be tested, and why.
    """

    totals: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    notes: list[str]


def _total(studies: Sequence[Study], columns: Columns, group: str) -> dict[str, Any]:
    n = np.array([size(s, group) for s in studies], float)
    age = _ages(studies, columns, group)
    percent = _read(studies, columns.percent("female", group))
    with_age, with_sex = np.isfinite(age) & (n > 0), np.isfinite(percent) & (n > 0)
    female = np.round(n * percent / 100)[with_sex]  # whole women, study by study
    return {
        "group": group or "all",
        "studies": int((n > 0).sum()),
        "subjects": int(n.sum()),
        "age_mean": _weighted(age, n, with_age),
        "age_studies": int(with_age.sum()),
        "female": int(female.sum()) if with_sex.any() else None,
        "female_percent": float(100 * female.sum() / n[with_sex].sum())
        if with_sex.any()
        else math.nan,
        "female_studies": int(with_sex.sum()),
    }


def _weighted(values: np.ndarray, n: np.ndarray, use: np.ndarray) -> float:
    return float(np.average(values[use], weights=n[use])) if use.any() else math.nan


def _read(studies: Sequence[Study], read: Callable[[Study], float] | None) -> np.ndarray:
    return np.array([math.nan if read is None else read(s) for s in studies])


def _ages(studies: Sequence[Study], columns: Columns, group: str) -> np.ndarray:
    """(K,) mean ages of a group; of all subjects from the two groups where no column says."""
    name = columns.name("age", group)
    own = np.array([value(s, name) for s in studies])
    if group or name is not None:
        return own
    n, ages = (
        np.array([[f(s, g) for g in PAIR] for s in studies], float)
        for f in (size, lambda s, g: value(s, columns.name("age", g)))
    )
    n2_none = n[:, 1] == 0
    return np.where(
        n2_none, ages[:, 0], (n * np.where(n2_none[:, None], 0, ages)).sum(axis=1) / n.sum(axis=1)
    )


def _t_rows(studies: Sequence[Study], columns: Columns, form: str) -> list[dict[str, Any]]:
    """Test the groups' ages (form "") or their standard deviations over studies."""
    names = [columns.name("age", g, form) for g in PAIR]
    if None in names:
        return []
    both = np.array([[value(s, name) for name in names] for s in studies])
    has = np.isfinite(both).all(axis=1)
    a, b = both[has].T
    if len(a) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return []
    about = {
        "quantity": "mean age" if not form else "SD of age",
        "patients": float(a.mean()),
        "controls": float(b.mean()),
        "studies": int(has.sum()),
        "left_out": ", ".join(s.name for s, h in zip(studies, has, strict=True) if not h),
    }
    tests = {
        "Student's t": stats.ttest_ind(a, b),
        "Welch's t": stats.ttest_ind(a, b, equal_var=False),
    }
    if np.ptp(a - b) > 0:
        tests["paired t"] = stats.ttest_rel(a, b)
    return [
        {
            **about,
            "test": name,
            "statistic": float(t.statistic),
            "df": float(t.df),
            "p": float(t.pvalue),
        }
        for name, t in tests.items()
    ]


def _sex_rows(studies: Sequence[Study], columns: Columns) -> list[dict[str, Any]]:
    """Chi-square of women and men in all patients and all controls."""
    percent = np.array([_read(studies, columns.percent("female", g)) for g in PAIR])
    n = np.array([[size(s, g) for s in studies] for g in PAIR], float)
    has = np.isfinite(percent).all(axis=0) & (n > 0).all(axis=0)
    if not has.any():
        return []
    female = np.round(n * percent / 100)[:, has]
    table = np.stack([female.sum(axis=1), (n[:, has] - female).sum(axis=1)], axis=1)
    if (table.sum(axis=0) == 0).any():
        return []
    about = {
        "quantity": "women and men",
        "patients": int(table[0, 0]),
        "controls": int(table[1, 0]),
        "studies": int(has.sum()),
        "left_out": ", ".join(s.name for s, h in zip(studies, has, strict=True) if not h),
    }
    rows = []
    for name, correction in (("chi-square", False), ("chi-square, Yates", True)):
        chi2 = stats.chi2_contingency(table, correction=correction)
        rows.append(
            {
                **about,
                "test": name,
                "statistic": float(chi2.statistic),
                "df": float(chi2.dof),
                "p": float(chi2.pvalue),
            }
        )
    return rows


def compare_groups(studies: Sequence[Study]) -> Compared:
    """Total the groups and compare their ages, age SDs and sexes.

    Parameters
    ----------
    studies : sequence of Study
        In order; columns are recognised by their names (`study_columns.understood`).

    Returns
    -------
    Compared

    Notes
    -----
    The t-tests take one number per study and group, unweighted, two-sided: independent samples
    of equal (Student) and of unequal variances (Welch), and paired by study. The chi-square is
    Pearson's of the 2 x 2 table of group and sex over all subjects, without and with Yates'
    correction; percentages are turned into whole subjects study by study.
    """
    columns = Columns.of(studies)
    two = any(s.two_sample for s in studies)
    totals = [_total(studies, columns, g) for g in ((*PAIR, "") if two else ("",))]
    tests: list[dict[str, Any]] = []
    notes: list[str] = []
    if not two:
        return Compared(totals, tests, ["one-sample studies: no groups to compare."])
    for form, what, wanted in (
        ("", "mean ages", "age_patients and age_controls"),
        ("sd", "age SDs", "age_sd_patients and age_sd_controls"),
    ):
        rows = _t_rows(studies, columns, form)
        tests += rows
        if not rows:
            notes.append(f"no test of the {what}: give numbers in columns such as {wanted}.")
    rows = _sex_rows(studies, columns)
    tests += rows
    if not rows:
        notes.append(
            "no chi-square of sex: give it by group, in columns such as female_patients and "
            "female_controls (percent), or female_n_patients and female_n_controls."
        )
    return Compared(totals, tests, notes)
