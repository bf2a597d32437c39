"""Sequential stopping: the law of its p, that no chunk changes it, and what run.json says."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from projects import write_mask, write_project
from scipy.stats import binom, binomtest
from typer.testing import CliRunner

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import get_backend
from gpu_sdm.cli import app
from gpu_sdm.errors import SettingError
from gpu_sdm.inference import critical_value
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.permute.null import NullState
from gpu_sdm.permute.sequential import StopRule
from gpu_sdm.pipeline import execute

PEAK = (2.0, -18.0, 18.0)
MOST = 400


def rule_of(observed, hits):
    return StopRule((0.0, 0.0, 0.0), "voxel", 0, observed, observed, hits)


def state_of(values):
    """The observed first, then what was drawn."""
    state = NullState.empty(("voxel",), len(values))
    both = np.stack([values, values]).astype(np.float32)
    state.add(0, {"voxel": both})
    return state


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    home = tmp_path_factory.mktemp("sequential")
    project = write_project(home / "project", studies=5, noise_peaks=6, effect_mm=None)
    return project, write_mask(home / "mask.nii.gz", radius=5)


def analysis(inputs, **changes):
    mine = {"imputations": 3, "voxel_size": 4, "permutations": MOST, "mask": inputs[1]} | changes
    return prepare(gpu_sdm.read(inputs[0]), gpu_sdm.Settings(**mine), get_backend("cpu", 2))


@pytest.fixture(scope="module")
def fixed(inputs):
    return execute(analysis(inputs))


@pytest.fixture(scope="module")
def peak(fixed):
    """A place of middling p, so that hits come early."""
    p, z = fixed.maps["p_fwe_voxel"], fixed.maps["z"]
    wanted = np.where(z > 0, np.abs(p - 0.3), np.inf)
    return tuple(float(v) for v in fixed.space.mm()[int(np.argmin(wanted))])


@pytest.mark.parametrize("hits", [1, 2, 3])
def test_the_law_is_exact_over_all_orders_of_seven_values(hits):
    """P(p <= x) = x for every x that p can be: all 5,040 orders, in whole numbers."""
    orders = list(itertools.permutations(range(7)))
    found = Counter()
    for order in orders:
        state, rule = state_of(np.array(order, float)), rule_of(float(order[0]), hits)
        enough = rule.enough(state)
        p = rule.p(state if enough is None else state.first(enough))
        found[Fraction(p).limit_denominator(100)] += 1
    for x in found:
        below = sum(n for p, n in found.items() if p <= x)
        assert Fraction(below, len(orders)) == x
    assert min(found) == Fraction(1, 7)
    assert max(found) == 1


def test_type_one_error_by_simulation(rng):
    """20,000 null experiments of at most 999 random permutations, h = 20."""
    n_tests, most, hits = 20_000, 999, 20
    p = np.empty(n_tests)
    drawn = np.empty(n_tests)
    for i in range(n_tests):
        values = rng.standard_normal(most + 1).astype(np.float32)
        state, rule = state_of(values), rule_of(float(values[0]), hits)
        enough = rule.enough(state)
        p[i] = rule.p(state if enough is None else state.first(enough))
        drawn[i] = most + 1 if enough is None else enough
    for alpha in (0.01, 0.05, 0.2):
        support = max(x for x in np.unique(p) if x <= alpha)
        count = int((p <= alpha).sum())
        print(f"alpha {alpha}: {count / n_tests:.4f} of {support:.4f}")
        assert binomtest(count, n_tests, support).pvalue > 1e-3
    print(
        f"permutations used: mean {drawn.mean():.0f} of {most + 1}, median {np.median(drawn):.0f}"
    )
    assert drawn.mean() < 0.15 * most


def test_where_it_stops_does_not_depend_on_what_is_done_beyond(rng):
    values = rng.standard_normal(500)
    rule = rule_of(1.5, 5)
    whole = rule.enough(state_of(values))
    assert whole is not None
    for n in range(2, 500):
        assert rule.enough(state_of(values[:n])) == (whole if n >= whole else None)
    assert (values[1:whole] >= 1.5).sum() == 5
    assert values[whole - 1] >= 1.5


def test_interval_is_that_of_clopper_and_pearson():
    state = state_of(np.array([2.0, *([3.0] * 7), *([0.0] * 193)]))
    low, high = rule_of(2.0, 0).interval(state)
    assert binom.sf(6, 200, low) == pytest.approx(0.025, rel=1e-6)
    assert binom.cdf(7, 200, high) == pytest.approx(0.025, rel=1e-6)
    assert rule_of(9.0, 0).interval(state)[0] == 0.0


@pytest.mark.parametrize("statistic", ["voxel", "tfce"])
def test_no_chunk_changes_the_null_and_p_agrees_with_all_permutations(
    inputs, fixed, peak, statistic
):
    told = []
    results = [
        execute(
            analysis(inputs, stop_at=peak, stop_hits=12, stop_statistic=statistic),
            chunk=chunk,
            note=told.append,
        )
        for chunk in (1, 7, 32, 100)
    ]
    run = results[0].provenance["sequential"]
    n = run["permutations"]
    assert run["stopped"]
    assert run["hits"] == 12
    assert 13 <= n < MOST
    assert results[0].provenance["permutations"] == n
    assert run["p"] == 12 / (n - 1)
    for result in results:
        assert result.provenance["sequential"] == run
        for name, maxima in fixed.maxima.items():
            assert np.array_equal(result.maxima[name], maxima[:, :n])
        assert all(np.array_equal(result.maps[m], results[0].maps[m]) for m in result.maps)
    place = int(np.argmin(np.linalg.norm(fixed.space.mm() - peak, axis=1)))
    everything = fixed.maps[f"p_fwe_{statistic}"][place]
    low, high = run["interval_95"]
    print(f"{statistic}: p {run['p']:.3f} after {n}, {everything:.3f} of all {MOST}")
    assert low <= everything <= high
    assert any(f"{statistic}: threshold" in text and "FWE .05" in text for text in told)


def test_a_peak_that_is_never_reached_runs_to_the_end(inputs, fixed):
    best = int(np.argmax(fixed.maps["z"]))
    place = tuple(fixed.space.mm()[best])
    told = []
    asked = analysis(inputs, stop_at=place, stop_hits=MOST, stop_statistic="voxel")
    result = execute(asked, note=told.append)
    threshold = critical_value(fixed.maxima["voxel"][0], 0.05)
    assert f"threshold {threshold:.4g} at FWE .05" in told[-1]  # the last word is of all of them
    run = result.provenance["sequential"]
    assert not run["stopped"]
    assert run["permutations"] == MOST
    assert run["p"] == pytest.approx(float(fixed.maps["p_fwe_voxel"][best]), rel=1e-6)
    assert np.array_equal(result.maxima["voxel"], fixed.maxima["voxel"])


def test_interrupted_and_killed_it_stops_at_the_same_place(inputs, peak, tmp_path):
    wanted = execute(analysis(inputs, stop_at=peak, stop_hits=12))

    def stop(stage, done, total):
        if stage == "permutations" and done >= 5:
            raise KeyboardInterrupt

    mine = analysis(inputs, stop_at=peak, stop_hits=12)
    with pytest.raises(KeyboardInterrupt):
        execute(mine, out=tmp_path / "o", progress=stop, chunk=4)
    execute(mine, out=tmp_path / "o")
    stored = read_maxima(tmp_path / "o" / "null" / "maxima.tsv", ("voxel", "tfce"))
    for name, maxima in wanted.maxima.items():
        assert np.array_equal(stored[name], maxima)


def test_the_command_line(inputs, peak, tmp_path):
    place = ",".join(f"{v:g}" for v in peak)
    out = tmp_path / "o"
    command = [
        "permute", str(inputs[0]), "--out", str(out), "--mask", str(inputs[1]), "--voxel-size",
        "4", "--imputations", "3", "-n", str(MOST), "--stop-at", place, "--stop-hits", "12",
        "--no-report",
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    run = json.loads((out / "run.json").read_text())
    assert run["sequential"]["statistic"] == "tfce"
    assert [run["sequential"][c] for c in ("x_mm", "y_mm", "z_mm")] == list(peak)
    assert run["settings"]["stop_at"] == list(peak)
    assert run["settings"]["permutations"] == MOST
    rows = (out / "null" / "maxima.tsv").read_text().splitlines()
    assert len(rows) - 1 == run["permutations"] == run["sequential"]["permutations"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stop_at": (90.0, 90.0, 90.0)}, "outside the mask; the nearest analysed voxel"),
        ({"stop_at": PEAK, "stop_statistic": "cluster-mass"}, "must be one of those asked for"),
        ({"stop_statistic": "tfce"}, "needs stop_at"),
        ({"stop_at": PEAK, "stop_hits": 0}, "stop_hits"),
        ({"stop_at": (1.0, 2.0)}, "give three numbers"),
        ({"stop_at": PEAK, "exchange": "studies"}, "distinct permutations are used once"),
    ],
    ids=str,
)
def test_rules_that_cannot_be_kept_are_refused(inputs, tmp_path, changes, said):
    with pytest.raises(SettingError, match=said):
        execute(analysis(inputs, **changes), out=tmp_path / "o")
    assert list(tmp_path.iterdir()) == []
