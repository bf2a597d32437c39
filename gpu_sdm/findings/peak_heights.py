"""Meta-analysis of peak heights: how high the reported peaks are, by kind of threshold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtrc, ndtr

from gpu_sdm.data import Dataset, Study
from gpu_sdm.findings.extract import Z95
from gpu_sdm.ops.pool import random_effects
from gpu_sdm.stages.effects import hedges_g, study_terms
from gpu_sdm.stages.samples import averaging_factor, merge_samples

GROUPS = ("uncorrected", "corrected", "")  # of the column `threshold`; empty: not given
SIDES = {"positive": 1.0, "negative": -1.0}


@dataclass(frozen=True, slots=True)
class Heights:
    """Peak heights of the studies of one kind of threshold and one sign.

    Parameters
    ----------
    threshold : {"uncorrected", "corrected", "not given"}
        What the table says of the threshold of these studies.
    side : {"positive", "negative"}
        Sign of the peaks.
    studies : tuple of str
        Those with a peak of known height and this sign.
    g, variance : (K,) float64
        Hedges g of the mean t of the peaks of each.
    mean, se, tau2, q : float
        Random effects (REML) over the studies.
    """

    threshold: str
    side: str
    studies: tuple[str, ...]
    g: np.ndarray
    variance: np.ndarray
    mean: float
    se: float
    tau2: float
    q: float

    @property
    def p_q(self) -> float:
        """P of Q on K - 1 degrees of freedom; 1 for one study."""
        df = len(self.studies) - 1
        return float(chdtrc(df, self.q)) if df and self.q > 0 else 1.0

    def rows(self) -> list[dict[str, Any]]:
        """Give a row per study and one for their mean."""
        lines: Iterable[tuple[str, float, float]] = (
            *zip(self.studies, self.g.tolist(), np.sqrt(self.variance).tolist(), strict=True),
            ("mean", self.mean, self.se),
        )
        rows: list[dict[str, Any]] = []
        for name, g, se in lines:
            mean = name == "mean" and len(rows) == len(self.studies)
            rows.append(
                {
                    "threshold": self.threshold,
                    "side": self.side,
                    "role": "mean" if mean else "study",
                    "study": name,
                    "g": g,
                    "se": se,
                    "z": g / se,
                    "p": float(2 * ndtr(-abs(g / se))),
                    "ci_low": g - Z95 * se,
                    "ci_high": g + Z95 * se,
                    "tau2": self.tau2 if mean else None,
                    "q": self.q if mean else None,
                    "df": len(self.studies) - 1 if mean else None,
                    "p_q": self.p_q if mean else None,
                }
            )
        return rows


def study_height(study: Study, sign: float) -> tuple[float, float] | None:
    """Hedges g of the mean t of the peaks of one sign, and its sampling variance.

    None where no peak of that sign has a known height.
    """
    t = study.peaks.t[study.peaks.known & (sign * study.peaks.t > 0)]
    if not len(t):
        return None
    g, variance = hedges_g(t.mean(), study.n1, study.n2)
    return float(g), float(variance)


def sample_height(
    study: Study, group: str, sign: float, correlation: float
) -> tuple[float, float] | None:
    """Mean height of the contrasts of a study that have one, and its sampling variance."""
    found = [
        height
        for part in study.parts
        if part.correction == group and (height := study_height(part, sign)) is not None
    ]
    if len(found) < 2:
        return found[0] if found else None
    g, terms = float(np.mean([height for height, _ in found])), study_terms(study.parts[:1])
    variance = float(terms.c[0] + terms.v2[0] * g**2)
    return g, averaging_factor(len(found), correlation) * variance


def peak_heights(dataset: Dataset, correlation: float = 0.5) -> list[Heights]:
    """Meta-analyse the heights of reported peaks.

    Parameters
    ----------
    dataset : Dataset
        From `gpu_sdm.read`.
    correlation : float
        Of any two contrasts of one sample, whose heights are averaged.

    Returns
    -------
    list of Heights
        By kind of threshold ("uncorrected" first), then by sign; groups without a study are left
        out.

    Notes
    -----
    This is the table of SDM-PSI's preprocessing report, where tau2 stands behind the letter tau.
    The height of a study is the g of its MEAN t over peaks, with the sampling variance of a g of
    that size: many peaks do not make it more precise. Peaks that passed a threshold are high
    because they did: no estimate of an effect.
    """
    found, studies = [], merge_samples(dataset, correlation).studies
    for group in GROUPS:
        for side, sign in SIDES.items():
            heights = {
                study.name: height
                for study in studies
                if (height := sample_height(study, group, sign, correlation)) is not None
            }
            if not heights:
                continue
            g, variance = np.array(list(heights.values())).T
            if len(g) > 1:
                x, one = np.ones((len(g), 1)), np.ones(1)
                fit = random_effects(g[:, None], variance[:, None], x, one, "reml")
                mean, square, tau2, q = (float(v[0]) for v in fit[:4])
            else:
                mean, square, tau2, q = float(g[0]), float(variance[0]), 0.0, 0.0
            found.append(
                Heights(
                    group or "not given",
                    side,
                    tuple(heights),
                    g,
                    variance,
                    mean,
                    float(np.sqrt(square)),
                    tau2,
                    q,
                )
            )
    return found
