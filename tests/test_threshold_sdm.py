"""Thresholds of SDM-PSI's own results: its blob report number for number, damaged folders."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nilearn.glm import fdr_threshold
from scipy import ndimage
from scipy.special import ndtr
from thresholds import AT_REPORT

from gpu_sdm.errors import InputError, NumericalError, SettingError, SpaceError
from gpu_sdm.findings.maps import MAPS, available, open_source, permutations_of
from gpu_sdm.findings.threshold import Rule, threshold
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.sdm_results import open_sdm_results
from gpu_sdm.spaces import SHAPES, grid_affine

BLOBS = "mod1_z_voxelCorrected_p_0.00100_50"


@pytest.fixture(scope="module")
def mod1(enge2021):
    return open_source(enge2021 / "mod1")


def report(folder: Path) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Cells of the blobs and of each blob's local peaks, as SDM-PSI printed them."""
    text = html.unescape((folder / f"{BLOBS}.htm").read_text())
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in text.split("<tr>")]
    place = re.compile(r"-?\d+,-?\d+,-?\d+")
    blobs, peaks = [], []
    for row in cells:
        if row and place.fullmatch(row[0]):
            if len(row) == 5:
                blobs.append(row[:4])
                peaks.append([])
            else:
                peaks[-1].append(row[:3])
    return blobs, peaks


def test_the_blob_report_of_sdm_psi_is_reproduced(mod1, enge2021):
    found = threshold(mod1, AT_REPORT, [])
    blobs, peaks = report(enge2021 / "mod1")
    assert len(blobs) == 7
    assert sum(len(p) for p in peaks) == 110

    def printed(row):
        place = f"{row['x_mm']},{row['y_mm']},{row['z_mm']}"
        return [place, f"{row['sdm_z']:.3f}", f"{row['p']:.9f}"]

    assert [[*printed(r), str(r["voxels"])] for r in found.clusters] == blobs
    for cluster, theirs in enumerate(peaks, 1):
        mine = [printed(r) for r in found.peaks if r["cluster"] == cluster]
        assert mine == theirs
    for side in ("", "_neg"):
        theirs = read_map(enge2021 / "mod1" / f"{BLOBS}{side}.nii.gz", mod1.space)
        sign = "negative" if side else "positive"
        voxels = [c.voxels for c in found.found if c.side == sign]
        mine = np.zeros(mod1.space.n_voxels, np.float32)
        for v in voxels:
            mine[v] = found.z[v]
        np.testing.assert_array_equal(mine, theirs)


def test_the_mask_and_every_map_of_sdm_psi_are_read(mod1, enge2021):
    mask = np.asarray(nibabel.load(enge2021 / "sdm_mask.nii.gz").dataobj) != 0
    np.testing.assert_array_equal(mod1.space.mask, mask)
    z = mod1.map("z")
    np.testing.assert_allclose(mod1.map("g") / mod1.map("se"), z, atol=2e-5)
    for name, sign in (("p", -1), ("p_neg", 1)):  # the two are Phi(-z) and Phi(z)
        np.testing.assert_allclose(mod1.map(name), ndtr(sign * z.astype(float)), atol=5e-8)
    # The negative side of the voxelwise map holds -(1-p): its smallest p is .028.
    assert mod1.map("p_fwe_voxel_neg").min() == pytest.approx(0.028, abs=1e-6)
    maxima = mod1.maxima()
    assert maxima["voxel"][:, 0].tolist() == [9.616173, 4.551222]
    assert maxima["tfce"][:, 0].tolist() == [87097.484375, 821.288086]
    assert permutations_of(mod1) == 1000
    assert available(mod1) == ["fwe-tfce", "fwe-voxel", "uncorrected", "fdr"]


def test_the_negative_side_of_sdm_psi(mod1, enge2021):
    """Its -(1-p) map by hand: the voxels at p <= .2 and their joined groups."""
    raw = read_map(enge2021 / "mod1" / "corrp_voxel_neg.nii.gz", mod1.space)
    wanted = raw <= -0.8
    assert wanted.sum() == 4
    found = threshold(mod1, Rule(map="fwe-voxel", p=0.2, extent=1, side="negative"), [])
    assert np.array_equal(found.numbers() > 0, wanted)
    groups = ndimage.label(mod1.space.embed(wanted) > 0, np.ones((3, 3, 3)))[1]
    assert len(found.clusters) == groups
    assert {r["side"] for r in found.clusters} == {"negative"}
    assert min(r["sdm_z"] for r in found.clusters) == pytest.approx(-4.551222)
    first = next(r for r in found.clusters if r["sdm_z"] < -4.55)
    assert first["p"] == pytest.approx(0.028, abs=1e-6)


def test_a_p_lost_in_single_precision_comes_from_z(mod1):
    at = int(np.argmax(mod1.map("z")))
    assert mod1.map("p")[at] == 0 or mod1.map("p")[at] < 1e-7
    assert MAPS["uncorrected"].p(mod1)[0][at] == pytest.approx(3.4163e-22, rel=1e-3)


def test_fdr_is_benjamini_hochberg(mod1):
    """Against nilearn's own threshold, on either side."""
    z = mod1.map("z").astype(float)
    q, q_neg = MAPS["fdr"].p(mod1)
    for side, values in ((z, q), (-z, q_neg)):
        for alpha in (0.05, 0.001):
            limit = fdr_threshold(side, alpha)
            assert np.array_equal(values <= alpha, side >= limit)
    assert (q <= 0.05).sum() > 50_000
    assert not (q_neg <= 0.001).any()
    assert "expected share of false voxels" in threshold(mod1, Rule(map="fdr"), []).named.caveat


def test_folders_that_are_not_sdm_psis_are_refused(tmp_path, mod1):
    with pytest.raises(InputError, match="there is no such folder"):
        open_source(tmp_path / "no")
    with pytest.raises(InputError, match="neither a finished gpu-sdm result"):
        open_source(tmp_path)
    with pytest.raises(InputError, match="here are none"):
        open_sdm_results(tmp_path)


def _sdm_folder(folder: Path, size: int = 4, shift: float = 0.0) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(3)
    affine = grid_affine(size)
    affine[0, 3] += shift
    inside = np.zeros(SHAPES[size], np.float32)
    inside[10:16, 10:16, 10:16] = 1
    z = rng.normal(size=inside.shape).astype(np.float32) * inside
    corrected = np.where(rng.random(inside.shape) < 0.3, np.float32(0.95), 0) * inside
    content = {
        **{f"x_{n}": z / 10 for n in ("g", "tau2", "h_i2", "h_h2", "h_Q")},
        "x_z": z,
        "x_var": inside / 100,
        "uncorrp": np.full_like(z, 0.5),
        "uncorrp_neg": np.full_like(z, 0.5),
        "corrp_voxel": corrected,
        "corrp_voxel_neg": -corrected,
    }
    for name, values in content.items():
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{name}.nii.gz")
    return folder


def test_a_p_of_50_in_1000_is_at_alpha(tmp_path):
    """1 - .95 in single precision is .05000001."""
    source = open_source(_sdm_folder(tmp_path / "sdm"))
    assert (source.map("p_fwe_voxel") > 0.05).all()
    found = threshold(source, Rule(map="fwe-voxel", extent=1), [])
    stored = source.map("p_fwe_voxel") < 0.06
    z = source.map("z")
    assert found.passing == {
        "positive": int((stored & (z > 0)).sum()),
        "negative": int((stored & (z < 0)).sum()),
    }
    assert min(found.passing.values()) > 5


def test_damaged_folders_of_sdm_psi_are_named(tmp_path):
    folder = _sdm_folder(tmp_path / "sdm")
    source = open_sdm_results(folder)
    with pytest.raises(InputError, match="has no map 'p_fwe_tfce'; it has: g, se, z"):
        source.map("p_fwe_tfce")
    assert permutations_of(source) is None
    with pytest.raises(SettingError, match=r"--map fwe-tfce needs; .* on fwe-voxel, uncorrected"):
        threshold(source, Rule(), [])
    (folder / "maxsMinsZ.asc").write_text("4 3 2 1\n1 2 x 4\n")
    with pytest.raises(InputError, match=r"maxsMinsZ.asc:2: wanted max z"):
        source.maxima()
    (folder / "maxsMinsZ.asc").write_text("\n")
    with pytest.raises(InputError, match="holds no permutation"):
        source.maxima()
    image = nibabel.load(folder / "x_z.nii.gz")
    values = image.get_fdata(dtype=np.float32)
    values[12, 12, 12] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, image.affine), folder / "x_z.nii.gz")
    with pytest.raises(NumericalError, match=r"x_z.nii.gz holds NaN at MNI \(42, -78, -24\), 1"):
        threshold(source, Rule(map="uncorrected"), [])
    for kind in ("z", "g", "var"):
        (folder / f"y_{kind}.nii.gz").write_bytes((folder / f"x_{kind}.nii.gz").read_bytes())
    with pytest.raises(InputError, match="those of x, y"):
        open_sdm_results(folder)
    with pytest.raises(SpaceError, match=r"x_var\.nii\.gz has shape"):
        open_sdm_results(_sdm_folder(tmp_path / "shifted", shift=1))


def test_listed_peaks_are_apart_and_hide_no_other(mod1):
    all_of_them = threshold(mod1, AT_REPORT, []).peaks
    few = threshold(mod1, replace(AT_REPORT, peak_distance=12), []).peaks
    assert len(few) < len(all_of_them)

    def place(row):
        return np.array([row["x_mm"], row["y_mm"], row["z_mm"]])

    for cluster in range(1, 8):
        mine = [place(r) for r in few if r["cluster"] == cluster]
        for i, a in enumerate(mine):
            assert all(np.linalg.norm(a - b) >= 12 for b in mine[:i])
        for row in (r for r in all_of_them if r["cluster"] == cluster):
            assert min(np.linalg.norm(place(row) - b) for b in mine) < 12
