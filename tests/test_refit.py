"""Effects made again at sites: the run's own maps to the bit, metafor's leave-one-out."""

from __future__ import annotations

import metafor_reference as metafor
import numpy as np
import pytest
from scipy import special
from small_results import MIDDLE, known_result, small_result

from gpu_sdm.errors import SettingError
from gpu_sdm.findings.extract import extract, imputations
from gpu_sdm.findings.folds import without
from gpu_sdm.findings.refit import everywhere, site_effects, surroundings
from gpu_sdm.findings.sites import (
    Site,
    cluster_sites,
    default_threshold,
    distinct_names,
    full_name,
    point_sites,
    region_site,
)
from gpu_sdm.stages.smoothing import smooth_in_mask

MAPS = ("g", "se", "z", "tau2", "i2", "h2", "q")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_result(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module", params=["dl", "reml"])
def complete(request, tmp_path_factory):
    method = request.param
    return method, known_result(tmp_path_factory.mktemp(f"complete-{method}"), method)


def test_every_map_is_made_again_to_the_bit(made):
    _, finished, analysis = made
    pooled, not_converged = everywhere(analysis)
    assert not_converged == 0
    for name in MAPS:
        assert np.array_equal(np.float32(getattr(pooled, name)), finished.map(name)), name


def test_a_few_voxels_are_those_of_the_maps_to_the_bit(made, rng):
    _, finished, analysis = made
    some = np.sort(rng.choice(finished.space.n_voxels, 25, replace=False))
    sites = [Site(str(v), "point", np.array([v]), (0, 0, 0)) for v in some]
    pooled = site_effects(analysis, sites).pooled()
    for name in MAPS:
        assert np.array_equal(np.float32(getattr(pooled, name)), finished.map(name)[some]), name


def test_smoothing_sees_the_surroundings_and_nothing_else(made, rng):
    space = made[1].space
    voxels = np.array([200, 700])
    around = surroundings(space, voxels)
    values = rng.normal(size=space.n_voxels)
    other = values + 1.0
    other[around] = values[around]
    assert np.array_equal(
        smooth_in_mask(values, space)[voxels], smooth_in_mask(other, space)[voxels]
    )
    assert len(around) < 60
    reached = set()
    for v in voxels:  # the kernel is symmetric: what a voxel reaches reaches it
        spike = np.zeros(space.n_voxels)
        spike[v] = 1
        reached |= set(np.flatnonzero(smooth_in_mask(spike, space)))
    assert reached == set(around)


def test_a_site_of_several_voxels_is_their_mean(made):
    _, _, analysis = made
    voxels = np.array([3, 40, 300, 301])
    single = [Site(str(v), "point", np.array([v]), (0, 0, 0)) for v in voxels]
    region = Site("all", "region", voxels, (0, 0, 0))
    at = site_effects(analysis, [*single, region])
    assert at.effects.shape == (5, 7, 5)
    np.testing.assert_allclose(at.effects[..., 4], at.effects[..., :4].mean(2), rtol=1e-12)
    low, high = analysis.bounds.lower[:, voxels], analysis.bounds.upper[:, voxels]
    assert np.array_equal(at.known[:, :4], low == high)
    assert np.array_equal(at.known[:, 4], (low == high).all(1))


@pytest.mark.parametrize("threshold", ["uncorrected-0.0025", "fwe-voxel-0.05"])
def test_sites_are_the_rows_of_the_cluster_tables(made, threshold):
    _, finished, _ = made
    lines = (finished.folder / f"tables/clusters_{threshold}.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    sites = cluster_sites(finished, [threshold])
    assert len(sites) == 2 * len(rows)
    assert rows or threshold != "uncorrected-0.0025"
    for row, peak, cluster in zip(rows, sites[::2], sites[1::2], strict=True):
        assert (row["cluster"], row["side"]) == (str(peak.cluster), peak.side)
        assert [row[a] for a in ("x_mm", "y_mm", "z_mm")] == [f"{v:g}" for v in peak.xyz_mm]
        assert int(row["voxels"]) == len(cluster.voxels)
        assert row["label"] == peak.label
        assert peak.voxels[0] in cluster.voxels


def test_points_regions_and_names(made):
    home, finished, _ = made
    space = finished.space
    middle = tuple(space.mm()[500] + 1.5)
    assert point_sites(space, [middle])[0].voxels.tolist() == [500]
    with pytest.raises(SettingError, match=r"\(0,-16,70\) lies outside the mask; the nearest"):
        point_sites(space, [(0, -16, 70)])
    whole = region_site(space, home / "mask.nii.gz")
    assert len(whole.voxels) == space.n_voxels
    assert [s.name for s in distinct_names([whole, whole])] == ["mask.nii.gz", "mask.nii.gz (2)"]
    assert full_name("uncorrected", finished) == "uncorrected-0.0025"
    with pytest.raises(SettingError, match=r"threshold is 'fdr'; .* has: fwe-tfce-0\.05"):
        full_name("fdr", finished)
    assert cluster_sites(finished, [default_threshold(finished)])


def test_leaving_studies_out_is_metafors(complete):
    method, analysis = complete
    for k, name in enumerate(analysis.design.dataset.names):
        pooled, _ = everywhere(without(analysis, name))
        for column, values in metafor.LEFT_OUT.items():
            np.testing.assert_allclose(
                getattr(pooled, column), values[method][k], rtol=3e-6, atol=1e-6
            )


def test_extracted_effects_pool_to_the_maps(made):
    _, finished, analysis = made
    peaks = [s for s in cluster_sites(finished, ["uncorrected-0.0025"]) if s.kind == "peak"]
    at = site_effects(analysis, peaks)
    rows, each = extract(at), imputations(at)
    names = analysis.design.dataset.names
    for site in peaks:
        own = [row for row in rows if row["site"] == site.name]
        assert [row["study"] for row in own] == [*names, "7 studies"]
        voxel, last = site.voxels[0], own[-1]
        assert np.float32(last["g"]) == finished.map("g")[voxel]
        assert np.float32(last["se"]) == finished.map("se")[voxel]
        assert sum(row["weight"] for row in own[:-1]) == pytest.approx(100)
        mine = [row for row in each if row["site"] == site.name]
        assert len(mine) == 5 * 7
        for k, row in enumerate(own[:-1]):
            g = np.array([m["g"] for m in mine if m["study"] == names[k]])
            v = np.array([m["variance"] for m in mine if m["study"] == names[k]])
            assert row["g"] == pytest.approx(g.mean())
            assert row["variance"] == pytest.approx(v.mean() + 1.2 * g.var(ddof=1))
            half = special.ndtri(0.975) * row["se"]
            assert row["ci_high"] - row["g"] == pytest.approx(half)
            bounds = analysis.bounds
            low, high = bounds.lower[k, voxel], bounds.upper[k, voxel]
            assert (row["lower"], row["upper"], row["known"]) == (low, high, low == high)
            assert low <= g.min() <= g.max() <= high
            if row["known"]:
                assert row["imputation_variance"] == 0


def test_weights_of_complete_data_give_the_pooled_effect(complete):
    _, analysis = complete
    rows = extract(site_effects(analysis, MIDDLE))
    total = sum(row["weight"] * row["g"] for row in rows[:-1]) / 100
    assert total == pytest.approx(rows[-1]["g"], rel=1e-12)
