"""Multiple imputation: complete effects of every study, drawn between its bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpu_sdm.config import Settings
from gpu_sdm.data import KNOWN_WIDTH, Bounds, RandomEffects, StudyTerms
from gpu_sdm.ops.impute import IMPUTE
from gpu_sdm.rng import stream_key
from gpu_sdm.spaces import Space
from gpu_sdm.stages.estimate import require_finite

BLOCK = 16384  # voxels between two progress reports
MOST = 2**27  # values drawn at once: half a gigabyte

Progress = Callable[[int, int], None]


def n_imputations(bounds: Bounds, wanted: int) -> int:
    """One imputation where every effect is known, else the number wanted."""
    censored = any(
        bool((upper.astype(np.float64) - lower >= KNOWN_WIDTH).any())
        for lower, upper in zip(bounds.lower, bounds.upper, strict=True)
    )
    return wanted if censored else 1


def known_effects(bounds: Bounds, space: Space) -> np.ndarray:
    """Give the one complete data set (1, K, V) float32 of bounds that leave nothing open.

    Parameters
    ----------
    bounds : Bounds
        (K, V), all less than 1e-5 apart.
    space : Space
        To name a voxel in an error.

    Raises
    ------
    NumericalError
        If an effect is not a number.
    """
    effects = np.empty((1, *bounds.lower.shape), np.float32)
    for k, (lower, upper) in enumerate(zip(bounds.lower, bounds.upper, strict=True)):
        effects[0, k] = 0.5 * (lower.astype(np.float64) + upper)
    require_finite(effects[0], "A study's effect", space)
    return effects


def impute(
    bounds: Bounds,
    fit: RandomEffects,
    terms: StudyTerms,
    x: np.ndarray,
    names: Sequence[str],
    settings: Settings,
    space: Space,
    backend: str = "cpu",
    progress: Progress | None = None,
    into: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> tuple[np.ndarray, int]:
    """Draw `settings.imputations` complete data sets (one where nothing is censored).

    Parameters
    ----------
    bounds : Bounds
        (K, V).
    fit : RandomEffects
        Smoothed coefficients and tau2.
    terms : StudyTerms
        Constants of the K studies.
    x : (K, Q) float64
        Design of `fit`.
    names : K str
        Study names: a study's draws depend on its name, not on its row.
    settings : Settings
        For the seed, the number and the law.
    space : Space
        For the voxels' place in the full grid, on which the draws depend.
    backend : {"cpu", "numpy"}
        Which implementation; any other backend uses the compiled one.
    progress : callable, optional
        Called with (voxels done, all voxels).
    into : callable, optional
        Makes what the effects are written to from its shape; an array in memory by default.

    Returns
    -------
    effects : (M, K, V) float32
    fallbacks : int
        Voxels of studies drawn from the truncated normal where SDM-PSI's law cannot have the
        wanted mean and variance.

    Raises
    ------
    NumericalError
        If an effect is not a number.
    """
    k, v = bounds.lower.shape
    m = n_imputations(bounds, settings.imputations)
    keys = np.array([stream_key(settings.seed, "impute", s) for s in names], np.uint32)
    draw = IMPUTE.on("numpy" if backend == "numpy" else "cpu")
    effects = np.empty((m, k, v), np.float32) if into is None else into((m, k, v))
    fallbacks = 0
    step = max(1, min(BLOCK, MOST // (m * k)))
    for start in range(0, v, BLOCK):
        whole = slice(start, min(v, start + BLOCK))
        mu = x @ fit.beta[:, whole]  # of whole blocks: BLAS changes bits with shape
        for first in range(start, whole.stop, step):
            block = slice(first, min(whole.stop, first + step))
            drawn, more = draw(
                bounds.lower[:, block],
                bounds.upper[:, block],
                mu[:, first - start : block.stop - start],
                fit.tau2[block],
                terms.c,
                terms.v2,
                keys,
                space.index[block],
                0,
                m,
                settings.imputation,
            )
            require_finite_block(drawn, block, space)
            effects[:, :, block] = drawn
            fallbacks += more
            if progress is not None:
                progress(block.stop, v)
    return effects, fallbacks


def require_finite_block(drawn: np.ndarray, block: slice, space: Space) -> None:
    """Raise NumericalError where the effects (M, K, v) of a block of voxels hold NaN."""
    worst = drawn.sum(axis=(0, 1), dtype=np.float64)
    if np.isnan(worst).any():
        whole = np.zeros(space.n_voxels)
        whole[block] = worst
        require_finite(whole, "An imputed effect", space)
