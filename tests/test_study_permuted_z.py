"""Permutations of whole studies: metafor, explicit loops, every distinct one, bits."""

from __future__ import annotations

import math
from collections import Counter

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference_data import metafor_cases
from scipy import stats
from study_effects import known_effects, terms_of

from gpu_sdm.data import StudyTerms
from gpu_sdm.ops._lanes import WIDTH
from gpu_sdm.ops.study_permuted_z import STUDY_PERMUTED_Z, study_permuted_z
from gpu_sdm.ops.wald import chi2_to_z
from gpu_sdm.permute.study_plan import StudyPlan


def case(rng, k=9, m=3, v=5):
    n = rng.integers(8, 40, k)
    effects = 0.2 * rng.standard_normal((m, k, v)) + 0.4 * rng.standard_normal((k, v))
    x = np.column_stack([np.ones(k), rng.standard_normal((k, 3))])
    orders = np.array([np.arange(k), *(rng.permutation(k) for _ in range(3))])
    return orders, effects.astype(np.float32), terms_of(n), x


def fit_by_hand(y, v, x):
    """DerSimonian-Laird regression by explicit matrices: coefficients, covariance, tau2."""
    w = np.diag(1 / v)
    p = w - w @ x @ np.linalg.inv(x.T @ w @ x) @ x.T @ w
    t = max(0.0, (y @ p @ y - (len(y) - x.shape[1])) / np.trace(p))
    w = np.diag(1 / (v + t))
    cov = np.linalg.inv(x.T @ w @ x)
    return cov @ x.T @ w @ y, cov, t


def freedman_lane_by_hand(order, effects, terms, x, tested, nuisance):
    """Freedman and Lane with plain loops; `tested` and `nuisance` are columns of x."""
    m, k, n_voxels = effects.shape
    found = []
    for voxel in range(n_voxels):
        estimates, within = [], []
        for i in range(m):
            y = effects[i, :, voxel].astype(float)
            v = terms.c + terms.v2 * y**2
            gamma, _, _ = fit_by_hand(y, v, x[:, nuisance])
            fitted = x[:, nuisance] @ gamma
            new = np.empty(k)
            for study in range(k):
                new[study] = fitted[study] + (y[order[study]] - fitted[order[study]])
            beta, cov, _ = fit_by_hand(new, terms.c + terms.v2 * new**2, x)
            estimates.append(beta[tested])
            within.append(cov[np.ix_(tested, tested)])
        b, total = np.mean(estimates, axis=0), np.mean(within, axis=0)
        if m > 1:
            total = total + (1 + 1 / m) * np.atleast_2d(np.cov(np.array(estimates).T, ddof=1))
        if len(tested) == 1:
            found.append(b[0] / np.sqrt(total[0, 0]))
        else:
            p = stats.chi2.sf(b @ np.linalg.inv(total) @ b, len(tested))
            found.append(max(0.0, stats.norm.isf(p)))
    return np.array(found)


@pytest.mark.parametrize("imputations", [1, 4])
@pytest.mark.parametrize("tested", [[1], [3], [1, 2], [1, 2, 3]])
def test_z_equals_freedman_and_lane_by_explicit_loops(rng, tested, imputations):
    orders, effects, terms, x = case(rng, m=imputations)
    nuisance = [c for c in range(4) if c not in tested]
    rows = np.eye(4)[tested]
    twin = study_permuted_z(orders, effects, terms, design=x, rows=rows)
    compiled = STUDY_PERMUTED_Z.cpu(orders, effects, terms, design=x, rows=rows)
    for p, order in enumerate(orders):
        wanted = freedman_lane_by_hand(order, effects, terms, x, tested, nuisance)
        assert_allclose(twin[p], wanted, atol=2e-6)
        assert_allclose(compiled[p], wanted, atol=2e-6)


def test_without_nuisance_terms_the_effects_themselves_move(rng):
    orders, effects, terms, x = case(rng)
    x = x[:, :2]
    z = STUDY_PERMUTED_Z.cpu(orders, effects, terms, design=x, rows=np.eye(2)[1:])
    for p, order in enumerate(orders):
        moved = STUDY_PERMUTED_Z.cpu(
            orders[:1], effects[:, order], terms, design=x, rows=np.eye(2)[1:]
        )
        assert_array_equal(z[p], moved[0])


@pytest.mark.parametrize("tau2", ["dl", "reml"])
def test_compiled_agrees_with_twin_on_two_groups_and_awkward_units(rng, tau2):
    orders, effects, terms, x = case(rng, k=12, v=70)
    x[:, 1] = np.arange(12) % 2
    x[:, 2] = 1e7 * x[:, 2]
    x[:, 3] = 1e-6 * x[:, 3]
    for rows in (np.array([[0, 1.0, 0, 0]]), np.array([[0, 0, 1.0, 0], [0, 0, 0, 1.0]])):
        settings = {"design": x, "rows": rows, "tau2": tau2}
        twin = study_permuted_z(orders, effects, terms, **settings)
        compiled = STUDY_PERMUTED_Z.cpu(orders, effects, terms, **settings)
        assert_allclose(compiled, twin, atol=1e-4)


def test_metafor():
    """Slopes of every case, DL: beta / se; v known, so that it does not follow the effect."""
    n = 0
    for one, y, v, x in metafor_cases():
        if one["method"] != "DL" or one["test"] != "z" or x.shape[1] == 1:
            continue
        k = len(y)
        terms = StudyTerms(np.ones(k), v, np.zeros(k), np.full(k, 9.0), np.zeros(k))
        centred = np.column_stack([np.ones(k), x[:, 1:] - x[:, 1:].mean(axis=0)])
        for j in range(1, x.shape[1]):
            # The compiled path works in float32.
            for compute, rel in ((study_permuted_z, 1e-6), (STUDY_PERMUTED_Z.cpu, 3e-6)):
                z = compute(
                    np.arange(k)[None], y[None, :, None], terms,
                    design=centred, rows=np.eye(x.shape[1])[j : j + 1],
                )  # fmt: skip
                assert z[0, 0] == pytest.approx(one["beta"][j] / one["se"][j], rel=rel)
            n += 1
    assert n >= 12


def test_bits_do_not_depend_on_company(rng):
    orders, effects, terms, x = case(rng, v=2 * WIDTH + 9)
    settings = {"design": x, "rows": np.eye(4)[2:3]}
    whole = STUDY_PERMUTED_Z.cpu(orders, effects, terms, **settings)
    for p in (0, 2):
        alone = STUDY_PERMUTED_Z.cpu(orders[p : p + 1], effects, terms, **settings)
        assert_array_equal(alone[0], whole[p])
    for voxels in (slice(0, 3), slice(17, 40), slice(100, None)):
        part = STUDY_PERMUTED_Z.cpu(orders, effects[..., voxels], terms, **settings)
        assert_array_equal(part, whole[:, voxels])


def test_nan_comes_out_where_it_goes_in(rng):
    orders, effects, terms, x = case(rng, v=70)
    effects[1, 2, 7] = np.nan
    for rows in (np.eye(4)[1:2], np.eye(4)[1:3]):
        for compute in (study_permuted_z, STUDY_PERMUTED_Z.cpu):
            bad = np.isnan(compute(orders, effects, terms, design=x, rows=rows))
            assert bad[:, 7].all()
            assert bad.sum() == len(orders)


def test_chi2_to_z_keeps_the_tail_also_where_it_is_no_double():
    for df in (2, 3, 7):
        chi2 = np.array([0.1, 3.0, 20.0, 200.0])
        assert_allclose(
            chi2_to_z(chi2, df), np.maximum(0, stats.norm.isf(stats.chi2.sf(chi2, df))), rtol=1e-10
        )
        far = chi2_to_z(np.array([1280.0, 1290.0, 1300.0, 5000.0]), df)
        assert np.isfinite(far).all()
        assert (np.diff(far) > 0).all()
        with mp.workdps(30):
            log_p = mp.log(mp.gammainc(mp.mpf(df) / 2, 2500, mp.inf, regularized=True))
        assert stats.norm.logsf(far[-1]) == pytest.approx(float(log_p), rel=1e-10)
    assert np.isnan(chi2_to_z(np.array([np.nan]), 2)).all()


def test_random_orders_are_fair_and_follow_names():
    plan = StudyPlan(5, ("c", "a", "b"), (0, 1, 2))
    orders = plan.orders(np.arange(3001))
    assert orders[0].tolist() == [0, 1, 2]
    counts = Counter(map(tuple, orders[1:].tolist()))
    assert len(counts) == 6
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4
    other = StudyPlan(5, ("a", "b", "c"), (1, 2, 0)).orders(np.arange(50))
    for mine, theirs in zip(orders, other, strict=False):
        given = {plan.names[k]: plan.names[s] for k, s in enumerate(mine)}
        assert given == {"abc"[k]: "abc"[s] for k, s in enumerate(theirs)}
    assert not np.array_equal(orders, StudyPlan(6, ("c", "a", "b"), (0, 1, 2)).orders(range(3001)))


@pytest.mark.parametrize("alike", [(0, 1, 2, 3), (0, 0, 1, 1, 1), (0, 1, 0, 1, 2, 2)])
def test_every_distinct_permutation_once(rng, alike):
    k = len(alike)
    plan = StudyPlan(0, tuple("fbdeac"[:k]), alike, exact=True)
    wanted = math.factorial(k) // math.prod(math.factorial(n) for n in Counter(alike).values())
    assert plan.distinct() == wanted
    orders = plan.orders(np.arange(wanted + 2))
    assert_array_equal(orders[0], np.arange(k))
    assert_array_equal(orders[wanted:], orders[:2])
    assert (np.sort(orders, axis=1) == np.arange(k)).all()
    # Distinct: which studies go to which kind of receiver.
    kinds = {tuple(np.array(alike)[np.argsort(o)]) for o in orders[:wanted]}
    assert len(kinds) == wanted
    if k < 5:
        return
    # Exchanging receivers that are alike changes no statistic, to rounding.
    place = np.array(alike, float)
    effects = rng.standard_normal((2, k, 4)).astype(np.float32)
    terms = terms_of(10 + 3 * np.array(alike))
    design = np.column_stack([np.ones(k), place])
    every = np.array([rng.permutation(k) for _ in range(200)])
    z = study_permuted_z(every, effects, terms, design=design, rows=np.eye(2)[1:])
    few = study_permuted_z(orders[:wanted], effects, terms, design=design, rows=np.eye(2)[1:])
    for one in z:
        assert np.abs(few - one).max(axis=1).min() < 1e-5


def test_with_its_own_size_an_effect_meets_another_row_of_the_design(rng):
    effects, terms, x = known_effects(rng, 9, 30)
    x, rows = np.ascontiguousarray(x[:, :2]), np.eye(2)[1:]
    orders = np.array([np.arange(9), *(rng.permutation(9) for _ in range(5))])
    for compute in (study_permuted_z, STUDY_PERMUTED_Z.cpu):
        z = compute(orders, effects, terms, design=x, rows=rows, own_variance=True)
        for p, order in enumerate(orders):
            moved = np.ascontiguousarray(x[np.argsort(order)])
            same = compute(orders[:1], effects, terms, design=moved, rows=rows)[0]
            np.testing.assert_allclose(z[p], same, atol=2e-5)
    other = STUDY_PERMUTED_Z.cpu(orders, effects, terms, design=x, rows=rows)
    np.testing.assert_array_equal(other[0], z[0])
    assert np.abs(other[1:] - z[1:]).max() > 1e-3
