"""What a study had to pass to be reported, from any statement of it to t at the study's df."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpu_sdm.checks import Interval, Options
from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io._text import LARGEST_T, decimal_comma, number, shown
from gpu_sdm.io.peak_files import peak_doubts
from gpu_sdm.io.sdm_table import UNKNOWN
from gpu_sdm.statistics import KINDS, to_t

CLUSTER = "cluster_"  # before the kind of a threshold that formed clusters
THRESHOLD_KINDS = ("t", "z", "p_one_sided", "p_two_sided")
MISSING = "threshold_missing"
CLUSTER_MEANING = (
    "is one that formed clusters: a voxel above it may still be unreported, since its cluster was "
    "too small, while imputation takes every unreported effect to lie below it; use the paper's "
    "voxelwise threshold if it has one, else read the result with that in mind."
)


class Assumed(NamedTuple):
    """The p value that stands in for a threshold the input does not give."""

    p: float
    sides: int = 1

    @property
    def kind(self) -> str:
        """Kind of threshold that p is."""
        return "p_two_sided" if self.sides == 2 else "p_one_sided"

    def check(self) -> None:
        """Raise SettingError unless p and sides can be a threshold."""
        Options((1, 2)).check("sides", self.sides)
        Interval(0, 0.5 * self.sides, closed="neither").check("threshold-p", self.p)

    def t(self, n1: int, n2: int) -> float:
        """Give its t in a study of that size."""
        return float(to_t(np.array([self.p]), self.kind, n1, n2)[0])

    def notice(self, name: str, studies: int) -> Notice:
        """Say for how many studies it stands in."""
        text = f"{name}: {studies} studies give no threshold; t_thr is that of {self.p:g}, "
        text += f"{KINDS[self.kind].title}, at each study's degrees of freedom."
        return Notice("threshold_assumed", text)


def study_threshold(
    cell: str, kind: str, name: str, sizes: tuple[int, int], path: Path, line: int | None
) -> float:
    """|t| threshold that a cell states; NaN where it says that it is unknown.

    Raises
    ------
    InputError
        If the cell is empty, no such number, or of an unknown kind.
    """
    if cell.lower() in UNKNOWN:
        return math.nan
    if not cell:
        raise InputError(
            f"study {shown(name)} has no threshold; fill it in, or let `gpu-sdm convert "
            f"{shlex.quote(str(path))} OUTPUT --threshold-p 0.001` derive every missing t_thr from "
            "that p and the study's n.",
            path,
            line,
        )
    base = kind.removeprefix(CLUSTER)
    if base not in THRESHOLD_KINDS:
        raise InputError(
            f"study {shown(name)} has threshold_kind = {shown(kind)}; it must be one of "
            f"{', '.join(THRESHOLD_KINDS)}, with {CLUSTER} in front if it formed clusters.",
            path,
            line,
        )
    value = number(cell)
    possible = value is not None and value > 0
    t = float(to_t(np.array([value]), base, *sizes)[0]) if possible else math.nan
    if not 0 < t <= LARGEST_T:
        raise InputError(
            f"study {shown(name)} has a threshold of {shown(cell)} ({KINDS[base].title}); it must "
            f"be a number above 0{decimal_comma(cell)}, below 0.5 if it is a one-sided p and below "
            "1 if a two-sided.",
            path,
            line,
        )
    return t


def with_unused(dataset: Dataset, ledger: Ledger, assumed: Assumed | None) -> Dataset:
    """Put the studies of unknown threshold back in their places, with t_thr if one is assumed."""
    unused = [s if assumed is None else _filled(s, assumed) for s in ledger.unused]
    order = {name: i for i, name in enumerate(ledger.names)}
    studies = sorted((*dataset.studies, *unused), key=lambda s: order[s.name])
    notices = tuple(n for n in dataset.notices if n.kind != MISSING)
    if unused and assumed is not None:
        notices += tuple(n for s in unused for n in peak_doubts(s.peaks, s.t_threshold))
        notices += (assumed.notice(dataset.path.name, len(unused)),)
    elif unused:
        text = f"{dataset.path.name}: the thresholds of {len(unused)} studies are unknown; an "
        notices += (Notice(MISSING, f"{text}analysis leaves them out."),)
    ledger.unused.clear()
    return replace(dataset, studies=tuple(studies), notices=notices)


def _filled(study: Study, assumed: Assumed) -> Study:
    threshold, p = assumed.t(study.n1, study.n2), study.peaks
    t = np.where(p.known, p.t, np.copysign(threshold, p.t))
    return replace(study, t_threshold=threshold, peaks=replace(p, t=t))
