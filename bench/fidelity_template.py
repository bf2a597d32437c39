"""Templates learned from SDM-PSI's bound maps: kernels of studies they were not learned from.

Ten studies, drawn by seed, are scored throughout; the others teach, more and more of them.
"""

from __future__ import annotations

import numpy as np
from fidelity_data import ENGE, FOLDS
from fidelity_ledger import Ledger

from gpu_sdm.stages.template_learn import score_kernels, widened
from gpu_sdm.template_kernels import read_kernels
from gpu_sdm.template_learn import learn_from, learn_parts
from gpu_sdm.templates import Template, default_template

TAUGHT_BY = (5, 10, 20, 30, 40)


def run(ledger: Ledger) -> None:
    """Score the built-in template and learned ones."""
    studies = read_kernels(ENGE / "project", ENGE / "pp")
    start = widened(default_template(2), studies[0].space.mask)
    parts = list(learn_parts(start, studies, FOLDS))
    others = sorted(parts[-1][0])  # the last part of the draw
    pool = np.random.default_rng(0).permutation(len(studies))[: -len(others)]

    def enter(template: Template, rows: list[int], where: str) -> None:
        for what, value in score_kernels(template, [studies[k] for k in rows])._asdict().items():
            ledger.add("template", f"kernel, {what}", value, where)

    enter(start, others, f"built-in, {len(others)} studies")
    for n in TAUGHT_BY:
        learned = learn_from(start, [studies[k] for k in sorted(pool[:n])])
        enter(learned, others, f"learned from {n}, {len(others)} other studies")
    enter(start, list(range(len(studies))), f"built-in, {len(studies)} studies")
    every = [score_kernels(learned, [studies[k] for k in part]) for part, learned in parts]
    for what, value in zip(every[0]._fields, np.mean(every, axis=0), strict=True):
        ledger.add("template", f"kernel, {what}", value,
                   f"learned from {len(studies) - len(others)}, {FOLDS} parts")  # fmt: skip
