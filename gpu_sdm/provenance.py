"""What was read and done, for the terminal, the tables and run.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.data import Notice, Peaks
from gpu_sdm.environment import versions
from gpu_sdm.io.image_effects import resampling
from gpu_sdm.output import MARK
from gpu_sdm.stages.effects import peak_effects
from gpu_sdm.stages.samples import contrasts_of

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis
    from gpu_sdm.permute.engine import Problem

NULLS = {
    "subjects": "no effect in any study (subjects of every study are exchanged); liberal with "
    "heterogeneity around a zero mean, and voxelwise where peaks are all that is known "
    "(docs/calibration.md; --exchange studies or peaks is not)",
    "studies": "study effects symmetric about zero (signs of whole studies flip)",
    "peaks": "peaks fall anywhere in the mask (they move over it, heights kept; images flip sign)",
    "moderator": "given the model without the tested part, effects of the studies are "
    "exchangeable (residuals of whole studies are permuted: Freedman and Lane)",
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


def _clusters(threshold: float | None) -> dict[str, str]:
    if threshold is None:
        return {}
    return {"clusters": f"voxels of |z| > {threshold:g} joined by faces, edges and corners"}


def _with_images(analysis: Analysis) -> int:
    """Count the studies that an image, or that of one of their contrasts, takes part in."""
    studies = analysis.design.dataset.studies
    return sum(any(p.image is not None for p in s.parts) for s in studies)


def _images(analysis: Analysis) -> dict[str, str]:
    images = _with_images(analysis)
    if not images or analysis.settings.bounds is not None:
        return {}
    share = float(np.isinf(analysis.bounds.lower).sum()) / (images * analysis.space.n_voxels)
    return {"images": f"{images} studies; {100 * share:.2g} % of their voxels have no data"}


def _image_columns(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Say what each image holds and how it came to the grid; nothing without images."""
    if all(s.image is None for s in analysis.dataset.studies):
        return {}
    studies = analysis.design.dataset.studies
    rows = {p.name: k for k, s in enumerate(studies) for p in s.parts}
    # What a merged sample lacks is no matter of one image.
    alone = {s.name for s in studies if not s.contrasts}
    columns: dict[str, dict[str, Any]] = {}
    for study in analysis.dataset.studies:
        image, row = study.image, rows.get(study.name)
        used = image is not None and row is not None and analysis.settings.bounds is None
        columns[study.name] = {
            "image": image and image.kind,
            "image_file": image and image.path.name,
            "image_grid": image and image.grid,
            "image_resampling": resampling(image, analysis.space) if used and image else None,
            "image_missing_voxels": int(np.isinf(analysis.bounds.lower[row]).sum())
            if used and study.name in alone
            else None,
        }
    return columns


def _null(analysis: Analysis) -> str:
    null = NULLS["moderator" if analysis.design.moderator else analysis.settings.exchange]
    if analysis.settings.test == "score":
        return f"{null}; the corrected p are of the score of the mean at zero, not of z"
    return f"{null}; everything is estimated again in each permutation" if analysis.refits else null


def _samples(analysis: Analysis) -> dict[str, str]:
    merged = [s for s in analysis.design.dataset.studies if s.contrasts]
    if not merged:
        return {}
    contrasts, r = len(contrasts_of(merged)), analysis.settings.sample_correlation
    return {
        "samples": f"{contrasts} contrasts make {len(merged)} of the studies; any two of a sample "
        f"are taken to correlate {r:g}"
    }


def _model(analysis: Analysis) -> str:
    settings, names = analysis.settings, analysis.design.names
    if settings.formula is not None:
        return f"{settings.formula}, tested: {' and '.join(analysis.design.tested)}"
    nuisance = ", ".join(names[1:])
    return f"mean effect{f', nuisance: {nuisance}' if nuisance else ''}"


def _contrast(analysis: Analysis) -> dict[str, Any]:
    """Say in run.json what of a formula is tested."""
    model = analysis.design
    if analysis.settings.formula is None:
        return {}
    return {
        "contrast": {
            "tested": list(model.tested),
            "rows": model.contrast.tolist(),
            "moderator": model.moderator,
            "leave_one_out_criterion": model.criterion.tolist(),
        }
    }


def summary(analysis: Analysis) -> dict[str, str]:
    """Say what was read and what will be done, a line each."""
    settings, studies = analysis.settings, analysis.design.dataset.studies
    two = sum(s.two_sample for s in studies)
    counts = Counter(n.kind for n in analysis.notices)
    contrasts = contrasts_of(studies)
    n_peaks = sum(len(s.peaks) for s in contrasts)
    unknown = sum(int((~s.peaks.known).sum()) for s in contrasts)
    kind, value = settings.noise_law()
    return {
        "studies": f"{len(studies)}: {len(studies) - two} one-sample, {two} two-sample; "
        f"{sum(s.n for s in studies):,} subjects",
        **_samples(analysis),
        **_images(analysis),
        "peaks": f"{n_peaks} read, {counts['peak_no_reach']} outside reach, {unknown} of unknown "
        "height" + ("" if settings.bounds is None else "; bounds are read from files instead"),
        "model": f"{_model(analysis)}; tau2 by "
        f"{settings.tau2.upper()}, "
        + (
            "1 imputation, as every effect is known"
            if analysis.imputations == 1
            else f"{analysis.imputations} imputations ({settings.imputation})"
        ),
        "mask": f"{analysis.space.n_voxels:,} voxels of {settings.voxel_size} mm"
        + (f" ({settings.mask})" if settings.mask else " (built-in grey matter)"),
        "backend": f"{analysis.backend.name}, {analysis.backend.threads} threads: "
        f"{analysis.backend.why}",
        "null": _null(analysis),
        "noise": f"{kind} {value:g} (an assumption; it sets the TFCE threshold)"
        if settings.exchange == "subjects" and not analysis.design.moderator
        else "none: no subject images",
        **_clusters(settings.cluster_threshold),
        "permutations": f"all {analysis.permutations:,} distinct ones, each once: exact"
        if analysis.exact
        else f"{settings.permutations:,} of {big_number(analysis.plan.distinct())} distinct ones",
        "sides": SIDES,
    }


def study_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of tables/studies.tsv: every study of the table."""
    studies = analysis.design.dataset.studies
    used = {p.name: s.name for s in studies for p in s.parts}
    merging = any(s.contrasts for s in studies)
    images = _image_columns(analysis)
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
            **({"study_in_model": used.get(s.name)} if merging else {}),
            **images.get(s.name, {}),
            **s.covariates,
            **{column: text or None for column, text in s.labels.items()},
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
    converted = any(s.peaks.kinds for s in analysis.dataset.studies)
    for k, study in enumerate(contrasts_of(analysis.design.dataset.studies)):
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
                    **(_reported(peaks, i) if converted else {}),
                    "g": float(g[i]),
                    "in_mask": None if reach is None or row is None else bool(reach.in_mask[row]),
                    "voxels_reached": None
                    if reach is None or row is None
                    else int(reach.reached[row]),
                }
            )
    return rows


def _reported(peaks: Peaks, i: int) -> dict[str, Any]:
    """Give the statistic of a peak as its source has it, before it was converted to t."""
    if peaks.reported is None:
        known = bool(peaks.known[i])
        return {"reported": float(peaks.t[i]) if known else None, "kind": "t" if known else "sign"}
    return {"reported": float(peaks.reported[i]), "kind": peaks.kinds[i]}


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
        "images": _with_images(analysis),
        "imputations": len(problem.effects),
        "model": list(analysis.design.names),
        **_contrast(analysis),
        "discards": analysis.discards,
        "permutations": analysis.permutations,
        "exact": analysis.exact,
        "distinct_permutations": distinct if distinct < 2**53 else big_number(distinct),
        "null": _null(analysis),
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
