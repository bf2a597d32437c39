"""A formula in words becomes a design matrix: only columns and four transforms, never code."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import SettingError
from gpu_sdm.io._text import shown

TRANSFORMS = ("C", "center", "scale", "poly")
GRAMMAR = "columns, numbers, + - * : ( ) and C(), center(), scale(), poly(column, degree)"
TOKEN = re.compile(r"\s*(?:(`[^`]+`|[^\W\d][\w.]*)|(\d+(?:\.\d+)?)|([-+*:(),]))")
HIGHEST_DEGREE = 5
LONGEST = 2_000  # characters
MOST_CROSSED = 8  # * or : in one formula: each * may double the terms


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """What a formula says about the studies.

    Attributes
    ----------
    x : (K, Q) float64
        Columns in the formula's order; numeric table columns enter minus their mean.
    names : tuple of str
        Q column names; that of the intercept is "Intercept".
    terms : dict of str to list of int
        Term -> its columns.
    factors : dict of str to tuple of str
        Term -> the factors that it multiplies.
    """

    x: np.ndarray
    names: tuple[str, ...]
    terms: dict[str, list[int]]
    factors: dict[str, tuple[str, ...]]


def _refuse(formula: str, what: str) -> SettingError:
    return SettingError(f"formula is {shown(formula, 200)}: {what}; it may hold {GRAMMAR}.")


def _tokens(formula: str) -> list[tuple[str, str]]:
    """(kind, text) of each word: "name", "number" or the sign itself."""
    if "~" in formula:
        raise _refuse(formula, "it has a left side (~), which is always the effect")
    if len(formula) > LONGEST:
        raise SettingError(f"formula has {len(formula):,} characters, more than {LONGEST:,}.")
    found: list[tuple[str, str]] = []
    at, text = 0, formula.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise _refuse(formula, f"{text[at:].strip()[:12]!r} is not allowed")
        name, number, sign = match.groups()
        found.append(("name", name) if name else ("number", number) if number else (sign, sign))
        at = match.end()
    if not found:
        raise _refuse(formula, "it is empty")
    if sum(kind in "*:" for kind, _ in found) > MOST_CROSSED:
        raise _refuse(formula, f"it crosses more than {MOST_CROSSED + 1} columns")
    return found


def columns_of(formula: str, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Check every word of a formula and give the columns it uses.

    Parameters
    ----------
    formula : str
        For example "1 + age + C(medication)".
    known : sequence of str
        Columns of the table.

    Returns
    -------
    columns : list of str
        Used columns in order.
    categorical : list of str
        Those of them within C().

    Raises
    ------
    SettingError
        If a word is neither a column, a number, a sign of the grammar nor a transform of a column.
    """
    tokens = [*_tokens(formula), ("end", ""), ("end", ""), ("end", ""), ("end", "")]
    columns: list[str] = []
    inside: list[str] = []
    plain: list[str] = []
    i, unsigned = 0, ""
    while tokens[i][0] != "end":
        kind, text = tokens[i]
        if kind in ("name", "number", "(") and i and tokens[i - 1][0] in ("name", "number", ")"):
            unsigned = unsigned or shown(text)
        call = kind == "name" and tokens[i + 1][0] == "("
        if call and text not in TRANSFORMS:
            called = text if text.isprintable() and len(text) <= 40 else shown(text)
            raise _refuse(formula, f"{called}() is not allowed")
        if call:
            column = tokens[i + 2]
            closing = i + 3
            if text == "poly" and tokens[i + 3][0] == ",":
                degree = tokens[i + 4]
                if degree[0] != "number" or degree[1] not in map(str, range(1, HIGHEST_DEGREE + 1)):
                    raise _refuse(formula, f"the degree of poly() must be 1 to {HIGHEST_DEGREE}")
                closing = i + 5
            if column[0] != "name" or tokens[closing][0] != ")":
                raise _refuse(formula, f"{text}() takes one column")
            # Within a call formulaic reads Python, in which these are no names of columns.
            word = "." in column[1] or keyword.iskeyword(column[1])
            if word and not column[1].startswith("`"):
                name = shown(column[1])
                raise _refuse(formula, f"{name} needs backticks (`) there: {text}(`...`)")
            columns.append(column[1].strip("`"))
            (inside if text == "C" else plain).append(column[1].strip("`"))
            i = closing + 1
            continue
        if kind == "name":
            columns.append(text.strip("`"))
            plain.append(text.strip("`"))
        elif kind == "number" and text not in ("0", "1"):
            raise _refuse(formula, f"{text} is no term")
        elif kind == ",":
            raise _refuse(formula, "',' is not allowed here")
        i += 1
    for used in columns:
        if used not in known:
            raise SettingError(
                f"formula is {shown(formula, 200)}: {shown(used)} is not in the table; it has: "
                f"{', '.join(known) or 'no further column'}."
            )
    if unsigned:
        raise _refuse(formula, f"there is no sign before {unsigned}")
    for used in inside:
        if used in plain:
            raise _refuse(formula, f"{shown(used)} is used both as a number and as C()")
    return list(dict.fromkeys(columns)), list(dict.fromkeys(inside))


def complete(dataset: Dataset, columns: Sequence[str]) -> Dataset:
    """Leave out the studies that miss a column; each is named in a `covariate_missing` notice.

    Raises
    ------
    SettingError
        If a column has no value at all.
    """
    left, notices = [], []
    seen = dict.fromkeys(columns, False)
    for study in dataset.studies:
        gone = [
            c
            for c in columns
            if (study.labels[c] == "" if c in study.labels else np.isnan(study.covariates[c]))
        ]
        for c in columns:
            seen[c] |= c not in gone
        if gone:
            which = ", ".join(map(repr, gone))
            text = f"study {study.name!r} has no value of {which}; it leaves this model."
            notices.append(Notice("covariate_missing", text))
        else:
            left.append(study.name)
    for c, found in seen.items():
        if not found:
            raise SettingError(f"covariate {c!r} has no value for any study.")
    return dataset.subset(left, notices)


def level_values(dataset: Dataset, column: str) -> list[str]:
    """Category of each study in a column; numbers as short text."""
    if column in dataset.studies[0].labels:
        return [s.labels[column] for s in dataset.studies]
    return [f"{s.covariates[column]:g}" for s in dataset.studies]


def model_matrix(
    formula: str, dataset: Dataset, categorical: Sequence[str], centre: bool
) -> Matrix:
    """Build the columns of a formula that `columns_of` has checked.

    Parameters
    ----------
    formula : str
        Checked formula.
    dataset : Dataset
        K studies without missing values.
    categorical : sequence of str
        Numeric columns that C() makes categories of.
    centre : bool
        Take the mean off each numeric column first; False keeps it raw.
    """
    import pandas as pd
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    studies = dataset.studies
    columns, _ = columns_of(formula, [*studies[0].covariates, *studies[0].labels])
    table: dict[str, object] = {}
    for c in columns:
        if c in studies[0].labels or c in categorical:
            table[c] = level_values(dataset, c)
        else:
            raw = np.array([s.covariates[c] for s in studies], np.float64)
            table[c] = raw - raw.mean() if centre else raw
    frame = pd.DataFrame(table, index=range(len(studies)))
    try:
        made = Formula(formula).get_model_matrix(frame, output="pandas")
    except (FormulaicError, SyntaxError) as error:
        said = str(error).strip().splitlines()
        raise _refuse(formula, f"it cannot be read ({said[0] if said else error!r})") from error
    spec = made.model_spec
    return Matrix(
        np.asarray(made, np.float64),
        tuple(map(str, made.columns)),
        {str(term): list(at) for term, at in spec.term_indices.items()},
        {str(term): tuple(map(str, term.factors)) for term in spec.terms},
    )
