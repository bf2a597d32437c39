"""Permuted z maps against explicit subjects, explicit regressions and other shapes of the call."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar

from gpu_sdm.data import StudyTerms
from gpu_sdm.ops._permuted_z_mean_cpu import BLOCK
from gpu_sdm.ops.permuted_effects import permuted_effects, study_coefficients
from gpu_sdm.ops.permuted_z import PERMUTED_Z, permuted_z

CLOSE = 1e-4  # stated absolute error of the compiled z for |z| up to 10


def terms_of(n1, n2) -> StudyTerms:
    n1, n2 = np.asarray(n1, float), np.asarray(n2, float)
    df = np.where(n2 > 0, n1 + n2 - 2, n1 - 1)
    gamma = [math.lgamma(d / 2) - math.lgamma((d - 1) / 2) for d in df]
    j = np.exp(gamma) / np.sqrt(df / 2)
    c = 1 / n1 + np.array([1 / n if n else 0 for n in n2])
    return StudyTerms(j=j, c=c, v2=1 - (df - 2) / (df * j**2), n1=n1, n2=n2)


def residuals(rng, n, n_voxels):
    e = rng.standard_normal((n, n_voxels))
    e -= e.mean(axis=0)
    return e / e.std(axis=0, ddof=1)


class Case:
    """Studies with explicit subjects and explicit permutations of them."""

    def __init__(self, rng, n1, n2, permutations, imputations, n_voxels, effect=0.3):
        self.n1, self.n2 = np.asarray(n1), np.asarray(n2)
        self.terms = terms_of(n1, n2)
        k = len(self.n1)
        self.e, self.who, sums, share = [], [], [], []
        for a, b in zip(self.n1, self.n2, strict=True):
            e = residuals(rng, a, n_voxels)
            if b:
                e = np.vstack([e, residuals(rng, b, n_voxels)])
                who = np.stack([rng.permutation(a + b) < a for _ in range(permutations)])
                who[0] = np.arange(a + b) < a
                sums.append([e[w].mean(axis=0) for w in who])
                share.append([w[:a].sum() / a for w in who])
            else:
                who = rng.choice([-1, 1], (permutations, a))
                who[0] = 1
                sums.append([(w[:, None] * e).mean(axis=0) for w in who])
                share.append(who.mean(axis=1))
            self.e.append(e)
            self.who.append(who)
        self.sums, self.share = np.array(sums), np.array(share)
        common = effect + 0.3 * rng.standard_normal((k, n_voxels))
        noise = 0.2 * rng.standard_normal((imputations, k, n_voxels))
        self.effects = (common + noise).astype(np.float32)

    @property
    def args(self):
        return self.sums.astype(np.float32), self.share.astype(np.float32), self.effects, self.terms

    def subjects_analysed(self, p, m, k, rescale_sd):
        """Hedges g of study k by flipping or relabelling its n images; shares nothing with ops."""
        a, b = self.n1[k], self.n2[k]
        df = a + b - 2 if b else a - 1
        j = math.gamma(df / 2) / math.sqrt(df / 2) / math.gamma((df - 1) / 2)
        images = self.e[k].copy()
        images[:a] += self.effects[m, k] / j
        if b:
            one, two = images[self.who[k][p]], images[~self.who[k][p]]
            mean = one.mean(axis=0) - two.mean(axis=0)
            var = (a - 1) * one.var(axis=0, ddof=1) + (b - 1) * two.var(axis=0, ddof=1)
            sd = np.sqrt(var / (a + b - 2))
        else:
            flipped = images * self.who[k][p][:, None]
            mean, sd = flipped.mean(axis=0), flipped.std(axis=0, ddof=1)
        return j * (mean / sd if rescale_sd else mean)


@pytest.mark.parametrize("rescale_sd", [True, False])
def test_effects_equal_those_of_explicit_subjects(rng, rescale_sd):
    case = Case(rng, [4, 9, 30, 8, 3, 2], [0, 0, 0, 11, 2, 14], 12, 2, 40)
    table = study_coefficients(case.terms, rescale_sd)
    for p in range(12):
        for m in range(2):
            found, variance = permuted_effects(
                case.sums[:, p], case.share[:, p], case.effects[m], table
            )
            for k in range(6):
                wanted = case.subjects_analysed(p, m, k, rescale_sd)
                # the few permutations whose subjects are all but equal are cut at 1e-3 sd
                usual = np.abs(wanted) < 100
                assert usual.mean() > 0.95
                assert_allclose(found[k][usual], wanted[usual], rtol=1e-6, atol=1e-6)
                terms = case.terms
                wanted = terms.c[k] + terms.v2[k] * found[k] ** 2
                assert_allclose(variance[k], wanted, rtol=1e-9)


def by_hand(case, p, rescale_sd, x, h, tau2):
    """Rubin's z of one permutation by explicit matrices at each voxel."""
    n_imputations, k, n_voxels = case.effects.shape
    z = np.empty(n_voxels)
    g = np.array(
        [
            [case.subjects_analysed(p, m, i, rescale_sd) for i in range(k)]
            for m in range(n_imputations)
        ]
    )
    for v in range(n_voxels):
        estimates, variances = [], []
        for m in range(n_imputations):
            y = g[m, :, v]
            s2 = case.terms.c + case.terms.v2 * y**2

            def projection(t, s2=s2):
                w = np.diag(1 / (s2 + t))
                return w - w @ x @ np.linalg.inv(x.T @ w @ x) @ x.T @ w

            if tau2 == "dl":
                p0 = projection(0.0)
                t = max(0.0, (y @ p0 @ y - (k - x.shape[1])) / np.trace(p0))
            else:  # the restricted likelihood itself, by a bounded search

                def deviance(t, y=y, s2=s2, projection=projection):
                    information = x.T @ np.diag(1 / (s2 + t)) @ x
                    return (
                        np.log(s2 + t).sum()
                        + np.linalg.slogdet(information)[1]
                        + y @ projection(t) @ y
                    )

                found = minimize_scalar(
                    deviance, bounds=(0, 5), method="bounded", options={"xatol": 1e-9}
                )
                t = 0.0 if deviance(0.0) <= found.fun else found.x
            w = np.diag(1 / (s2 + t))
            cov = np.linalg.inv(x.T @ w @ x)
            estimates.append(h @ cov @ x.T @ w @ y)
            variances.append(h @ cov @ h)
        total = np.mean(variances)
        if n_imputations > 1:
            total += (1 + 1 / n_imputations) * np.var(estimates, ddof=1)
        z[v] = np.mean(estimates) / np.sqrt(total)
    return z


MODELS = {"mean": 1, "one covariate": 2, "three covariates": 4}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tau2", ["dl", "reml"])
@pytest.mark.parametrize("imputations", [1, 3])
def test_z_equals_explicit_regressions_and_rubins_rules(rng, model, tau2, imputations):
    n1, n2 = [9, 12, 30, 8, 15, 20, 11, 14], [0, 0, 0, 11, 9, 0, 0, 0]
    case = Case(rng, n1, n2, 3, imputations, 6)
    x = np.column_stack([np.ones(8), rng.standard_normal((8, MODELS[model] - 1))])
    x[:, 1:] -= x[:, 1:].mean(axis=0)
    for h in (np.eye(x.shape[1])[0], np.eye(x.shape[1])[-1]):
        settings = {"design": x, "contrast": h, "tau2": tau2}
        twin = permuted_z(*case.args, **settings)
        compiled = PERMUTED_Z.cpu(*case.args, **settings)
        for p in range(3):
            wanted = by_hand(case, p, True, x, h, tau2)
            assert_allclose(twin[p], wanted, atol=2e-5 if tau2 == "reml" else 5e-6)
        assert_allclose(compiled, twin, atol=CLOSE)


@pytest.mark.parametrize("n_studies", [2, 11, 50, 135])
@pytest.mark.parametrize("imputations", [1, 2, 50])
def test_compiled_mean_agrees_with_twin(rng, n_studies, imputations):
    n1 = rng.integers(4, 40, n_studies)
    n2 = np.where(rng.random(n_studies) < 0.3, rng.integers(3, 30, n_studies), 0)
    n2[0] = 0
    case = Case(rng, n1, n2, 3, imputations, 70, effect=0.6)
    for rescale_sd in (True, False):
        twin = permuted_z(*case.args, rescale_sd=rescale_sd)
        compiled = PERMUTED_Z.cpu(*case.args, rescale_sd=rescale_sd)
        usual = np.abs(twin) < 10
        assert usual.mean() > 0.6  # the identity of many studies lies above
        assert_allclose(compiled[usual], twin[usual], atol=CLOSE)
        assert_allclose(compiled, twin, rtol=2e-5, atol=CLOSE)


@pytest.mark.parametrize(("n_studies", "effect"), [(4, 0.8), (5, 0.4), (20, 0.5)])
def test_reml_finds_the_mode_of_the_twin(n_studies, effect):
    """The restricted likelihood of few studies may have two: longer steps would take the other."""
    rng = np.random.default_rng(1)
    n1 = rng.integers(8, 60, n_studies)
    n2 = np.where(rng.random(n_studies) < 0.4, rng.integers(8, 40, n_studies), 0)
    case = Case(rng, n1, n2, 6, 2, 700, effect=effect)
    twin = permuted_z(*case.args, tau2="reml")
    compiled = PERMUTED_Z.cpu(*case.args, tau2="reml")
    assert_allclose(compiled, twin, atol=CLOSE)


def test_image_like_effects_do_not_cancel(rng):
    """A large common effect with small variances: Q is a small difference of large sums."""
    case = Case(rng, rng.integers(150, 300, 30), np.zeros(30, int), 2, 5, 64, effect=2.0)
    assert_allclose(PERMUTED_Z.cpu(*case.args), permuted_z(*case.args), rtol=2e-6, atol=1e-6)


def test_identity_gives_the_pooled_z_of_the_effects(rng):
    case = Case(rng, [9, 12, 30, 8], [0, 0, 10, 11], 4, 3, 50)
    assert_allclose(case.sums[:, 0], 0, atol=1e-12)
    assert_array_equal(case.share[:, 0], 1)
    for compute in (permuted_z, PERMUTED_Z.cpu):
        z = compute(*case.args)[0]
        b, s = np.empty((3, 50)), np.empty((3, 50))
        for m, y in enumerate(case.effects.astype(float)):
            v = case.terms.c[:, None] + case.terms.v2[:, None] * y**2
            w = 1 / v
            q = (w * (y - (w * y).sum(0) / w.sum(0)) ** 2).sum(0)
            t = np.maximum(0, (q - 3) / (w.sum(0) - (w**2).sum(0) / w.sum(0)))
            w = 1 / (v + t)
            b[m], s[m] = (w * y).sum(0) / w.sum(0), 1 / w.sum(0)
        assert_allclose(z, b.mean(0) / np.sqrt(s.mean(0) + 4 / 3 * b.var(0, ddof=1)), atol=1e-5)


@pytest.mark.parametrize("tau2", ["dl", "reml"])
def test_whole_studies_flip_their_effects(rng, tau2):
    """Also two-sample studies: flipping the data of both groups is flipping g."""
    case = Case(rng, [9, 12, 30, 8, 21], [0, 13, 0, 11, 0], 1, 3, 140)
    flips = rng.choice([-1.0, 1.0], (5, 6)).astype(np.float32)
    for compute in (permuted_z, PERMUTED_Z.cpu):
        z = compute(None, flips, case.effects, case.terms, tau2=tau2)
        for p in range(6):
            flipped = case.effects * flips[:, p, None]
            one = compute(
                np.zeros((5, 1, 140), np.float32), np.ones((5, 1), np.float32), flipped,
                case.terms, tau2=tau2,
            )  # fmt: skip
            assert_allclose(z[p], one[0], atol=1e-5)
        assert_allclose(compute(None, -flips, case.effects, case.terms, tau2=tau2), -z, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"tau2": "reml"}], ids=["fast", "general"])
def test_bits_do_not_depend_on_company(rng, settings):
    """The same permutation and voxel in another call, tile, position or memory layout."""
    case = Case(rng, [9, 12, 30, 8, 15], [0, 0, 10, 11, 0], 7, 4, 3 * BLOCK + 5)
    sums, share, effects, terms = case.args
    whole = PERMUTED_Z.cpu(sums, share, effects, terms, **settings)
    for p in (0, 4, 6):
        alone = PERMUTED_Z.cpu(sums[:, p : p + 1], share[:, p : p + 1], effects, terms, **settings)
        assert_array_equal(alone[0], whole[p])
    for voxels in (slice(0, BLOCK), slice(17, 40), slice(300, None)):
        part = PERMUTED_Z.cpu(sums[..., voxels], share, effects[..., voxels], terms, **settings)
        assert_array_equal(part, whole[:, voxels])


def test_design_of_ones_is_the_mean_model_bit_for_bit(rng):
    args, _ = PERMUTED_Z.sample(rng)
    for compute in (permuted_z, PERMUTED_Z.cpu):
        assert_array_equal(compute(*args, design=np.ones((5, 1))), compute(*args))


def test_general_code_gives_the_mean_model_where_both_apply(rng):
    """An all but empty covariate leaves the mean where it is."""
    args, _ = PERMUTED_Z.sample(rng)
    mean = PERMUTED_Z.cpu(*args, design=2 * np.ones((5, 1)), contrast=np.array([3.0]))
    assert_allclose(mean, PERMUTED_Z.cpu(*args), atol=1e-5)


def test_nan_comes_out_where_it_goes_in(rng):
    args, _ = PERMUTED_Z.sample(rng)
    sums, share, effects, terms = args
    effects, sums = effects.copy(), sums.copy()
    effects[1, 2, 7] = np.nan
    sums[3, 4, 20] = np.nan
    x = np.column_stack([np.ones(5), [-2.0, -1, 0, 1, 2]])
    wanted = np.zeros((8, 150), bool)
    wanted[:, 7] = wanted[4, 20] = True
    for settings in ({}, {"tau2": "reml"}, {"design": x}):
        for compute in (permuted_z, PERMUTED_Z.cpu):
            found = np.isnan(compute(sums, share, effects, terms, **settings))
            assert_array_equal(found, wanted)


def test_a_model_that_does_not_fit_is_refused(rng):
    args, _ = PERMUTED_Z.sample(rng)
    with pytest.raises(ValueError, match="does not fit 5 studies"):
        PERMUTED_Z.cpu(*args, design=np.ones((4, 1)))
    with pytest.raises(ValueError, match="does not fit 5 studies"):
        permuted_z(*args, contrast=np.ones(2))
