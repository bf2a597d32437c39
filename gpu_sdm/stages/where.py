"""Choose studies by a condition on the columns of the table; nothing is ever evaluated as code."""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.errors import SettingError
from gpu_sdm.io._text import CONTROL, shown

SAY = "write for example \"disorder == 'MDD' and age < 40\""
LONGEST = 2_000  # characters
LARGEST = 1e300
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


class _Missing(Exception):
    """A column that the condition asks for has no value in this study."""


def values_of(study: Study) -> dict[str, float | str]:
    """Every column of one study that a condition may name; NaN or "" where missing."""
    return {
        "study": study.name,
        **{"n1": study.n1, "n2": study.n2, "n": study.n},
        "t_thr": study.t_threshold,
        "threshold": study.correction,
        **study.covariates,
        **study.labels,
    }


def _source(node: ast.expr) -> str:
    try:
        return shown(ast.unparse(node), 200)
    except RecursionError:
        return "what is nested too deeply"


def _constant(node: ast.expr) -> float | str:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _constant(node.operand) if isinstance(node.operand, ast.Constant) else ""
        if isinstance(value, float):
            return -value
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return node.value
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            if abs(node.value) > LARGEST:
                raise SettingError(f"where holds a number beyond {LARGEST:g}; {SAY}.")
            return float(node.value)
    raise SettingError(f"where holds {_source(node)}; {SAY}.")


def _side(node: ast.expr, values: Mapping[str, float | str]) -> Any:
    """Value of one side of a comparison: a column, a constant, or a list of constants."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_constant(e) for e in node.elts]
    if not isinstance(node, ast.Name):
        return _constant(node)
    if node.id not in values:
        raise SettingError(
            f"where names {shown(node.id)}, which is no column of the table; it has: "
            f"{', '.join(values)}. {SAY[0].upper()}{SAY[1:]}."
        )
    value = values[node.id]
    if value == "" or (isinstance(value, float) and math.isnan(value)):
        raise _Missing(node.id)
    return value


def _holds(node: ast.expr, values: Mapping[str, float | str]) -> bool:
    if isinstance(node, ast.BoolOp):
        # Every part is looked at, so that a wrong name is found whatever the first study says.
        parts = [_holds(v, values) for v in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _holds(node.operand, values)
    if not isinstance(node, ast.Compare):
        raise SettingError(f"where holds {_source(node)}, which is no comparison; {SAY}.")
    left = _side(node.left, values)
    found = []
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _side(right_node, values)
        if type(op) not in COMPARE or isinstance(right, list) != isinstance(
            op, (ast.In, ast.NotIn)
        ):
            raise SettingError(f"where holds {_source(node)}; {SAY}.")
        for one in right if isinstance(right, list) else [right]:
            if isinstance(left, list) or isinstance(left, str) != isinstance(one, str):
                raise SettingError(
                    f"where compares {_source(node)}, a number with a text; put texts, and "
                    "only texts, in quotes."
                )
        found.append(COMPARE[type(op)](left, right))
        left = right
    return all(found)


def select(dataset: Dataset, where: str | None) -> Dataset:
    """Keep the studies for which a condition holds.

    Parameters
    ----------
    dataset : Dataset
        What was read.
    where : str or None
        Comparisons (``== != < <= > >= in``, ``not in``) of columns with numbers or quoted texts,
        joined by ``and``, ``or``, ``not``. Besides the table's own columns: study, n1, n2, n,
        t_thr, threshold. None keeps all.

    Returns
    -------
    Dataset
        A study in which a named column is missing is left out (notice `where_missing`); the
        others that were left out are counted in one notice `where`.

    Raises
    ------
    SettingError
        If the condition cannot be read, or holds for fewer than two studies.
    """
    if where is None:
        return dataset
    if len(where) > LONGEST:
        raise SettingError(
            f"where has {len(where):,} characters, more than {LONGEST:,}; mark the studies in a "
            "column of the table and name that."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on escapes such as \d in a text
            tree = ast.parse(where, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SettingError(f"where is {shown(where, 200)}, which cannot be read; {SAY}.") from error
    kept, notices = [], []
    for study in dataset.studies:
        try:
            if _holds(tree, values_of(study)):
                kept.append(study.name)
        except _Missing as missing:
            text = f"study {study.name!r} has no value of {str(missing)!r}; it is left out."
            notices.append(Notice("where_missing", text))
    if len(kept) < 2:
        raise SettingError(
            f"where is {shown(where, 200)}, which holds for {len(kept)} of "
            f"{len(dataset.studies)} studies; a meta-analysis needs at least 2."
        )
    said = CONTROL.sub("?", " ".join(where.split()))
    text = f"{len(kept)} of {len(dataset.studies)} studies have {said}."
    return dataset.subset(kept, (*notices, Notice("where", text)))
