"""Stage 1: bounds from the peaks and the built-in template against SDM-PSI's bound maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from fidelity_data import enge, sdm_bounds
from fidelity_ledger import Ledger
from fidelity_scores import agreement, dice, pull, reach

from gpu_sdm.data import Bounds
from gpu_sdm.stages.effects import effect_to_bound

COLUMNS = (
    "lower_r",
    "lower_rmse",
    "upper_r",
    "upper_rmse",
    "kernel_r",
    "kernel_rmse",
    "reach_dice",
)


def score_bounds(
    ours: Bounds, theirs: Bounds, names: tuple[str, ...], b: np.ndarray
) -> list[dict[str, Any]]:
    """One row per study: r and rmse of both bounds and of the summed kernels, Dice of the reach.

    Parameters
    ----------
    ours, theirs : Bounds
        (K, V) each.
    names : tuple of str
        The studies.
    b : (K,) array
        Effect at the threshold of each: where no peak is in reach its bounds are [-b, b].

    Returns
    -------
    list of dict
        Keys `study` and `COLUMNS`; None where a study has no peak in reach.
    """
    rows = []
    for k, name in enumerate(names):
        pairs = {
            "lower": (ours.lower[k], theirs.lower[k]),
            "upper": (ours.upper[k], theirs.upper[k]),
            "kernel": tuple(pull(x.lower[k], x.upper[k], b[k]) for x in (ours, theirs)),
        }
        row: dict[str, Any] = {"study": name}
        for what, (mine, wanted) in pairs.items():
            score = agreement(mine, wanted)
            row[f"{what}_r"], row[f"{what}_rmse"] = score.r, score.rmse
        row["reach_dice"] = dice(*(reach(x.lower[k], x.upper[k], b[k]) for x in (ours, theirs)))
        rows.append({key: None if value != value else value for key, value in row.items()})
    return rows


def run(ledger: Ledger) -> None:
    """Score the 50 studies of enge2021."""
    analysis = enge("peaks", permutations=1, exchange="studies")
    names = analysis.design.dataset.names
    theirs = sdm_bounds(names, analysis.space)
    rows = score_bounds(
        analysis.bounds, theirs, names, effect_to_bound(analysis.design.dataset.studies)
    )
    ledger.tables["studies"] = rows
    for column in COLUMNS:
        values = np.array([row[column] for row in rows if row[column] is not None])
        error = column.endswith("rmse")
        ledger.add("bounds", column.replace("_", ", "), values.mean(), "mean over studies")
        ledger.add("bounds", column.replace("_", ", "), values.max() if error else values.min(),
                   "worst study")  # fmt: skip
    for side in ("lower", "upper"):
        score = agreement(getattr(analysis.bounds, side), getattr(theirs, side))
        ledger.add("bounds", f"{side}, r", score.r, "all studies in one")
        ledger.add("bounds", f"{side}, rmse", score.rmse, "all studies in one")
