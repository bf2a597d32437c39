"""Sign flips of whole studies, compiled, against the plain reference."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sdm.data import StudyTerms
from gpu_sdm.ops._permuted_z_flips_cpu import flipped_z
from gpu_sdm.ops.permuted_z import PERMUTED_Z


def case(
    rng: np.random.Generator, k: int, m: int, v: int, p: int, mean: float, spread: float = 0.3
) -> tuple[np.ndarray, np.ndarray, StudyTerms]:
    n = rng.integers(8, 60, k).astype(float)
    terms = StudyTerms(j=1 - 3 / (4 * n - 5), c=1 / n, v2=0.5 / n, n1=n, n2=np.zeros(k))
    effects = mean + spread * rng.standard_normal((1, k, v)) + 0.1 * rng.standard_normal((m, k, v))
    signs = rng.choice(np.array([-1, 1], np.float32), (k, p))
    signs[:, 0] = 1
    return signs, effects.astype(np.float32), terms


@pytest.mark.parametrize(
    ("k", "m", "v", "p"), [(2, 2, 70, 5), (3, 1, 1, 1), (11, 5, 100, 32), (50, 3, 33, 6),
                           (135, 2, 31, 3), (20, 1, 200, 7)]
)  # fmt: skip
@pytest.mark.parametrize("mean", [0.0, 0.5, 2.5])
def test_flips_are_those_of_the_reference(
    k: int, m: int, v: int, p: int, mean: float, rng: np.random.Generator
) -> None:
    signs, effects, terms = case(rng, k, m, v, p, mean)
    ours = flipped_z(signs, effects, terms.c, terms.v2)
    theirs = PERMUTED_Z.numpy(None, signs, effects, terms)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(10, np.abs(theirs).max()))


def test_effects_that_agree_do_not_cancel(rng: np.random.Generator) -> None:
    """Q is a thousandth of S2 where all studies found nearly the same large effect."""
    signs, effects, terms = case(rng, 30, 1, 300, 4, 3.0, 0.15)
    v = terms.c[:, None] + terms.v2[:, None] * effects[0].astype(float) ** 2
    s2 = (effects[0] ** 2 / v).sum(axis=0)
    q = s2 - (effects[0] / v).sum(axis=0) ** 2 / (1 / v).sum(axis=0)
    assert np.median(q / s2) < 0.01
    ours = flipped_z(signs, effects, terms.c, terms.v2)
    theirs = PERMUTED_Z.numpy(None, signs, effects, terms)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


def test_not_a_number_stays_in_its_voxel(rng: np.random.Generator) -> None:
    signs, effects, terms = case(rng, 6, 2, 90, 9, 0.4)
    clean = flipped_z(signs, effects, terms.c, terms.v2)
    effects[1, 3, 40] = np.nan
    found = flipped_z(signs, effects, terms.c, terms.v2)
    assert np.isnan(found[:, 40]).all()
    others = np.arange(90) != 40
    np.testing.assert_allclose(found[:, others], clean[:, others], rtol=0, atol=2e-6)


@pytest.mark.parametrize("mean", [0.0, 0.6, 2.0])
def test_a_voxel_does_not_depend_on_the_others(mean: float, rng: np.random.Generator) -> None:
    signs, effects, terms = case(rng, 6, 3, 150, 8, mean)
    whole = flipped_z(signs, effects, terms.c, terms.v2)
    some = np.sort(rng.choice(150, 60, replace=False))
    again = flipped_z(signs[:, :3], np.ascontiguousarray(effects[:, :, some]), terms.c, terms.v2)
    np.testing.assert_array_equal(again, whole[:3, some])
