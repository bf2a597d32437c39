"""The likelihood on a GPU, where a few voxels show that it agrees with the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.errors import OutOfMemory
from gpu_sdm.ops._fit_bounds_cuda import DeviceFit, Fit
from gpu_sdm.ops._fit_bounds_plan import MOST_TERMS
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS, GRID

CHECKED = 64  # voxels, anywhere in the mask
ON_CPU = "the likelihood runs on the CPU."

Fitter = Callable[[np.ndarray, np.ndarray], Fit]


def disagreement(found: Fit, expected: Fit) -> tuple[int, float]:
    """Count the voxels where two fits differ by more than is stated, and give the largest step.

    Parameters
    ----------
    found, expected : (Q, V), (V,), (D, V), (V,) arrays
        As `gpu_sdm.ops.fit_bounds.fit_bounds` gives them.

    Returns
    -------
    voxels : int
        Where only one of the two converged, or both did and a coefficient or tau2 is off by more
        than 1e-7 of the largest (or of 1) or another study was dropped.
    step : float
        Largest difference of a coefficient or of tau2.
    """
    wrong, step = (found[2] != expected[2]).any(0), 0.0
    for one, other in zip(found[:2], expected[:2], strict=True):
        off = np.abs(one - other).reshape(-1, other.shape[-1]).max(0)
        # Negated, so that a NaN is wrong.
        wrong |= ~(off <= FIT_BOUNDS.rtol * max(1.0, np.abs(other).max()))
        step = max(step, float(np.nan_to_num(off[expected[3]], nan=np.inf).max(initial=0.0)))
    wrong = np.where(found[3] & expected[3], wrong, found[3] != expected[3])
    return int(wrong.sum()), step


def on_device(
    device: Device,
    bounds: Bounds,
    terms: StudyTerms,
    x: np.ndarray,
    crit: np.ndarray,
    discards: int,
    say: Callable[[str], None] = lambda sentence: None,
) -> tuple[Fitter, int] | None:
    """Prepare the likelihood on a device and hold it against the CPU at a few voxels.

    Parameters
    ----------
    device : Device
        The GPU.
    bounds, terms, x, crit, discards
        As for `gpu_sdm.stages.estimate.estimate`.
    say : callable
        Called with a sentence where the CPU is used instead.

    Returns
    -------
    fit, voxels
        What fits the bounds (K, V') of some voxels, and how many it takes at once; None where the
        CPU is to do it. Memory that runs out later is no error: the CPU goes on.
    """
    k, v = bounds.lower.shape
    if x.shape[1] > MOST_TERMS:
        say(f"The GPU fits at most {MOST_TERMS} coefficients and there are {x.shape[1]}: {ON_CPU}")
        return None
    rest = (terms.c, terms.v2, x, crit, discards)
    few = np.sort(np.random.default_rng(k).choice(v, min(v, CHECKED), replace=False))
    lower, upper = bounds.lower[:, few], bounds.upper[:, few]
    try:
        fit = DeviceFit(device, *rest, GRID, v)
        found = fit(lower, upper)
    except OutOfMemory as exc:
        say(f"{str(exc)[0].upper()}{str(exc)[1:-1]}; {ON_CPU}")
        return None
    voxels, step = disagreement(found, FIT_BOUNDS.on("cpu")(lower, upper, *rest))
    if voxels:
        say(
            f"At {voxels} of {few.size} voxels tried, the GPU's likelihood is not the CPU's (they "
            f"differ by up to {step:.1e}), so {ON_CPU} Please report the card and its driver."
        )
        return None
    lost: list[OutOfMemory] = []

    def run(lower: np.ndarray, upper: np.ndarray) -> Fit:
        if not lost:
            try:
                return fit(lower, upper)
            except OutOfMemory as exc:
                lost.append(exc)
                say(f"The GPU has run out of memory: the rest of {ON_CPU}")
        found: Fit = FIT_BOUNDS.on("cpu")(lower, upper, *rest)
        return found

    return run, fit.launches.voxels
