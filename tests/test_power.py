"""What each null finds: the planted effect, the counting of places, and the table."""

from __future__ import annotations

import json

import numpy as np
import power
import pytest
from null_cells import CELLS, Cell
from null_projects import Brain, analyse
from page import table


@pytest.fixture(scope="module")
def around() -> Brain:
    """Grey matter around the first place."""
    whole = Brain()
    near = np.linalg.norm(whole.space.mm() - power.PLACES[0], axis=1) <= 30
    return Brain((whole.space.embed(near) > 0) & whole.space.mask)


def test_the_effect_is_highest_at_its_places_and_gone_between_them():
    mm = np.array([*power.PLACES, (36, 16 + power.WIDTH, 4), (0, -90, 60)], float)
    found = power.planted_effect(mm, 0.5)
    np.testing.assert_allclose(found[:-1], [0.5] * 5 + [0.5 * np.exp(-0.5)])
    assert found[-1] < 1e-12


def test_every_test_but_the_default_is_a_cell_of_the_calibration_in_its_null():
    nulls = {(c.exchange, c.options.get("test", "z")) for c in CELLS.values()}
    assert {(c.exchange, c.options.get("test", "z")) for c in power.TESTS.values()} <= nulls


def test_a_large_effect_is_found_where_it_is_and_only_there(around, monkeypatch):
    monkeypatch.setitem(
        power.TESTS,
        "few",
        Cell("", exchange="studies", permutations=40, options={"test": "score"}),
    )
    line = power.found_places(around, "few", 1.5, 0, imputations=2)
    assert json.loads(json.dumps(line)) == line
    assert line["p_voxel"][0] == line["p_tfce"][0] == 1 / 40
    made = analyse(around, power.TESTS["few"], 0, 40, 2, power.planted_effect(around.space.mm(), 1))
    assert np.argmax(made.problem.observed_z) in np.flatnonzero(
        np.linalg.norm(around.space.mm() - power.PLACES[0], axis=1) <= power.NEAR
    )


def test_results_are_kept_counted_and_laid_out(tmp_path):
    path = tmp_path / "power.jsonl"
    lines = [
        {"test": "z-subjects", "effect": 0.5, "seed": s, "p_voxel": [0.05, 0.06], "p_tfce": [1, 1]}
        for s in range(2)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = power.read_lines(path)
    assert list(found) == [("z-subjects", 0.5, 0), ("z-subjects", 0.5, 1)]
    assert power.share(found.values(), "voxel").startswith(".500 [")
    heads = ["exchanged; tested", "projects of each", "voxel, 0.5", "TFCE, 0.5"]
    row = ["subjects; z (the default)", "2", power.share(found.values(), "voxel"),
           power.share(found.values(), "tfce")]  # fmt: skip
    assert power.power_table(found) == table(heads, [row])
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- power begins -->\nold\n<!-- power ends -->\nb\n")
    power.write_report(path, page)
    assert power.power_table(found) in page.read_text()
    assert "old" not in page.read_text()


def test_missing_projects_are_run_and_each_is_kept(tmp_path, monkeypatch):
    """Worker processes are forked here: they find what is replaced."""
    path = tmp_path / "power.jsonl"
    monkeypatch.setattr(power, "_brain", lambda: None)

    def found(_, test, effect, seed):
        if seed == 9:
            raise ValueError("no such project")
        line = {"test": test, "effect": effect, "seed": seed, "p_voxel": [1.0], "p_tfce": [1.0]}
        return line | {"seconds": 0.0}

    monkeypatch.setattr(power, "found_places", found)
    jobs = [("z-subjects", 0.5, seed) for seed in range(3)]
    power.run(jobs[:1], 1, path)
    power.run(jobs, 2, path)
    assert sorted(power.read_lines(path)) == jobs
    assert len(path.read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="no such project"):
        power.run([("z-subjects", 0.5, 9)], 1, path)
