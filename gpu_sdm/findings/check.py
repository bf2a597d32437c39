"""Read an input, go on after errors, and say every doubt about it. Nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.errors import InputError
from gpu_sdm.findings.check_places import place_doubts
from gpu_sdm.findings.check_samples import covariate_doubts, sample_doubts, size_doubts
from gpu_sdm.findings.check_thresholds import (
    df_doubts,
    height_doubts,
    one_sided_p,
    threshold_doubts,
)
from gpu_sdm.io import read
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io.volumes import load_space
from gpu_sdm.stages.samples import merge_samples

# What to do about each kind of notice.
ADVICE: Mapping[str, str] = {
    "cluster_threshold": "nothing, if it is the t that formed the clusters.",
    "companion_unused": "say in the table's column image what the study's map holds.",
    "constant_covariate": "such a column cannot enter a model.",
    "covariate_code": "write NA where a value is missing.",
    "covariate_missing": "a model with that column leaves these studies out.",
    "df_mismatch": "correct n1 and n2 to the subjects of the analysis, or the column.",
    "duplicate_peak": "delete the repeated row, or correct its coordinates.",
    "equal_heights": "look up the real heights; write p or n where only the sign is known.",
    "few_studies": "with fewer than 10, heterogeneity and bias can hardly be judged; below 5 "
    "neither can the mean.",
    "format_limits": "use another format where that is not so.",
    "heights_may_be_z": "if the paper reports z, convert it to t with the study's df.",
    "implausible_height": "check the column, and a z or p converted to t; write p or n where only "
    "the sign is known.",
    "mixed_designs": "make sure that both answer one question, or analyse them apart.",
    "opposite_signs": "delete the wrong one.",
    "peak_below_threshold": "lower t_thr to the real threshold, or delete peaks found at a more "
    "liberal one (regions of interest).",
    "peak_outside_brain": "check its signs and digits, and the space in the file's name.",
    "peak_outside_mask": "nothing, if the place is right: it still counts for voxels near it.",
    "same_image": "keep one of them.",
    "same_sample": "if they are one sample, keep one contrast or make them one study (gpu-sdm "
    "combine): no subject may count twice.",
    "shared_peaks": "if they are one sample, keep one; if a file was copied, correct it.",
    "statistic_converted": "nothing, if the kind of statistic is right.",
    "swapped_axes": "compare with the paper: order and signs of the columns, and the space.",
    "text_column": "write numbers or NA if it is one; as it stands it can be used as a factor.",
    "threshold_assumed": "put each paper's own threshold in its place.",
    "threshold_df": "correct n1 and n2, or t_thr.",
    "threshold_may_be_z": "give t_thr as t with the study's df (--suggest-thresholds).",
    "threshold_missing": "give t_thr, or accept that the study is left out (--suggest-thresholds).",
    "two_sided_threshold": "check that the paper's test was two-sided.",
    "unequal_thresholds": "nothing, if each is right: every study has its own.",
    "unknown_height": "give the height if the paper has it: a sign alone says less.",
    "unlisted_file": "add a row for it to the table, or remove it.",
    "unusual_threshold": "check t_thr: is it a t, uncorrected, of this df?",
}


@dataclass(frozen=True, eq=False)
class Checked:
    """What `check` found.

    Parameters
    ----------
    path : path
        The input.
    studies : tuple of Study
        All that could be read, in the order of the input, those that cannot be used (t_threshold
        NaN and no image) among them.
    errors : tuple of InputError
        What stops an analysis.
    notices : tuple of Notice
        Doubts, which do not.
    """

    path: Path
    studies: tuple[Study, ...]
    errors: tuple[InputError, ...]
    notices: tuple[Notice, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row per study."""
        return [_row(s) for s in self.studies]

    def doubts(self) -> list[dict[str, Any]]:
        """Kinds of notice, the most frequent first: kind, count, advice, messages."""
        kinds: dict[str, list[str]] = {}
        for notice in self.notices:
            kinds.setdefault(notice.kind, []).append(notice.message)
        return [
            {"kind": kind, "count": len(m), "advice": ADVICE.get(kind, ""), "messages": m}
            for kind, m in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
        ]


def _row(study: Study) -> dict[str, Any]:
    peaks = study.peaks
    heights = np.abs(peaks.t[peaks.known])
    threshold = study.t_threshold if math.isfinite(study.t_threshold) else None
    lacking = [c for c, v in study.covariates.items() if not math.isfinite(v)]
    lacking += [c for c, v in study.labels.items() if not v]
    image = study.image
    return {
        "study": study.name,
        "n1": study.n1,
        "n2": study.n2,
        "df": study.df,
        "t_thr": threshold,
        "p_one_sided": None if threshold is None else one_sided_p(threshold, study.df),
        "peaks": len(peaks),
        "unknown_heights": int((~peaks.known).sum()),
        "largest_t": float(heights.max()) if len(heights) else None,
        "space": None if image else peaks.space,
        "image": image.kind if image else None,
        "covariates_missing": lacking,
        "used": image is not None or threshold is not None,
    }


def check_input(path: Path | str, mask: Path | str | None = None) -> Checked:
    """Read an input and collect its errors and every doubt.

    Parameters
    ----------
    path : path
        Anything `gpu_sdm.read` takes.
    mask : path, optional
        Mask of the analysis, to say which peaks lie outside it.

    Returns
    -------
    Checked

    Raises
    ------
    InputError
        If the mask cannot be used.

    Notes
    -----
    Reading goes on after an error, row by row and file by file; what is wrong with the file as a
    whole ends it.

    Examples
    --------
    >>> found = check_input(project)
    >>> found.errors, [row["peaks"] for row in found.rows()]
    ((), [4, 4, 4, 4, 4, 4])
    """
    path, ledger = Path(path), Ledger()
    own = None if mask is None else load_space(Settings(mask=Path(mask)))
    dataset = Dataset((), (), path, {})
    try:
        dataset = read(path, ledger=ledger)
    except InputError as error:
        ledger.errors.append(error)
    merged = dataset
    try:
        merged = merge_samples(dataset)
    except InputError as error:
        ledger.errors.append(error)
    order = {name: i for i, name in enumerate(ledger.names)}
    both = (*dataset.studies, *ledger.unused)
    studies = tuple(sorted(both, key=lambda s: order.get(s.name, len(order))))
    notices = [
        *dataset.notices,
        *height_doubts(studies),
        *threshold_doubts(dataset),
        *df_doubts(studies),
        *sample_doubts(dataset.studies),
        *covariate_doubts(dataset),
    ]
    if not ledger.errors:  # else the studies at fault would be missing from the count
        notices += size_doubts(merged)
    if any(len(s.peaks) for s in studies):
        notices += place_doubts(studies, load_space(Settings()), own)
    return Checked(path, studies, tuple(ledger.errors), tuple(notices))
