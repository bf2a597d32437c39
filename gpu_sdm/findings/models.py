"""What a linear model starts from, and the models of a subgroup analysis."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset
from gpu_sdm.errors import SettingError
from gpu_sdm.finished import Finished, open_result
from gpu_sdm.io import read
from gpu_sdm.stages.formula import complete, level_values
from gpu_sdm.stages.samples import merge_samples
from gpu_sdm.stages.where import select

MOST_LEVELS = 8  # of a subgroup column: 8 means and 28 differences


@dataclass(frozen=True, eq=False)
class Source:
    """A project, or a finished result whose settings are taken over.

    Parameters
    ----------
    path : path
        What was given.
    settings : Settings
        Those of the result, or the defaults; without covariates, formula and contrast.
    finished : Finished or None
        The result.
    """

    path: Path
    settings: Settings
    finished: Finished | None

    def dataset(self, compat: bool) -> Dataset:
        """Read the project."""
        if self.finished is None:
            return read(self.path, compat=compat)
        return self.finished.dataset(compat)


def open_source(path: Path) -> Source:
    """Open a project folder or a finished result.

    Raises
    ------
    InputError
        If it is a result that is not finished.
    """
    if not (path / "run.json").is_file():
        return Source(path, Settings(), None)
    finished = open_result(path)
    plain = replace(finished.settings, covariates=(), formula=None, contrast=())
    return Source(path, plain, finished)


@dataclass(frozen=True)
class Subgroup:
    """One model of a subgroup analysis: `folder` is its name, `contrast` a mean or a difference."""

    folder: str
    formula: str
    contrast: str


def subgroups(
    dataset: Dataset, column: str, where: str | None = None
) -> tuple[list[Subgroup], Counter[str]]:
    """Give the models of a subgroup analysis, and how many studies each group has.

    Parameters
    ----------
    dataset : Dataset
        What was read.
    column : str
        Column whose values are the groups.
    where : str, optional
        As in the settings.

    Returns
    -------
    list of Subgroup
        The mean of each group, then the difference of each pair, all in one model with a mean for
        each group and one tau2.
    Counter
        Group -> studies.

    Raises
    ------
    SettingError
        If the column is unknown or does not hold 2 to 8 groups of two studies or more.
    """
    first = dataset.studies[0]
    if column not in (*first.labels, *first.covariates):
        known = ", ".join((*first.labels, *first.covariates)) or "no further column"
        raise SettingError(f"subgroup is {column!r}, which is not in the table; it has: {known}.")
    chosen = merge_samples(select(dataset, where))
    count = Counter(level_values(complete(chosen, [column]), column))
    levels = sorted(count)
    if not 2 <= len(levels) <= MOST_LEVELS:
        raise SettingError(
            f"subgroup is {column!r}, which holds {len(levels)} groups; it must hold 2 to "
            f"{MOST_LEVELS} (use --formula '1 + {column}' for a slope)."
        )
    for level in levels:
        if count[level] < 2:
            raise SettingError(
                f"subgroup {column!r}: group {level!r} has 1 study; leave it out by --where "
                f"\"{column} != '{level}'\"."
            )
    name = column if column.isidentifier() else f"`{column}`"
    formula = f"0 + C({name})"
    means = [Subgroup(f"mean_{_plain(g)}", formula, f"{column}[{g}]") for g in levels]
    pairs = [
        Subgroup(f"{_plain(a)}_minus_{_plain(b)}", formula, f"{column}[{a}] - {column}[{b}]")
        for a, b in combinations(levels, 2)
    ]
    folders = [m.folder for m in means + pairs]
    if len(set(folders)) < len(folders):
        raise SettingError(
            f"subgroup {column!r} holds names that make the same folder: {', '.join(levels)}."
        )
    return means + pairs, count


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text)
