"""The tail of a null beyond what its permutations can count: a generalised Pareto distribution.

With P permutations no counted p is below 1/P and small ones are uncertain. The largest maxima of
many statistics follow a generalised Pareto distribution; fitted to them it gives smooth p values,
and a fit that the maxima contradict is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_sdm.errors import NumericalError
from gpu_sdm.rng import philox, stream_key, uniform

LARGEST_SHARE = 0.25  # of the maxima that the first fit takes
STEPS = 25  # in which the tail shrinks to nothing until a fit is accepted
MOST, FEWEST = 2500, 20  # maxima of a fit
REJECTED = 0.05  # p of the goodness of fit up to which a fit is not accepted
SIMULATIONS = 999  # of the goodness of fit
RESAMPLES = 2000  # of the interval
BEYOND = 10  # a fitted p below 1 / (BEYOND P) is not given as a number


@dataclass(frozen=True, slots=True, eq=False)
class TailFit:
    """A generalised Pareto distribution of the largest maxima.

    Parameters
    ----------
    excess : (n,) float64
        Maxima above `threshold`, less it.
    threshold : float
        Where the tail begins; below, p is counted.
    permutations : int
        Maxima in all, the observed one left out.
    shape, scale : float
        Of the distribution as `scipy.stats.genpareto` has them; shape below 0 ends at
        threshold - scale / shape.
    fit_p : float
        p of the Anderson-Darling test of the fit.
    accepted : bool
        Whether `fit_p` is above .05; else this is the last fit that was tried.
    key : pair of int
        Stream of the resamples.
    """

    excess: np.ndarray
    threshold: float
    permutations: int
    shape: float
    scale: float
    fit_p: float
    accepted: bool
    key: tuple[int, int]

    def p(self, stat: np.ndarray) -> np.ndarray:
        """Upper tail p (n,) of statistics (n,); NaN up to the threshold, where p is counted."""
        share = len(self.excess) / self.permutations
        found = share * survival(np.asarray(stat, float) - self.threshold, self.shape, self.scale)
        return np.where(np.asarray(stat) > self.threshold, found, np.nan)

    def interval(self, stat: np.ndarray, level: float = 0.95) -> np.ndarray:
        """Bootstrap interval of `p`: (2, n), NaN where that is.

        Notes
        -----
        The permutations are resampled with the threshold kept, so that the number above it
        varies too, and the distribution is fitted anew: percentiles of 2,000 resamples.
        """
        n = len(self.excess)
        u = _uniform(RESAMPLES, n + 1, 1, self.key)
        counts = _binomial(u[:, 0], self.permutations, n / self.permutations)
        most = max(2, int(counts.max()))
        drawn = self.excess[(_uniform(RESAMPLES, most, 2, self.key) * n).astype(np.intp)]
        kept = np.arange(most) < counts[:, None]
        shape, scale = _moments(drawn, kept)
        y = np.asarray(stat, np.float64)[:, None] - self.threshold
        p = counts / self.permutations * survival(y, shape, scale)
        tail = 50 * (1 - level)
        found = np.percentile(p, [tail, 100 - tail], axis=1)
        return np.where(y[:, 0] > 0, found, np.nan)


def _uniform(rows: int, columns: int, stage: int, key: tuple[int, int]) -> np.ndarray:
    """Uniform numbers in (0, 1): (rows, columns) float64."""
    words = philox(np.arange(rows)[:, None], np.arange(-(-columns // 4)), stage, 0, key)
    return uniform(np.stack(words, axis=-1).reshape(rows, -1)[:, :columns])


def _binomial(u: np.ndarray, n: int, p: float) -> np.ndarray:
    from scipy.stats import binom

    drawn: np.ndarray = np.maximum(binom.ppf(u, n, p), 2).astype(np.int64)
    return drawn


def survival(y: np.ndarray, shape: np.ndarray | float, scale: np.ndarray | float) -> np.ndarray:
    """Share of a generalised Pareto distribution above `y`; 1 below 0, 0 beyond its end."""
    y, shape, scale = np.broadcast_arrays(np.maximum(y, 0.0), shape, scale)
    # log1p(shape y / scale) / shape, continued to y / scale at shape 0.
    x = y / scale
    tiny = np.abs(shape) < 1e-9
    safe = np.where(tiny, 1.0, shape)
    inside = 1 + safe * x > 0
    exponent = np.log1p(np.where(inside, safe * x, 0.0)) / safe
    found = np.exp(-np.where(tiny, x, exponent))
    return np.where(inside | tiny, found, 0.0)


def _moments(y: np.ndarray, kept: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale (B,) by the method of moments from samples (B, n), of which some count."""
    weight = np.ones(y.shape) if kept is None else kept.astype(np.float64)
    n = weight.sum(axis=1)
    mean = (weight * y).sum(axis=1) / n
    variance = (weight * (y - mean[:, None]) ** 2).sum(axis=1) / (n - 1)
    ratio = mean**2 / np.maximum(variance, 1e-12 * mean**2 + 1e-300)
    return (1 - ratio) / 2, mean * (1 + ratio) / 2


def anderson_darling(y: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Anderson-Darling statistic (B,) of samples (B, n) under distributions (B,) of their own.

    Infinite where a value lies beyond the end of its distribution.
    """
    above = survival(np.sort(y, axis=1), shape[:, None], scale[:, None])
    n = y.shape[1]
    odd = 2 * np.arange(1, n + 1) - 1
    with np.errstate(divide="ignore"):
        logs = np.log1p(-above) + np.log(above[:, ::-1])
    statistic: np.ndarray = -n - (odd * logs).sum(axis=1) / n
    return statistic


def goodness_of_fit(y: np.ndarray, key: tuple[int, int]) -> tuple[float, float, float]:
    """Fit one sample and test the fit.

    Parameters
    ----------
    y : (n,) float64
        Excesses, positive.
    key : pair of int
        Stream of the simulations.

    Returns
    -------
    shape, scale, p : float
        p: share of 999 samples of the fitted distribution, fitted anew, whose Anderson-Darling
        statistic is as large (the sample itself counted).
    """
    shape, scale = _moments(y[None])
    observed = anderson_darling(y[None], shape, scale)
    u = _uniform(SIMULATIONS, len(y), 0, key)
    flat = abs(shape[0]) < 1e-9
    drawn = scale * (-np.log(u) if flat else np.expm1(-shape * np.log(u)) / shape)
    simulated = anderson_darling(drawn, *_moments(drawn))
    # A distribution that ends below a value of the sample is no fit, however often that happens.
    reached = int((simulated >= observed).sum()) if np.isfinite(observed[0]) else 0
    p = (1 + reached) / (1 + SIMULATIONS)
    return float(shape[0]), float(scale[0]), p


def fit_tail(maxima: np.ndarray, seed: int = 0, name: str = "") -> TailFit | None:
    """Fit the tail of a null.

    Parameters
    ----------
    maxima : (P,) float
        Largest statistic of each permutation, the observed one first: it is left out.
    seed : int
        Seed of the analysis, for the simulations.
    name : str
        Which null this is, so that each has its own.

    Returns
    -------
    TailFit or None
        The first fit that is accepted, from the largest quarter of the maxima on (2,500 at most)
        in 25 steps of equal size; the last one tried where none is; None where fewer than 20
        maxima could be fitted or all are equal.

    Raises
    ------
    NumericalError
        If a maximum is NaN.

    Notes
    -----
    Method of moments, Anderson-Darling test and shrinking tail as in Winkler et al.; the p of
    that test is simulated here, because the tables in use are for other estimators.

    References
    ----------
    .. [1] Winkler AM et al. (2016) Faster permutation inference in brain imaging. NeuroImage
       141:502-516.
    .. [2] Hosking JRM, Wallis JR (1987) Parameter and quantile estimation for the generalized
       Pareto distribution. Technometrics 29:339-349.
    .. [3] Knijnenburg TA et al. (2009) Fewer permutations, more accurate P-values.
       Bioinformatics 25:i161-i168.

    Examples
    --------
    >>> null = np.random.default_rng(0).gumbel(size=1000)
    >>> fit = fit_tail(null)
    >>> fit.permutations, fit.accepted, bool(fit.p(np.array([null.max() + 3]))[0] < 1e-3)
    (999, True, True)
    """
    ranked = np.sort(np.asarray(maxima, np.float64)[1:])[::-1]
    if np.isnan(maxima).any():
        raise NumericalError("A maximum of the null is NaN; its tail cannot be fitted.")
    key = stream_key(seed, "tail", name)
    found = None
    largest = min(LARGEST_SHARE * len(ranked), MOST)
    for i in range(STEPS):
        n = int(largest * (1 - i / STEPS))
        if n < FEWEST:
            break
        threshold = float(ranked[n - 1] + ranked[n]) / 2
        excess = ranked[ranked > threshold] - threshold
        if len(excess) < FEWEST or excess[0] == excess[-1]:
            continue
        shape, scale, p = goodness_of_fit(excess, key)
        found = TailFit(excess, threshold, len(ranked), shape, scale, p, p > REJECTED, key)
        if found.accepted:
            return found
    return found
