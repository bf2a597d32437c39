"""Files out: values, headers, bytes, and what is left when writing fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gpu_sdm.errors import InputError, OutputError, SpaceError
from gpu_sdm.io.nifti import MAPS, read_map, write_map, write_named_map
from gpu_sdm.io.tables import read_maxima, write_bytes, write_json, write_maxima, write_tsv
from gpu_sdm.spaces import SHAPES, Space

CONTRACT = (
    "g se z score p p_neg log_p log_p_neg tau2 i2 h2 q mask "
    "p_fwe_voxel p_fwe_voxel_neg p_fwe_voxel_two_sided "
    "tfce tfce_neg p_fwe_tfce p_fwe_tfce_neg p_fwe_tfce_two_sided "
    "p_fwe_cluster_extent p_fwe_cluster_extent_neg p_fwe_cluster_extent_two_sided "
    "p_fwe_cluster_mass p_fwe_cluster_mass_neg p_fwe_cluster_mass_two_sided"
)


@pytest.fixture
def space() -> Space:
    mask = np.zeros(SHAPES[4], bool)
    mask[10:20, 15:20, 12:16] = True
    mask[12, 16, 13] = False
    return Space(4, mask)


def test_the_maps_are_those_of_the_contract():
    assert set(MAPS) == set(CONTRACT.split())
    for name, kind in MAPS.items():
        assert kind.fill == (1 if name.split("_")[0] == "p" else 0), name


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_read_by_others_as_it_was_written(tmp_path, space, rng, name):
    values = rng.random(space.n_voxels).astype(np.float32)
    path = write_named_map(tmp_path, name, values, space)
    assert [p.name for p in tmp_path.iterdir()] == [f"{name}.nii.gz"]
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.float32
    assert image.shape == space.shape
    for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        np.testing.assert_allclose(matrix, space.affine, atol=1e-6)
        assert code == 4
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header.get_intent()[0] == MAPS[name].intent
    assert image.header["descrip"].item().decode() == MAPS[name].description
    volume = np.asarray(image.dataobj)
    np.testing.assert_array_equal(volume[space.mask], space.embed(values)[space.mask])
    assert (volume[~space.mask] == MAPS[name].fill).all()
    np.testing.assert_array_equal(read_map(path, space), values)


def test_equal_maps_are_equal_files(tmp_path, space, rng, monkeypatch):
    values = rng.standard_normal(space.n_voxels)
    write_map(tmp_path / "one.nii.gz", values, space)
    monkeypatch.setattr("time.time", lambda: 1.9e9)
    write_map(tmp_path / "two.nii.gz", values, space)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    write_map(tmp_path / "two.nii.gz", -values, space)
    assert (tmp_path / "one.nii.gz").read_bytes() != (tmp_path / "two.nii.gz").read_bytes()


def test_a_mask_of_bools_becomes_ones(tmp_path, space):
    path = write_named_map(tmp_path, "mask", np.ones(space.n_voxels, bool), space)
    assert np.asarray(nibabel.load(path).dataobj).sum() == space.n_voxels


def test_maps_that_cannot_be_used(tmp_path, space):
    (tmp_path / "text.nii.gz").write_text("no image")
    for name, said in (("absent", "there is no such file"), ("text", "is not a NIfTI image")):
        with pytest.raises(InputError, match=f"{name}.nii.gz: {said}"):
            read_map(tmp_path / f"{name}.nii.gz", space)
    whole = write_named_map(tmp_path, "g", np.zeros(space.n_voxels), space)
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_map(tmp_path / "cut.nii.gz", space)
    other = Space(3, np.ones(SHAPES[3], bool))
    with pytest.raises(SpaceError, match=r"\(61, 73, 61\) at 3 mm"):
        read_map(whole, other)
    shifted = nibabel.Nifti1Image(np.zeros(space.shape, np.float32), space.affine + np.eye(4))
    nibabel.save(shifted, tmp_path / "shifted.nii.gz")
    with pytest.raises(SpaceError, match="another grid"):
        read_map(tmp_path / "shifted.nii.gz", space)
    with pytest.raises(ValueError, match="79 bytes"):
        write_map(tmp_path / "long.nii.gz", np.zeros(space.n_voxels), space, description="x" * 80)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for broken in ("os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, full)
            with pytest.raises(OutputError, match=r"file\.json cannot be written: No space left"):
                write_json(path, {"a": 2})
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["file.json"]  # noqa: PTH208
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(tmp_path / "no" / "such" / "folder", b"")
    with pytest.raises(OutputError, match="cannot be written: Not a directory; choose a folder"):
        write_bytes(path / "in a file", b"")


def test_tsv_floats_read_back_equal(tmp_path, rng):
    double = rng.standard_normal(2000) * 10.0 ** rng.integers(-20, 20, 2000)
    single = double.astype(np.float32)
    path = tmp_path / "t.tsv"
    write_tsv(path, ["double", "single"], zip(double, single, strict=True))
    header, *lines = path.read_text().splitlines()
    assert header == "double\tsingle"
    read = np.array([[float(cell) for cell in line.split("\t")] for line in lines])
    np.testing.assert_array_equal(read[:, 0], double)
    np.testing.assert_array_equal(read[:, 1].astype(np.float32), single)


def test_tsv_of_all_sorts_of_values(tmp_path):
    path = tmp_path / "t.tsv"
    columns = ["text", "whole", "flag", "number", "none"]
    rows = [
        {"text": "a\tb\n c", "whole": 3, "flag": True, "number": 0.1, "none": None, "unused": 1},
        ["", np.int64(-4), np.bool_(False), np.float32(0.1), np.nan],
    ]
    write_tsv(path, columns, rows)
    assert path.read_bytes().decode() == (
        "text\twhole\tflag\tnumber\tnone\na b c\t3\ttrue\t0.1\tn/a\n\t-4\tfalse\t0.1\tn/a\n"
    )
    write_tsv(path, columns, [])
    assert path.read_text() == "\t".join(columns) + "\n"
    with pytest.raises(ValueError, match="has 1 values, not 5"):
        write_tsv(path, columns, [[1]])


def test_json_of_numpy_values_keeps_its_order(tmp_path):
    path = tmp_path / "run.json"
    content = {
        "z": np.float32(0.5),
        "a": np.int16(3),
        "list": [np.bool_(True), (1, np.nan)],
        "array": np.arange(3),
        "nested": {"path": Path("x") / "y", "infinite": float("inf"), 5: "é"},
    }
    write_json(path, content)
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n  "z": 0.5,\n  "a": 3,\n')
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "z": 0.5,
        "a": 3,
        "list": [True, [1, None]],
        "array": [0, 1, 2],
        "nested": {"path": str(Path("x") / "y"), "infinite": None, "5": "é"},
    }
    with pytest.raises(TypeError):
        write_json(path, {"set": {1, 2}})


@pytest.fixture
def maxima(rng) -> dict[str, np.ndarray]:
    return {
        "voxel": (4 + rng.standard_normal((2, 5000))).astype(np.float32),
        "tfce": rng.gamma(2, 4000, (2, 5000)),
        "cluster-extent": rng.integers(0, 3000, (2, 5000)).astype(np.float64),
        "cluster-mass": rng.gamma(2, 300, (2, 5000)),
    }


@pytest.mark.parametrize(
    "statistics",
    [
        ("voxel",),
        ("tfce",),
        ("voxel", "tfce"),
        ("cluster-mass",),
        ("voxel", "cluster-extent"),
        ("voxel", "tfce", "cluster-extent", "cluster-mass"),
    ],
)
def test_maxima_read_back_to_the_bit(tmp_path, maxima, statistics):
    path = tmp_path / "maxima.tsv"
    given = {s: maxima[s] for s in reversed(statistics)}
    write_maxima(path, given)
    names = {
        "voxel": ["max_z", "max_neg_z"],
        "tfce": ["max_tfce", "max_neg_tfce"],
        "cluster-extent": ["max_extent", "max_neg_extent"],
        "cluster-mass": ["max_mass", "max_neg_mass"],
    }
    header = path.read_text().splitlines()[0].split("\t")
    assert header == ["permutation", *(name for s in statistics for name in names[s])]
    read = read_maxima(path, statistics)
    assert tuple(read) == statistics == tuple(read_maxima(path))
    for s in statistics:
        assert read[s].dtype == maxima[s].dtype
        assert read[s].tobytes() == maxima[s].tobytes()
    again = tmp_path / "again.tsv"
    write_maxima(again, read)
    assert again.read_bytes() == path.read_bytes()


def test_maxima_that_would_not_read_back_are_refused(tmp_path, maxima):
    path = tmp_path / "maxima.tsv"
    for wrong in (
        {"voxel": maxima["tfce"]},
        {"voxel": np.full((2, 3), np.nan, np.float32)},
        {"extent": maxima["voxel"]},
        {},
    ):
        with pytest.raises(ValueError, match="maxima"):
            write_maxima(path, wrong)
    assert not path.exists()


GOOD = "permutation\tmax_z\tmax_neg_z\n0\t9.5\t4.25\n1\t3.5\t3.75\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cut short"),
        (GOOD[:-1], "cut short"),
        (GOOD[:-3], "cut short"),
        (GOOD.replace("max_neg_z", "min_z"), ":1: the header is"),
        (GOOD.replace("permutation", "row"), ":1: the header is"),
        (GOOD.splitlines(keepends=True)[0], "no permutation"),
        (GOOD.replace("\n1\t", "\n2\t"), ":3: wanted permutation 1 and 2 values"),
        (GOOD.replace("\t4.25", ""), ":2: wanted permutation 0 and 2 values"),
        (GOOD + "\n", ":4: wanted permutation 2"),
        (GOOD.replace("3.75", "3.7.5"), ":3: .* no number"),
        (GOOD.replace("9.5", "nan"), ":2: .* not finite"),
        (GOOD.replace("9.5", "inf"), ":2: .* not finite"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_damaged_maxima(tmp_path, text, message):
    path = tmp_path / "maxima.tsv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_maxima(path)


def test_maxima_of_another_statistic_or_absent(tmp_path):
    path = tmp_path / "maxima.tsv"
    with pytest.raises(InputError, match="cannot be read"):
        read_maxima(path)
    path.write_text(GOOD)
    np.testing.assert_array_equal(read_maxima(path)["voxel"], [[9.5, 3.5], [4.25, 3.75]])
    with pytest.raises(InputError, match="max_tfce"):
        read_maxima(path, ("voxel", "tfce"))
