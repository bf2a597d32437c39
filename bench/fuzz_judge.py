"""What may come of an input: a Dataset that keeps its promises, or a sentence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from gpu_sdm.data import Dataset
from gpu_sdm.io._table_rows import name_fault
from gpu_sdm.io._text import CONTROL, LARGEST_T
from gpu_sdm.io.peak_files import BOX_HIGH, BOX_LOW
from gpu_sdm.io.tables import json_text, write_tsv

LONGEST_MESSAGE = 1500  # characters without the path


class Finding(Exception):
    """A reader broke its promise without an exception of its own."""


def require(holds: bool, what: str) -> None:
    """Raise `Finding` unless it holds."""
    if not holds:
        raise Finding(what)


def is_sentence(said: str) -> None:
    """Require one line of bounded length that ends with a full stop."""
    require("\n" not in said and "\r" not in said, f"more than a line: {said[:200]!r}")
    require(said.endswith("."), f"no sentence: {said[-200:]!r}")
    require(len(said) < LONGEST_MESSAGE, f"message too long: {said[:200]!r}")
    require(CONTROL.search(said) is None, f"control characters: {said[:200]!r}")


def keeps_promises(dataset: Dataset, folder: Path) -> None:
    """Require what every later stage relies on, and tables whose cells stay cells."""
    require(len(dataset.studies) >= 2, "fewer than two studies")
    names = [name.lower() for name in dataset.names]
    require(len(set(names)) == len(names), "a name twice")
    for study in dataset.studies:
        p = study.peaks
        require(name_fault(study.name) == "", f"name {study.name!r}")
        require(study.df >= 3, f"df {study.df}")
        require(study.image is not None or 0 < study.t_threshold <= LARGEST_T, "threshold")
        require(bool((np.abs(p.t) <= LARGEST_T).all()), "height")
        inside = (p.xyz_mm >= BOX_LOW) & (p.xyz_mm <= BOX_HIGH)
        require(bool(inside.all()), "a peak outside the box")
        require(all(not math.isinf(v) for v in study.covariates.values()), "infinite covariate")
    for notice in dataset.notices:
        require("\n" not in notice.message, f"notice of two lines: {notice.message!r}")
    facts = [{"study": s.name, **s.covariates, **s.labels} for s in dataset.studies]
    write_tsv(folder / "out.tsv", list(facts[0]), facts)
    rows = (folder / "out.tsv").read_text(encoding="utf-8").split("\n")
    require(len(rows) == len(facts) + 2, "a row broken in two")
    require({r.count("\t") for r in rows[:-1]} == {len(facts[0]) - 1}, "a cell broken in two")
    json_text({"studies": facts, "notices": [n.message for n in dataset.notices]}).encode(
        "utf-8", "backslashreplace"
    )
