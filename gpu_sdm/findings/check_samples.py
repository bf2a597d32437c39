"""Doubts about samples and covariates: counted twice, too few, saying nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import combinations

from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.stages.samples import sample_label

FEW_STUDIES = 10
SHARED = 3  # equal coordinates from which two studies may have one source
AUTHOR_YEAR = re.compile(r"^(.*?[^\W\d_].*?)[ _.-]*(?<!\d)((?:19|20)\d\d)(?!\d)")


def author_year(name: str) -> tuple[str, str] | None:
    """First author and year in a study's name, e.g. ("smith", "2010") of `Smith2010_adults`."""
    found = AUTHOR_YEAR.match(name)
    return None if found is None else (found[1].lower(), found[2])


def _sizes(study: Study) -> str:
    return f"n1 = {study.n1}" + (f", n2 = {study.n2}" if study.two_sample else "")


def sample_doubts(studies: Sequence[Study]) -> Iterator[Notice]:
    """Pairs of studies with shared peaks, or one first author, year and sample size."""
    places = [{tuple(row) for row in (s.peaks.xyz_reported + 0.0).tolist()} for s in studies]
    origins = [author_year(s.name) for s in studies]
    digests = [s.image.digest if s.image else None for s in studies]
    samples = [sample_label(s) for s in studies]
    for i, j in combinations(range(len(studies)), 2):
        a, b = studies[i], studies[j]
        if samples[i] and samples[i] == samples[j]:
            continue  # said to be one
        shared = len(places[i] & places[j])
        fewest = min(len(places[i]), len(places[j]))
        if digests[i] is not None and digests[i] == digests[j]:
            yield Notice("same_image", f"{a.name} and {b.name}: their images are the same file.")
        elif shared >= SHARED and shared >= fewest / 2:
            yield Notice(
                "shared_peaks",
                f"{a.name} and {b.name}: {shared} of their {len(places[i])} and {len(places[j])} "
                f"peaks are at the same place ({_sizes(a)}; {_sizes(b)}).",
            )
        elif origins[i] and origins[i] == origins[j] and (a.n1, a.n2) == (b.n1, b.n2):
            yield Notice(
                "same_sample",
                f"{a.name} and {b.name}: same first author and year, both {_sizes(a)}.",
            )


def covariate_doubts(dataset: Dataset) -> Iterator[Notice]:
    """Covariates that are constant, or missing in some studies."""
    studies = dataset.studies
    for column in studies[0].covariates if studies else ():
        values = [s.covariates[column] for s in studies]
        present = [v for v in values if math.isfinite(v)]
        if present and len(studies) > 1 and len(set(present)) == 1:
            text = f"column {column!r} is {present[0]:g} in every study that has it."
            yield Notice("constant_covariate", text)
        if len(present) < len(values):
            lacking = [s.name for s, v in zip(studies, values, strict=True) if not math.isfinite(v)]
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            yield Notice(
                "covariate_missing",
                f"column {column!r} is missing in {len(lacking)} of {len(values)} studies: "
                f"{', '.join(lacking[:3])}{more}.",
            )


def size_doubts(dataset: Dataset) -> Iterator[Notice]:
    """Too few studies, and one- and two-sample studies together."""
    k = len(dataset.studies)
    if k < FEW_STUDIES:
        yield Notice("few_studies", f"{k} studies can be analysed.")
    two = [s.name for s in dataset.studies if s.two_sample]
    if 0 < len(two) < k:
        yield Notice(
            "mixed_designs",
            f"{len(two)} of {k} studies compare two groups (the first is {two[0]}), the others "
            "have one.",
        )
