"""Thresholds: SDM-PSI's blob report number for number, our own results, files, refusals."""

from __future__ import annotations

import csv
import html
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nilearn.glm import fdr_threshold
from projects import write_mask, write_project
from scipy import ndimage
from scipy.special import ndtr

import gpu_sdm
from gpu_sdm.atlas import Atlas, load_atlas
from gpu_sdm.cli import main
from gpu_sdm.clusters import COLUMNS
from gpu_sdm.errors import InputError, NumericalError, OutputError, SettingError, SpaceError
from gpu_sdm.findings import threshold_files
from gpu_sdm.findings.folder import replace_folder
from gpu_sdm.findings.maps import MAPS, available, open_source, permutations_of
from gpu_sdm.findings.peaks import local_maxima, spread_out
from gpu_sdm.findings.table3 import _decimals, breakdown, escape, table3, to_csv, to_latex
from gpu_sdm.findings.threshold import Rule, threshold
from gpu_sdm.findings.threshold_files import save
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.sdm_results import open_sdm_results
from gpu_sdm.spaces import SHAPES, Space, grid_affine

BLOBS = "mod1_z_voxelCorrected_p_0.00100_50"
AT_REPORT = Rule(map="fwe-voxel", p=0.001, extent=50, peak_distance=0)


@pytest.fixture(scope="module")
def mod1(enge2021):
    return open_source(enge2021 / "mod1")


@pytest.fixture(scope="module")
def toy_atlas() -> Atlas:
    """Left and right halves, in 4 mm voxels; those at x = 2 mm belong to neither."""
    volume = np.zeros(SHAPES[4], int)
    volume[:22], volume[23:] = 2, 1  # x falls with the index
    return Atlas("toy", volume, grid_affine(4), {1: "Left_half", 2: "Right_half"})


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A small result with effects of both signs."""
    home = tmp_path_factory.mktemp("threshold")
    project = write_project(home / "project", studies=6, negative_mm=(12, 0, 30))
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=40, imputations=3
    )
    result = gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    return home / "out", result


# SDM-PSI's own report


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


# Peaks


def test_local_maxima_and_their_distance(tmp_path):
    mask = np.zeros(SHAPES[4], bool)
    mask[5:35, 10, 10] = True
    space = Space(4, mask)
    values = np.zeros(30)
    values[[3, 10, 11, 12, 20, 21, 29]] = (5, 4, 4, 4, 6, 7, 1)
    everything = np.arange(30)
    # A plateau counts once, by its first voxel; the zeros between are plateaus of their own.
    high = values >= 1
    assert local_maxima(values, everything[high], space).tolist() == [21, 3, 10, 29]
    # Voxels that do not count hide nothing: 20 is a peak once 21 is out.
    assert local_maxima(values, np.array([3, 20]), space).tolist() == [20, 3]
    assert local_maxima(-values, np.array([20, 21]), space).tolist() == [20]
    top = np.array([21, 3, 10, 29])  # at 4 mm steps: 28 mm from 3 to 10, 32 mm from 21 to 29
    assert spread_out(top, space, 0).tolist() == top.tolist()
    assert spread_out(top, space, 28).tolist() == top.tolist()
    assert spread_out(top, space, 28.1).tolist() == [21, 3, 29]
    assert spread_out(top, space, 1000).tolist() == [21]


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


# Our own results


def test_our_result_gives_its_own_cluster_table(ours, toy_atlas):
    out, result = ours
    found = threshold(open_source(out), Rule(), [toy_atlas])
    wanted = result.clusters["fwe-tfce-0.05"]
    assert {r["side"] for r in wanted} == {"positive", "negative"}
    assert len(found.clusters) == len(wanted)
    for mine, theirs in zip(found.clusters, wanted, strict=True):
        for column in COLUMNS[:-1]:
            if isinstance(theirs[column], float):
                assert mine[column] == pytest.approx(theirs[column], rel=1e-6)
            else:
                assert mine[column] == theirs[column]
    for side in ("positive", "negative"):
        one = threshold(open_source(out), Rule(side=side), [toy_atlas])
        assert [r["voxels"] for r in one.clusters] == [
            r["voxels"] for r in wanted if r["side"] == side
        ]
        assert list(one.passing) == [side]


def test_extent_and_peak_height_drop_clusters(ours):
    source = open_source(ours[0])
    rule = Rule(map="uncorrected", p=0.05, extent=1)
    every = threshold(source, rule, []).clusters
    sizes, heights = [r["voxels"] for r in every], [abs(r["sdm_z"]) for r in every]
    k, h = sorted(sizes)[len(sizes) // 2] + 1, sorted(heights)[len(heights) // 2]
    large = threshold(source, replace(rule, extent=k), []).clusters
    assert sorted(r["voxels"] for r in large) == sorted(s for s in sizes if s >= k)
    high = threshold(source, replace(rule, peak_z=h), []).clusters
    assert sorted(abs(r["sdm_z"]) for r in high) == sorted(x for x in heights if x > h)
    assert len(large) < len(every) > len(high)


def test_shares_and_labels(ours, toy_atlas):
    source = open_source(ours[0])
    second = replace(toy_atlas, name="other", regions={1: "L", 2: "L"})
    found = threshold(source, Rule(map="uncorrected", p=0.05, extent=5), [toy_atlas, second])
    assert found.atlases == ("toy", "other")
    mm = source.space.mm()
    for cluster, row in zip(found.found, found.clusters, strict=True):
        x = mm[cluster.voxels, 0]
        counts = {
            "Left_half": (x < 0).sum(),
            "Right_half": (x > 2).sum(),
            "no label": (x == 2).sum(),
        }
        mine = [r for r in found.regions if r["cluster"] == row["cluster"] and r["atlas"] == "toy"]
        assert {r["region"]: r["voxels"] for r in mine} == {k: v for k, v in counts.items() if v}
        assert sum(r["percent"] for r in mine) == pytest.approx(100, abs=0.02)
        first = mine[0]
        assert row["shares_toy"].startswith(f"{first['region']} {first['percent']:.0f} %")
        assert row["label"].split()[-1] in ("Left_half", "Right_half")
        assert row["label_other"].split()[-1] == "L"
    assert found.peaks[0]["label"] == found.clusters[0]["label"]


def test_without_an_atlas_it_is_said(ours):
    gone = load_atlas(package="a_package_that_is_not_there")
    found = threshold(open_source(ours[0]), Rule(map="uncorrected"), [gone])
    assert [n.kind for n in found.notices] == ["no_atlas"]
    assert found.atlases == ()
    assert found.regions == []
    assert {r["label"] for r in found.clusters} == {""}


def test_a_p_below_one_permutation_is_said(ours):
    found = threshold(open_source(ours[0]), Rule(p=0.02), [])
    assert found.clusters == []
    assert "with 40 permutations the smallest corrected p is 0.025" in found.notices[0].message
    assert threshold(open_source(ours[0]), Rule(p=0.025), []).notices == ()
    assert threshold(open_source(ours[0]), Rule(map="uncorrected", p=0.02), []).notices == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"map": "tfce"}, "map is 'tfce'; it must be one of: fwe-tfce, fwe-voxel"),
        ({"p": 0.0}, r"p is 0.0; it must lie in \(0, 1\]"),
        ({"p": float("nan")}, "p is nan"),
        ({"extent": 0}, "extent is 0"),
        ({"side": "left"}, "side is 'left'; it must be one of: both, positive, negative"),
        ({"peak_z": -1.0}, "peak_z is -1.0"),
        ({"peak_distance": -1.0}, "peak_distance is -1.0"),
    ],
)
def test_wrong_rules_are_refused(wrong, message):
    with pytest.raises(SettingError, match=message):
        Rule(**wrong)


def test_names_of_rules():
    assert Rule().name == "fwe-tfce-0.05-k10"
    rule = Rule(map="uncorrected", p=0.0025, extent=20, peak_z=1, side="negative")
    assert rule.name == "uncorrected-0.0025-k20-z1-negative"
    assert Rule(map="fwe-mass").name == "fwe-mass-0.05-k1"


# Files


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))


def test_what_is_written_can_be_read_again(ours, toy_atlas, tmp_path):
    out, _ = ours
    source = open_source(out)
    found = threshold(source, Rule(map="uncorrected", p=0.05), [toy_atlas])
    folder = save(found, tmp_path / "a" / "b")
    assert sorted(p.name for p in folder.iterdir()) == [
        "clusters.nii.gz", "clusters.tsv", "masks", "peaks.tsv", "regions.tsv", "table3.csv",
        "table3.tex", "threshold.json", "z.nii.gz", "z_negative.nii.gz", "z_positive.nii.gz",
    ]  # fmt: skip
    space, number = source.space, found.numbers()
    np.testing.assert_array_equal(read_map(folder / "clusters.nii.gz", space), number)
    z = read_map(folder / "z.nii.gz", space)
    np.testing.assert_array_equal(z, np.where(number > 0, source.map("z"), 0))
    for side, mine in (("positive", z > 0), ("negative", z < 0)):
        one = read_map(folder / f"z_{side}.nii.gz", space)
        np.testing.assert_array_equal(one, np.where(mine, z, 0))
    rows = table(folder / "clusters.tsv")
    assert list(rows[0]) == [*COLUMNS, "p_uncorrected", "shares_toy"]
    assert len(rows) == len(list((folder / "masks").iterdir())) == len(found.found) >= 2
    for row in rows:
        path = folder / "masks" / f"cluster_{int(row['cluster']):02d}_{row['side']}.nii.gz"
        mask = read_map(path, space)
        assert mask.sum() == int(row["voxels"])
        at = np.flatnonzero((space.mm() == [float(row[c]) for c in COLUMNS[2:5]]).all(axis=1))
        assert mask[at] == 1
        assert np.float32(row["sdm_z"]) == z[at]
    peaks = table(folder / "peaks.tsv")
    assert [p["cluster"] for p in peaks if p["peak"] == "1"] == [r["cluster"] for r in rows]
    stored = json.loads((folder / "threshold.json").read_text())
    assert stored["rule"]["p"] == 0.05
    assert stored["caveat"].startswith("Not corrected")


def test_the_default_folder_is_replaced_and_others_are_not(ours, toy_atlas, tmp_path):
    source = open_source(ours[0])
    found = threshold(source, Rule(), [toy_atlas])
    folder = save(found)
    assert folder == ours[0] / "thresholds" / "fwe-tfce-0.05-k10"
    about = json.loads((folder / "threshold.json").read_text())
    about["files"].append("masks/cluster_99_positive.nii.gz")  # of a run with more clusters
    (folder / "threshold.json").write_text(json.dumps(about))
    for name in ("masks/cluster_99_positive.nii.gz", "my notes.txt", "masks/mine/m.nii.gz"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    assert save(found) == folder
    assert not (folder / "masks/cluster_99_positive.nii.gz").exists()
    assert (folder / "my notes.txt").read_text() == "my notes.txt"
    assert (folder / "masks/mine/m.nii.gz").exists()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]

    other = threshold(source, Rule(p=0.04), [toy_atlas])
    with pytest.raises(OutputError, match=r"holds another threshold.*'fwe-tfce-0.05-k10'"):
        save(other, folder)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds no threshold of gpu-sdm"):
        save(found, foreign)
    assert [p.name for p in foreign.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputError, match="cannot be written"):
        save(found, foreign / "thesis.tex" / "x")


def test_a_failure_leaves_what_was_there(ours, toy_atlas, tmp_path, monkeypatch):
    found = threshold(open_source(ours[0]), Rule(), [toy_atlas])
    folder = save(found, tmp_path / "t")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    def full(*_):
        raise OutputError("disk full")

    monkeypatch.setattr(threshold_files, "to_latex", full)
    for place in (tmp_path / "t", tmp_path / "new" / "deep"):
        with pytest.raises(OutputError, match="disk full"):
            save(found, place)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before

    def no_rename(self, target):
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return real(self, target)

    real = Path.rename
    monkeypatch.setattr(Path, "rename", no_rename)
    with pytest.raises(OutputError, match="No space left"):
        replace_folder(folder, "threshold", {"name": found.rule.name}, {}, lambda f: None)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


# The paper's table


def test_table3_reads_as_the_papers(mod1, toy_atlas):
    found = threshold(mod1, AT_REPORT, [toy_atlas])
    rows = table3(found, {"positive": "task > baseline"})
    assert list(rows[0]) == [
        "Comparison", "Cluster", "Voxels", "MNI", "SDM-Z", "Voxel p", "p (voxel, FWE)",
        "Hedges g", "I2 (%)", "Breakdown (toy)",
    ]  # fmt: skip
    last = rows[-1]
    assert list(last.values())[:7] == [
        "task > baseline", "Left_half", "69", "-44, 4, 48", "6.212", "<0.000000001", "0.000999987",
    ]  # fmt: skip
    assert last["Breakdown (toy)"] == "Left_half 69 (100 %)"
    back = list(csv.DictReader(to_csv(rows).decode("utf-8-sig").splitlines()))
    assert back == rows
    plain = table3(threshold(mod1, Rule(map="uncorrected", p=0.0025), [toy_atlas]))
    assert "p (uncorrected)" not in plain[0]


def test_the_p_of_the_paper_is_the_tail_of_z():
    """pipeline.md, Table 3: z and voxel p as printed there."""
    for z, p in ((3.510, 0.000224233), (3.699, 0.000108063), (3.797, 0.000073254)):
        assert ndtr(-z) == pytest.approx(p, rel=0.01)
        assert _decimals(p) == f"{p:.9f}"


def test_breakdown_sums_small_shares():
    regions = [{"region": r, "voxels": n} for r, n in (("A", 60), ("B", 30), ("C", 4), ("D", 3))]
    assert breakdown(regions, 97) == "A 60 (62 %); B 30 (31 %); other 7 (7 %)"
    assert breakdown(regions[:2], 90) == "A 60 (67 %); B 30 (33 %)"


def test_latex_is_balanced_and_escaped():
    assert escape("p <= .05, I_2 50 % & {a}~b^2 #1 $x \\ <3") == (
        r"p $\leq$ .05, I\_2 50 \% \& \{a\}\textasciitilde{}b\textasciicircum{}2 \#1 \$x "
        r"\textbackslash{} $<$3"
    )
    row = {"Comparison": "A > B", "Cluster": "Insula_L", "MNI": "1, 2, 3", "Breakdown (x)": "y 5 %"}
    text = to_latex([row, {**row, "Comparison": "A < B"}], "p <= .05")
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert text.count("{") == text.count("}")
    body = [line for line in text.splitlines() if "&" in line]
    assert len(body) == 3
    assert all(line.endswith(r"\\") and line.count("&") == 2 for line in body)
    assert r"\textit{A $>$ B}" in text
    assert r"\textit{A $<$ B}" in text
    assert "No cluster" in to_latex([], "none")


# The command


@pytest.fixture
def command(monkeypatch, capfd):
    """Run `gpu-sdm threshold`; give its exit code, stdout and stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpu-sdm", "threshold", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capfd.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


def test_the_command_prints_the_folder_last(command, ours, toy_atlas, tmp_path):
    out, _ = ours
    image = tmp_path / "halves.nii.gz"
    nibabel.save(nibabel.Nifti1Image(toy_atlas.volume.astype(np.int16), toy_atlas.affine), image)
    (tmp_path / "halves.csv").write_text("index,name\n1,Left_half\n2,Right_half\n")
    args = (out, "--map", "fwe-voxel", "--atlas", image, "--out", tmp_path / "t")
    code, printed, said = command(*args, "--json")
    assert code == 0, said
    tables = json.loads(printed)
    assert tables["folder"] == str(tmp_path / "t")
    assert tables["clusters"][0]["label"].endswith("_half")
    assert "fwe-voxel-0.05-k10" in said
    assert "each side at its own alpha" in said
    code, printed, said = command(*args)
    assert printed.splitlines()[-1] == str(tmp_path / "t")
    assert f"{tables['clusters'][0]['sdm_z']:.2f}" in said
    code, printed, said = command("--list-atlases")
    assert printed.split() == ["AAL2", "Harvard-Oxford", "Juelich", "Brodmann"]
    assert "non-commercial" in said


def test_the_command_fails_in_one_sentence(command, ours, tmp_path):
    out, _ = ours
    for args, message in (
        ((tmp_path / "no",), "there is no such folder"),
        ((out, "--map", "fwe-extent"), "run gpu-sdm permute with that --statistic"),
        ((out, "--atlas", "Talairach"), "There is no atlas 'Talairach'"),
        ((out, "--p", "2"), "p is 2.0; it must lie in (0, 1]"),
    ):
        code, printed, said = command(*args, "--out", tmp_path / "t")
        assert (code, printed) == (1, "")
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert message in said
    assert not (tmp_path / "t").exists()


def test_the_page_names_options_and_files_that_exist(command):
    page = (Path(__file__).parents[1] / "docs" / "threshold.md").read_text(encoding="utf-8")
    code, printed, _ = command("--help")
    assert code == 0
    assert set(re.findall(r"`(--[a-z-]+)", page)) - {"--statistic"} <= set(
        re.findall(r"--[a-z-]+", printed)
    )
    for name in MAPS:
        assert f"`{name}`" in page


def test_the_python_of_the_page_runs(ours, capsys):
    page = (Path(__file__).parents[1] / "docs" / "threshold.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.S)[1]
    exec(code.replace('"demo-output"', repr(str(ours[0]))), {})
    lines = capsys.readouterr().out.splitlines()
    folder = Path(lines[-1])
    assert folder.name == "uncorrected-0.0025-k10-z1"
    assert len(lines) == len(table(folder / "clusters.tsv")) + 1 > 1
    assert "pain > baseline" in (folder / "table3.csv").read_text(encoding="utf-8")
