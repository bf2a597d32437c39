"""Grade the evidence at peaks: from convincing to none, by the criteria of umbrella reviews."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from gpu_sdm.data import StudyTerms
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.bias import FEW_STUDIES, bias
from gpu_sdm.findings.heterogeneity import heterogeneity
from gpu_sdm.findings.refit import SiteEffects

MANY_CASES = 1000
TINY_P, SMALL_P, USUAL_P = 1e-6, 1e-3, 0.05
LARGE_I2 = 50.0
BIAS_P = 0.10  # tests of bias have little power: read at .10, as umbrella reviews do
CLASSES = {
    "I": "convincing",
    "II": "highly suggestive",
    "III": "suggestive",
    "IV": "weak",
    "NS": "not significant",
}


def largest_study(at: SiteEffects) -> tuple[str, np.ndarray, np.ndarray]:
    """Give the study with most subjects (the first of equals) and its interval of g at S sites.

    Returns
    -------
    name : str
    low, high : (S,) float64
        Normal 95 % interval; mean and variance over imputations by Rubin's rules.
    """
    terms: StudyTerms = at.terms
    k = int(np.argmax(terms.n1 + terms.n2))
    total = at.variances[:, k].mean(0) + at.imputation_variances()[k]
    g, half = at.effects[:, k].mean(0), float(ndtri(0.975)) * np.sqrt(total)
    return at.names[k], g - half, g + half


def grade_one(
    cases: float,
    p: float,
    i2: float,
    interval: tuple[float, float],
    egger_p: float | None,
    excess_p: float | None,
    largest: tuple[float, float],
) -> tuple[str, list[str]]:
    """Give the class of one site and what keeps it from the next better one.

    Parameters
    ----------
    cases : float
        Patients of all studies (subjects, of one-sample studies).
    p : float
        Two-sided, of the pooled effect.
    i2 : float
        Percent.
    interval : (float, float)
        95 % prediction interval.
    egger_p, excess_p : float or None
        Of the tests of bias; None: not testable, which counts as bias not excluded.
    largest : (float, float)
        95 % interval of the largest study.

    Returns
    -------
    class : {"I", "II", "III", "IV", "NS"}
    lacking : list of str

    Notes
    -----
    I: more than 1000 cases, p < 1e-6, I2 < 50 %, a prediction interval without 0, no small-study
    effect and no excess of significance (p > .10). II: more than 1000 cases, p < 1e-6, the
    interval of the largest study without 0. III: more than 1000 cases, p < 1e-3. IV: p < .05.

    References
    ----------
    .. [1] Fusar-Poli P, Radua J (2018) Ten simple rules for conducting umbrella reviews. Evid
       Based Ment Health 21:95-100.
    .. [2] Albajes-Eizagirre A et al. (2019) Meta-analysis of voxel-based neuroimaging studies
       using SDM-PSI. J Vis Exp 153:e59841.
    """
    many = [] if cases > MANY_CASES else [f"{cases:g} cases"]
    tiny = [] if p < TINY_P else [f"p = {p:.1g}"]
    small = [] if p < SMALL_P else [f"p = {p:.1g}"]
    first = many + tiny
    if not i2 < LARGE_I2:
        first.append(f"I2 = {i2:.0f} %")
    if not _excludes_0(interval):
        first.append("prediction interval includes 0")
    for name, value in (("small-study effect", egger_p), ("excess significance", excess_p)):
        if value is None:
            first.append(f"{name} not testable")
        elif not value > BIAS_P:
            first.append(f"{name} p = {value:.2g}")
    second = many + tiny + ([] if _excludes_0(largest) else ["largest study includes 0"])
    if not p < USUAL_P:
        return "NS", [f"p = {p:.2g}"]
    found = [("I", first), ("II", second), ("III", many + small)]
    better: list[str] = []
    for name, lacking in found:
        if not lacking:
            return name, better
        better = lacking
    return "IV", better


def _excludes_0(interval: tuple[float, float]) -> bool:
    return interval[0] > 0 or interval[1] < 0


def grade(at: SiteEffects) -> list[dict[str, Any]]:
    """Grade every site; each must be one voxel.

    Raises
    ------
    SettingError
        If the analysis tests a moderator, or a site has several voxels.

    Examples
    --------
    `at` as in `gpu_sdm.findings.refit.site_effects`.

    >>> (row,) = grade(at)
    >>> row["evidence"] in ("convincing", "highly suggestive", "suggestive", "weak", "none")
    True
    >>> row["cases"], bool(row["lacking"])  # too few for a better class
    (119, True)
    """
    design = at.analysis.design
    if design.moderator:
        raise SettingError("the criteria of evidence are those of a mean effect, not of a slope.")
    if any(len(site.voxels) != 1 for site in at.sites):
        raise SettingError("evidence is graded at peaks and points, not over several voxels.")
    studies = design.dataset.studies
    cases = sum(s.n1 for s in studies)
    name, low, high = largest_study(at)
    rows = []
    for s, (site, h, b) in enumerate(zip(at.sites, heterogeneity(at), bias(at), strict=True)):
        p = float(2 * ndtr(-abs(h["z"])))
        interval = float(h["prediction_low"]), float(h["prediction_high"])
        largest = float(low[s]), float(high[s])
        # With fewer studies the regression finds nothing: its silence excludes no bias.
        egger_p = b["egger_p"] if len(studies) >= FEW_STUDIES else None
        excess_p = b["excess_p_exact"]
        found, lacking = grade_one(cases, p, h["i2"], interval, egger_p, excess_p, largest)
        rows.append(
            {
                **site.row(),
                "class": found,
                "evidence": CLASSES[found],
                "lacking": lacking,
                "studies": len(studies),
                "cases": cases,
                "g": h["g"],
                "z": h["z"],
                "p_two_sided": p,
                "i2": h["i2"],
                "prediction_low": interval[0],
                "prediction_high": interval[1],
                "egger_p": egger_p,
                "excess_p": excess_p,
                "largest_study": name,
                "largest_low": largest[0],
                "largest_high": largest[1],
            }
        )
    return rows
