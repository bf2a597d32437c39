"""Permutations: known answers of the generator, the law of the draws, the sums that follow."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from gpu_sdm.permute.plan import TILE, ExplicitPlan, PermutationPlan, residual_sums
from gpu_sdm.rng import philox, philox_words

# Random123's kat_vectors, philox 4x32 10 rounds: counter, key, answer.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

NAMES, N1, N2 = ("a", "b", "c", "d"), (7, 150, 5, 6), (0, 0, 4, 9)


@pytest.fixture
def plan() -> PermutationPlan:
    return PermutationPlan(11, NAMES, N1, N2)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_random123s_known_answers(counter, key, answer):
    assert [int(w) for w in philox(*counter, tuple(key))] == answer
    assert [int(w) for w in philox_words(*(np.uint64(c) for c in counter + key))] == answer


def test_permutation_zero_is_the_identity(plan):
    assert (plan.signs(1, [0]) == 1).all()
    assert_array_equal(plan.labels(2, [0])[0], [1] * 5 + [0] * 4)
    assert PermutationPlan(11, NAMES, N1, N2, "studies").flips(3, [0]) == 1
    share = np.array([plan.weights(k, np.array([0]))[1] for k in range(4)])
    assert_array_equal(share, 1)


def test_signs_are_fair_and_independent(plan):
    signs = plan.signs(1, np.arange(1, 2001))
    assert set(np.unique(signs)) == {-1, 1}
    n = signs.size
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], n, 0.5)
    assert low <= (signs == 1).sum() <= high
    # subjects beyond the first 128 come from another block; all pairs are uncorrelated
    products = np.corrcoef(signs.T)[np.triu_indices(150, 1)]
    assert np.abs(products).max() < 5.5 / np.sqrt(2000)


def test_all_patterns_of_a_small_study_occur_equally_often():
    signs = PermutationPlan(3, ("s",), (4,), (0,)).signs(0, np.arange(1, 3201))
    counts = np.bincount((signs > 0) @ [1, 2, 4, 8], minlength=16)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_every_labelling_has_n1_patients_and_all_occur_equally_often():
    labels = PermutationPlan(3, ("s",), (2,), (4,)).labels(0, np.arange(1, 3001))
    assert_array_equal(labels.sum(axis=1), 2)
    codes = [sum(1 << i for i in pair) for pair in itertools.combinations(range(6), 2)]
    counts = np.bincount(labels @ (1 << np.arange(6)), minlength=64)
    assert counts.sum() == counts[codes].sum()
    assert stats.chisquare(counts[codes]).pvalue > 1e-4


def test_whole_studies_flip_fairly_and_independently():
    plan = PermutationPlan(5, NAMES, N1, N2, "studies")
    flips = np.stack([plan.flips(k, np.arange(1, 4001)) for k in range(4)])
    assert stats.chisquare(np.bincount((flips > 0).T @ [1, 2, 4, 8], minlength=16)).pvalue > 1e-4
    weights, share = plan.weights(2, np.arange(3))
    assert weights is None
    assert_array_equal(share, plan.flips(2, np.arange(3)))


def test_draws_depend_on_name_and_permutation_alone(plan):
    fewer = PermutationPlan(11, ("d", "b"), (6, 150), (9, 0))
    numbers = np.arange(40)
    assert_array_equal(fewer.labels(0, numbers), plan.labels(3, numbers))
    assert_array_equal(fewer.signs(1, numbers), plan.signs(1, numbers))
    assert_array_equal(plan.signs(1, [17, 3]), plan.signs(1, numbers)[[17, 3]])
    assert (PermutationPlan(12, NAMES, N1, N2).signs(1, numbers) != plan.signs(1, numbers)).any()


def test_distinct_permutations_are_counted(plan):
    assert plan.distinct() == 2**7 * 2**150 * 126 * 5005
    assert PermutationPlan(11, NAMES, N1, N2, "studies").distinct() == 16


@pytest.fixture
def bank(rng) -> SimpleNamespace:
    shapes = [n1 + n2 for n1, n2 in zip(N1, N2, strict=True)]
    images = tuple(rng.standard_normal((n, 300)).astype(np.float32) for n in shapes)
    return SimpleNamespace(residuals=images)


def test_sums_are_means_over_the_permuted_group(plan, bank):
    sums, share = residual_sums(bank, plan, TILE, slice(0, 300))
    numbers = np.arange(TILE, 2 * TILE)
    for k, images in enumerate(bank.residuals):
        for row, p in enumerate(numbers):
            if N2[k]:
                chosen = plan.labels(k, [p])[0] == 1
                mean, f = images[chosen].mean(axis=0), chosen[: N1[k]].mean()
            else:
                signs = plan.signs(k, [p])[0]
                mean, f = (signs[:, None] * images).mean(axis=0), signs.mean()
            assert_allclose(sums[k, row], mean, atol=2e-6)
            assert_allclose(share[k, row], f, atol=1e-7)


def test_the_same_block_has_the_same_bits_again_and_tiles_must_be_aligned(plan, bank):
    first = residual_sums(bank, plan, 0, slice(0, 128))[0]
    residual_sums(bank, plan, TILE, slice(0, 128))
    residual_sums(bank, plan, 5 * TILE, slice(0, 128))
    assert_array_equal(residual_sums(bank, plan, 0, slice(0, 128))[0], first)
    with pytest.raises(ValueError, match="not a multiple of 32"):
        residual_sums(bank, plan, 5, slice(0, 128))


def test_a_given_plan_replays_the_same_sums(plan, bank):
    numbers = np.arange(40)
    drawn = tuple((plan.labels if N2[k] else plan.signs)(k, numbers) for k in range(4))
    given = ExplicitPlan(drawn, N1, N2)
    for start in (0, TILE):
        ours, f = residual_sums(bank, plan, start, slice(0, 300))
        theirs, g = residual_sums(bank, given, start, slice(0, 300))
        rows = min(TILE, 40 - start)
        assert_array_equal(theirs[:, :rows], ours[:, :rows])
        assert_array_equal(g[:, :rows], f[:, :rows])
        assert (theirs[:, rows:] == 0).all()


def test_sdm_psis_own_signs_can_be_replayed(enge2021):
    lines = (enge2021 / "mod1" / "permutations.asc").read_text().splitlines()[: 50 * 40]
    rows = [np.array(line.split(), np.int8) for line in lines]
    drawn = tuple(np.stack(rows[k::50]) for k in range(50))
    n = tuple(d.shape[1] for d in drawn)
    assert sum(n) == 1018
    plan = ExplicitPlan(drawn, n, (0,) * 50)
    shares = np.array([plan.weights(k, np.arange(40))[1] for k in range(50)])
    assert (shares[:, 0] == 1).all()
    assert_allclose(shares[:, 1:], [d[1:].mean(axis=1) for d in drawn], atol=1e-7)
    # p = 1/2: the z of the total of 39,702 real signs
    assert abs(sum(int(d[1:].sum()) for d in drawn)) < 4 * np.sqrt(39 * 1018)
