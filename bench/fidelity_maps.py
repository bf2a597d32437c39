"""Stage 2: the mean model's maps, from SDM-PSI's own bounds and from the peaks.

Bars are held by compat with the original's search. Beside it stand what two runs of ours
with other seeds of the imputations agree on, and the same with the optimum in place of that search;
from the bounds that is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from fidelity_data import MAPS, enge, sdm_bounds, sdm_maps, sdm_p
from fidelity_failures import regions_apart, write_failures
from fidelity_ledger import Bar, Ledger
from fidelity_scores import Agreement, agreement, score_maps

from gpu_sdm.analysis import Analysis, limited_threads, silent
from gpu_sdm.data import Pooled, RandomEffects
from gpu_sdm.problem import build_problem
from gpu_sdm.spaces import Space
from gpu_sdm.stages.effects import effect_to_bound
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute
from gpu_sdm.stages.meta import meta
from gpu_sdm.stages.template_learn import LEAST_KERNEL

EVERYWHERE = "whole mask"
CLUSTERS = "significant clusters"
# By start: the bars of r apart from the failing voxels, and of g with them.
APART_BARS = {
    "bounds": {"g": 0.99, "z": 0.98, "tau2": 0.99, "i2": 0.99, "q": 0.97},
    "peaks": {},
    "learned": {},
}  # fmt: skip
WHOLE_BARS = {"bounds": {"g": 0.98}, "peaks": {"g": 0.95}, "learned": {"g": 0.95}}
AGAIN = "two of our runs"
OPTIMUM = {"bounds": "default", "peaks": "optimum", "learned": "optimum"}
SLOPE = {"bounds": {"g": Bar(0.97, 1.03)}, "peaks": {}, "learned": {}}


def maps_of(pooled: Pooled) -> dict[str, np.ndarray]:
    """Our maps by the names of `MAPS`; `var` is se^2."""
    return {name: pooled.se**2 if name == "var" else getattr(pooled, name) for name in MAPS}


def mean_model(analysis: Analysis) -> Pooled:
    """Estimate, impute and pool; no subjects are simulated where whole studies are exchanged."""
    with limited_threads(analysis.backend):
        return build_problem(analysis, silent, {})[1]


def estimated(analysis: Analysis) -> RandomEffects:
    """Mean and heterogeneity from the bounds, smoothed."""
    settings = analysis.settings
    with limited_threads(analysis.backend):
        return estimate(analysis.bounds, analysis.terms, *analysis.likelihood, analysis.space,
                        search=settings.search, compat=settings.sdm_compat)  # fmt: skip


def pooled_maps(analysis: Analysis, fit: RandomEffects, seed: int) -> dict[str, np.ndarray]:
    """Impute by a seed and pool: maps of the mean model as of `maps_of`."""
    settings, space, terms = analysis.settings, analysis.space, analysis.terms
    names, drawn = analysis.design.dataset.names, replace(settings, seed=seed)
    with limited_threads(analysis.backend):
        effects, _ = impute(analysis.bounds, fit, terms, analysis.likelihood.x, names, drawn, space)
        return maps_of(meta(effects, terms, analysis.design.X, analysis.design.contrast[0],
                            settings.tau2, space))  # fmt: skip


def sdm_regions(analysis: Analysis, space: Space) -> dict[str, np.ndarray]:
    """Regions to score in: the whole mask, SDM-PSI's voxels of FWE p <= .05, apart from failures.

    The failing voxels are told from SDM-PSI's own bounds, whatever the analysis starts from.
    """
    significant = np.minimum(sdm_p("voxel", "", space), sdm_p("voxel", "_neg", space)) <= 0.05
    bounds = sdm_bounds(analysis.design.dataset.names, space)
    return {
        EVERYWHERE: np.ones(space.n_voxels, bool),
        CLUSTERS: significant,
        **regions_apart(bounds, analysis.terms, analysis.discards, space),
    }


def record(
    ledger: Ledger,
    part: str,
    scores: Mapping[tuple[str, str], Agreement],
    start: str,
    beside: Mapping[str, Mapping[tuple[str, str], Agreement]] | None = None,
) -> None:
    """Enter the scores of the maps beside the bars of this start and the scores of others."""
    for (name, region), score in scores.items():
        apart = region in ("apart 0.02", "apart 0.02 and neighbours")
        wanted = (WHOLE_BARS if region == EVERYWHERE else APART_BARS if apart else {}).get(
            start, {}
        )
        others = {who: found[name, region] for who, found in (beside or {}).items()}
        bars = {
            "r": Bar(wanted[name]) if name in wanted else None,
            "slope": SLOPE[start].get(name) if apart else None,
        }
        for what in Agreement._fields:
            theirs = {who: getattr(other, what) for who, other in others.items()}
            ledger.add(part, f"{name}, {what}", getattr(score, what), region,
                       bar=bars.get(what), beside=theirs)  # fmt: skip


def record_alone(
    ledger: Ledger,
    part: str,
    analysis: Analysis,
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
) -> None:
    """Enter means over the voxels that no study's peaks reach: there imputation stands alone.

    All bounds are [-b, b] there, the mean is 0 and so is tau2: what the maps hold comes from the
    spread of the imputed effects.
    """
    b = effect_to_bound(analysis.design.dataset.studies)
    width = np.min((analysis.bounds.upper - analysis.bounds.lower) / (2 * b[:, None]), axis=0)
    alone = width > 1 - LEAST_KERNEL
    for name in ("var", "q", "tau2"):
        ledger.add(part, f"{name}, mean", float(ours[name][alone].mean()), "no study in reach",
                   float(theirs[name][alone].mean()))  # fmt: skip
    ledger.add(part, "sd of g", float(ours["g"][alone].std()), "no study in reach",
               float(theirs["g"][alone].std()))  # fmt: skip
    ledger.add(part, "voxels", float(alone.sum()), "no study in reach")


def run_start(ledger: Ledger, start: str, imputations: int) -> None:
    """Score the maps of one start."""
    part = f"from-{start}"
    given = {"permutations": 1, "exchange": "studies", "imputations": imputations}
    analysis = enge(start, **given)
    space = analysis.space
    regions, theirs = sdm_regions(analysis, space), sdm_maps(space)
    write_failures(regions, space)
    for region, keep in regions.items():
        ledger.add(part, "share of the mask", float(keep.mean()), region)
    ours = maps_of(mean_model(analysis))
    again = maps_of(mean_model(enge(start, **given, seed=1)))
    plain = replace(analysis.settings, search="optimum")
    if start == "bounds":
        plain = replace(plain, compat=None)  # the default
    # Whatever the settings, the bounds stay those of compat.
    optimum = maps_of(mean_model(replace(analysis, settings=plain)))
    beside = {
        AGAIN: score_maps(again, ours, regions),
        OPTIMUM[start]: score_maps(optimum, theirs, regions),
    }
    record(ledger, part, score_maps(ours, theirs, regions), start, beside)
    if start == "bounds":
        record_alone(ledger, part, analysis, ours, theirs)
    fewer = enge(start, **given, discards=2)
    two = mean_model(fewer).g
    for region in (EVERYWHERE, "apart 0.02"):
        r = agreement(two, theirs["g"], regions[region]).r
        ledger.add(part, "g, r with two discards", r, region)
