"""Cluster-level inference: the null and the observed clusters counted by plain labelling."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from host_build import HostDevice, needs_compiler
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from projects import write_mask, write_project
from scipy import ndimage

import gpu_sdm
from gpu_sdm.analysis import prepare
from gpu_sdm.backend import Backend, get_backend
from gpu_sdm.errors import NumericalError, SettingError
from gpu_sdm.finished import open_result
from gpu_sdm.inference import cluster_statistic
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.ops.max_cluster import box_neighbours, cluster_maps, max_cluster
from gpu_sdm.permute.engine import z_tile
from gpu_sdm.permute.maxima import Forming
from gpu_sdm.pipeline import execute
from gpu_sdm.problem import build_problem
from gpu_sdm.spaces import SHAPES, Space

BOX = np.ones((3, 3, 3))
LEVEL = 2.0
ALL = ("voxel", "tfce", "cluster-extent", "cluster-mass")
CLUSTER = ALL[2:]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("clusters")
    project = write_project(home / "p", studies=8, two_sample=2, seed=3, negative_mm=(-16, -10, 20))
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz", radius=8),
        permutations=40, imputations=3,
        statistic=("cluster-mass", "cluster-extent", "voxel"), cluster_threshold=LEVEL,
    )  # fmt: skip
    analysis = prepare(gpu_sdm.read(project), settings, get_backend("cpu", 2))
    return home, analysis, execute(analysis, out=home / "out")


def brute_force(z: np.ndarray, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Extent and mass of each voxel's cluster by labelling the volume; 0 outside."""
    volume = space.embed(z)
    label, n = ndimage.label(volume > np.float32(LEVEL), BOX)
    which = np.arange(n + 1)
    extent = ndimage.sum_labels(np.ones(label.shape), label, which)
    mass = ndimage.sum_labels(volume.astype(float) - np.float32(LEVEL), label, which)
    extent[0] = mass[0] = 0
    return extent[space.extract(label)], mass[space.extract(label)]


def test_the_null_and_every_p_are_those_of_plain_labelling(made):
    _, analysis, result = made
    problem, _, _ = build_problem(analysis, lambda *_: None, {})
    with ThreadPoolExecutor(1) as pool:
        tiles = [z_tile(problem, analysis.plan, s, analysis.backend, pool) for s in (0, 32)]
    z = np.concatenate(tiles)[:40]
    z[0] = problem.observed_z
    for i, name in enumerate(CLUSTER):
        null = np.array(
            [[brute_force(s * row, result.space)[i].max() for row in z] for s in (1, -1)]
        )
        np.testing.assert_allclose(result.maxima[name], null, rtol=1e-6)
        assert len(np.unique(null)) > 8
        observed = [brute_force(s * z[0], result.space)[i] for s in (1, -1)]
        both = [*zip(observed, null, strict=True), (np.maximum(*observed), null.max(axis=0))]
        for suffix, (stat, maxima) in zip(("", "_neg", "_two_sided"), both, strict=True):
            p = (maxima >= stat[:, None] * (1 - 1e-6)).mean(axis=1)
            found = result.maps[f"p_fwe_{name.replace('-', '_')}{suffix}"]
            # Only a voxel within 1e-4 of the forming threshold may make a cluster count as less.
            sure = np.abs(np.abs(z[0]) - LEVEL).min() > 1e-4
            assert sure
            np.testing.assert_allclose(found, p, atol=1e-7)
            assert (found[stat == 0] == 1).all()
            if suffix != "_two_sided":
                assert found.min() < 1


def test_the_tables_list_the_clusters_that_were_tested(made):
    home, _, result = made
    for i, name in enumerate(("extent", "mass")):
        rows = result.clusters[f"fwe-{name}-0.05"]
        for side, suffix, sign in (("positive", "", 1), ("negative", "_neg", -1)):
            z = sign * result.maps["z"]
            sizes, p = brute_force(z, result.space), result.maps[f"p_fwe_cluster_{name}{suffix}"]
            significant = (p <= 0.05 + 1e-6) & (sizes[i] > 0)
            listed = [r["voxels"] for r in rows if r["side"] == side]
            assert set(listed) == {int(e) for e in sizes[0][significant]}
            assert sum(listed) == significant.sum()
    assert {r["side"] for r in result.clusters["fwe-mass-0.05"]} == {"positive", "negative"}
    tables = {f.name for f in (home / "out" / "tables").iterdir()}
    assert {"clusters_fwe-extent-0.05.tsv", "clusters_fwe-mass-0.05.tsv"} <= tables
    assert "clusters_fwe-tfce-0.05.tsv" not in tables


def test_columns_maps_and_settings_are_written_and_read_again(made):
    home, _, result = made
    header = (home / "out" / "null" / "maxima.tsv").read_text().split("\n")[0].split("\t")
    assert header == ["permutation", "max_z", "max_neg_z", "max_extent", "max_neg_extent",
                      "max_mass", "max_neg_mass"]  # fmt: skip
    null = read_maxima(home / "out" / "null" / "maxima.tsv")
    for name in CLUSTER:
        assert np.array_equal(null[name], result.maxima[name])
    finished = open_result(home / "out")
    assert finished.settings.cluster_threshold == LEVEL
    assert finished.has("p_fwe_cluster_mass_two_sided")
    assert not finished.has("tfce")
    run = json.loads((home / "out" / "run.json").read_text())
    assert run["settings"]["statistic"] == ["voxel", "cluster-extent", "cluster-mass"]


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_change_no_bit_of_the_cluster_null(made, chunk):
    _, analysis, result = made
    other = execute(analysis, chunk=chunk)
    for name in CLUSTER:
        assert np.array_equal(other.maxima[name], result.maxima[name])


@needs_compiler
def test_a_device_gives_the_cluster_null_of_the_cpu(made):
    _, analysis, result = made
    device = HostDevice()
    other = execute(replace(analysis, backend=Backend("cuda", "a test", 2, device)))
    assert "max_cluster" in {name for name, _, _ in device.launches}
    # z agrees to 1e-4: here and there one voxel more or less is above the threshold.
    moved = np.abs(other.maxima["cluster-extent"] - result.maxima["cluster-extent"])
    assert (moved == 0).mean() > 0.9
    np.testing.assert_allclose(
        other.maxima["cluster-mass"], result.maxima["cluster-mass"], rtol=1e-2, atol=1e-3
    )
    for name in ("p_fwe_cluster_extent", "p_fwe_cluster_mass"):
        assert np.abs(other.maps[name] - result.maps[name]).max() <= 1.01 / 40


@needs_compiler
def test_a_device_with_another_forming_threshold_is_found_out(made):
    _, analysis, _ = made
    problem, _, _ = build_problem(analysis, lambda *_: None, {})
    wrong = replace(problem, forming=Forming(LEVEL + 0.3, box_neighbours(analysis.space)))
    from gpu_sdm.permute.device import DeviceEngine
    from gpu_sdm.permute.maxima import maxima_of, require_identity
    from gpu_sdm.permute.null import NullState

    with ThreadPoolExecutor(1) as pool:
        observed = maxima_of(
            problem.observed_z[None], ("cluster-mass",), problem, analysis.backend, pool
        )
    state = NullState.empty(("cluster-mass",), 1)
    state.add(0, observed)
    for of, works in ((problem, True), (wrong, False)):
        engine = DeviceEngine(of, analysis.plan, HostDevice(), ("cluster-mass",))
        rows = engine.rows(0, 1)
        if works:
            require_identity(rows, state, problem, analysis.backend)
        else:
            with pytest.raises(NumericalError, match="observed maxima of cluster-mass"):
                require_identity(rows, state, problem, analysis.backend)


@examples(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_map_within_the_error_reaches_the_settled_statistic(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPES[4], bool)
    mask[3:9, 3:9, 3:8] = rng.random((6, 6, 5)) < 0.8
    mask[3, 3, 3] = True
    space = Space(4, mask)
    neighbours, error = box_neighbours(space), 0.05
    # Values near the threshold, so that the error joins and parts clusters.
    z = rng.normal(1.0, 0.2, space.n_voxels)
    other = z + rng.uniform(-error, error, space.n_voxels)
    settled = cluster_statistic(z, neighbours, 1.0, error)
    exact = cluster_maps(z, neighbours, 1.0)
    reached = max_cluster(other[None], neighbours, 1.0)
    for i, name in enumerate(CLUSTER):
        assert (settled[name] <= exact[i] + 1e-9).all()
        assert settled[name].max() <= reached[i][0] + 1e-9


def test_the_forming_threshold_is_checked():
    assert gpu_sdm.Settings().cluster_threshold is None
    assert gpu_sdm.Settings(statistic=("cluster-mass",)).cluster_threshold == 3.0902
    with pytest.raises(SettingError, match="no cluster statistic is asked for"):
        gpu_sdm.Settings(cluster_threshold=2.3)
    for bad in (0.4, 41, float("nan"), "3"):
        with pytest.raises(SettingError, match="cluster_threshold is"):
            gpu_sdm.Settings(statistic=("cluster-mass",), cluster_threshold=bad)
    with pytest.raises(SettingError, match="voxel, tfce, cluster-extent, cluster-mass"):
        gpu_sdm.Settings(statistic=())
