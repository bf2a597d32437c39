"""Pooling: SDM-PSI's own 135 x 50 imputations, metansue, metafor, scipy."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_data import N1, hedges, li_extract, metafor_cases, metansue_complete
from scipy import optimize, stats

from gpu_sdm.config import CONSTRAINTS
from gpu_sdm.data import Pooled, StudyTerms
from gpu_sdm.errors import NumericalError
from gpu_sdm.ops.pool import POOL, random_effects, rubin
from gpu_sdm.ops.pooled_q import f_to_chi2, pool_q
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.meta import meta

NAMES = [f.name for f in fields(Pooled)]


def assert_same(one: Pooled, two: Pooled, tol: float = POOL.rtol):
    for name in NAMES:
        a, b = getattr(one, name), getattr(two, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=tol * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("method", CONSTRAINTS["tau2"].values)
@pytest.mark.parametrize("columns", [1, 2])
def test_compiled_equals_twin(rng, method, columns):
    (effects, c, v2, X, contrast), _ = POOL.sample(rng)
    effects = effects + 300 * (np.arange(30) == 4)  # far from 0: sums of squares would cancel
    effects[:, :, 5] = effects[:, :1, 5]  # no spread at all
    args = (effects, c, v2, X[:, :columns].copy(), contrast[:columns], method)
    assert_same(POOL.cpu(*args), POOL.numpy(*args))
    one = (effects[:1], *args[1:])
    assert_same(POOL.cpu(*one), POOL.numpy(*one))


@pytest.mark.parametrize("method", CONSTRAINTS["tau2"].values)
def test_path_for_the_mean_equals_the_general_one(rng, method):
    (effects, c, v2, *_), _ = POOL.sample(rng)
    mean = POOL.cpu(effects, c, v2, np.ones((11, 1)), np.ones(1), method)
    scaled = POOL.cpu(effects, c, v2, np.full((11, 1), 2.0), np.full(1, 2.0), method)
    assert_same(scaled, mean)
    assert mean.tau2.max() > 0


@pytest.fixture(scope="module")
def li(li2024):
    """Effects (50, 135) of SDM-PSI's imputations, printed variances, and the file's results."""
    return li_extract(li2024)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_sdm_imputations_give_every_printed_digit(li, backend):
    y, _, n, X, result = li
    _, c, v2, _ = hedges(n)
    pool = POOL.on(backend)
    mean = pool(y[..., None], c, v2, X, np.array([1.0, 0]))
    slope = pool(y[..., None], c, v2, X, np.array([0, 1.0]))
    assert f"{mean.g[0]:.6f}" == result["0"][0] == "0.157074"
    assert f"{slope.g[0]:.6f}" == result["Hedges' g"][0] == "-0.008420"
    assert f"{slope.se[0] ** 2:.6f}" == result["Hedges' g"][1] == "0.000516"
    assert f"{slope.tau2[0]:.6f}" == "0.000230"
    assert slope.z[0] == pytest.approx(float(result["Hedges' g"][2]), abs=3e-5)
    assert slope.q[0] == pytest.approx(98.642357, rel=1e-4)


def test_sdm_i2_within_the_rounding_of_the_printed_values(li):
    """.553438 is printed; rounding 6,750 effects and variances to 6 digits has an sd of 8e-6."""
    y, v, _, X, _ = li
    fits = [random_effects(a[:, None], b[:, None], X, np.array([0, 1.0]), "dl") for a, b in
            zip(y, v, strict=True)]  # fmt: skip
    pooled = rubin(np.stack(fits, axis=1), 133)
    assert pooled.i2[0] == pytest.approx(0.553438, abs=1.6e-5)
    assert f"{pooled.h2[0]:.6f}" == "1.005565"


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_metansue_complete_data(metansue_reference, backend):
    _, c, v2, _ = hedges(N1)
    y, want = metansue_complete(metansue_reference)
    got = POOL.on(backend)(y[None, :, None], c, v2, np.ones((10, 1)), np.ones(1), "reml")
    for mine, theirs, scale in (("g", "coef", 1), ("se", "se", 1), ("tau2", "tau2", 1),
                                ("i2", "i2", 0.01), ("h2", "h2", 1), ("q", "Q", 1),
                                ("z", "z", 1)):  # fmt: skip
        # metansue stops its scoring at a change of 1e-6
        assert scale * getattr(got, mine)[0] == pytest.approx(want[theirs], rel=1e-5), mine
    m = POOL.on(backend)(np.tile(y[None, :, None], (20, 1, 1)), c, v2, np.ones((10, 1)),
                         np.ones(1), "reml")  # fmt: skip
    assert_same(m, got, 1e-12)  # twenty equal imputations are one


def test_metafor():
    """DL, REML, Q, I2 of all cases; REML with metafor's rule to stop, a change of 1e-5."""
    n = 0
    for case, y, v, X in metafor_cases():
        for j, contrast in enumerate(np.eye(X.shape[1])):
            estimate, variance, tau2, q, i2 = random_effects(
                y[:, None], v[:, None], X, contrast, case["method"].lower(), tol=1e-5
            )
            assert tau2[0] == pytest.approx(case["tau2"], abs=1e-9)
            assert q[0] == pytest.approx(case["QE"], rel=1e-9)
            assert 100 * i2[0] == pytest.approx(case["I2"], abs=1e-9)
            assert estimate[0] == pytest.approx(case["beta"][j], abs=1e-9)
            # Knapp and Hartung's tests rescale the standard error, nothing else.
            if case["test"] == "z":
                assert variance[0] ** 0.5 == pytest.approx(case["se"][j], rel=1e-9)
            n += 1
    assert n > 120


def test_reml_is_the_maximum_of_the_restricted_likelihood():
    for case, y, v, X in metafor_cases():
        if case["method"] != "REML":
            continue

        def loss(t, y=y, v=v, X=X):
            w = 1 / (v + t)
            a = X.T @ (w[:, None] * X)
            e = y - X @ np.linalg.solve(a, X.T @ (w * y))
            return 0.5 * (-np.log(w).sum() + np.linalg.slogdet(a)[1] + (w * e * e).sum())

        got = random_effects(y[:, None], v[:, None], X, np.eye(X.shape[1])[0], "reml")[2][0]
        best = optimize.minimize_scalar(
            loss, bounds=(0, 50), method="bounded", options={"xatol": 1e-10}
        )
        assert loss(got) <= best.fun + 1e-10
        flat = np.zeros(len(y))  # v does not depend on g here: the compiled version sees it as c
        fit = POOL.cpu(y[None, :, None], v, flat, X, np.eye(X.shape[1])[0], "reml")
        assert fit.tau2[0] == pytest.approx(got, abs=1e-9)


@pytest.mark.parametrize("method", CONSTRAINTS["tau2"].values)
def test_rubin_by_hand(rng, method):
    (effects, c, v2, X, contrast), _ = POOL.sample(rng)
    got = POOL.cpu(effects, c, v2, X, contrast, method)
    each = [POOL.numpy(effects[m : m + 1], c, v2, X, contrast, method) for m in range(4)]
    g = np.array([e.g for e in each])
    np.testing.assert_allclose(got.g, g.mean(0))
    total = np.mean([e.se**2 for e in each], 0) + 1.25 * g.var(0, ddof=1)
    np.testing.assert_allclose(got.se, np.sqrt(total))
    np.testing.assert_allclose(got.z, got.g / got.se)
    for name in ("tau2", "i2"):
        roots = np.mean([np.sqrt(getattr(e, name)) for e in each], 0)
        np.testing.assert_allclose(getattr(got, name), roots**2, atol=1e-12)
    np.testing.assert_allclose(got.h2, 1 / (1 - got.i2 / 100))
    q = np.array([e.q for e in each])
    r = 1.25 * np.sqrt(q).var(0, ddof=1)
    f = (q.mean(0) / 9 - 5 / 3 * r) / (1 + r)
    p = stats.f.sf(f, 9, 3 / 9 ** (3 / 4) * (1 + 1 / r) ** 2)
    np.testing.assert_allclose(got.q, stats.chi2.isf(p, 9), rtol=1e-8)


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 130), df2=st.floats(1, 1e12), log_f=st.floats(-4, 7))
def test_f_to_chi2_keeps_p_also_where_p_is_no_double(k, df2, log_f):
    import mpmath as mp

    f = np.exp(log_f)
    got = f_to_chi2(np.array([f]), k, np.array([df2]))[0]
    assert np.isfinite(got)
    upper, lower = stats.f.sf(f, k, df2), stats.f.cdf(f, k, df2)
    if df2 > 1e8:  # at the limit
        assert got == pytest.approx(k * f, rel=1e-3 + k * f / df2)
    elif min(upper, lower) > 1e-250:
        if upper < lower:
            assert stats.chi2.sf(got, k) == pytest.approx(upper, rel=1e-6)
        else:
            assert stats.chi2.cdf(got, k) == pytest.approx(lower, rel=1e-6)
    elif upper < lower and df2 < 1e4:
        with mp.workdps(30):
            x = mp.mpf(df2) / (mp.mpf(df2) + k * mp.mpf(f))
            want = mp.log(mp.betainc(df2 / 2, mp.mpf(k) / 2, 0, x, regularized=True))
            have = mp.log(mp.gammainc(mp.mpf(k) / 2, got / 2, mp.inf, regularized=True))
        assert float(have) == pytest.approx(float(want), rel=1e-8)


def test_pooled_q_in_the_extreme():
    q = np.array([[3e4, 10.0, 5.0, 0.0, 40.0], [3.1e4, 10.0, 5.0 + 1e-9, 0.0, 60.0]])
    got = pool_q(np.repeat(q, 25, axis=0), 49)
    assert np.isfinite(got).all()
    assert got[1:4] == pytest.approx([10.0, 5.0, 0.0])
    assert pool_q(q[:1], 49)[0] == 3e4
    assert (pool_q(np.full((3, 2), np.nan), 5) != 1).all()
    assert np.isnan(pool_q(np.full((3, 2), np.nan), 5)).all()


def test_stage_joins_blocks_and_names_a_bad_voxel(rng, monkeypatch):
    mask = np.zeros(SHAPES[4], bool)
    mask[20:25, 20:23, 20:22] = True
    space = Space(4, mask)
    (effects, c, v2, X, contrast), _ = POOL.sample(rng)
    terms = StudyTerms(np.ones(11), c, v2, 1 / c, np.zeros(11))
    whole = meta(effects, terms, X, contrast, "dl", space)
    monkeypatch.setattr("gpu_sdm.stages.meta.BLOCK", 7)
    pieces = meta(effects, terms, X, contrast, "dl", space)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    for columns in (1, 2):
        for backend in ("cpu", "numpy"):
            broken = effects.copy()
            broken[2, 3, 1] = np.nan
            with pytest.raises(NumericalError, match=r"1 voxels, the first at MNI \(6, -46, 8\)"):
                meta(broken, terms, X[:, :columns].copy(), contrast[:columns], "dl", space, backend)
