"""Templates learned from bound maps: the numbers, against an invented truth and SDM-PSI's own."""

from __future__ import annotations

import numpy as np
import pytest
from learned_projects import invented_kernels, invented_template

from gpu_sdm.spaces import Space
from gpu_sdm.stages.template_learn import (
    SummedKernel,
    learn,
    score_kernels,
    sweep,
    widened,
)
from gpu_sdm.template_kernels import read_kernels
from gpu_sdm.templates import OFFSETS, default_mask, default_template, index_steps


@pytest.fixture(scope="module")
def truth():
    return invented_template()


def test_an_invented_template_is_learned(truth):
    """Kernels of studies that were not learned from come out closer, and links with them."""
    studies, others = invented_kernels(truth, 40), invented_kernels(truth, 10, seed=6)
    start = default_template(4)
    learned = learn(start, studies, sweeps=6)
    before, after = score_kernels(start, others), score_kernels(learned, others)
    assert after.rmse < 0.5 * before.rmse
    assert after.r > 0.98 > before.r
    assert after.dice > before.dice
    assert score_kernels(truth, others).rmse == pytest.approx(0, abs=1e-6)
    inside = default_mask(4).ravel(order="F")
    both = np.zeros(start.costs.shape, bool)
    for column, step in enumerate(index_steps(start.shape)):
        both[:, column] = inside & np.roll(inside, -step) & np.isfinite(start.costs[:, column])
    wanted, found = (np.log(t.costs[both] / start.costs[both]) for t in (truth, learned))
    assert np.corrcoef(wanted, found)[0, 1] > 0.6
    # Where nothing is learned from nothing changes.
    outside = ~np.isfinite(start.costs)
    assert np.isinf(learned.costs[outside]).all()


def test_truth_stays_where_it_is(truth):
    studies = invented_kernels(truth, 5)
    after = sweep(truth, studies)
    linked = np.isfinite(truth.costs)
    np.testing.assert_allclose(after.costs[linked], truth.costs[linked], rtol=1e-4)
    no_peaks = [
        SummedKernel("none", s.space, np.zeros((0, 3)), np.zeros_like(s.kernel)) for s in studies
    ]
    assert (sweep(truth, no_peaks).costs == truth.costs).all()


def test_a_sweep_is_that_of_its_twins_and_of_any_number_of_threads(truth):
    studies = invented_kernels(truth, 4, peaks=3)
    start = default_template(4)
    one = sweep(start, studies, threads=1)
    assert (sweep(start, studies, threads=3).costs == one.costs).all()
    plain = sweep(start, studies, backend="numpy")
    linked = np.isfinite(start.costs)
    assert (np.abs(one.costs[linked] - start.costs[linked]) > 1e-3).mean() > 0.1
    np.testing.assert_allclose(plain.costs[linked], one.costs[linked], rtol=1e-5)


def test_a_sweep_goes_the_way_that_lessens_the_error(truth):
    """One peak's kernel: every sweep brings it nearer."""
    studies = invented_kernels(truth, 1, peaks=1)
    start = default_template(4)
    error = [score_kernels(start, studies).rmse]
    template = start
    for _ in range(4):
        template = sweep(template, studies)
        error.append(score_kernels(template, studies).rmse)
    assert (np.diff(error) < 0).all()
    assert error[-1] < 0.6 * error[0]


def test_missing_links_of_a_mask_are_as_long_as_in_space():
    start = default_template(4)
    mask = default_mask(4).copy()
    mask[20:24, 24:28, 20:24] = True  # ventricles and white matter
    wide = widened(start, mask)
    linked = np.isfinite(start.costs)
    assert (wide.costs[linked] == start.costs[linked]).all()
    new = np.isfinite(wide.costs) & ~linked
    assert new.any()
    length = 4 * np.sqrt((OFFSETS**2).sum(axis=1))
    columns = np.nonzero(new)[1]
    np.testing.assert_allclose(wide.costs[new], length[columns], rtol=1e-6)
    everywhere = widened(start, np.ones(start.shape, bool))
    edge = np.ones(start.shape, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    assert not everywhere.domain[edge.ravel(order="F")].any()  # no path wraps around


@pytest.mark.slow
def test_sdm_psis_template_shows_in_its_bound_maps(enge2021):
    """Of 13 studies, in three sweeps: six others' kernels, which nothing was learned from."""
    kernels = read_kernels(enge2021 / "project", enge2021 / "pp")
    assert len(kernels) == 50
    assert kernels[0].space.n_voxels == 193_768
    order = np.random.default_rng(4).permutation(50)
    some, others = [kernels[k] for k in order[:13]], [kernels[k] for k in order[-6:]]
    start = widened(default_template(2), some[0].space.mask)
    learned = learn(start, some, sweeps=3)
    before, after = score_kernels(start, others), score_kernels(learned, others)
    assert before.r == pytest.approx(0.94, abs=0.015)
    assert after.rmse < 0.75 * before.rmse
    assert after.r > 0.965
    assert after.dice > before.dice


def test_masks_of_several_analyses_may_differ(truth):
    wide = invented_kernels(truth, 3)
    space = Space(4, default_mask(4) & (np.indices(default_mask(4).shape)[0] > 20))
    place = np.full(default_mask(4).size, -1)
    place[wide[0].space.index] = np.arange(wide[0].space.n_voxels)
    narrow = [SummedKernel(s.name, space, s.xyz_mm, s.kernel[place[space.index]]) for s in wide]
    start = default_template(4)
    both = sweep(start, [wide[0], narrow[1]])
    one = sweep(start, [wide[0], wide[1]])
    assert (both.costs != one.costs).any()
    assert score_kernels(both, wide[:1]).rmse < score_kernels(start, wide[:1]).rmse
