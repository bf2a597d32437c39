"""Regions of interest of a finished result: their pooled effect, and error control within them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_sdm.analysis import Analysis, Progress, limited_threads, silent
from gpu_sdm.findings.refit import SiteEffects
from gpu_sdm.findings.sites import Site
from gpu_sdm.inference import fwe_p, tie_tolerance, uncorrected_p
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.permute.engine import Problem, z_tile
from gpu_sdm.permute.maxima import TIE_TOLERANCE, maxima_of
from gpu_sdm.permute.plan import TILE
from gpu_sdm.problem import build_problem
from gpu_sdm.spaces import Space

WITHIN = ("voxel", "tfce")  # statistics that are corrected within a region
SIDES = {"": 1, "_neg": -1}


@dataclass(frozen=True, eq=False)
class Regions:
    """What was found in regions.

    Parameters
    ----------
    sites : tuple of Site
        The R regions.
    rows : list of rows
        A row per region.
    z : dict of str to (n,) float32
        Name of a region -> observed z of its voxels, those of the whole-brain map.
    maxima : dict of str to dict
        Name of a region -> statistic -> maxima (2, P) within it, permutation 0 the observed.
    """

    sites: tuple[Site, ...]
    rows: list[dict[str, Any]]
    z: dict[str, np.ndarray]
    maxima: dict[str, dict[str, np.ndarray]]


def _within(problem: Problem, voxels: np.ndarray) -> Problem:
    """Give a problem whose grid is a region: for maxima within it."""
    chosen = np.zeros(problem.space.n_voxels, bool)
    chosen[voxels] = True
    space = Space(problem.space.voxel_size, problem.space.embed(chosen) > 0)
    return replace(
        problem,
        space=space,
        neighbours=space.neighbours(),
        observed_z=problem.observed_z[voxels],
        forming=None,
    )


def _nulls(
    analysis: Analysis,
    problem: Problem,
    parts: Sequence[Problem],
    sites: Sequence[Site],
    statistics: tuple[str, ...],
    progress: Progress,
) -> list[dict[str, np.ndarray]]:
    """Maxima (2, P) of each statistic within each region, in every permutation."""
    only = np.unique(np.concatenate([s.voxels for s in sites]))
    places = [np.searchsorted(only, s.voxels) for s in sites]
    total, backend = analysis.permutations, analysis.backend
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in sites]
    with ThreadPoolExecutor(backend.threads) as pool:
        for start in range(0, total, TILE):
            z = z_tile(problem, analysis.plan, start, backend, pool, only)[: total - start]
            if start == 0:
                z[0] = problem.observed_z[only]
            for part, place, mine in zip(parts, places, found, strict=True):
                mine.append(maxima_of(z[:, place], statistics, part, backend, pool, start))
            progress("permutations", min(total, start + TILE), total)
    return [{s: np.concatenate([m[s] for m in mine], axis=1) for s in statistics} for mine in found]


def _side(
    statistic: str, values: np.ndarray, maxima: np.ndarray, site: Site, space: Space
) -> dict[str, Any]:
    """Where the statistic (n,) of a region is largest on one side, and its p within it."""
    best = int(np.argmax(values))
    error = TIE_TOLERANCE[statistic]
    gamma = error if statistic == "voxel" else tie_tolerance(values[[best]], error)
    p = float(fwe_p(values[[best]], maxima, gamma)[0])
    return {"at": space.mm(site.voxels[[best]])[0], "value": float(values[best]), "p": p}


def _row(
    site: Site,
    part: Problem,
    statistics: tuple[str, ...],
    maxima: dict[str, np.ndarray],
    space: Space,
    backend: str,
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for side, (suffix, sign) in enumerate(SIDES.items()):
        z = sign * part.observed_z
        found = _side("voxel", z, maxima["voxel"][side], site, space)
        axes = zip("xyz", found["at"], strict=True)
        row |= {f"{axis}_mm{suffix}": int(mm) for axis, mm in axes}
        row |= {f"peak_z{suffix}": sign * found["value"], f"p_fwe_voxel{suffix}": found["p"]}
        if "tfce" in statistics:
            scores = TFCE.on(backend)(z, part.neighbours)
            found = _side("tfce", scores, maxima["tfce"][side], site, space)
            row[f"p_fwe_tfce{suffix}"] = found["p"]
    return row


def analyse_regions(
    analysis: Analysis, sites: Sequence[Site], progress: Progress = silent
) -> Regions:
    """Analyse regions of interest.

    Parameters
    ----------
    analysis : Analysis
        From `Finished.analysis`; its backend must not be a device. `with_permutations` asks for
        another number of permutations.
    sites : sequence of Site
        The regions, by distinct names; from `gpu_sdm.findings.regions`.
    progress : callable
        Called with (stage, done, total).

    Returns
    -------
    Regions
        A row per region: voxels and mm3; `g se z tau2 i2` and one-sided `p p_neg` of the region
        as a whole; the largest z and -z (`x_mm y_mm z_mm peak_z`, the negative side with `_neg`)
        and their family-wise error within the region by voxel z and, where the result has it, by
        TFCE.

    Notes
    -----
    The whole: in every imputation the effects of a study are averaged over the voxels, then
    pooled as a voxel is. The sampling variance is that of an effect at the averaged value, as if
    all voxels said the same: averaging that cancels noise within a study is not credited.

    Family-wise error: the permutations of the result are run again, on the voxels of the regions
    only. Subjects are simulated in the whole mask, and the residual products keep their shape, so
    that z has the bits of a whole-brain run on the CPU. Maxima are taken within each region by
    itself; TFCE sees nothing but the region, clusters end at its border. Testing several
    regions is several tests: the last region of `regions_of`, their union, corrects for all.

    Examples
    --------
    `finished` and `analysis` are `open_result(out)` and `finished.analysis(backend)`.

    >>> from gpu_sdm.findings.sites import region_site
    >>> found = analyse_regions(analysis, [region_site(finished.space, mask)])
    >>> (row,) = found.rows
    >>> row["voxels"] == finished.space.n_voxels, 1 / 20 <= row["p_fwe_voxel"] <= 1
    (True, True)
    """
    statistics = tuple(s for s in WITHIN if s == "voxel" or s in analysis.settings.statistic)
    with limited_threads(analysis.backend):
        problem, _, _ = build_problem(analysis, progress, {})
        parts = [_within(problem, s.voxels) for s in sites]
        nulls = _nulls(analysis, problem, parts, sites, statistics, progress)
        effects = np.stack(
            [problem.effects[:, :, s.voxels].mean(axis=2, dtype=np.float64) for s in sites], axis=2
        )
        known = np.zeros(effects.shape[1:], bool)
        pooled = SiteEffects(tuple(sites), effects, known, analysis).pooled()
        p, p_neg = uncorrected_p(pooled.z), uncorrected_p(-pooled.z)
        rows = []
        for r, (site, part, maxima) in enumerate(zip(sites, parts, nulls, strict=True)):
            row = {
                "region": site.name,
                "voxels": len(site.voxels),
                "mm3": len(site.voxels) * analysis.space.voxel_size**3,
                **{name: getattr(pooled, name)[r] for name in ("g", "se", "z")},
                "p": p[r],
                "p_neg": p_neg[r],
                **{name: getattr(pooled, name)[r] for name in ("tau2", "i2")},
            }
            found = _row(site, part, statistics, maxima, analysis.space, analysis.backend.name)
            rows.append(row | found)
    return Regions(
        tuple(sites),
        rows,
        {s.name: part.observed_z for s, part in zip(sites, parts, strict=True)},
        {s.name: null for s, null in zip(sites, nulls, strict=True)},
    )
