"""Thresholds for studies that do not state a t: of a p and the sample size, or the smallest |t|."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_sdm.checks import Interval, Options
from gpu_sdm.data import Study
from gpu_sdm.findings.check_thresholds import one_sided_p, t_of_p

P_COLUMNS = ("p_thr", "p_threshold")
ADVICE = (
    "One threshold must hold in the whole brain: leave out peaks that a study found at a more "
    "liberal one, in regions of interest or after small-volume correction.",
    "Of a cluster-corrected study give the t that formed the clusters; of one corrected voxel by "
    "voxel the t of its corrected p, which the paper or its software states (p .05 corrected is "
    "not the t of p .05).",
    "Unknown: the smallest |t| reported is the most that the threshold can have been, so bounds "
    "made with it are wide rather than wrong. A study without findings and threshold has no such "
    "value: ask its authors, or leave it out (NA).",
)


def suggest_thresholds(
    studies: Sequence[Study], p: float | None = None, sides: int = 1
) -> list[dict[str, Any]]:
    """Suggest the t_thr of every study with peaks.

    Parameters
    ----------
    studies : sequence of Study
        Those without a threshold have NaN.
    p : float, optional
        Uncorrected p that the papers used; a column `p_thr` or `p_threshold` of the table goes
        before it.
    sides : {1, 2}
        Whether these p are one- or two-sided.

    Returns
    -------
    list of rows
        study, df, t_thr and p_one_sided (as given, None if unknown), smallest_t, t_of_p,
        suggested (None: nothing known), source.

    Raises
    ------
    SettingError
        If p or sides is outside its range.

    Notes
    -----
    t of p is the point of Student's t with the study's df whose upper tail is p / sides. The
    smallest |t| is rounded down at the fourth decimal, so that its own peak still passes.
    """
    Options((1, 2)).check("sides", sides)
    limit = Interval(0, 0.5 * sides, closed="neither")
    if p is not None:
        limit.check("p", p)
    rows = []
    for study in (s for s in studies if s.image is None):
        own = (v for c, v in study.covariates.items() if c.lower() in P_COLUMNS)
        stated = next((v for v in own if math.isfinite(v)), None)
        if stated is not None:
            limit.check(f"p of {study.name}", stated)
        used = p if stated is None else stated
        given = study.t_threshold if math.isfinite(study.t_threshold) else None
        heights = np.abs(study.peaks.t[study.peaks.known])
        smallest = float(heights.min()) if len(heights) else None
        of_p = None if used is None else t_of_p(used / sides, study.df)
        if of_p is not None:
            word = "two" if sides == 2 else "one"
            suggested, source = of_p, f"{word}-sided p {used:g}, df {study.df}"
            if smallest is not None and smallest < of_p * (1 - 1e-4):
                source += f"; but a |t| of {smallest:g} is reported"
        elif given is not None:
            suggested, source = given, "as given"
        elif smallest is not None:
            suggested, source = math.floor(smallest * 1e4) / 1e4, "smallest |t|"
        else:
            suggested, source = None, "unknown"
        rows.append(
            {
                "study": study.name,
                "df": study.df,
                "t_thr": given,
                "p_one_sided": None if given is None else one_sided_p(given, study.df),
                "smallest_t": smallest,
                "t_of_p": of_p,
                "suggested": suggested,
                "source": source,
            }
        )
    return rows


def column(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines `study<TAB>t_thr` of suggestions, NA where there is none, to paste into a table."""
    cells = (
        (r["study"], "NA" if r["suggested"] is None else f"{r['suggested']:.7g}") for r in rows
    )
    return ["study\tt_thr", *("\t".join(c) for c in cells)]
