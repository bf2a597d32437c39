"""Error rate and power of permutations of whole studies, effects known and imputed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats
from study_effects import known_effects

from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.impute import IMPUTE
from gpu_sdm.ops.study_permuted_z import STUDY_PERMUTED_Z
from gpu_sdm.rng import stream_key


def false_positives(rng, draw, sets, permutations, k, n_voxels, own_variance=False):
    """Data sets without an effect of the moderator whose largest z has p <= .05."""
    hits = 0
    for _ in range(sets):
        effects, terms, x = draw(rng, k, n_voxels)
        orders = np.array([np.arange(k), *(rng.permutation(k) for _ in range(permutations - 1))])
        z = STUDY_PERMUTED_Z.cpu(
            orders, effects, terms,
            design=x, rows=np.eye(x.shape[1])[1:2], own_variance=own_variance,
        )  # fmt: skip
        largest = z.max(axis=1)
        hits += (largest >= largest[0]).mean() <= 0.05
    return hits


def test_error_rate_with_a_nuisance_covariate(rng):
    sets = 400
    hits = false_positives(rng, known_effects, sets, 60, 16, 20)
    low, high = stats.binom.ppf([1e-3, 1 - 1e-3], sets, 0.05)
    print(f"false positives {hits} of {sets} at .05")
    assert low <= hits <= high


def test_power_against_a_planted_slope(rng):
    def planted(rng, k, n_voxels):
        effects, terms, x = known_effects(rng, k, n_voxels)
        effects[0, :, 3] += (0.5 * x[:, 1]).astype(np.float32)
        return effects, terms, x

    assert false_positives(rng, planted, 60, 60, 24, 20) > 45


def censored(rng, k, n_voxels, under="model"):
    """Only effects beyond a study's threshold are known; the rest is bounded and imputed."""
    effects, terms, x = known_effects(rng, k, n_voxels)
    if under == "mean":
        effects -= (0.3 * x[:, 2:]).astype(np.float32)
    y = effects[0]
    bound = (terms.j * stats.t.isf(0.005, terms.n1 - 1) * np.sqrt(terms.c))[:, None]
    lower = np.where(np.abs(y) > bound, y, -bound).astype(np.float32)
    upper = np.where(np.abs(y) > bound, y, bound).astype(np.float32)
    crit, discards, fitted = np.eye(3)[1], 2, x
    if under == "mean":
        crit, discards, fitted = np.ones(1), 0, np.ones((k, 1))
    elif under == "null":
        crit, discards, fitted = np.eye(2)[0], 0, np.ascontiguousarray(x[:, [0, 2]])
    beta, tau2, *_ = FIT_BOUNDS.cpu(lower, upper, terms.c, terms.v2, fitted, crit, discards)
    seed = int(rng.integers(2**31))
    keys = np.array([stream_key(seed, "impute", str(i)) for i in range(k)], np.uint32)
    drawn, _ = IMPUTE.cpu(
        lower,
        upper,
        fitted @ beta,
        tau2,
        terms.c,
        terms.v2,
        keys,
        np.arange(n_voxels),
        0,
        10,
        "sdm",
    )
    return drawn, terms, x


def censored_slope(rng, k, n_voxels):
    """Effects around a common mean, imputed from it; a moderator without any effect."""
    effects, terms, x = censored(rng, k, n_voxels, under="mean")
    return effects, terms, np.ascontiguousarray(x[:, :2])


def test_error_rate_of_a_slope_alone_on_imputed_effects(rng):
    sets, permutations = 400, 60
    hits = {}
    for own in (True, False):
        one = partial(false_positives, own_variance=own)
        hits[own] = one(rng, censored_slope, sets, permutations, 20, 20)
    low, high = stats.binom.ppf([1e-3, 1 - 1e-3], sets, 0.05)
    print(f"false positives of {sets} at .05, a slope alone: {hits} (own size or not)")
    assert low <= hits[True] <= high


@pytest.mark.slow
def test_error_rate_where_most_effects_are_imputed(rng):
    """Imputed from the whole model they agree with it by construction; from the null's, not."""
    sets, hits = 300, {}
    for under in ("model", "null"):
        hits[under] = false_positives(rng, partial(censored, under=under), sets, 60, 20, 20)
    print(f"false positives of {sets} at .05, imputed: {hits}")
    assert hits["null"] <= 0.1 * sets
    # What the notice `liberal_moderator` warns of.
    assert 0.15 * sets < hits["model"] < 0.4 * sets
