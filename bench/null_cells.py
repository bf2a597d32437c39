"""The cells of the calibration: one way each to make and analyse null projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from null_data import Truth


@dataclass(frozen=True)
class Cell:
    """One way to make and analyse null projects.

    Parameters
    ----------
    tests : str
        What differs from the base cell and what a rate above .05 would mean.
    truth : Truth
        The data.
    images : float
        Share of the studies that come as images (every second one for a half), not as peaks.
    exchange : {"subjects", "studies", "peaks"}
        What the analysis exchanges.
    permutations : int, optional
        Instead of the usual number: 20 where each is an analysis of its own (the smallest number
        that gives a p of .05, and as exact as any).
    rescale_sd : bool
        Whether it re-estimates the subjects' SD in every permutation.
    points : float
        Wanted half width of the 95 % interval of the per-side rate, in percentage points.
    options : mapping
        Other fields of the analysis's `Settings` that differ from the default.
    """

    tests: str
    truth: Truth = field(default_factory=Truth)
    images: float = 0.0
    exchange: str = "subjects"
    rescale_sd: bool = True
    points: float = 4.0
    permutations: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def projects(self) -> int:
        """Projects that give the wanted precision at a rate of .05, both sides pooled."""
        sides = 0.05 * 0.95 * (1.96 / (self.points / 100)) ** 2
        return int(np.ceil(sides / 2))


# What gives back more of the effect than the default (docs/image-truth.md).
BEATS = {"discards": 0, "fwhm": 30.0}


def _gaussian(fwhm: float) -> Truth:
    return Truth(noise=("gaussian", fwhm))


def _score(
    tests: str,
    truth: Truth | None = None,
    exchange: str = "studies",
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Cell:
    options = {"test": "score"} | dict(options or {})
    return Cell(tests, truth or Truth(), exchange=exchange, options=options, **more)


CELLS: dict[str, Cell] = {
    "base": Cell("peaks of 20 one-sample studies; the analysis assumes what is true", points=1.5),
    "images": Cell("all studies as images: nothing censored, one imputation", images=1, points=1.5),
    "two-sample": Cell("patients against controls", Truth(two_sample=True), points=1.5),
    "tau2-0.05": Cell("study effects that vary around zero", Truth(tau2=0.05), points=1.5),
    "k10": Cell("10 studies", Truth(studies=10)),
    "k50": Cell("50 studies", Truth(studies=50)),
    "mixed": Cell("every second study as an image", images=0.5),
    "tau2-0.1": Cell("study effects that vary around zero, more", Truth(tau2=0.1)),
    "k10-studies": Cell(
        "10 studies, signs of whole studies flipped and all estimated again",
        Truth(studies=10),
        exchange="studies",
        permutations=20,
    ),
    "k10-studies-tau2-0.1": Cell(
        "the same, study effects vary",
        Truth(studies=10, tau2=0.1),
        exchange="studies",
        permutations=20,
    ),
    "k10-peaks": Cell(
        "10 studies, peaks moved over the mask and all estimated again",
        Truth(studies=10),
        exchange="peaks",
        permutations=20,
    ),
    "k10-peaks-tau2-0.1": Cell(
        "the same, study effects vary",
        Truth(studies=10, tau2=0.1),
        exchange="peaks",
        permutations=20,
    ),
    "score": _score("the signs of whole studies flip in the score test", points=1.5),
    "score-tau2-0.1": _score("the same, study effects vary", Truth(tau2=0.1)),
    "score-two-sample": _score("the same, patients against controls", Truth(two_sample=True)),
    "score-k10": _score("the same, 10 studies", Truth(studies=10)),
    "score-mixed": _score("the same, every second study as an image", images=0.5),
    "score-gaussian-6": _score("the same, true noise Gaussian, FWHM 6 mm", _gaussian(6)),
    "score-discards-0-fwhm-30": _score(
        "the same, with the option of docs/image-truth.md", options=BEATS
    ),
    "score-peaks": _score(
        "the score test, peaks moved over the mask", exchange="peaks", permutations=20
    ),
    "one-sided": Cell("studies report positive peaks alone", Truth(one_sided=True)),
    "one-sided-score": _score("the same, signs flip in the score test", Truth(one_sided=True)),
    "one-sided-score-peaks": _score(
        "the same, peaks moved over the mask",
        Truth(one_sided=True),
        exchange="peaks",
        permutations=20,
    ),
    "tau2-0.1-images": Cell(
        "study effects vary (.1), all studies as images", Truth(tau2=0.1), images=1
    ),
    "studies-images": Cell(
        "signs of whole studies flipped, all as images: an exact test", images=1, exchange="studies"
    ),
    "threshold-0.0001": Cell("studies report at p < .0001: few peaks", Truth(p_threshold=1e-4)),
    "discards-0-fwhm-30": Cell(
        "no study dropped and a kernel of 30 mm: the option of docs/image-truth.md",
        options=BEATS,
    ),
    "unit-sd": Cell("variance of permuted subjects kept at 1 (compat)", rescale_sd=False),
    "unit-sd-images": Cell("variance kept at 1, all studies as images", images=1, rescale_sd=False),
    "gaussian-6": Cell("true noise Gaussian, FWHM 6 mm: rougher than assumed", _gaussian(6)),
    "gaussian-8.7": Cell("true noise Gaussian, FWHM 8.7 mm", _gaussian(8.7)),
    "gaussian-12": Cell("true noise Gaussian, FWHM 12 mm: smoother than assumed", _gaussian(12)),
    "gaussian-6-images": Cell("FWHM 6 mm, all studies as images", _gaussian(6), images=1),
    "gaussian-8.7-images": Cell("FWHM 8.7 mm, all studies as images", _gaussian(8.7), images=1),
    "gaussian-12-images": Cell("FWHM 12 mm, all studies as images", _gaussian(12), images=1),
    "variance-ratio": Cell(
        "two samples, 8 patients with four times the variance of 30 controls",
        Truth(two_sample=True, sizes=(8, 30), sd=(2.0, 1.0)),
    ),
    "variance-ratio-reverse": Cell(
        "two samples, 8 patients with a quarter of the variance of 30 controls",
        Truth(two_sample=True, sizes=(8, 30), sd=(1.0, 2.0)),
    ),
}
