import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from gpu_sdm import cache, templates
from gpu_sdm.config import Settings
from gpu_sdm.errors import InputError, SpaceError
from gpu_sdm.io.volumes import (
    load_space,
    load_template,
    read_bounds,
    read_mask,
    save_template,
)
from gpu_sdm.spaces import SHAPES, Space, grid_affine


def write(path, data, affine=None, voxel_size=4):
    nib.save(nib.Nifti1Image(data, grid_affine(voxel_size) if affine is None else affine), path)
    return path


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_default_mask_is_that_of_the_design_and_near_sdms(enge2021):
    mask = templates.default_mask(2)
    assert mask.sum() == 194_192
    real = read_mask(enge2021 / "sdm_mask.nii.gz", 2)
    assert real.sum() == 193_768
    assert dice(mask, real) == pytest.approx(0.9254, abs=5e-5)
    # and the same voxels on the other grids
    for size in (3, 4):
        coarse = templates.default_mask(size)
        assert coarse.sum() * size**3 == pytest.approx(194_192 * 8, rel=0.02)
        near = read_mask(enge2021 / "sdm_mask.nii.gz", size)
        assert dice(coarse, near) > 0.91


def test_adjacent_correlations_are_those_of_the_design():
    """Means and 5-95 % over the mask, template.md section 4."""
    template, mask = templates.default_template(2), templates.default_mask(2)
    assert template.domain.sum() == 298_663
    inside = mask.ravel(order="F")
    assert (template.domain & inside).sum() > 0.998 * inside.sum()
    wanted = [(0.9726, 0.954, 0.986), (0.9777, 0.962, 0.988), (0.9752, 0.958, 0.987)]
    for axis, (mean, low, high) in enumerate(wanted):
        r = template.r_face[inside, axis]
        r = r[r > 0]
        assert r.mean() == pytest.approx(mean, abs=2e-4)
        assert np.percentile(r, [5, 95]) == pytest.approx([low, high], abs=1e-3)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_links_join_domain_voxels_only_and_never_wrap(size):
    template = templates.default_template(size)
    domain = template.domain.reshape(template.shape, order="F")
    for axis in range(3):
        assert not np.moveaxis(domain, axis, 0)[[0, -1]].any()
    for column, offset in enumerate(templates.OFFSETS):
        linked = np.isfinite(template.costs[:, column]).reshape(template.shape, order="F")
        both = domain & np.roll(domain, tuple(-offset), (0, 1, 2))
        assert (linked == both).all()
    finite = template.costs[np.isfinite(template.costs)]
    assert finite.min() > 0
    assert finite.max() < 40


def test_r_face_is_the_correlation_with_the_neighbour_below():
    template = templates.default_template(4)
    costs = template.costs.reshape((*template.shape, 13), order="F")
    faces = template.r_face.reshape((*template.shape, 3), order="F")
    for axis, column in enumerate([8, 2, 0]):  # (1,0,0), (0,1,0), (0,0,1)
        step = np.eye(3, dtype=int)[axis]
        assert (templates.OFFSETS[column] == step).all()
        i, j, k = np.argwhere(faces[..., axis] > 0)[::97].T
        here = costs[i - step[0], j - step[1], k - step[2], column].astype(float)
        sigma = 20 / np.sqrt(8 * np.log(2))
        np.testing.assert_allclose(
            faces[i, j, k, axis], np.exp(-(here**2) / (2 * sigma**2)), rtol=1e-6
        )


def test_the_second_run_takes_the_cache_and_leaves_nilearn_alone():
    first = templates.default_template(4), templates.default_mask(4)
    assert {"template", "mask"} <= {e.kind for e in cache.entries()}
    code = (
        "import sys; from gpu_sdm import templates as t; "
        "d = t.default_template(4).digest(); m = t.default_mask(4).sum(); "
        "assert 'nilearn' not in sys.modules; print(d, m)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == [first[0].digest(), str(first[1].sum())]


def test_a_template_file_makes_the_round_trip(tmp_path):
    template = templates.default_template(4)
    save_template(template, tmp_path / "t.nii.gz")
    image = nib.load(tmp_path / "t.nii.gz")
    assert image.shape == (*SHAPES[4], 13)
    back = load_template(tmp_path / "t.nii.gz", 4)
    assert (np.isfinite(back.costs) == np.isfinite(template.costs)).all()
    ok = np.isfinite(back.costs)
    np.testing.assert_allclose(back.costs[ok], template.costs[ok], rtol=2e-5)
    # The written volume i is the correlation with OFFSETS[i], in array steps.
    v, column = np.array([20, 30, 20]), 5
    flat = np.ravel_multi_index(v, SHAPES[4], order="F")
    r = np.asarray(image.dataobj)[(*v, column)]
    cost = np.sqrt(2 * np.log(1 / float(r))) * 20 / np.sqrt(8 * np.log(2))
    assert cost == pytest.approx(template.costs[flat, column], rel=1e-4)
    assert back.digest() != templates.default_template(2).digest()


def test_bad_templates_are_named(tmp_path):
    good = np.full((*SHAPES[4], 13), 0.9, np.float32)
    cases = [
        (good[..., :12], None, SpaceError, "correlations with 13 neighbours"),
        (good[..., 0], None, InputError, "3 axes"),
        (good, grid_affine(3), SpaceError, "analysis grid is"),
        (np.full((*SHAPES[3], 13), 0.9, np.float32), grid_affine(3), SpaceError, "shape"),
        (good * 0, None, SpaceError, "links no voxel"),
    ]
    for value, word in ((np.nan, "nan"), (1.5, "1.5")):
        data = good.copy()
        data[10, 11, 12, 3] = value
        cases.append((data, None, SpaceError, rf"{word} at MNI \(50, -82, -24\), map 4"))
    for data, affine, error, words in cases:
        path = write(tmp_path / "t.nii", data, affine)
        with pytest.raises(error, match=words) as raised:
            load_template(path, 4)
        assert "t.nii" in str(raised.value)


def test_a_mask_of_another_grid_is_taken_to_the_nearest_voxel(tmp_path):
    """The same box on a 1 mm RAS grid, a shifted oblique one, and the grid itself."""
    box = np.zeros(SHAPES[4], bool)
    box[12:20, 20:31, 10:17] = True
    own = read_mask(write(tmp_path / "own.nii.gz", box.astype(np.uint8)), 4)
    assert (own == box).all()
    corner = grid_affine(4) @ [19.5, 19.5, 9.5, 1]  # lowest x, y, z of the box in mm
    size_mm = 4 * np.array([8, 11, 7])
    fine = np.zeros(size_mm + 6, np.float32)
    fine[3:-3, 3:-3, 3:-3] = 0.5
    affine = np.eye(4)
    affine[:3, 3] = corner[:3] + 0.5 - 3
    again = read_mask(write(tmp_path / "ras.nii.gz", fine, affine), 4)
    assert (again == box).all()


def test_default_and_file_masks_make_a_space(tmp_path):
    space = load_space(Settings(voxel_size=4))
    assert (space.mask == templates.default_mask(4)).all()
    path = write(tmp_path / "m.nii.gz", np.ones((*SHAPES[4], 1), np.float32))  # trailing axis
    assert load_space(Settings(voxel_size=4, mask=path)).n_voxels == np.prod(SHAPES[4])


def test_bad_masks_are_named(tmp_path):
    ones = np.ones(SHAPES[4], np.float32)
    far = grid_affine(4)
    far[:3, 3] = 5000
    flat = grid_affine(4)
    flat[0, 0] = 0
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    cut = tmp_path / "cut.nii.gz"
    rng = np.random.default_rng(0)
    write(cut, rng.random(SHAPES[4], np.float32))
    cut.write_bytes(cut.read_bytes()[:5000])
    cases = [
        (tmp_path / "none.nii.gz", InputError, "no such file"),
        (text, InputError, "is not a NIfTI image"),
        (cut, InputError, "cannot be unpacked .* damaged or cut short"),
        (write(tmp_path / "4d.nii", np.stack([ones] * 2, -1)), InputError, "4 axes"),
        (write(tmp_path / "zero.nii", ones * 0), InputError, "empty"),
        (write(tmp_path / "nan.nii", ones * np.nan), InputError, "empty"),
        (write(tmp_path / "far.nii", ones, far), SpaceError, "does not overlap"),
    ]
    for path, error, words in cases:
        with pytest.raises(error, match=words) as raised:
            read_mask(path, 4)
        assert path.name in str(raised.value)


def test_sdms_bound_maps_are_read_and_cover_its_mask(enge2021):
    """All voxels of the grid are asked for; those that SDM-PSI analysed come back."""
    names = ["chou2006b", "krishnan2021", "backes2002"]
    everywhere = Space(2, np.ones(SHAPES[2], bool))
    space, bounds = read_bounds(enge2021 / "pp", names, everywhere)
    sdms = read_mask(enge2021 / "sdm_mask.nii.gz", 2)
    assert (space.mask == sdms).all()
    assert bounds.lower.shape == bounds.upper.shape == (3, 193_768)
    assert (bounds.lower <= bounds.upper).all()
    width = bounds.upper - bounds.lower
    assert ((width == 0) | (width > 1e-3)).all()  # rounding noise of SDM-PSI's float32 is gone
    assert ((width == 0).sum(axis=1) > 20).all()
    raw = nib.load(enge2021 / "pp" / "krishnan2021_upper.nii.gz").get_fdata(dtype=np.float32)
    np.testing.assert_allclose(bounds.upper[1], space.extract(raw), atol=1e-5)
    smaller, _ = read_bounds(enge2021 / "pp", names[:1], Space(2, templates.default_mask(2)))
    assert (smaller.mask == (sdms & templates.default_mask(2))).all()


def test_bad_bound_maps_are_named(tmp_path):
    space = Space(4, templates.default_mask(4))
    low, high = np.full(SHAPES[4], -0.5, np.float32), np.full(SHAPES[4], 0.5, np.float32)
    i, j, k = space.ijk()[1000]
    x, y, z = (int(c) for c in space.mm(np.array([1000]))[0])

    def folder(lower=low, upper=high, affine=None):
        write(tmp_path / "a_lower.nii.gz", lower, affine)
        write(tmp_path / "a_upper.nii.gz", upper, affine)
        return tmp_path

    def with_value(volume, value):
        changed = volume.copy()
        changed[i, j, k] = value
        return changed

    same, bounds = read_bounds(folder(), ["a"], space)
    assert same.n_voxels == space.n_voxels
    assert (bounds.upper == 0.5).all()
    with pytest.raises(SpaceError, match="0 in the whole mask"):
        read_bounds(folder(low * 0, high * 0), ["a"], space)
    with pytest.raises(InputError, match=r"2 of 4 bound maps are missing, the first is b_lower"):
        read_bounds(tmp_path, ["a", "b"], space)
    with pytest.raises(InputError, match="no such folder"):
        read_bounds(tmp_path / "none", ["a"], space)
    where = rf"a at MNI \({x}, {y}, {z}\), 1 voxel"
    with pytest.raises(Exception, match=rf"bound maps of {where}.* NaN"):
        read_bounds(folder(lower=with_value(low, np.nan)), ["a"], space)
    with pytest.raises(InputError, match=rf"lower limit 0\.6 exceeds the upper 0\.5: {where}"):
        read_bounds(folder(lower=with_value(low, 0.6)), ["a"], space)
    with pytest.raises(SpaceError, match=r"a_lower.nii.gz: the bound map has shape"):
        read_bounds(folder(affine=grid_affine(3)), ["a"], space)
