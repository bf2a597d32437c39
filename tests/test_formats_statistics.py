"""Every reported statistic becomes the t that scipy, mpmath and the definitions give."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import stats

from gpu_sdm.errors import SettingError
from gpu_sdm.statistics import KINDS, hedges_j, t_of_log_p, t_of_z, to_t

SAMPLES = [(12, 0), (21, 0), (300, 0), (9, 14), (60, 55)]


def df_of(n1, n2):
    return n1 + n2 - 2 if n2 else n1 - 1


@pytest.mark.parametrize(("n1", "n2"), SAMPLES)
def test_p_values_are_those_of_scipy(n1, n2):
    df, p = df_of(n1, n2), np.array([0.5, 0.3, 0.05, 1e-3, 1e-6, 1e-12])
    one = to_t(np.concatenate([p, -p[1:]]), "p_one_sided", n1, n2)
    wanted = stats.t.isf(p, df)
    np.testing.assert_allclose(one, [*wanted, *-wanted[1:]], rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(to_t(2 * p, "p_two_sided", n1, n2), wanted, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("n1", "n2"), SAMPLES)
def test_z_keeps_its_p_value(n1, n2):
    z = np.array([-6.0, -1.0, 0.0, 2.5, 8.0])
    df = df_of(n1, n2)
    wanted = np.copysign(stats.t.isf(stats.norm.sf(np.abs(z)), df), z)
    np.testing.assert_allclose(to_t(z, "z", n1, n2), wanted, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("df", [3, 20, 150])
@pytest.mark.parametrize("z", [19.999, 20.001, 37.0, 60.0])
def test_extreme_z_and_p_against_fifty_digits(df, z):
    with mpmath.workdps(50):
        log_p = mpmath.log(mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2)) / 2)
        t = t_of_z(np.array([z]), df)[0]
        x = df / (df + mpmath.mpf(t) ** 2)
        tail = mpmath.betainc(mpmath.mpf(df) / 2, mpmath.mpf(1) / 2, 0, x, regularized=True) / 2
        assert abs(mpmath.log(tail) - log_p) < 1e-11 * abs(log_p)
    again = t_of_log_p(np.array([float(log_p)]), df)[0]
    assert again == pytest.approx(t, rel=1e-10)


@pytest.mark.parametrize(("n1", "n2"), SAMPLES)
def test_effect_sizes_and_correlations_come_from_samples(n1, n2, rng):
    """t of data; then d, g, F and r computed from the same data give it back."""
    a = rng.normal(0.6, 1, n1)
    if n2:
        b = rng.normal(0, 1, n2)
        t = stats.ttest_ind(a, b).statistic
        sd = np.sqrt(((n1 - 1) * a.var(ddof=1) + (n2 - 1) * b.var(ddof=1)) / (n1 + n2 - 2))
        d, group = (a.mean() - b.mean()) / sd, np.repeat([1.0, 0.0], [n1, n2])
        r = stats.pearsonr(np.concatenate([a, b]), group).statistic
        f = stats.f_oneway(a, b).statistic
        assert to_t(np.array([r]), "r", n1, n2)[0] == pytest.approx(t, rel=1e-12)
        assert to_t(np.array([np.copysign(f, t)]), "f", n1, n2)[0] == pytest.approx(t, rel=1e-12)
    else:
        t, d = stats.ttest_1samp(a, 0).statistic, a.mean() / a.std(ddof=1)
        assert to_t(np.array([t * abs(t)]), "f", n1)[0] == pytest.approx(t, rel=1e-12)
    g = d * float(hedges_j(df_of(n1, n2)))
    assert to_t(np.array([d]), "d", n1, n2)[0] == pytest.approx(t, rel=1e-12)
    assert to_t(np.array([g]), "g", n1, n2)[0] == pytest.approx(t, rel=1e-12)
    assert to_t(np.array([t]), "t", n1, n2)[0] == t


BAD = [("p_one_sided", [0.0, 0.6, -0.51]), ("p_two_sided", [0.0, 1.1]), ("r", [1.0, -1.0, 3.0])]


@pytest.mark.parametrize(("kind", "values"), BAD)
def test_values_outside_the_domain_are_nan_and_silent(kind, values):
    assert np.isnan(to_t(np.array(values), kind, 20)).all()


def test_no_other_kinds():
    with pytest.raises(SettingError, match="it must be one of: t, z, p_one_sided"):
        to_t(np.array([1.0]), "chi2", 20)
    assert all(kind.title and kind.domain for kind in KINDS.values())
