"""Templates made of subjects' maps: the numbers, the files, and the analysis that uses them."""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from projects import write_mask, write_project
from scipy import ndimage
from template_maps import INNER, fields, run, write_image, write_subjects

from gpu_sdm import template_build as tb
from gpu_sdm.io.subject_maps import find_images
from gpu_sdm.io.volumes import load_template, save_template
from gpu_sdm.spaces import SHAPES, grid_affine
from gpu_sdm.stages.template import DIRECTIONS, AdjacentMoments
from gpu_sdm.templates import OFFSETS


@pytest.fixture
def subjects(tmp_path):
    return write_subjects(tmp_path / "subjects")


def test_moments_are_those_of_numpy(rng):
    """Against corrcoef, about a large mean, pairs with missing data included."""
    values = 1000 + 0.1 * ndimage.gaussian_filter(rng.standard_normal((25, 9, 8, 7)), (0, 1, 1, 1))
    values[rng.random(values.shape) < 0.1] = np.nan
    values[:, 4, 4, 4] = 0.3
    moments, backwards = AdjacentMoments((9, 8, 7)), AdjacentMoments((9, 8, 7))
    for one, other in zip(values, values[::-1], strict=True):
        moments.add(one)
        backwards.add(other)
    r = moments.correlations(10)
    np.testing.assert_allclose(r, backwards.correlations(10), atol=1e-9)
    assert (moments.coverage == np.isfinite(values).sum(axis=0)).all()
    assert np.argwhere(~moments.varies()).tolist() == [[4, 4, 4]]
    checked = 0
    for *at, column in np.argwhere(np.isfinite(r))[::37]:
        u, v = values[:, *at], values[:, *(at + OFFSETS[column])]
        both = np.isfinite(u) & np.isfinite(v)
        assert r[(*at, column)] == pytest.approx(np.corrcoef(u[both], v[both])[0, 1], abs=1e-6)
        checked += 1
    assert checked > 100
    assert np.isnan(r[4, 4, 4]).all()  # no variance
    assert np.isnan(r[-1, :, :, DIRECTIONS["x faces"][0]]).all()  # leads out
    n = np.isfinite(values[:, :-1] + values[:, 1:]).sum(axis=0)
    least = int(n.max())
    assert (
        np.isfinite(moments.correlations(least)[:-1, ..., DIRECTIONS["x faces"][0]]) == (n >= least)
    ).all()


def test_a_known_correlation_is_recovered(rng):
    """200 stationary fields: every direction within four standard errors, over 20 blocks."""
    moments = AdjacentMoments((24, 24, 24))
    for field in fields(rng, 200, (24, 24, 24)):
        moments.add(field)
    r = moments.correlations(200)
    for columns in DIRECTIONS.values():
        wanted = np.exp(-(OFFSETS[columns[0]] ** 2).sum() / (4 * 1.5**2))
        found = r[..., columns]
        # About (24 / 5)^3 places are independent.
        error = (1 - wanted**2) / np.sqrt(199) / np.sqrt(4.8**3)
        assert np.nanmean(found) == pytest.approx(wanted, abs=4 * error + 0.001)


def test_what_is_built_is_what_the_maps_say(subjects, tmp_path):
    """Correlations read back from the file, at random voxels; counts; provenance."""
    out = tmp_path / "own.nii.gz"
    done = run("template", "build", subjects, "--out", out, "--voxel-size", 4)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(out)
    assert "12 subjects are few" in done.stderr
    values = np.stack([nib.load(p).get_fdata() for p in sorted(subjects.iterdir())])
    written = np.asarray(nib.load(out).dataobj)
    rng = np.random.default_rng(0)
    for column, offset in enumerate(OFFSETS):
        for at in rng.integers((15, 19, 13), (29, 33, 27), (20, 3)):
            pair = values[:, *at], values[:, *(at + offset)]
            wanted = max(np.corrcoef(*pair)[0, 1], 0)
            assert written[(*at, column)] == pytest.approx(wanted, abs=1e-6)
    outside = np.ones(SHAPES[4], bool)
    outside[INNER] = False
    assert not written[outside].any()
    report = json.loads((tmp_path / "own.json").read_text())
    voxels = report["voxels"]
    assert voxels["linked"] == 16**3
    assert voxels["no_data_at_all"] == np.prod(SHAPES[4]) - 16**3
    assert report["subjects"] == report["min_subjects"] == 12
    assert len({i["sha256"] for i in report["images"]}) == 12
    assert not any(i["interpolated"] for i in report["images"])
    x_faces = written[INNER][:-1, ..., DIRECTIONS["x faces"][0]]
    row = report["directions"][0]
    assert row["direction"] == "x faces"
    assert row["r"] == pytest.approx(x_faces[x_faces > 0].mean(), abs=1e-4)
    assert report["domain"]["pieces"] == 1
    assert report["template"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert load_template(out, 4).domain.sum() == 16**3


def test_folder_pattern_stack_and_other_grids_give_the_same(subjects, tmp_path):
    """However the maps are given, and whatever their axes: one template, to the bit."""
    files = sorted(subjects.iterdir())
    box = np.zeros(SHAPES[4], np.uint8)
    box[INNER] = 1
    near = {"mask": write_image(tmp_path / "box.nii", box)}
    first = tb.build_template([subjects], 4, **near).template.digest()
    assert tb.build_template([subjects], 4).template.digest() == first
    assert tb.build_template(files[::-1], 4, **near).template.digest() == first
    assert tb.build_template([f"{subjects}/s*.nii.gz"], 4, **near).template.digest() == first
    data = [np.asarray(nib.load(f).dataobj) for f in files]
    for name in ("stack.nii", "stack.nii.gz"):
        stack = write_image(tmp_path / name, np.stack(data, axis=-1))
        built = tb.build_template([stack], 4, **near)
        assert built.template.digest() == first
        assert built.report["subjects"] == 12
    # The same voxels, x running the other way, inside a finer grid.
    other = tmp_path / "fine"
    other.mkdir()
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = grid_affine(4)[:3, :3] @ [45, 0, 0] + grid_affine(4)[:3, 3]
    for f, d in zip(files, data, strict=True):
        fine = np.full((91, 109, 91), 9, np.float32)
        fine[::2, ::2, ::2] = d
        write_image(other / f"{f.name[:3]}.nii", fine[::-1], affine)
    said = []
    again = tb.build_template([other], 4, say=said.append, **near)
    assert "12 of 12 files do not lie on the 4 mm analysis grid" in said[0]
    assert again.template.digest() == first
    # Coarser maps are named as what they are.
    said.clear()
    tb.build_template(files, 2, mask=write_mask(tmp_path / "m.nii", radius=3), say=said.append)
    assert any("larger than the grid's 2" in s for s in said)


def test_pairs_with_some_subjects_missing_count_on_request(subjects, tmp_path):
    for i, path in enumerate(sorted(subjects.iterdir())[:2]):
        data = np.asarray(nib.load(path).dataobj).copy()
        data[18 + 2 * i : 20 + 2 * i, 20:24, 16] = np.nan if i else 0
        data[25, 25, 25] = 0  # no background: a value
        write_image(path, data)
    strict, wide = (tb.build_template([subjects], 4, min_subjects=n) for n in (None, 11))
    assert strict.report["voxels"]["left_out_for_missing_data"] == 16
    assert strict.template.domain.sum() == 16**3 - 16
    assert wide.report["voxels"]["left_out_for_missing_data"] == 0
    assert wide.template.domain.sum() == 16**3
    column = DIRECTIONS["y faces"][0]
    stack = np.stack([nib.load(p).get_fdata() for p in sorted(subjects.iterdir())[1:]])
    wanted = np.corrcoef(stack[:, 18, 20, 16], stack[:, 18, 21, 16])[0, 1]
    save_template(wide.template, tmp_path / "wide.nii.gz")
    found = np.asarray(nib.load(tmp_path / "wide.nii.gz").dataobj)[18, 20, 16, column]
    assert found == pytest.approx(wanted, abs=1e-6)


def test_permute_uses_it(subjects, tmp_path, rng):
    """From subjects to corrected maps: the kernels are those of the template."""
    project = write_project(tmp_path / "project", studies=5, effect_mm=(2, -22, 4), noise_peaks=1)
    mask = write_mask(tmp_path / "mask.nii.gz", radius=5)
    own = tmp_path / "own.nii.gz"
    done = run("template", "build", subjects, "-o", own, "--voxel-size", 4, "--mask", mask)
    assert done.exit_code == 0, done.output
    g = []
    for extra in ((), ("--template", own)):
        out = tmp_path / f"out{len(extra)}"
        done = run(
            "permute", project, "--out", out, "--mask", mask, "--voxel-size", 4,
            "--imputations", 2, "-n", 4, "--statistic", "voxel", "--threads", 1, "--no-report",
            *extra,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        g.append(nib.load(out / "maps" / "g.nii.gz").get_fdata())
    assert np.abs(g[0] - g[1]).max() > 0.01
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert str(own) in str(settings["template"])


def test_real_maps_give_a_plausible_template(pain21, tmp_path):
    """21 group t maps of pain, thinned to 4 mm: smooth, linked, and no stranger to the model."""
    built = tb.build_template([f"{pain21}/pain_*_t.nii.gz"], 4)
    domain = built.report["domain"]
    assert domain["domain_voxels"] > 20_000
    assert domain["largest_piece"] > 0.999
    assert domain["share_of_links"] > 0.99
    rows = {row["direction"]: row for row in built.report["directions"]}
    assert 0.8 < rows["x faces"]["r"] < 0.92
    assert rows["corners"]["r"] < rows["edges"]["r"] < rows["x faces"]["r"]
    for row in rows.values():  # virtual mm per mm; the built-in model has 0.98 to 1.09
        assert 0.9 < row["virtual_per_mm"] < 1.2
    maps = [nib.load(p).get_fdata() for p in sorted(pain21.glob("pain_*_t.nii.gz"))]
    linked = np.isfinite(built.template.costs[:, 2]).reshape(SHAPES[4], order="F")
    for i, j, k in np.argwhere(linked)[::3001]:
        pair = [[m[2 * i, 2 * (j + step), 2 * k] for m in maps] for step in (0, 1)]
        flat = np.ravel_multi_index((i, j, k), SHAPES[4], order="F")
        sigma = 20 / np.sqrt(8 * np.log(2))
        wanted = np.sqrt(2 * sigma**2 * np.log(1 / np.corrcoef(pair)[0, 1]))
        assert built.template.costs[flat, 2] == pytest.approx(wanted, rel=1e-4)


def test_a_folder_gives_its_images_whatever_their_case_and_no_hidden_ones(subjects):
    shouted = (subjects / "s03.nii.gz").rename(subjects / "S03.NII.GZ")
    (subjects / "._s04.nii.gz").write_bytes(b"no image")
    found = find_images([subjects])
    assert shouted in found
    assert len(found) == 12
    assert not any(f.name.startswith(".") for f in found)
