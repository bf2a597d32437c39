"""What hangs on the links of shortest paths."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sdm.ops.path_sums import path_sums


@pytest.mark.parametrize("seed", range(3))
def test_compiled_sums_equal_their_twin(seed):
    args, _ = path_sums.sample(np.random.default_rng(seed))
    links, sums = path_sums.cpu(*args)
    again, exact = path_sums.numpy(*args)
    assert (links == again).all()
    assert (links >= 0).sum() > 100
    np.testing.assert_allclose(sums, exact, rtol=path_sums.rtol, atol=1e-12)
    assert np.isinf(args[0].scratch()).all()  # the next peak of this thread starts clean


def test_every_path_is_walked_back_to_its_start(rng):
    """By following each voxel's own path, link by link."""
    (graph, voxels, far, values), _ = path_sums.sample(rng)
    links, sums = path_sums.cpu(graph, voxels, far, values)
    row = {int(v): i for i, v in enumerate(voxels)}
    width = len(graph.steps)
    wanted = np.zeros_like(values)
    for i, end in enumerate(voxels):
        at, gone = int(end), 0.0
        while True:
            wanted[row[at]] += values[i]
            link = links[row[at]]
            if link < 0:
                break
            owner, column = divmod(int(link), width)
            gone += float(graph.costs[owner, column])
            at = owner if owner != at else owner + int(graph.steps[column])
        assert gone + far[row[at]] == pytest.approx(far[i], abs=1e-9)
    np.testing.assert_allclose(sums, wanted, atol=1e-9)
    np.testing.assert_allclose(sums[links < 0].sum(axis=0), values.sum(axis=0), atol=1e-9)


def test_nothing_in_reach_is_no_link():
    (graph, *_), _ = path_sums.sample(np.random.default_rng(0))
    none = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 2))
    for run in (path_sums.numpy, path_sums.cpu):
        links, sums = run(graph, *none)
        assert links.shape == (0,)
        assert sums.shape == (0, 2)
