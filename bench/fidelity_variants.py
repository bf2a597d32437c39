"""Variants of the estimation and imputation from SDM-PSI's own bounds, on voxels fixed beforehand.

Every variant is scored on the slices z = -12..10 mm (where they were tried); the default, which
finds the optimum, and SDM-PSI's search are scored once more on z = 16..38
mm, which no choice was made on. Apart: neither a voxel nor any of its 26 neighbours, which
smoothing mixes in, is one where SDM-PSI's search ends more than .02 from the optimum; told from the
bounds alone.
Dice: of the voxels above the 95 % point of SDM-PSI's own maxima.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from fidelity_data import enge, sdm_bounds, sdm_maps, sdm_maxima
from fidelity_failures import minimiser_means, with_neighbours
from fidelity_ledger import Ledger
from fidelity_scores import agreement, dice
from scipy.ndimage import gaussian_filter

from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.ops._op import Op
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.fit_mean_sdm import FIT_MEAN_SDM, TAU2_OF_MEAN
from gpu_sdm.ops.impute import IMPUTE
from gpu_sdm.ops.pool import POOL
from gpu_sdm.rng import stream_key
from gpu_sdm.spaces import Space
from gpu_sdm.stages.smoothing import SMOOTHING_MM, smooth_in_mask, smooth_sdm

PART = "variants"
TRIED, HELD_OUT = (-12, 10), (16, 38)  # mm, slices
DEFAULT = "default: optimum, 3 discards, 1 mm"
SEARCHED = "SDM-PSI's search, tau2 of the mean smoothed"
ZERO = "the same, 0 outside the mask"
SHARES = "the same, by the shares of three voxels"
IN_PLACE = "the same, in place along two axes (compat)"
WIDER = (1.1, 1.2, 1.3)  # mm
MARGIN = 12  # mm beyond the slices: what is smoothed in place comes from farther off
SCORED = ("g", "z", "tau2", "i2", "q")
BLOCK = 4096
Fit = tuple[np.ndarray, np.ndarray]  # mean and tau2, each (V,), NaN where not computed
Blur = Callable[[np.ndarray], np.ndarray]


def between(space: Space, slices: tuple[int, int], margin: int = 0) -> np.ndarray:
    """Positions of the voxels of these slices, `margin` mm more on either side."""
    z = space.mm()[:, 2]
    return np.flatnonzero((z >= slices[0] - margin) & (z <= slices[1] + margin))


def in_blocks(voxels: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Concatenate what `compute` gives for blocks of voxels along the last axis."""
    parts = [compute(voxels[s : s + BLOCK]) for s in range(0, len(voxels), BLOCK)]
    return np.concatenate(parts, axis=-1)


class Trial:
    """SDM-PSI's bounds, and what is needed to score a fit of them."""

    def __init__(self) -> None:
        analysis = enge("bounds", permutations=1, exchange="studies")
        self.space: Space = analysis.space
        self.names = analysis.design.dataset.names
        self.bounds: Bounds = sdm_bounds(self.names, self.space)
        self.terms: StudyTerms = analysis.terms
        self.real = sdm_maps(self.space)
        self.critical = float(np.quantile(sdm_maxima()["voxel"][0], 0.95))
        self.one = np.ones((len(self.names), 1))
        emulated, exact = minimiser_means(self.bounds, self.terms, analysis.discards)
        failed = np.abs(emulated - exact) > 0.02
        self.apart = ~with_neighbours(failed, self.space)

    def spread(self, values: np.ndarray, voxels: np.ndarray) -> np.ndarray:
        """Put values of some voxels into a map (V,), NaN elsewhere."""
        out = np.full(self.space.n_voxels, np.nan)
        out[voxels] = values
        return out

    def fit(self, voxels: np.ndarray, discards: int, search: Op = FIT_BOUNDS) -> Fit:
        """Mean where a search ends, and the tau2 that is most likely then."""

        def block(v: np.ndarray) -> np.ndarray:
            low, high = self.bounds.lower[:, v], self.bounds.upper[:, v]
            beta, tau2, _, _ = search.on("cpu")(
                low, high, self.terms.c, self.terms.v2, self.one, np.ones(1), discards
            )
            return np.stack([beta[0], tau2])

        mean, tau2 = in_blocks(voxels, block)
        return self.spread(mean, voxels), self.spread(tau2, voxels)

    def tau2_of(self, mean: np.ndarray, voxels: np.ndarray, blur: Blur) -> Fit:
        """Mean of SDM-PSI's search, and tau2 given the mean smoothed; neither is smoothed here."""
        smooth = blur(mean)

        def block(v: np.ndarray) -> np.ndarray:
            low, high = self.bounds.lower[:, v], self.bounds.upper[:, v]
            return TAU2_OF_MEAN.on("cpu")(low, high, self.terms.c, self.terms.v2, smooth[v])

        return mean, self.spread(in_blocks(voxels, block), voxels)

    def inside(self, sigma_mm: float = SMOOTHING_MM) -> Blur:
        """Smoothing inside the mask; NaN voxels, outside the slices, count as no voxels."""

        def blur(values: np.ndarray) -> np.ndarray:
            if sigma_mm == 0:
                return values
            known = np.isfinite(values)
            weight = smooth_in_mask(known.astype(float), self.space, sigma_mm)
            mean = smooth_in_mask(np.where(known, values, 0), self.space, sigma_mm)
            return np.divide(mean, weight, out=np.full_like(mean, np.nan), where=weight > 0)

        return blur

    def zero_outside(self) -> list[tuple[str, Blur]]:
        """Ways to smooth that take 0 for what lies outside the mask, by name."""

        def plain(values: np.ndarray) -> np.ndarray:
            volume = self.space.embed(np.nan_to_num(values))
            sigma = SMOOTHING_MM / self.space.voxel_size
            return self.space.extract(gaussian_filter(volume, sigma, mode="constant"))

        def shares(values: np.ndarray) -> np.ndarray:
            return smooth_sdm(np.nan_to_num(values), self.space, in_place=False)

        def in_place(values: np.ndarray) -> np.ndarray:
            return smooth_sdm(np.nan_to_num(values), self.space)

        return [(ZERO, plain), (SHARES, shares), (IN_PLACE, in_place)]

    def maps(self, fit: Fit, voxels: np.ndarray, blur: Blur, law: str) -> dict:
        """Impute and pool some voxels."""
        mean, tau2 = (blur(values)[voxels] for values in fit)
        keys = np.stack([stream_key(0, "impute", name) for name in self.names])
        parts = []
        for start in range(0, len(voxels), BLOCK):
            s = slice(start, start + BLOCK)
            v = voxels[s]
            effects, _ = IMPUTE.on("cpu")(
                self.bounds.lower[:, v], self.bounds.upper[:, v], self.one @ mean[None, s],
                tau2[s], self.terms.c, self.terms.v2, keys, self.space.index[v], 0, 50, law,
            )  # fmt: skip
            parts.append(
                POOL.on("cpu")(
                    effects, self.terms.c, self.terms.v2, self.one, np.ones(1), method="dl"
                )
            )
        return {name: np.concatenate([getattr(p, name) for p in parts]) for name in SCORED}

    def score(
        self, ledger: Ledger, what: str, fit: Fit, voxels: np.ndarray, where: str,
        blur: Blur | None = None, law: str = "sdm",
    ) -> None:  # fmt: skip
        """Enter r of every map, and slope and bias of g, with all voxels and apart."""
        ours = self.maps(fit, voxels, blur or self.inside(), law)
        passing = ours["z"] > self.critical, self.real["z"][voxels] > self.critical
        for region, keep in (("all", slice(None)), ("apart", self.apart[voxels])):
            place = f"{what}; {where}, {region}"
            ledger.add(PART, "Dice", dice(passing[0][keep], passing[1][keep]), place)
            for name in SCORED:
                found = agreement(ours[name][keep], self.real[name][voxels][keep])
                ledger.add(PART, f"r({name})", found.r, place)
                if name == "g":
                    ledger.add(PART, "slope(g)", found.slope, place)
                    ledger.add(PART, "bias(g)", found.bias, place)


def original(trial: Trial, ledger: Ledger, slices: tuple[int, int], where: str) -> None:
    """Score SDM-PSI's search with every way to smooth."""
    voxels = between(trial.space, slices)
    wide = between(trial.space, slices, MARGIN)
    found = trial.fit(wide, 3, FIT_MEAN_SDM)
    trial.score(ledger, "SDM-PSI's search, tau2 of the mean as found", found, voxels, where)
    ways = [(SEARCHED, trial.inside()), *trial.zero_outside()]
    ways += [(f"{SEARCHED}, both by {s:g} mm", trial.inside(s)) for s in WIDER]
    for what, blur in ways:
        trial.score(ledger, what, trial.tau2_of(found[0], wide, blur), voxels, where, blur)


def run(ledger: Ledger) -> None:
    """Score every variant where they were tried, and some of them on voxels held out."""
    trial = Trial()
    voxels = between(trial.space, TRIED)
    wide = between(trial.space, TRIED, MARGIN)
    where = "tried"
    share = float(trial.apart[voxels].mean())
    ledger.add(PART, "share apart", share, where)
    fits = {d: trial.fit(wide, d) for d in (1, 2, 3, 4)}
    trial.score(ledger, DEFAULT, fits[3], voxels, where)
    for discards in (1, 2, 4):
        trial.score(ledger, f"{discards} discards", fits[discards], voxels, where)
    for sigma in (0.0, 0.7, 1.2, 1.5, 2.0):
        what = f"smoothed by {sigma:g} mm"
        trial.score(ledger, what, fits[3], voxels, where, trial.inside(sigma))
    trial.score(ledger, "proper truncated normal", fits[3], voxels, where, law="truncated-normal")
    original(trial, ledger, TRIED, where)
    held, where = between(trial.space, HELD_OUT), "held out"
    ledger.add(PART, "share apart", float(trial.apart[held].mean()), where)
    fit = trial.fit(between(trial.space, HELD_OUT, MARGIN), 3)
    trial.score(ledger, DEFAULT, fit, held, where)
    original(trial, ledger, HELD_OUT, where)
