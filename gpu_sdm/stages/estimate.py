"""Most likely coefficients and heterogeneity of every voxel, from the bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gpu_sdm import cache
from gpu_sdm.backend.cuda import Device
from gpu_sdm.data import Bounds, RandomEffects, StudyTerms
from gpu_sdm.errors import NumericalError
from gpu_sdm.ops._op import Op
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.fit_mean_sdm import FIT_MEAN_SDM, TAU2_OF_MEAN
from gpu_sdm.spaces import Space
from gpu_sdm.stages.device_fit import Fitter, on_device
from gpu_sdm.stages.smoothing import smooth_in_mask, smooth_sdm

BLOCK = 4096  # voxels between two progress reports
# A part of the key of cached fits: raise it whenever the numbers change.
CODE_VERSION = "estimate 4"

Progress = Callable[[int, int], None]


def default_discards(n_studies: int) -> int:
    """Studies that SDM-PSI's conservative rule drops: metansue's count and one more.

    Examples
    --------
    >>> [default_discards(k) for k in (30, 50, 77, 78, 135)]
    [2, 3, 4, 5, 8]
    """
    if n_studies <= 77:
        return 2 + (n_studies > 30) + (n_studies > 59)
    return 1 + max(4, math.ceil((n_studies - 34) / 15))


def search_of(x: np.ndarray, search: str) -> Op:
    """Which op fits a design x (K, Q): that of the optimum, or for "sdm-6.21" SDM-PSI's own.

    The latter is known for the mean alone, a design of one column of ones.
    """
    mean = x.shape[1] == 1 and bool(np.all(x == 1.0))
    return FIT_MEAN_SDM if search == "sdm-6.21" and mean else FIT_BOUNDS


def require_finite(values: np.ndarray, what: str, space: Space) -> None:
    """Raise where a map (..., V) holds NaN, naming the first voxel.

    Raises
    ------
    NumericalError
    """
    bad = np.isnan(values).reshape(-1, values.shape[-1]).any(0)
    if bad.any():
        voxel = int(np.argmax(bad))
        x, y, z = space.mm(np.array([voxel]))[0]
        raise NumericalError(
            f"{what} is not a number at {int(bad.sum())} voxels, the first at MNI "
            f"({x:g}, {y:g}, {z:g}) mm; check the inputs there."
        )


def _fit(
    bounds: Bounds,
    terms: StudyTerms,
    x: np.ndarray,
    crit: np.ndarray,
    discards: int,
    backend: str,
    progress: Progress | None,
    keep: bool,
    search: Op,
    device: Device | None,
    say: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unsmoothed fit of all voxels, cached by content where it is worth keeping."""
    names, stored = ("beta", "tau2", "discarded", "converged"), None
    if keep:
        entry = cache.key(
            CODE_VERSION, search.name, bounds.lower, bounds.upper, terms.c, terms.v2, x, crit,
            discards, backend if device is None else "device",
        )  # fmt: skip
        stored = cache.load("estimate", entry)
    n = bounds.lower.shape[1]
    if stored is None or set(stored) != set(names):
        rest = (terms.c, terms.v2, x, crit, discards)
        compute, size = search.on("numpy" if backend == "numpy" else "cpu"), BLOCK
        fit: Fitter = lambda lower, upper: compute(lower, upper, *rest)  # noqa: E731
        if device is not None:
            fit, size = on_device(device, bounds, terms, x, crit, discards, say) or (fit, size)
        parts = []
        for start in range(0, n, size):
            block = slice(start, min(n, start + size))
            parts.append(fit(bounds.lower[:, block], bounds.upper[:, block]))
            if progress is not None:
                progress(block.stop, n)
        joined = (np.concatenate(p, axis=-1) for p in zip(*parts, strict=True))
        stored = dict(zip(names, joined, strict=True))
        if keep:
            cache.store("estimate", entry, **stored)
    elif progress is not None:
        progress(n, n)
    return stored["beta"], stored["tau2"], stored["discarded"], stored["converged"]


def estimate(
    bounds: Bounds,
    terms: StudyTerms,
    x: np.ndarray,
    crit: np.ndarray,
    discards: int | None,
    space: Space,
    backend: str = "cpu",
    progress: Progress | None = None,
    keep: bool = True,
    search: str = "optimum",
    compat: bool = False,
    device: Device | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> RandomEffects:
    """Fit coefficients and tau2 to the bounds and smooth their maps.

    Parameters
    ----------
    bounds : Bounds
        (K, V).
    terms : StudyTerms
        Constants of the K studies.
    x : (K, Q) float64
        Design.
    crit : (Q,) float64
        Combination of coefficients that the leave-one-out rule makes small.
    discards : int or None
        Studies that rule drops, None for SDM-PSI's number; at most K - Q - 1.
    space : Space
        For the smoothing, and to name a voxel in an error.
    backend : {"cpu", "numpy"}
        Which implementation; any other backend uses the compiled one.
    progress : callable, optional
        Called with (voxels done, all voxels).
    keep : bool
        Whether the cache may hold the fit.
    search : {"optimum", "sdm-6.21"}
        The latter finds the mean as SDM-PSI 6.21 does, failures included, and tau2 given its
        smoothed map. Designs of more than one column of ones have their optimum all the same.
    compat : bool
        Smooth as SDM-PSI 6.21 does (`smooth_sdm`), which pulls values at the edge towards 0.
    device : Device, optional
        A GPU that fits in place of the CPU, where it agrees with it; the optimum only.
    say : callable
        Called with a sentence where it cannot.

    Raises
    ------
    NumericalError
        If a bound is not a number.

    Notes
    -----
    Every map of coefficients and that of tau2 are smoothed by a Gaussian of 1 mm (standard
    deviation). The unsmoothed fit is cached by content.
    """
    k, q = x.shape
    dropped = default_discards(k) if discards is None else discards
    dropped = max(0, min(dropped, k - q - 1))
    require_finite(bounds.lower, "A lower bound", space)
    require_finite(bounds.upper, "An upper bound", space)
    op = search_of(x, search)
    beta, tau2, discarded, converged = _fit(
        bounds,
        terms,
        x,
        crit,
        dropped,
        backend,
        progress,
        keep,
        op,
        device if op is FIT_BOUNDS else None,
        say,
    )
    blur = smooth_sdm if compat else smooth_in_mask
    smooth = np.stack([blur(b, space) for b in beta])
    if op is FIT_MEAN_SDM:
        again = TAU2_OF_MEAN.on("numpy" if backend == "numpy" else "cpu")
        tau2 = again(bounds.lower, bounds.upper, terms.c, terms.v2, smooth[0])
    return RandomEffects(
        beta=smooth,
        tau2=blur(tau2, space),
        discarded=discarded,
        not_converged=int((~converged).sum()),
    )
