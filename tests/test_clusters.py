"""Clusters: SDM-PSI's seven blobs voxel for voxel, connectivity, order, peaks."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from gpu_sdm.clusters import COLUMNS, THRESHOLDS, blobs, clusters_table, threshold_tables
from gpu_sdm.data import Pooled
from gpu_sdm.io.nifti import read_map
from gpu_sdm.spaces import SHAPES, Space


def _no_labels(mm: np.ndarray) -> list[str]:
    return [""] * len(mm)


@pytest.fixture
def cube() -> Space:
    mask = np.zeros(SHAPES[4], bool)
    mask[10:20, 10:20, 10:20] = True
    return Space(4, mask)


def _pooled(z: np.ndarray) -> Pooled:
    z = np.asarray(z, np.float64)
    parts = {
        name: np.full(len(z), i + 0.5) for i, name in enumerate(("se", "tau2", "i2", "h2", "q"))
    }
    return Pooled(g=z / 10, z=z.copy(), **parts)


def _at(space: Space, *ijk: tuple[int, int, int]) -> np.ndarray:
    volume = np.zeros(space.shape)
    for voxel in ijk:
        volume[voxel] = 1
    return space.extract(volume) > 0


def test_the_seven_blobs_of_sdm_psi(enge2021):
    space = Space(2, np.asarray(nibabel.load(enge2021 / "sdm_mask.nii.gz").dataobj) != 0)
    folder = enge2021 / "mod1"

    def read(name: str) -> np.ndarray:
        return read_map(folder / f"{name}.nii.gz", space)

    z = read("mod1_z")
    p = tuple(1 - np.abs(read(f"corrp_voxel{side}")) for side in ("", "_neg"))
    pooled = Pooled(
        g=read("mod1_g"),
        se=np.sqrt(read("mod1_var")),
        z=z,
        tau2=read("mod1_tau2"),
        i2=read("mod1_h_i2"),
        h2=read("mod1_h_h2"),
        q=read("mod1_h_Q"),
    )
    passing = tuple(side <= 0.001 for side in p)
    for side, passed in zip(("", "_neg"), passing, strict=True):
        theirs = read(f"mod1_z_voxelCorrected_p_0.00100_50{side}") != 0
        np.testing.assert_array_equal(blobs(passed, space, 50) > 0, theirs)
    assert (blobs(passing[0], space, 1) > 0).sum() > (blobs(passing[0], space, 50) > 0).sum()

    rows = clusters_table(passing, p, pooled, space, _no_labels, k_min=50)
    found = [(r["x_mm"], r["y_mm"], r["z_mm"], round(r["sdm_z"], 3), r["voxels"]) for r in rows]
    assert found == [
        (-4, -4, 56, 7.561, 2834),
        (-46, 16, -10, 9.616, 2576),
        (-54, -52, 8, 7.128, 978),
        (48, 20, 4, 6.432, 497),
        (28, -46, -26, 6.587, 322),
        (-40, -66, 42, 6.077, 73),
        (-44, 4, 48, 6.212, 69),
    ]
    assert {r["side"] for r in rows} == {"positive"}
    assert [r["p"] for r in rows] == pytest.approx([0.001] * 7, abs=1e-6)
    for r in rows:
        assert r["mm3"] == 8 * r["voxels"]
        assert r["g"] / r["se"] == pytest.approx(r["sdm_z"], rel=1e-5)


def test_corners_join_and_gaps_do_not(cube):
    corner = _at(cube, (11, 11, 11), (12, 12, 12))
    gap = _at(cube, (16, 16, 16), (18, 16, 16))
    assert sorted(blobs(corner | gap, cube, 1)[corner | gap].tolist()) == [1, 1, 2, 3]
    assert (blobs(corner | gap, cube, 2) > 0).tolist() == corner.tolist()
    assert not blobs(corner | gap, cube, 3).any()
    assert not blobs(np.zeros(cube.n_voxels, bool), cube, 1).any()


def test_clusters_do_not_join_through_voxels_outside_the_mask():
    mask = np.zeros(SHAPES[4], bool)
    mask[5, 5, 5:8:2] = True
    space = Space(4, mask)
    assert blobs(np.ones(2, bool), space, 1).tolist() == [1, 2]


def test_rows_are_ordered_by_side_and_size_and_peak_at_the_largest_z(cube):
    small = _at(cube, (11, 11, 11), (11, 11, 12))
    large = _at(cube, (15, 15, 15), (15, 15, 16), (15, 15, 17))
    negative = _at(cube, (18, 11, 11), (18, 11, 12), (18, 12, 11), (18, 12, 12))
    z = np.zeros(cube.n_voxels)
    z[small], z[large] = (5, 6), (3, 3, 2)
    z[negative] = (-2, -3, -4, -3)
    p = np.linspace(0, 0.5, cube.n_voxels)
    rows = clusters_table(
        (small | large, negative),
        (p, 1 - p),
        _pooled(z),
        cube,
        lambda mm: [f"at {x:g} {y:g} {z:g}" for x, y, z in mm],
        k_min=2,
    )
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [r["cluster"] for r in rows] == [1, 2, 3]
    assert [r["side"] for r in rows] == ["positive", "positive", "negative"]
    assert [r["voxels"] for r in rows] == [3, 2, 4]
    assert [r["mm3"] for r in rows] == [192, 128, 256]
    assert [r["sdm_z"] for r in rows] == [3, 6, -4]
    assert [r["g"] for r in rows] == pytest.approx([0.3, 0.6, -0.4])
    assert [r["se"] for r in rows] == [0.5] * 3
    assert [r["i2"] for r in rows] == [2.5] * 3
    # The tie between the two 3s of the large cluster goes to the first in scan order.
    peaks = [np.flatnonzero(large)[0], np.flatnonzero(small)[1], np.flatnonzero(negative)[2]]
    for row, peak, side_p in zip(rows, peaks, (p, p, 1 - p), strict=True):
        x, y, w = cube.mm(np.array([peak]))[0]
        assert (row["x_mm"], row["y_mm"], row["z_mm"]) == (x, y, w)
        assert row["label"] == f"at {x:g} {y:g} {w:g}"
        assert row["p"] == side_p[peak]


def test_each_threshold_of_the_output_folder(cube):
    z = np.zeros(cube.n_voxels)
    many = _at(cube, *((x, y, 11) for x in range(11, 16) for y in range(11, 13)))  # 10 voxels
    few = _at(cube, *((x, 18, 18) for x in range(10, 19)))  # 9 voxels
    z[many], z[few] = 4, -4
    # At alpha as a float32 map holds it: 50 of 1000.
    p = np.where(many, np.float32(0.05), 1).astype(np.float32)
    p_neg = np.where(few, 0.001, 1)
    maps = {"p_fwe_tfce": p, "p_fwe_tfce_neg": p_neg, "p": p / 20, "p_neg": p_neg}
    tables = threshold_tables(maps, _pooled(z), cube, _no_labels)
    assert list(tables) == ["fwe-tfce-0.05", "uncorrected-0.0025"]
    for rows in tables.values():
        assert [(r["side"], r["voxels"]) for r in rows] == [("positive", 10)]
    assert threshold_tables({}, _pooled(z), cube, _no_labels) == {}


def test_thresholds_are_sharp():
    threshold = THRESHOLDS["uncorrected-0.0025"]
    p = np.array([0.0025, 0.0026, 0.001, 0.001])
    z = np.array([2.9, 2.9, 1.0, -3.0])
    assert threshold.passes(p, z).tolist() == [True, False, False, False]
    assert THRESHOLDS["fwe-tfce-0.05"].passes(np.array([0.05, 0.051]), z[:2]).tolist() == [
        True,
        False,
    ]
