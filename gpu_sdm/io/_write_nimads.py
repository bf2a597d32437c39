"""A Dataset as a NIMADS studyset."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.io._records import SIGN
from gpu_sdm.io.tables import write_json


def write_nimads(dataset: Dataset, path: Path) -> list[Notice]:
    """Write a studyset; thresholds and the full names of spaces go into metadata.

    Returns
    -------
    list of Notice
        What the format could not hold.
    """
    studies = [s for s in dataset.studies if s.image is None]
    content = {
        "id": path.stem, "name": path.stem, "studies": [_study(s) for s in studies],
    }  # fmt: skip
    write_json(path, content)
    lost = []
    if len(studies) < len(dataset.studies):
        lost.append(f"{len(dataset.studies) - len(studies)} studies with images are left out")
    if any(s.peaks.kinds for s in studies):
        lost.append("statistics of other kinds are written as t")
    if any(s.peaks.space.endswith("brett") for s in studies):
        lost.append("Brett coordinates are written as MNI")
    return [Notice("not_written", f"{path.name}: {text}.") for text in lost]


def _study(study: Study) -> dict[str, Any]:
    peaks = study.peaks
    brett = peaks.space.endswith("brett")
    metadata: dict[str, Any] = {
        "sample_sizes": [study.n1, study.n2] if study.two_sample else [study.n1],
        "t_thr": "NA" if math.isnan(study.t_threshold) else study.t_threshold,
    }
    if study.correction:
        metadata["threshold"] = study.correction
    if len(peaks):
        metadata["coordinate_space"] = "other_mni" if brett else peaks.space
    points = [
        {
            "space": "TAL" if peaks.space.endswith("tal") else "MNI",
            "coordinates": xyz,
            "values": [{"kind": "T" if known else SIGN, "value": t if known else sign}],
        }
        for xyz, t, sign, known in zip(
            (peaks.xyz_mm if brett else peaks.xyz_reported).tolist(), peaks.t.tolist(),
            np.copysign(1.0, peaks.t).tolist(), peaks.known.tolist(), strict=True,
        )
    ]  # fmt: skip
    return {
        "id": study.name,
        "name": study.name,
        "authors": "",
        "publication": "",
        "metadata": {**study.covariates, **study.labels},
        "analyses": [
            {
                "id": "1", "name": "1", "conditions": [{"name": "default", "description": ""}],
                "weights": [1.0], "images": [], "points": points, "metadata": metadata,
            }
        ],
    }  # fmt: skip
