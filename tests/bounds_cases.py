"""Bounds of made-up studies for the tests of the likelihood's kernels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """Arguments of `gpu_sdm.ops.fit_bounds.fit_bounds` but the number of discards."""

    lower: np.ndarray
    upper: np.ndarray
    c: np.ndarray
    v2: np.ndarray
    X: np.ndarray
    crit: np.ndarray


def bounds_case(rng: np.random.Generator, k: int, v: int, q: int = 1) -> Case:
    """Studies of 8 to 40 subjects, peaks of either sign near most voxels of most of them."""
    n = rng.integers(8, 40, k).astype(float)
    half = 3.2 / np.sqrt(n)[:, None]
    near = np.clip(rng.uniform(-0.8, 1.05, (k, v)), 0, 1)
    peak = half * rng.uniform(1, 2, (k, v)) * rng.choice([-1, 1, 1], (k, v))
    lower, upper = -half + near * (peak + half), half + near * (peak - half)
    X = np.column_stack([np.ones(k), rng.normal(size=(k, q - 1))])
    X[:, 1:] -= X[:, 1:].mean(axis=0)
    return Case(lower.astype(np.float32), upper.astype(np.float32), 1 / n, 0.5 / n, X, np.eye(q)[0])


def awkward_case(rng: np.random.Generator, kind: str) -> Case:
    """Twelve studies and 33 voxels of which something is unusual."""
    case = bounds_case(rng, 12, 33)
    lower, upper, c, v2 = (np.array(a) for a in case[:4])
    if kind == "one study known":
        upper[4] = lower[4]
    elif kind == "all studies known":
        upper[:] = lower
    elif kind == "an image that ends":
        lower[3, :9], upper[3, :9], upper[6, 20:] = -np.inf, np.inf, np.inf
    elif kind == "nothing known":
        lower[:], upper[:] = -np.inf, np.inf
    elif kind == "tiny variances":
        c[:2], v2[:2] = 1e-6 * c[:2], 1e-6 * v2[:2]
        upper[2:4], c[2:4], v2[2:4] = lower[2:4], 1e-8 * c[2:4], 1e-8 * v2[2:4]
    elif kind == "a wall":
        # Five subjects and a threshold of t 30: far below 0 its interval has negative probability.
        c[7], v2[7], lower[7], upper[7] = 0.2, 0.3, -8.0, 10.92
        upper[7, ::3], c[2], v2[2] = 40.0, 0.2, 0.9
    elif kind == "far from each other":
        lower[:6] -= 25
        upper[:6] -= 25
        c, v2 = 0.3 * c, np.zeros(12)
    elif kind == "equal studies":
        lower[:], upper[:], c[:], v2[:] = lower[0], upper[0], c[0], v2[0]
    else:
        raise ValueError(kind)
    return case._replace(lower=lower, upper=upper, c=c, v2=v2)


AWKWARD = (
    "one study known", "all studies known", "an image that ends", "nothing known",
    "tiny variances", "a wall", "far from each other", "equal studies",
)  # fmt: skip
