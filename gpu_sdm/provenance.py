"""What was read and done, for the terminal, the tables and run.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.data import Notice
from gpu_sdm.environment import versions
from gpu_sdm.output import MARK
from gpu_sdm.stages.effects import peak_effects

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis
    from gpu_sdm.permute.engine import Problem

NULLS = {
    "subjects": "no effect in any study (subjects of every study are exchanged); with "
    "heterogeneity around a zero mean it is liberal",
    "studies": "study effects symmetric about zero (signs of whole studies flip)",
}
SIDES = (
    "one-tailed per side, each side at its own alpha, as SDM-PSI; two-sided maps are written beside"
)


def big_number(value: int) -> str:
    """Write a count that may have hundreds of digits.

    Examples
    --------
    >>> big_number(1024), big_number(2**200)
    ('1,024', '1.6e60')
    """
    if value < 10**9:
        return f"{value:,}"
    exponent = len(str(value)) - 1
    return f"{value // 10 ** (exponent - 1) / 10:.1f}e{exponent}"


def summary(analysis: Analysis) -> dict[str, str]:
    """Say what was read and what will be done, a line each."""
    settings, studies = analysis.settings, analysis.design.dataset.studies
    two = sum(s.two_sample for s in studies)
    counts = Counter(n.kind for n in analysis.notices)
    n_peaks = sum(len(s.peaks) for s in studies)
    unknown = sum(int((~s.peaks.known).sum()) for s in studies)
    nuisance = ", ".join(analysis.design.names[1:])
    kind, value = settings.noise_law()
    return {
        "studies": f"{len(studies)}: {len(studies) - two} one-sample, {two} two-sample; "
        f"{sum(s.n for s in studies):,} subjects",
        "peaks": f"{n_peaks} read, {counts['peak_no_reach']} outside reach, {unknown} of unknown "
        "height" + ("" if settings.bounds is None else "; bounds are read from files instead"),
        "model": f"mean effect{f', nuisance: {nuisance}' if nuisance else ''}; tau2 by "
        f"{settings.tau2.upper()}, {settings.imputations} imputations ({settings.imputation})",
        "mask": f"{analysis.space.n_voxels:,} voxels of {settings.voxel_size} mm"
        + (f" ({settings.mask})" if settings.mask else " (built-in grey matter)"),
        "backend": f"{analysis.backend.name}, {analysis.backend.threads} threads: "
        f"{analysis.backend.why}",
        "null": NULLS[settings.exchange],
        "noise": f"{kind} {value:g} (an assumption; it sets the TFCE threshold)"
        if settings.exchange == "subjects"
        else "none: no subject images",
        "permutations": f"{settings.permutations:,} of {big_number(analysis.plan.distinct())} "
        "distinct ones",
        "sides": SIDES,
    }


def study_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of tables/studies.tsv: every study of the table."""
    used = set(analysis.design.dataset.names)
    return [
        {
            "study": s.name,
            "n1": s.n1,
            "n2": s.n2,
            "df": s.df,
            "t_thr": s.t_threshold,
            "threshold": s.correction,
            "peaks": len(s.peaks),
            "peaks_of_unknown_height": int((~s.peaks.known).sum()),
            "in_model": s.name in used,
            **s.covariates,
        }
        for s in analysis.dataset.studies
    ]


def peak_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of tables/peaks.tsv: every peak as read, as converted, and what became of it."""
    reach = analysis.reach
    where: dict[tuple[int, int], int] = {}
    if reach is not None:
        keys = zip(reach.study.tolist(), reach.peak.tolist(), strict=True)
        where = {key: row for row, key in enumerate(keys)}
    rows: list[dict[str, Any]] = []
    for k, study in enumerate(analysis.design.dataset.studies):
        peaks, g = study.peaks, peak_effects(study, analysis.settings.sdm_compat)
        for i in range(len(peaks)):
            row = where.get((k, i))
            rows.append(
                {
                    "study": study.name,
                    "file": peaks.source,
                    "line": int(peaks.lines[i]),
                    "space": peaks.space,
                    **dict(zip(("x", "y", "z"), peaks.xyz_reported[i].tolist(), strict=True)),
                    **dict(zip(("x_mm", "y_mm", "z_mm"), peaks.xyz_mm[i].tolist(), strict=True)),
                    "t": float(peaks.t[i]),
                    "height_known": bool(peaks.known[i]),
                    "g": float(g[i]),
                    "in_mask": None if reach is None or row is None else bool(reach.in_mask[row]),
                    "voxels_reached": None
                    if reach is None or row is None
                    else int(reach.reached[row]),
                }
            )
    return rows


def provenance(
    analysis: Analysis,
    problem: Problem,
    counts: Mapping[str, int],
    timings: Mapping[str, float],
    atlas: Notice | None,
) -> dict[str, Any]:
    """Content of run.json."""
    studies = analysis.design.dataset.studies
    notices = analysis.notices + ((atlas,) if atlas else ())
    distinct = analysis.plan.distinct()
    bank = problem.bank
    lags = {} if bank is None else bank.lag_profile(analysis.space)
    return {
        "program": MARK,
        "settings": analysis.settings.as_dict(),
        "content": analysis.content(),
        "versions": versions(),
        "backend": {
            "name": analysis.backend.name,
            "why": analysis.backend.why,
            "threads": analysis.backend.threads,
        },
        "project": str(analysis.dataset.path.absolute()),
        "mask_voxels": analysis.space.n_voxels,
        "studies": len(studies),
        "subjects": sum(s.n for s in studies),
        "model": list(analysis.design.names),
        "discards": analysis.discards,
        "distinct_permutations": distinct if distinct < 2**53 else big_number(distinct),
        "null": NULLS[analysis.settings.exchange],
        "sides": SIDES,
        # The noise field is an assumption: this is what it came to.
        "noise_infeasible_share": None if bank is None else bank.infeasible,
        "noise_lag_correlations": {
            str(lag): round(r, 4) if np.isfinite(r) else None for lag, r in lags.items()
        },
        **counts,
        "timings_s": {stage: round(seconds, 3) for stage, seconds in timings.items()},
        "warning_counts": dict(Counter(n.kind for n in notices)),
        "warnings": [{"kind": n.kind, "message": n.message} for n in notices],
    }
