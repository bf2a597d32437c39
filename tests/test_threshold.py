"""Thresholds of our own results: clusters, peaks, labels, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from thresholds import HALVES, two_sided_result

from gpu_sdm.atlas import load_atlas
from gpu_sdm.clusters import COLUMNS
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.maps import open_source
from gpu_sdm.findings.peaks import local_maxima, spread_out
from gpu_sdm.findings.threshold import Rule, threshold
from gpu_sdm.spaces import SHAPES, Space


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return two_sided_result(tmp_path_factory.mktemp("threshold"))


def test_local_maxima_and_their_distance(tmp_path):
    mask = np.zeros(SHAPES[4], bool)
    mask[5:35, 10, 10] = True
    space = Space(4, mask)
    values = np.zeros(30)
    values[[3, 10, 11, 12, 20, 21, 29]] = (5, 4, 4, 4, 6, 7, 1)
    everything = np.arange(30)
    # A plateau counts once, by its first voxel; the zeros between are plateaus of their own.
    high = values >= 1
    assert local_maxima(values, everything[high], space).tolist() == [21, 3, 10, 29]
    # Voxels that do not count hide nothing: 20 is a peak once 21 is out.
    assert local_maxima(values, np.array([3, 20]), space).tolist() == [20, 3]
    assert local_maxima(-values, np.array([20, 21]), space).tolist() == [20]
    top = np.array([21, 3, 10, 29])  # at 4 mm steps: 28 mm from 3 to 10, 32 mm from 21 to 29
    assert spread_out(top, space, 0).tolist() == top.tolist()
    assert spread_out(top, space, 28).tolist() == top.tolist()
    assert spread_out(top, space, 28.1).tolist() == [21, 3, 29]
    assert spread_out(top, space, 1000).tolist() == [21]


def test_our_result_gives_its_own_cluster_table(ours):
    out, result = ours
    found = threshold(open_source(out), Rule(), [HALVES])
    wanted = result.clusters["fwe-tfce-0.05"]
    assert {r["side"] for r in wanted} == {"positive", "negative"}
    assert len(found.clusters) == len(wanted)
    for mine, theirs in zip(found.clusters, wanted, strict=True):
        for column in COLUMNS[:-1]:
            if isinstance(theirs[column], float):
                assert mine[column] == pytest.approx(theirs[column], rel=1e-6)
            else:
                assert mine[column] == theirs[column]
    for side in ("positive", "negative"):
        one = threshold(open_source(out), Rule(side=side), [HALVES])
        assert [r["voxels"] for r in one.clusters] == [
            r["voxels"] for r in wanted if r["side"] == side
        ]
        assert list(one.passing) == [side]


def test_extent_and_peak_height_drop_clusters(ours):
    source = open_source(ours[0])
    rule = Rule(map="uncorrected", p=0.05, extent=1)
    every = threshold(source, rule, []).clusters
    sizes, heights = [r["voxels"] for r in every], [abs(r["sdm_z"]) for r in every]
    k, h = sorted(sizes)[len(sizes) // 2] + 1, sorted(heights)[len(heights) // 2]
    large = threshold(source, replace(rule, extent=k), []).clusters
    assert sorted(r["voxels"] for r in large) == sorted(s for s in sizes if s >= k)
    high = threshold(source, replace(rule, peak_z=h), []).clusters
    assert sorted(abs(r["sdm_z"]) for r in high) == sorted(x for x in heights if x > h)
    assert len(large) < len(every) > len(high)


def test_shares_and_labels(ours):
    source = open_source(ours[0])
    second = replace(HALVES, name="other", regions={1: "L", 2: "L"})
    found = threshold(source, Rule(map="uncorrected", p=0.05, extent=5), [HALVES, second])
    assert found.atlases == ("toy", "other")
    mm = source.space.mm()
    for cluster, row in zip(found.found, found.clusters, strict=True):
        x = mm[cluster.voxels, 0]
        counts = {
            "Left_half": (x < 0).sum(),
            "Right_half": (x > 2).sum(),
            "no label": (x == 2).sum(),
        }
        mine = [r for r in found.regions if r["cluster"] == row["cluster"] and r["atlas"] == "toy"]
        assert {r["region"]: r["voxels"] for r in mine} == {k: v for k, v in counts.items() if v}
        assert sum(r["percent"] for r in mine) == pytest.approx(100, abs=0.02)
        first = mine[0]
        assert row["shares_toy"].startswith(f"{first['region']} {first['percent']:.0f} %")
        assert row["label"].split()[-1] in ("Left_half", "Right_half")
        assert row["label_other"].split()[-1] == "L"
    assert found.peaks[0]["label"] == found.clusters[0]["label"]


def test_without_an_atlas_it_is_said(ours):
    gone = load_atlas(package="a_package_that_is_not_there")
    found = threshold(open_source(ours[0]), Rule(map="uncorrected"), [gone])
    assert [n.kind for n in found.notices] == ["no_atlas"]
    assert found.atlases == ()
    assert found.regions == []
    assert {r["label"] for r in found.clusters} == {""}


def test_a_p_below_one_permutation_is_said(ours):
    found = threshold(open_source(ours[0]), Rule(p=0.02), [])
    assert found.clusters == []
    assert "with 40 permutations the smallest corrected p is 0.025" in found.notices[0].message
    assert threshold(open_source(ours[0]), Rule(p=0.025), []).notices == ()
    assert threshold(open_source(ours[0]), Rule(map="uncorrected", p=0.02), []).notices == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"map": "tfce"}, "map is 'tfce'; it must be one of: fwe-tfce, fwe-voxel"),
        ({"p": 0.0}, r"p is 0.0; it must lie in \(0, 1\]"),
        ({"p": float("nan")}, "p is nan"),
        ({"extent": 0}, "extent is 0"),
        ({"side": "left"}, "side is 'left'; it must be one of: both, positive, negative"),
        ({"peak_z": -1.0}, "peak_z is -1.0"),
        ({"peak_distance": -1.0}, "peak_distance is -1.0"),
    ],
)
def test_wrong_rules_are_refused(wrong, message):
    with pytest.raises(SettingError, match=message):
        Rule(**wrong)


def test_names_of_rules():
    assert Rule().name == "fwe-tfce-0.05-k10"
    rule = Rule(map="uncorrected", p=0.0025, extent=20, peak_z=1, side="negative")
    assert rule.name == "uncorrected-0.0025-k20-z1-negative"
    assert Rule(map="fwe-mass").name == "fwe-mass-0.05-k1"
