"""Few distinct permutations: each is used once, and p is what counting them by hand gives."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from host_build import HostDevice, needs_compiler
from projects import write_mask, write_project
from test_device_engine import plan_of, problem_of

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import Backend, get_backend
from gpu_sdm.data import Bounds
from gpu_sdm.errors import CheckpointMismatch, OutputError
from gpu_sdm.ops.pool import pool
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import permute
from gpu_sdm.permute.exact import ExactPlan, plan_permutations
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.pipeline import execute
from gpu_sdm.problem import complete_effects
from gpu_sdm.provenance import summary


def test_every_sign_vector_and_every_labelling_occurs_once():
    plan = ExactPlan(PermutationPlan(5, ("a", "b", "c"), (4, 2, 5), (0, 3, 0)))
    n = plan.distinct()
    assert n == 2**4 * 10 * 2**5
    numbers = np.arange(n)
    drawn = [plan.signs(0, numbers), plan.labels(1, numbers), plan.signs(2, numbers)]
    found = {tuple(row) for row in np.concatenate(drawn, axis=1).tolist()}
    signs = [list(itertools.product((1, -1), repeat=k)) for k in (4, 5)]
    labels = [
        tuple(int(i in pair) for i in range(5)) for pair in itertools.combinations(range(5), 2)
    ]
    wanted = {a + b + c for a, b, c in itertools.product(signs[0], labels, signs[1])}
    assert found == wanted
    assert len(found) == n
    assert drawn[0][0].tolist() == [1] * 4
    assert drawn[1][0].tolist() == [1, 1, 0, 0, 0]
    for k in range(3):
        for of in plan.weights(k, np.array([3])), plan.weights(k, np.array([3 + n])):
            np.testing.assert_array_equal(of[0], plan.weights(k, numbers)[0][[3]])


def test_a_long_labelling_is_unranked_in_order():
    plan = ExactPlan(PermutationPlan(5, ("a",), (4,), (6,)))
    labels = plan.labels(0, np.arange(plan.distinct()))
    wanted = list(itertools.combinations(range(10), 4))
    assert [tuple(np.flatnonzero(row)) for row in labels] == wanted


def test_whole_studies_are_enumerated_and_random_ones_kept_where_there_are_more():
    plan = ExactPlan(PermutationPlan(5, tuple("abcde"), (9,) * 5, (0,) * 5, "studies"))
    flips = np.stack([plan.flips(k, np.arange(32)) for k in range(5)], axis=1)
    assert {tuple(f) for f in flips.tolist()} == set(itertools.product((1, -1), repeat=5))
    studies = [type("S", (), {"name": n, "n1": 9, "n2": 0}) for n in "abcde"]
    assert isinstance(plan_permutations(studies, 0, "studies", 32), ExactPlan)
    assert isinstance(plan_permutations(studies, 0, "studies", 31), PermutationPlan)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("exact")
    project = write_project(home / "p", studies=5, seed=4)
    settings = {
        "voxel_size": 4, "mask": write_mask(home / "mask.nii.gz", radius=4), "imputations": 4,
        "exchange": "studies", "statistic": ("voxel",), "permutations": 400,
    }  # fmt: skip

    def analysis(**changes):
        chosen = gpu_sdm.Settings(**settings | changes)
        return prepare(gpu_sdm.read(project), chosen, get_backend("cpu", 2))

    prepared = analysis()
    return home, analysis, prepared, execute(prepared, out=home / "out")


def test_exact_p_is_that_of_brute_force(made):
    """All 2**5 flips of the data, each estimated, imputed and pooled anew, counted by hand."""
    _, _, analysis, result = made
    terms, ones, z = analysis.terms, np.ones((5, 1)), []
    for signs in itertools.product((1, -1), repeat=5):
        flip = np.array(signs)[:, None] < 0
        lower, upper = analysis.bounds.lower, analysis.bounds.upper
        flipped = Bounds(np.where(flip, -upper, lower), np.where(flip, -lower, upper))
        effects, _ = complete_effects(replace(analysis, bounds=flipped), lambda *_: None, {})
        z.append(pool(effects, terms.c, terms.v2, ones, np.ones(1)).z)
    z = np.array(z)
    assert result.maxima["voxel"].shape == (2, 32)
    np.testing.assert_allclose(
        np.sort(result.maxima["voxel"][0]), np.sort(z.max(axis=1)), atol=1e-4
    )
    p = (z.max(axis=1) >= z[0][:, None] - 1e-4).mean(axis=1)
    np.testing.assert_allclose(result.maps["p_fwe_voxel"], p, atol=1e-7)
    assert result.maps["p_fwe_voxel"].min() == pytest.approx(1 / 32)


def test_it_is_said(made):
    home, _, analysis, _ = made
    run = json.loads((home / "out" / "run.json").read_text())
    assert run["exact"] is True
    assert run["permutations"] == run["distinct_permutations"] == 32
    assert run["settings"]["permutations"] == 400
    assert summary(analysis)["permutations"] == "all 32 distinct ones, each once: exact"
    said = [n.message for n in analysis.notices if n.kind == "few_permutations"]
    assert len(said) == 1
    assert "Only 32 distinct permutations exist" in said[0]
    assert "0.0312" in said[0]


def test_the_seed_of_an_exact_null_does_not_matter_to_the_flips(made):
    _, analysis, _, _ = made
    one, two = (analysis(seed=s).plan.flips(2, np.arange(32)) for s in (0, 7))
    assert np.array_equal(one, two)


def test_an_exact_result_is_neither_extended_nor_made_from_random_permutations(made, tmp_path):
    home, analysis, _, result = made
    with pytest.raises(OutputError, match="exact: it holds each of the 32 distinct"):
        execute(analysis(permutations=1000), out=home / "out")
    execute(analysis(permutations=20), out=tmp_path / "o")
    assert not json.loads((tmp_path / "o" / "run.json").read_text())["exact"]
    with pytest.raises(CheckpointMismatch, match="exact permutations is new"):
        execute(analysis(permutations=50), out=tmp_path / "o")
    again = execute(analysis(permutations=50), out=tmp_path / "o", force=True)
    assert np.array_equal(again.maxima["voxel"], result.maxima["voxel"])


@needs_compiler
def test_a_device_enumerates_too(rng):
    problem, plan = problem_of(rng, exchange="studies"), ExactPlan(plan_of("studies"))
    expected = permute(problem, plan, 32, ("voxel",), Backend("cpu", "", 1)).maxima["voxel"]
    found = DeviceEngine(problem, plan, HostDevice(), ("voxel",)).maxima(0)["voxel"]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(np.unique(expected[0].round(4))) == 32
