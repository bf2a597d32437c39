"""PyMARE: DerSimonian and Laird's estimate and its permutation test, voxel by voxel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from peers_common import (
    STUDIES,
    agreement,
    effects_of,
    limits,
    our_null,
    problem_of,
    require,
    row,
    space_of,
    study_sizes,
    timed,
)

from gpu_sdm.ops.exceedances import exceedances
from gpu_sdm.ops.permuted_z import PERMUTED_Z
from gpu_sdm.ops.pool import random_effects
from gpu_sdm.permute.engine import BLOCK

M = 50
EXACT = 8  # studies of the exact test: 256 permutations
TIE = 4e-6  # single precision: less apart is equal
BAR = 200.0


def _fitted(y: np.ndarray, v: np.ndarray) -> Any:
    from pymare import Dataset
    from pymare.estimators import DerSimonianLaird

    data = Dataset(y=y, v=v, X=np.ones((len(y), 1)), add_intercept=False)
    # Wald's standard error: Knapp and Hartung's, PyMARE's default, is another statistic.
    return DerSimonianLaird(small_sample_correction="wald").fit_dataset(data).summary()


def _exact_p(effects: np.ndarray, terms: Any) -> np.ndarray:
    """Two-sided p of each voxel over all sign flips, with the compiled path."""
    k = effects.shape[1]
    signs = np.array(list(itertools.product([1, -1], repeat=k)), np.float32)
    z = np.abs(PERMUTED_Z.on("cpu")(None, np.ascontiguousarray(signs.T), effects, terms))
    # A sign flip of all studies has the same |z| up to rounding, as PyMARE's own slack knows.
    return exceedances(z, z[0], TIE)[0] / len(signs)


def _agreements(size: int) -> list[dict[str, Any]]:
    """Estimates, z and exact p of a small set of voxels."""
    space, terms = space_of(4, size), study_sizes()
    y = effects_of(space, 1)[0].astype(np.float64)
    v = terms.c[:, None] + terms.v2[:, None] * y * y
    theirs = _fitted(y, v)
    beta, variance, tau2, *_ = random_effects(y, v, np.ones((STUDIES, 1)), np.ones(1), "dl")
    fe = theirs.get_fe_stats()
    compiled = PERMUTED_Z.on("cpu")(
        None, np.ones((STUDIES, 1), np.float32), y[None].astype(np.float32), terms
    )[0]
    z = fe["est"].ravel() / fe["se"].ravel()
    few = study_sizes(EXACT)
    g = y[:EXACT]
    w = few.c[:, None] + few.v2[:, None] * g * g
    p = _fitted(g, w).permutation_test(2**EXACT).perm_p["fe_p"].ravel()
    ours_p = _exact_p(g[None].astype(np.float32), few)
    return [
        agreement("estimate, largest difference", np.abs(beta - fe["est"].ravel()).max(), 1e-6),
        agreement("tau2, largest difference", np.abs(tau2 - theirs.tau2.ravel()).max(), 1e-6),
        agreement(
            "z of the twin, largest difference", np.abs(beta / np.sqrt(variance) - z).max(), 1e-6
        ),
        agreement("z of the compiled path, largest difference", np.abs(compiled - z).max(), 1e-4),
        agreement(
            f"p of the exact test of {EXACT} studies, largest difference, {size} voxels",
            np.abs(p - ours_p).max(),
            2.5 / 2**EXACT,  # a flip that lies within TIE of the observed, and its mirror image
        ),
    ]


def _sampled_p(theirs: np.ndarray, effects: np.ndarray, terms: Any, n: int) -> dict[str, Any]:
    """Compare random permutations: differences of p in units of their Monte Carlo error."""
    signs = np.random.default_rng(2).choice(np.array([-1, 1], np.float32), (effects.shape[1], n))
    signs[:, 0] = 1
    z = np.abs(PERMUTED_Z.on("cpu")(None, signs, effects, terms))
    ours = exceedances(z, z[0], 1e-4)[0] / n
    pooled = np.clip((ours + theirs) / 2, 1 / n, 1 - 1 / n)
    score = (ours - theirs) / np.sqrt(2 * pooled * (1 - pooled) / n)
    return agreement(
        f"p of {n} random flips, difference over its standard error, root mean square",
        np.sqrt((score**2).mean()),
        1.25,
    )


def measure(quick: bool) -> list[dict[str, Any]]:
    """Time one random-effects map of each."""
    version = require("pymare", "pymare")
    voxels, repeats = (256, 1) if quick else (4 * BLOCK, 3)
    common = _agreements(128 if quick else 2048)
    space, terms = space_of(4 if quick else 2, voxels), study_sizes()
    rng = np.random.default_rng(1)
    rows = []
    for n in (64,) if quick else (100, 1000):
        one = effects_of(space, 1)
        y = one[0].astype(np.float64)
        result = _fitted(y, terms.c[:, None] + terms.v2[:, None] * y * y)
        np.random.seed(0)  # noqa: NPY002 -- what PyMARE draws from
        with limits(1):
            theirs = timed(lambda: result.permutation_test(n), repeats)  # noqa: B023
        p = theirs.value.perm_p["fe_p"].ravel()
        agreements = [*common, _sampled_p(p, one, terms, n)]
        signs = rng.choice(np.array([-1, 1], np.int8), (n, STUDIES))
        signs[0] = 1
        for m in (1, 5) if quick else (1, M):
            problem = problem_of(space, effects_of(space, m), terms, np.ones(voxels, np.float32))
            ours, _ = our_null(problem, signs, ("voxel",), repeats, m)
            rows.append(
                row(
                    "DerSimonian-Laird permutation test, sign flips of whole studies, per map",
                    f"PyMARE {version}",
                    {"voxels": voxels, "studies": STUDIES, "permutations": n, "imputations": m},
                    {"1": theirs.per(n)},
                    ours,
                    agreements,
                    None if quick else BAR,
                    "a map is one data set of one permutation"
                    if m == 1
                    else f"ours pools {m} imputations in every permutation; per map of one "
                    "imputation",
                )
            )
    return rows
