"""Permuted effects and variance of a mean of contrasts, against explicit subjects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpu_sdm.data import Peaks, Study, StudyTerms
from gpu_sdm.ops.permuted_effects import permuted_effects, study_coefficients
from gpu_sdm.stages.effects import hedges_g, study_terms
from gpu_sdm.stages.samples import averaging_factor


def plain_terms(n1: int, n2: int) -> StudyTerms:
    study = Study("a", n1, n2, 3.0, Peaks.none("no_peaks", ""))
    return study_terms([study])


def merged_terms(n1: int, n2: int, m: int, r: float) -> StudyTerms:
    study = Study("a", n1, n2, 3.0, Peaks.none("no_peaks", ""))
    parts = tuple(replace(study, name=f"a{i}") for i in range(m))
    return study_terms([replace(study, contrasts=parts, averaging=averaging_factor(m, r))])


def correlated(rng, n, m, r):
    """Residuals (n, m) of mean 0, variance 1 and correlation r, all exact in the sample."""
    e = rng.standard_normal((n, m))
    q, _ = np.linalg.qr(e - e.mean(axis=0))
    if r == 1:
        return np.repeat(q[:, :1], m, axis=1) * np.sqrt(n - 1)
    return q @ np.linalg.cholesky(r + (1 - r) * np.eye(m)).T * np.sqrt(n - 1)


def by_subjects(rng, n1, n2, r, g, permutations, rescale=True):
    """Mean over contrasts of the permuted effects of explicit subjects, and what the ops give."""
    plain, m = plain_terms(n1, n2), len(g)
    e = np.vstack([correlated(rng, n, m, r) for n in (n1, n2) if n])
    y = e.copy()
    y[:n1] += g / plain.j
    u = e.mean(axis=1) / np.sqrt(averaging_factor(m, r))
    table = study_coefficients(merged_terms(n1, n2, m, r), rescale)
    found = []
    for _ in range(permutations):
        if n2:
            first = rng.permutation(n1 + n2) < n1
            a, b = y[first], y[~first]
            difference = a.mean(axis=0) - b.mean(axis=0)
            squares = (n1 - 1) * a.var(axis=0, ddof=1) + (n2 - 1) * b.var(axis=0, ddof=1)
            sd, sums, share = np.sqrt(squares / (n1 + n2 - 2)), u[first].mean(), first[:n1].mean()
        else:
            signs = rng.choice([-1, 1], n1)
            turned = y * signs[:, None]
            difference, sd = turned.mean(axis=0), turned.std(axis=0, ddof=1)
            sums, share = (signs * u).mean(), signs.mean()
        explicit = (plain.j * difference / (sd if rescale else 1)).mean()
        mean = np.array([[g.mean()]])
        ours, _ = permuted_effects(np.array([[sums]]), np.array([share]), mean, table)
        found.append((explicit, ours[0, 0]))
    return np.array(found).T


@pytest.mark.parametrize(("n1", "n2"), [(20, 0), (15, 18)])
def test_permuted_effects_are_those_of_the_subjects(n1, n2):
    rng = np.random.default_rng(1)
    for r, g in [(0.3, [0.2, 0.5, 0.9]), (0.0, [0.4, -0.4]), (0.8, [0.7, 0.7])]:
        # Without a new standard deviation every step is linear: exact, however contrasts differ.
        explicit, ours = by_subjects(rng, n1, n2, r, np.array(g), 30, rescale=False)
        assert_allclose(ours, explicit, atol=1e-12)
    # One contrast given several times.
    explicit, ours = by_subjects(rng, n1, n2, 1.0, np.full(3, 0.8), 30)
    assert_allclose(ours, explicit, atol=1e-12)


@pytest.mark.parametrize(("n1", "n2"), [(20, 0), (15, 18)])
@pytest.mark.parametrize(
    ("r", "g"), [(0.0, [0.4, 0.4, 0.4]), (0.5, [0.8, 0.8]), (0.5, [0.2, 0.6]), (0.8, [0.8] * 3)]
)
def test_permuted_effects_to_second_order(n1, n2, r, g):
    explicit, ours = by_subjects(np.random.default_rng(2), n1, n2, r, np.array(g), 1500)
    # What is left out makes the null narrower by about 3 (1 - f) / 2N (docs/samples.md).
    # Effects that differ make it wider.
    left_out = 1.5 * (1 - averaging_factor(len(g), r)) / (n1 + n2) if len(set(g)) == 1 else 0.0
    assert ours.std() / explicit.std() == pytest.approx(1 - left_out, abs=0.015)
    assert np.sqrt(((ours - explicit) ** 2).mean()) < 0.07 * explicit.std()


def test_the_standard_deviation_is_that_of_the_contrasts():
    """Without the factor in the polynomial the null would be 10 % and more too narrow."""
    rng = np.random.default_rng(3)
    explicit, ours = by_subjects(rng, 20, 0, 0.0, np.full(3, 0.8), 1500)
    assert abs(ours.std() / explicit.std() - 1) < 0.05
    terms = merged_terms(20, 0, 3, 0.0)
    bare = study_coefficients(replace(terms, averaging=None))
    right = study_coefficients(terms)
    assert_allclose(right[:, 4:7] * 3, bare[:, 4:7], rtol=1e-12)


@pytest.mark.parametrize("effect", [0.0, 0.8])
def test_variance_of_the_mean(effect):
    """Sampled: f times that of one at 0; cautious away from it, as squares correlate r^2."""
    rng, n, m, r = np.random.default_rng(4), 20, 3, 0.5
    e = rng.standard_normal((20_000, n, m)) @ np.linalg.cholesky(r + (1 - r) * np.eye(m)).T
    t = np.sqrt(n) * (e + effect).mean(axis=1) / e.std(axis=1, ddof=1)
    sampled = hedges_g(t, n)[0].mean(axis=1).var()
    terms = merged_terms(n, 0, m, r)
    # Var(g) = E(c + v2 g^2) - v2 Var(g) / (1 + v2), to first order c + v2 delta^2.
    single = hedges_g(t[:, 0], n)[0].var()
    stated = terms.factor[0] * single
    assert terms.c[0] == pytest.approx((1 + 2 * r) / 3 / n)
    assert terms.c[0] + terms.v2[0] * effect**2 == pytest.approx(stated, rel=0.08)
    assert -0.02 < stated / sampled - 1 < (0.03 if effect == 0 else 0.12)
