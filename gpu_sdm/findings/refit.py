"""The effects behind a finished result, made again at a few voxels or everywhere.

What a run does not keep (effects of every study and imputation) is a function of bounds, design
and seed, voxel by voxel, but for the smoothing of the fit. That one ends a few millimetres away,
so a few voxels need the fit of their surroundings only, and no draw depends on any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, limited_threads, silent
from gpu_sdm.data import Bounds, Pooled, RandomEffects, StudyTerms, _freeze
from gpu_sdm.findings.sites import Site
from gpu_sdm.ops.pool import random_effects
from gpu_sdm.spaces import Space
from gpu_sdm.stages.estimate import estimate
from gpu_sdm.stages.impute import impute, known_effects
from gpu_sdm.stages.meta import joint, meta
from gpu_sdm.stages.smoothing import SMOOTHING_MM

BLOCK = 8192  # voxels whose imputations are held at once
TRUNCATE = 4.0  # standard deviations at which scipy's Gaussian ends


@dataclass(frozen=True, eq=False)
class SiteEffects:
    """Effects of every study and imputation at S sites.

    Parameters
    ----------
    sites : tuple of Site
        Where.
    effects : (M, K, S) float64
        Hedges g; over several voxels their mean in each imputation.
    known : (K, S) bool
        Whether the effect is known (not imputed) in all voxels of the site.
    analysis : Analysis
        What they belong to.
    """

    sites: tuple[Site, ...]
    effects: np.ndarray
    known: np.ndarray
    analysis: Analysis

    def __post_init__(self) -> None:
        _freeze(self.effects, self.known)

    @property
    def terms(self) -> StudyTerms:
        """Constants of the K studies."""
        return self.analysis.terms

    @property
    def names(self) -> tuple[str, ...]:
        """Studies."""
        return self.analysis.design.dataset.names

    @property
    def contrast(self) -> np.ndarray:
        """(Q,) combination of coefficients that the analysis tests; of several the first."""
        first: np.ndarray = self.analysis.design.contrast[0]
        return first

    @property
    def variances(self) -> np.ndarray:
        """(M, K, S) sampling variance of each effect, that of Hedges g at its value."""
        variances: np.ndarray = self.terms.c[:, None] + self.terms.v2[:, None] * self.effects**2
        return variances

    def imputation_variances(self) -> np.ndarray:
        """(K, S) what not knowing an effect adds to its variance, by Rubin's rules.

        (1 + 1/M) times the variance of g over the M imputations; 0 of one alone.
        """
        m = len(self.effects)
        if m == 1:
            return np.zeros(self.effects.shape[1:])
        added: np.ndarray = (1 + 1 / m) * self.effects.var(0, ddof=1)
        return added

    def pooled(self) -> Pooled:
        """Meta-analyse the sites as a run does its voxels; each (S,)."""
        return _meta(self.analysis, self.effects, self.analysis.space)

    def tau2(self) -> np.ndarray:
        """(M, S) between-study variance of each imputation."""
        x, method = self.analysis.design.X, self.analysis.settings.tau2
        pairs = zip(self.effects, self.variances, strict=True)
        return np.stack([random_effects(y, v, x, self.contrast, method)[2] for y, v in pairs])


def _meta(analysis: Analysis, effects: np.ndarray, space: Space) -> Pooled:
    """Meta-analyse effects (M, K, n) as a run does."""
    x, terms, rows = analysis.design.X, analysis.terms, analysis.design.contrast
    method, backend = analysis.settings.tau2, analysis.backend.name
    pooled = meta(effects, terms, x, rows[0], method, space, backend)
    return pooled if len(rows) == 1 else joint(pooled, effects, terms, x, rows, method, backend)


def _part(space: Space, voxels: np.ndarray) -> Space:
    """Give the space of some voxels of a mask."""
    chosen = np.zeros(space.n_voxels, bool)
    chosen[voxels] = True
    return Space(space.voxel_size, space.embed(chosen) > 0)


def surroundings(space: Space, voxels: np.ndarray, times: int = 1) -> np.ndarray:
    """Positions in the mask, in order, of all voxels that smoothing `times` mixes into `voxels`."""
    from scipy.ndimage import maximum_filter

    reach = times * int(TRUNCATE * SMOOTHING_MM / space.voxel_size + 0.5)
    chosen = np.zeros(space.n_voxels, bool)
    chosen[voxels] = True
    near = maximum_filter(space.embed(chosen) > 0, 2 * reach + 1, mode="constant")
    return np.flatnonzero(space.extract(near))


def fit(analysis: Analysis, voxels: np.ndarray, progress: Progress = silent) -> RandomEffects:
    """Most likely coefficients and heterogeneity at `voxels` (n,), increasing, as a run has them.

    Parameters
    ----------
    analysis : Analysis
        From `Finished.analysis`.
    voxels : (n,) int
        Positions in the mask, increasing.
    progress : callable
        Called with (stage, done, total).
    """
    search, compat = analysis.settings.search, analysis.settings.sdm_compat
    if compat:  # smoothed in place, a voxel takes a little of all before it
        around = np.arange(analysis.space.n_voxels)
    else:
        # In SDM-PSI's search tau2 is smoothed that follows from the smoothed mean
        around = surroundings(analysis.space, voxels, 1 if search == "optimum" else 2)
    whole = len(around) == analysis.space.n_voxels
    bounds = analysis.bounds
    found = estimate(
        bounds if whole else Bounds(bounds.lower[:, around], bounds.upper[:, around]),
        analysis.terms,
        *analysis.likelihood,
        analysis.space if whole else _part(analysis.space, around),
        analysis.backend.name,
        lambda done, total: progress("likelihood", done, total),
        search=search,
        compat=compat,
    )
    inside = np.searchsorted(around, voxels)
    return RandomEffects(
        found.beta[:, inside],
        found.tau2[inside],
        found.discarded[:, inside],
        found.not_converged,
    )


def _draw(
    analysis: Analysis, found: RandomEffects | None, rows: slice, voxels: np.ndarray, m: int
) -> np.ndarray:
    """Effects (M, K, n) of a block: `rows` of the fit, which are `voxels` of the mask."""
    bounds = Bounds(analysis.bounds.lower[:, voxels], analysis.bounds.upper[:, voxels])
    space = _part(analysis.space, voxels)
    if found is None:  # nothing is open anywhere
        return known_effects(bounds, space)
    part = RandomEffects(
        found.beta[:, rows], found.tau2[rows], found.discarded[:, rows], found.not_converged
    )
    effects, _ = impute(
        bounds,
        part,
        analysis.terms,
        analysis.likelihood.x,
        analysis.design.dataset.names,
        analysis.settings,
        space,
        analysis.backend.name,
    )
    # Where all is known one imputation says as much; a run repeats it if others are needed.
    return effects if len(effects) == m else np.repeat(effects, m, axis=0)


def site_effects(
    analysis: Analysis, sites: Sequence[Site], progress: Progress = silent
) -> SiteEffects:
    """Effects of every study and imputation at sites, equal to those of the run.

    Parameters
    ----------
    analysis : Analysis
        From `Finished.analysis`.
    sites : sequence of Site
        Where.
    progress : callable
        Called with (stage, done, total).

    Examples
    --------
    >>> from gpu_sdm import get_backend
    >>> from gpu_sdm.findings.sites import point_sites
    >>> from gpu_sdm.finished import open_result
    >>> finished = open_result(out)
    >>> sites = point_sites(finished.space, [(0, -16, 16)])
    >>> at = site_effects(finished.analysis(get_backend("cpu")), sites)
    >>> at.effects.shape  # imputations, studies, sites
    (2, 6, 1)
    """
    voxels = np.unique(np.concatenate([s.voxels for s in sites]))
    m = analysis.imputations
    k = len(analysis.design.dataset.studies)
    sums, known = np.zeros((m, k, len(sites))), np.ones((k, len(sites)), bool)
    with limited_threads(analysis.backend):
        found = fit(analysis, voxels, progress) if m > 1 else None
        for start in range(0, len(voxels), BLOCK):
            rows = slice(start, min(len(voxels), start + BLOCK))
            here = voxels[rows]
            effects = _draw(analysis, found, rows, here, m)
            same = analysis.bounds.lower[:, here] == analysis.bounds.upper[:, here]
            for s, site in enumerate(sites):
                at = np.isin(here, site.voxels).nonzero()[0]
                sums[:, :, s] += effects[:, :, at].sum(axis=2, dtype=np.float64)
                known[:, s] &= same[:, at].all(axis=1)
            progress("imputation", rows.stop, len(voxels))
    size = np.array([len(s.voxels) for s in sites])
    return SiteEffects(tuple(sites), sums / size, known, analysis)


def everywhere(analysis: Analysis, progress: Progress = silent) -> tuple[Pooled, int]:
    """Estimate, impute and pool the whole mask, as a run does, holding a block at a time.

    Returns
    -------
    Pooled
        Each (V,) float64.
    int
        Voxels whose optimum was not reached.
    """
    n = analysis.space.n_voxels
    m = analysis.imputations
    parts = []
    with limited_threads(analysis.backend):
        found = fit(analysis, np.arange(n), progress) if m > 1 else None
        for start in range(0, n, BLOCK):
            rows = slice(start, min(n, start + BLOCK))
            voxels = np.arange(rows.start, rows.stop)
            effects = _draw(analysis, found, rows, voxels, m)
            parts.append(_meta(analysis, effects, _part(analysis.space, voxels)))
            progress("imputation", rows.stop, n)
    names = [f.name for f in fields(Pooled)]
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
    return Pooled(**joined), 0 if found is None else found.not_converged
