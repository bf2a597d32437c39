"""The output folder, the command line and the settings are promises: this freezes them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.spaces import Space

MAPS = {"g", "se", "z", "p", "p_neg", "log_p", "log_p_neg", "tau2", "i2", "h2", "q", "mask"}
VOXEL = {"p_fwe_voxel", "p_fwe_voxel_neg", "p_fwe_voxel_two_sided"}
TFCE = {"tfce", "tfce_neg", "p_fwe_tfce", "p_fwe_tfce_neg", "p_fwe_tfce_two_sided"}
CLUSTERS = [
    "cluster",
    "side",
    "x_mm",
    "y_mm",
    "z_mm",
    "sdm_z",
    "p",
    "g",
    "se",
    "i2",
    "voxels",
    "mm3",
    "label",
]
RUN = {
    "program", "settings", "content", "versions", "backend", "project", "mask_voxels", "studies",
    "subjects", "images", "imputations", "model", "discards", "permutations", "exact",
    "distinct_permutations", "null", "sides",
    "noise_infeasible_share", "noise_lag_correlations",
    "voxels_not_converged", "imputation_fallbacks", "timings_s", "warning_counts", "warnings",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run of the command line on a mixed project; its folder and what it printed."""
    home = tmp_path_factory.mktemp("contract")
    project = write_project(
        home / "project", studies=8, two_sample=4, negative_mm=(-30, -10, 20), seed=3
    )
    (project / "extra.spm_mni.txt").write_text("0 0 0 4\n")
    mask = write_mask(home / "mask.nii.gz", radius=9)
    command = [
        sys.executable, "-m", "gpu_sdm.cli", "permute", str(project), "--out", str(home / "out"),
        "--mask", str(mask), "--voxel-size", "4", "--imputations", "5", "-n", "100",
    ]  # fmt: skip
    environment = dict(os.environ, NO_COLOR="1", COLUMNS="100")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return home, command, done


def space_of(home):
    import nibabel as nib

    return Space(4, nib.load(home / "mask.nii.gz").get_fdata() > 0)


def names(folder):
    return {p.name.removesuffix(".nii.gz") for p in folder.iterdir()}


def test_folder(made):
    home, _, _ = made
    out = home / "out"
    assert {p.name for p in out.iterdir()} == {"maps", "null", "tables", "run.json", "report.html"}
    assert names(out / "maps") == MAPS | VOXEL | TFCE
    assert names(out / "null") == {"maxima.tsv"}
    assert names(out / "tables") == {
        "studies.tsv", "peaks.tsv", "clusters_fwe-tfce-0.05.tsv", "clusters_fwe-voxel-0.05.tsv",
        "clusters_uncorrected-0.0025.tsv",
    }  # fmt: skip
    assert not (home / "out.partial").exists()


def test_only_the_statistic_asked_for(made, tmp_path):
    _home, command, _ = made
    asked = [*command, "--statistic", "voxel", "-n", "20", "--no-report"]
    asked[asked.index("--out") + 1] = str(tmp_path / "o")
    subprocess.run(asked, check=True, capture_output=True)
    assert names(tmp_path / "o" / "maps") == MAPS | VOXEL
    header = (tmp_path / "o" / "null" / "maxima.tsv").read_text().splitlines()[0]
    assert header.split("\t") == ["permutation", "max_z", "max_neg_z"]
    tables = {p.name for p in (tmp_path / "o" / "tables").iterdir()}
    assert "clusters_fwe-tfce-0.05.tsv" not in tables


def test_maps_are_consistent(made):
    home, _, _ = made
    space = space_of(home)
    maps = {n: read_map(home / "out" / "maps" / f"{n}.nii.gz", space) for n in MAPS | VOXEL | TFCE}
    assert maps["mask"].min() == 1
    np.testing.assert_allclose(maps["z"], maps["g"] / maps["se"], rtol=1e-5)
    np.testing.assert_allclose(maps["h2"], 1 / (1 - maps["i2"] / 100), rtol=1e-4)
    np.testing.assert_allclose(-np.log10(maps["p"]), maps["log_p"], rtol=1e-4, atol=1e-4)
    assert (maps["p_fwe_voxel"] >= 1 / 100 - 1e-6).all()
    either = np.minimum(maps["p_fwe_voxel"], maps["p_fwe_voxel_neg"])
    assert (maps["p_fwe_voxel_two_sided"] >= either - 1e-6).all()
    import nibabel as nib

    outside = ~space.mask
    for name, fill in (("g", 0), ("z", 0), ("p", 1), ("p_fwe_tfce", 1), ("log_p", 0)):
        image = nib.load(home / "out" / "maps" / f"{name}.nii.gz")
        assert image.get_data_dtype() == np.float32
        assert (image.get_fdata()[outside] == fill).all()


def test_row_0_of_the_null_is_the_observed(made):
    home, _, _ = made
    space = space_of(home)
    maxima = read_maxima(home / "out" / "null" / "maxima.tsv", ("voxel", "tfce"))
    z = read_map(home / "out" / "maps" / "z.nii.gz", space)
    tfce = read_map(home / "out" / "maps" / "tfce.nii.gz", space)
    assert maxima["voxel"].shape == maxima["tfce"].shape == (2, 100)
    assert maxima["voxel"][:, 0].tolist() == [z.max(), (-z).max()]
    assert maxima["tfce"][0, 0] == pytest.approx(tfce.max(), rel=1e-6)


def test_planted_effects_are_found_with_the_right_signs(made):
    home, _, _ = made
    lines = (home / "out" / "tables" / "clusters_fwe-voxel-0.05.tsv").read_text().splitlines()
    assert lines[0].split("\t") == CLUSTERS
    found = {line.split("\t")[1]: line.split("\t")[2:6] for line in lines[1:]}
    assert set(found) == {"positive", "negative"}
    for side, place, sign in (("positive", (0, -16, 18), 1), ("negative", (-30, -10, 20), -1)):
        x, y, z, sdm_z = map(float, found[side])
        assert np.linalg.norm(np.subtract((x, y, z), place)) < 12
        assert np.sign(sdm_z) == sign


def test_run_json(made):
    home, _, _ = made
    run = json.loads((home / "out" / "run.json").read_text())
    assert set(run) == RUN
    assert run["voxels_not_converged"] == 0
    assert run["warning_counts"]["unlisted_file"] == 1
    assert run["studies"] == 8
    assert set(run["settings"]) == set(gpu_sdm.Settings.__dataclass_fields__)
    assert any(name.endswith("sdm_table.txt") for name in run["content"])
    assert all(v >= 0 for v in run["timings_s"].values())


def test_tables_as_frames(tmp_path):
    project = write_project(tmp_path / "p", studies=4)
    mask = write_mask(tmp_path / "m.nii.gz", radius=5)
    chosen = gpu_sdm.Settings(voxel_size=4, imputations=2, permutations=20, mask=mask)
    result = gpu_sdm.run(gpu_sdm.read(project), chosen)
    assert list(result.frame("studies")["study"]) == [f"study{k:02d}" for k in range(4)]
    assert len(result.frame("peaks")) == 16
    assert list(result.frame("fwe-voxel-0.05").columns) == CLUSTERS
    with pytest.raises(KeyError, match="there are: studies, peaks, fwe-tfce"):
        result.frame("cluster")


def test_stdout_ends_with_the_path(made):
    home, _, done = made
    assert done.stdout.splitlines()[-1] == str(home / "out")
    summary = " ".join(done.stdout.split())
    for said in ("8: 4 one-sample, 4 two-sample", "outside reach", "unknown height",
                 "no effect in any study", "distinct ones", "one-tailed per side"):  # fmt: skip
        assert said in summary, said
    assert "permutations" in done.stderr
    assert "warning: unlisted file: 1" in done.stderr


def test_bad_input_is_one_sentence_exit_1_and_nothing_written(made, tmp_path):
    _, command, _ = made
    bad = write_project(tmp_path / "bad", studies=3)
    table = bad / "sdm_table.txt"
    table.write_text(table.read_text().replace("study01\t", "study00\t"))
    asked = list(command)
    asked[4], asked[asked.index("--out") + 1] = str(bad), str(tmp_path / "o")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.match(r"error: .*sdm_table\.txt:3: ", done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("o*"))


def test_dry_run_writes_nothing(made, tmp_path):
    _, command, _ = made
    asked = [*command, "--dry-run"]
    asked[asked.index("--out") + 1] = str(tmp_path / "o")
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "memory needed" in done.stdout
    assert "per second" in done.stdout
    assert not list(tmp_path.glob("o*"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["permute", "nowhere", "--out", "x"], 1, "nowhere"),
        (["permute", "PROJECT", "--out", "x", "--backend", "cuda"], 1, "CUDA|CuPy"),
        (["permute", "PROJECT", "--out", "x", "--noise", "pink:3"], 1, "scan:R"),
        (["permute", "PROJECT", "--out", "x", "--covariates", "height"], 1, "age"),
        (["permute", "PROJECT", "--out", "x", "--imputations", "1"], 2, "imputations"),
        (["permute", "PROJECT", "--out", "x", "-n", "0"], 2, "permutations"),
        (["permute", "PROJECT"], 2, "out"),
        (["info"], 0, "numba"),
        (["cache"], 0, "MB"),
    ],
)
def test_exit_codes(made, tmp_path, arguments, code, said):
    home, _, _ = made
    arguments = [str(home / "project") if a == "PROJECT" else a for a in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "gpu_sdm.cli", *arguments],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert re.search(said, done.stdout + done.stderr)
    assert not list(tmp_path.iterdir())


def test_help_is_quick_and_names_every_option():
    import resource

    def quickest(*words):
        """Least processor time of three runs; on a busy machine wall time says nothing."""
        spent = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, *words],
                capture_output=True, text=True, check=True, env=dict(os.environ, COLUMNS="120"),
            )  # fmt: skip
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        return min(spent), done.stdout

    # What typer alone takes for the help of an empty command differs from machine to machine.
    empty = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    yardstick, _ = quickest("-c", empty)
    taken, printed = quickest("-m", "gpu_sdm.cli", "permute", "--help")
    assert taken < max(0.5, 3.5 * yardstick)
    for option in [
        "--permutations",
        "--imputations",
        "--seed",
        "--fwhm",
        "--anisotropy",
        "--voxel-size",
        "--mask",
        "--template",
        "--tau2",
        "--imputation",
        "--discards",
        "--covariates",
        "--exchange",
        "--noise",
        "--statistic",
        "--cluster-threshold",
        "--backend",
        "--bounds",
        "--compat",
        "--threads",
        "--dry-run",
        "--force",
    ]:
        assert option in printed
