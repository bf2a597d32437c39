"""Pull of every study's bounds on the mean effect, at a mean of zero: the parts of a score test."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from gpu_sdm.ops._arrays import read_only
from gpu_sdm.ops._fit_bounds_terms import fill, study_terms
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._threads import in_pieces
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS, likelihood_terms, prepare


def mean_score(lower: np.ndarray, upper: np.ndarray, c: np.ndarray, v2: np.ndarray) -> np.ndarray:
    """Part of every study in the score test of the mean at zero, without heterogeneity.

    Parameters
    ----------
    lower, upper : (K, V) float32
        Bounds; equal where the effect is known, infinite where nothing is.
    c, v2 : (K,) float64
        Sampling variance c + v2 * g**2 of an effect g.

    Returns
    -------
    (K, V) float32
        Slope of the log-likelihood of study k in the mean, over the root of the information that
        all studies have. The sum over studies is the score statistic, about normal under the null.
        Mirroring the bounds of a study changes the sign of its part and nothing else.

    Notes
    -----
    A study that found nothing at a voxel has mirror-symmetric bounds: it pulls nowhere, yet its
    information makes the statistic smaller. Heterogeneity is left out on purpose: flipping signs
    is exact whatever the weights, and a tau2 estimated under a mean of zero takes a true effect
    for heterogeneity, which costs power (docs/calibration.md).

    References
    ----------
    .. [1] Rao CR (1948) Large sample tests of statistical hypotheses concerning several
       parameters. Mathematical Proceedings of the Cambridge Philosophical Society 44:50-57.
    .. [2] Hemerik J, Goeman JJ, Finos L (2020) Robust testing in generalized linear models by
       sign flipping score contributions. J R Stat Soc B 82:841-864.
    """
    d = prepare(lower, upper, np.asarray(c), np.asarray(v2))
    everywhere = np.ones(d.known.shape, bool)
    _, slope, curvature = likelihood_terms(np.zeros(d.known.shape), d, everywhere)
    information = np.maximum(curvature, 0.0).sum(axis=0)
    root = np.sqrt(np.where(information > 0, information, 1.0))
    return (-slope / root).astype(np.float32)


@nb.njit(cache=True, nogil=True)
def _compiled(first, last, lower, upper, c, v2, out):  # type: ignore[no-untyped-def]
    n_studies = lower.shape[0]
    w = np.empty((9, n_studies))
    slope = np.empty(n_studies)
    for v in range(first, last):
        fill(lower, upper, c, v2, v, w)
        information = 0.0
        for k in range(n_studies):
            _, slope[k], curvature = study_terms(0.0, w, k)
            information += max(curvature, 0.0)
        root = np.sqrt(information) if information > 0.0 else 1.0
        for k in range(n_studies):
            out[k, v] = -slope[k] / root


def _cpu(lower: np.ndarray, upper: np.ndarray, c: np.ndarray, v2: np.ndarray) -> np.ndarray:
    out = np.empty(lower.shape, np.float32)
    data = (
        read_only(lower, np.float32),
        read_only(upper, np.float32),
        read_only(c),
        read_only(v2),
    )

    def voxels(first: int, last: int) -> None:
        _compiled(first, last, *data, out)

    in_pieces(voxels, lower.shape[1])
    return out


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (lower, upper, c, v2, *_), _ = FIT_BOUNDS.sample(rng)
    return (lower, upper, c, v2), {}


MEAN_SCORE = Op("mean_score", mean_score, _cpu, _sample, rtol=1e-6)
