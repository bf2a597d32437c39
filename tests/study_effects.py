"""Studies of one sample with known effects, for tests of permuted whole studies."""

from __future__ import annotations

import numpy as np
from reference_data import hedges

from gpu_sdm.data import StudyTerms


def terms_of(n):
    """Constants of one-sample studies of n subjects."""
    j, c, v2, _ = hedges(np.asarray(n, float))
    return StudyTerms(j=j, c=c, v2=v2, n1=np.asarray(n, float), n2=np.zeros(len(n)))


def known_effects(rng, k, n_voxels):
    """Heterogeneous known effects with a mean and a nuisance covariate that acts."""
    n = rng.integers(10, 60, k)
    terms = terms_of(n)
    x = np.column_stack([np.ones(k), rng.standard_normal((k, 2))])
    x[:, 1] += 0.5 * x[:, 2]
    true = 0.4 + 0.3 * x[:, 2:] + 0.2 * rng.standard_normal((k, n_voxels))
    y = true + rng.standard_normal((k, n_voxels)) * np.sqrt(terms.c)[:, None]
    return y[None].astype(np.float32), terms, x
