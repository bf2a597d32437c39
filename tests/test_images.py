"""Studies that supply a whole map: found, converted to g, resampled."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from image_projects import effects_of, project, save, small_space, smooth_t
from projects import write_project
from reference_data import hedges
from scipy import stats
from scipy.ndimage import affine_transform

import gpu_sdm
from gpu_sdm.errors import InputError
from gpu_sdm.io.image_effects import has_data, resampling, t_of_z
from gpu_sdm.spaces import SHAPES, Space, grid_affine
from gpu_sdm.stages.images import image_effects
from gpu_sdm.templates import default_mask

# Sizes of the samples, from NeuroVault_studies.txt.
CUTLER = {
    "Park_2017": 23, "Chang_2011": 17, "Bang_2018": 32, "Fleming_2018": 22, "Tom_2007": 16,
    "Op_de_Macks_2018": 78,
}  # fmt: skip
GRID = dict.fromkeys(("Chang_2011", "Tom_2007", "Op_de_Macks_2018"), "none")
GRID |= {"Park_2017": "linear", "Bang_2018": "voxels picked", "Fleming_2018": "voxels picked"}


@pytest.mark.parametrize("df", [3, 10, 30, 1000])
def test_z_becomes_the_t_of_the_same_p(df):
    z = np.linspace(-8, 8, 161)
    p = stats.norm.sf(np.abs(z))
    np.testing.assert_allclose(t_of_z(z, df), np.copysign(stats.t.isf(p, df), z), rtol=1e-9)
    far = t_of_z(np.linspace(0, 38, 400), df)
    assert np.isfinite(far).all()
    assert (np.diff(far) > 0).all()  # also where one method takes over from the other
    assert np.isnan(t_of_z(np.array([np.nan]), df)).all()


def test_far_z_keeps_its_digits():
    """Checked with mpmath, 40 digits: log upper tails of t and z agree to 1e-12 absolutely."""
    known = {
        (10, 30): 1.3801553873864214e20,
        (10, 38): 9.183030552511111e31,
        (77, 38): 105612.04940335914,
        (1000, 38): 56.92373100938547,
        (20000, 60): 62.80488354940688,
    }
    for (df, z), t in known.items():
        np.testing.assert_allclose(t_of_z(np.array([z, -z]), df), [t, -t], rtol=1e-12)


def test_effects_are_those_of_aes_sdm(cutler2021, tmp_path, capsys):
    """AES-SDM took the one z map for a t map (ratio to the file J sqrt(1/n)), so here it is one.

    Its g maps are 0 in 3.6-5.6 % of its mask whatever the image holds; its variance maps are not.
    """
    folder = project(tmp_path, [f"{s}\t{n}\tt" for s, n in CUTLER.items()])
    for name in CUTLER:
        shutil.copy(cutler2021 / "images" / f"{name}.nii.gz", folder)
    variances = {
        s: nib.load(cutler2021 / f"pp/pp_{s}_var.nii.gz").get_fdata(dtype=np.float32)
        for s in CUTLER
    }
    space = Space(2, variances["Tom_2007"] > 0)
    assert space.n_voxels == 193_768
    dataset = gpu_sdm.read(folder)
    g, notices = image_effects(dataset.studies, space)
    assert {n.kind for n in notices} == {"image_missing_voxels", "image_resampled"}
    for ours, (name, n) in zip(g, CUTLER.items(), strict=True):
        theirs = nib.load(cutler2021 / f"pp/pp_{name}.nii.gz").get_fdata(dtype=np.float32)
        theirs, variance = space.extract(theirs), space.extract(variances[name])
        _, c, v2, _ = hedges(np.array(float(n)))
        there = np.isfinite(ours)
        both = there & (theirs != 0)
        error = np.abs(ours - theirs)[both]
        error_v = np.abs(c + v2 * ours**2 - variance)[there]
        image = nib.load(folder / f"{name}.nii.gz")
        file = next(s.image for s in dataset.studies if s.name == name)
        assert resampling(file, space) == GRID[name]
        if GRID[name] != "linear":
            assert error.max() < 1e-4
            assert error_v.max() < 1e-4
            continue
        r, rmse = np.corrcoef(ours[both], theirs[both])[0, 1], np.sqrt((error**2).mean())
        with capsys.disabled():
            print(f"\n{name}: r {r:.5f} rmse {rmse:.4f}, {(error < 1e-4).mean():.4f} within 1e-4")
        assert r > 0.998
        assert rmse < 0.02
        # The rest lies at the edge, where AES-SDM takes what has no data as 0.
        to_image = np.linalg.inv(image.affine) @ space.affine
        share = affine_transform(
            has_data(image.get_fdata()).astype(float), to_image[:3, :3], to_image[:3, 3], SHAPES[2],
            order=1,
        )  # fmt: skip
        share = space.extract(share)[both]
        assert 0.9 < (share > 1 - 1e-9).mean() < 1
        np.testing.assert_allclose(ours[both] * share, theirs[both], atol=1e-4)


def test_a_z_map_is_not_a_t_map(cutler2021, tmp_path):
    for kind in "tz":
        shutil.copy(cutler2021 / "images" / "Chang_2011.nii.gz", tmp_path / f"{kind}.nii.gz")
    g, _ = effects_of(project(tmp_path, ["t\t17\tt", "z\t17\tz"]), Space(4, default_mask(4)))
    of_t, of_z = g.astype(float)
    j, c, _, df = hedges(np.array(17.0))
    z = of_t / (j * np.sqrt(c))
    t = np.copysign(stats.t.isf(stats.norm.sf(np.abs(z)), df), z)
    np.testing.assert_allclose(of_z, j * np.sqrt(c) * t, atol=2e-6)
    assert (np.abs(of_z) >= np.abs(of_t) - 1e-6).all()


def test_what_aes_sdm_preprocessed_can_be_read(cutler2021, tmp_path):
    folder = project(tmp_path, ["Tom_2007\t16\tg", "Bang_2018\t32\tg"])
    for name in ("Tom_2007", "Bang_2018"):
        for end in ("", "_var"):
            shutil.copy(cutler2021 / "pp" / f"pp_{name}{end}.nii.gz", folder)
    space = Space(4, default_mask(4))
    dataset = gpu_sdm.read(folder)
    assert len(dataset.sha256) == 5
    g, notices = effects_of(folder, space)
    assert "image_variance_differs" not in {n.kind for n in notices}
    theirs = nib.load(folder / "pp_Tom_2007.nii.gz").get_fdata()[::2, ::2, ::2]
    there = np.isfinite(g[0])
    assert 0.85 < there.mean() < 1
    np.testing.assert_array_equal(g[0][there], space.extract(theirs)[there].astype(np.float32))

    (folder / "sdm_table.txt").write_text("study\tn1\nTom_2007\t16\nBang_2018\t32\n")
    with pytest.raises(InputError, match="which AES-SDM may have made from peaks"):
        gpu_sdm.read(folder)


def test_orientation_does_not_matter(tmp_path, rng):
    """The same map stored along other axes and directions, with an affine that says so."""
    values, affine = smooth_t(rng), grid_affine(4)
    turned = {"a": (values, affine)}
    flip = affine.copy()
    flip[0, 0], flip[0, 3] = -affine[0, 0], affine[0, 3] + affine[0, 0] * (values.shape[0] - 1)
    turned["b"] = (values[::-1], flip)
    turned["c"] = (values.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])
    turned["d"] = (np.pad(values, 3), affine @ nib.affines.from_matvec(np.eye(3), [-3, -3, -3]))
    turned["e"] = (values[..., None], affine)  # four axes, one volume
    for name, (data, where) in turned.items():
        save(tmp_path / f"{name}.nii.gz", data, where)
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "f.nii")  # compressed whatever it is called
    project(tmp_path, [f"{s}\t20\t" for s in (*turned, "f")])
    space = small_space()
    g, notices = effects_of(tmp_path, space)
    assert notices == ()
    j, c, _, _ = hedges(np.array(20.0))
    np.testing.assert_allclose(g[0], j * np.sqrt(c) * space.extract(values), rtol=1e-6)
    for row in g[1:]:
        np.testing.assert_array_equal(row, g[0])


def test_oblique_maps_are_resampled_as_by_nilearn(tmp_path, rng):
    from nilearn.image import resample_img

    values = smooth_t(rng)
    turn = nib.eulerangles.euler2mat(0.2, -0.1, 0.3)
    affine = nib.affines.from_matvec(turn @ np.diag([-3.1, 3.7, 4.3]), [80, -110, -60])
    save(tmp_path / "a.nii.gz", values, affine)
    save(tmp_path / "b.nii.gz", values)
    project(tmp_path, ["a\t20\tg", "b\t20\tg"])
    space = small_space()
    g, notices = effects_of(tmp_path, space)
    assert [n.kind for n in notices] == ["image_resampled"]
    assert "46 x 55 x 46 voxels of 3.1 x 3.7 x 4.3 mm; g was interpolated" in notices[0].message
    wanted = resample_img(
        nib.Nifti1Image(values, affine), grid_affine(4), SHAPES[4], "linear", copy_header=True,
        force_resample=True,
    )  # fmt: skip
    np.testing.assert_allclose(g[0], space.extract(wanted.get_fdata()), atol=2e-5)


def test_g_and_not_z_is_interpolated(tmp_path, rng):
    values = 3 * smooth_t(rng)
    shifted = grid_affine(4)
    shifted[0, 3] += 2  # half a voxel
    save(tmp_path / "a.nii.gz", values, shifted)
    save(tmp_path / "b.nii.gz", values)
    project(tmp_path, ["a\t9\tz", "b\t9\tz"])
    space = small_space()
    (between, at), _ = effects_of(tmp_path, space)
    x, y, z = space.ijk().T
    j, c, _, df = hedges(np.array(9.0))
    g = j * np.sqrt(c) * np.copysign(stats.t.isf(stats.norm.sf(np.abs(values)), df), values)
    np.testing.assert_allclose(at, g[x, y, z], rtol=1e-5, atol=1e-6)
    # x falls along the axis: what lies half a voxel up is between this voxel and the next
    np.testing.assert_allclose(between, (g[x, y, z] + g[x + 1, y, z]) / 2, rtol=1e-5, atol=1e-5)


def test_less_than_half_is_missing_and_the_rest_is_not_diluted(tmp_path, rng):
    values, middle = smooth_t(rng), SHAPES[4][0] // 2
    values[middle] = np.nan
    quarter, half = grid_affine(4), grid_affine(4)
    quarter[0, 3] += 1
    half[0, 3] += 2
    for name, affine in (("a", quarter), ("b", half)):
        save(tmp_path / f"{name}.nii.gz", values, affine)
    project(tmp_path, ["a\t20\tg", "b\t20\tg"])
    space = small_space()
    (at_quarter, at_half), notices = effects_of(tmp_path, space)
    x, y, z = space.ijk().T
    # a quarter of the way to the next voxel up the axis
    assert np.isnan(at_quarter[x == middle]).all()
    lone = x == middle - 1
    np.testing.assert_allclose(at_quarter[lone], values[x[lone], y[lone], z[lone]], rtol=1e-6)
    assert np.isfinite(at_half).all()  # exactly half is there
    np.testing.assert_allclose(at_half[x == middle], values[middle + 1][y, z][x == middle], 1e-6)
    gone = next(n for n in notices if n.kind == "image_missing_voxels")
    assert f"{(x == middle).sum()} of {space.n_voxels} voxels" in gone.message.replace(",", "")


def test_zeros_of_the_background_are_no_data():
    values = np.ones((12, 12, 12), np.float32)
    values[5, 5, 5] = 0  # one value that happens to be 0
    values[2:4, 2:4, 2:4] = 0  # a hole
    values[:, :, 0] = 0  # the edge
    values[8, 8, 8], values[9, 9, 9] = np.nan, np.inf
    there = has_data(values)
    assert there[5, 5, 5]
    assert not there[2:4, 2:4, 2:4].any()
    assert not there[:, :, 0].any()
    assert not there[8, 8, 8] | there[9, 9, 9]
    assert (~there).sum() == 8 + 144 + 2


def test_kinds(tmp_path, rng):
    t = smooth_t(rng)
    j, c, v2, _ = hedges(np.array(14.0), np.array(11.0))
    se = np.exp(rng.normal(0, 0.3, t.shape))
    g = j * np.sqrt(c) * t
    save(tmp_path / "a.nii.gz", t)
    save(tmp_path / "b.nii.gz", g)
    save(tmp_path / "b_var.nii.gz", c + v2 * g**2)
    save(tmp_path / "c.nii.gz", g / j)
    save(tmp_path / "c_var.nii", 1.3 * (c + v2 * g**2) / j**2)
    save(tmp_path / "d.nii", t * se)
    save(tmp_path / "d_se.nii.gz", se)
    rows = [f"{s}\t14\t11\t{k}" for s, k in zip("abcd", ("", "g", "D", "contrast"), strict=True)]
    project(tmp_path, rows, "study\tn1\tn2\tImage")
    dataset = gpu_sdm.read(tmp_path)
    assert [s.image.kind for s in dataset.studies] == ["t", "g", "d", "contrast"]
    assert np.isnan([s.t_threshold for s in dataset.studies]).all()
    assert len(dataset.sha256) == 1 + 7
    space = small_space()
    ours, notices = effects_of(tmp_path, space)
    for row in ours:
        np.testing.assert_allclose(row, space.extract(g), rtol=2e-6, atol=1e-7)
    (only,) = notices
    assert only.kind == "image_variance_differs"
    assert only.message.startswith("c.nii.gz: its variance is 1.3 times (median) that of the n")


def test_a_companion_marks_what_is_missing(tmp_path, rng):
    t, se = smooth_t(rng), np.ones(SHAPES[4], np.float32)
    space = small_space()
    se[tuple(space.ijk()[:7].T)] = (0, -1, np.nan, np.inf, 0, 0, 0)
    for name in "ab":
        save(tmp_path / f"{name}.nii.gz", t)
        save(tmp_path / f"{name}_se.nii.gz", se)
    project(tmp_path, ["a\t14\tcontrast", "b\t14\tcontrast"])
    g, _ = effects_of(tmp_path, space)
    assert np.isnan(g[:, :7]).all()
    assert np.isfinite(g[:, 7:]).all()


def test_doubts(tmp_path, rng):
    t = smooth_t(rng)
    save(tmp_path / "a.nii.gz", np.where(np.abs(t) > 2.3, t, 0))
    save(tmp_path / "b.nii.gz", stats.norm.sf(t))
    save(tmp_path / "c.nii.gz", t)
    save(tmp_path / "c_var.nii.gz", np.ones_like(t))
    project(tmp_path, ["a\t20\t", "b\t20\tt", "c\t20\tz"])
    dataset = gpu_sdm.read(tmp_path)
    (unused,) = dataset.notices
    assert unused.kind == "companion_unused"
    assert unused.message.startswith("c_var.nii.gz is not used, as c.nii.gz is read as z;")
    kinds = [n.kind for n in effects_of(tmp_path, small_space())[1]]
    assert kinds == ["image_missing_voxels", "image_thresholded", "image_not_statistic"]


def test_column_image_may_still_be_a_covariate(tmp_path, rng):
    for name in "ab":
        save(tmp_path / f"{name}.nii.gz", smooth_t(rng))
    project(tmp_path, ["a\t20\t1", "b\t20\t0"])
    studies = gpu_sdm.read(tmp_path).studies
    assert [s.covariates["image"] for s in studies] == [1, 0]
    assert [s.image.kind for s in studies] == ["t", "t"]
    peaks = write_project(tmp_path / "peaks", 2, covariate=False)
    table = (peaks / "sdm_table.txt").read_text().splitlines()
    lines = [table[0] + "\timage", *(f"{row}\tscan{i}.png" for i, row in enumerate(table[1:]))]
    (peaks / "sdm_table.txt").write_text("\n".join(lines))
    assert gpu_sdm.read(peaks).counts() == {}  # as ever without images
