"""Jackknife: each fold is a run without that row, to the bit; interrupted work goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from projects import write_mask, write_project
from scipy.stats import norm

import gpu_sdm
from gpu_sdm.clusters import THRESHOLDS, blobs
from gpu_sdm.errors import CheckpointMismatch, OutputError, SettingError
from gpu_sdm.findings import folds
from gpu_sdm.findings.folds import MAPS, without
from gpu_sdm.findings.jackknife import jackknife
from gpu_sdm.findings.sites import cluster_sites
from gpu_sdm.finished import open_result
from gpu_sdm.io.nifti import read_map

CPU = gpu_sdm.get_backend("cpu")
NAMES = tuple(f"study{k:02d}" for k in range(7))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("jackknife")
    write_project(home / "project", 7, two_sample=2, negative_mm=(10, -30, 30))
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(home / "mask.nii.gz"), permutations=20, imputations=4,
        covariates=("age",),
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(home / "project"), settings, out=home / "out", backend="cpu")
    finished = open_result(home / "out")
    return home, settings, finished, finished.analysis(CPU)


@pytest.fixture(scope="module")
def whole(made):
    """An uninterrupted jackknife at two thresholds."""
    home, _, finished, analysis = made
    found = jackknife(
        finished, analysis, home / "whole", thresholds=("uncorrected", "fwe-voxel-0.05")
    )
    return home / "whole", found


def project_without(home, name, target):
    shutil.copytree(home / "project", target)
    table = target / "sdm_table.txt"
    lines = [row for row in table.read_text().splitlines() if not row.startswith(f"{name}\t")]
    table.write_text("\n".join(lines) + "\n")
    (target / f"{name}.spm_mni.txt").unlink()
    return target


@pytest.mark.parametrize("name", ["study00", "study06"])
def test_a_fold_is_a_run_without_that_row_to_the_bit(made, whole, tmp_path, name):
    home, settings, finished, _ = made
    fresh = gpu_sdm.run(
        gpu_sdm.read(project_without(home, name, tmp_path / "project")), settings, backend="cpu"
    )
    for column in MAPS:
        fold = read_map(whole[0] / f"folds/without_{name}/{column}.nii.gz", finished.space)
        assert np.array_equal(fold, fresh.maps[column]), column
        assert not np.array_equal(fold, finished.map(column)), column


def test_a_permuted_fold_is_such_a_run_too(made, tmp_path):
    home, settings, finished, analysis = made
    found = jackknife(
        finished, analysis, tmp_path / "jk", studies=["study03"], permutations=15,
        thresholds=["fwe-voxel"],
    )  # fmt: skip
    fresh = gpu_sdm.run(
        gpu_sdm.read(project_without(home, "study03", tmp_path / "project")),
        replace(settings, permutations=15),
        backend="cpu",
    )
    folder = tmp_path / "jk/folds-permuted/without_study03"
    fold = open_result(folder)
    for column, values in fresh.maps.items():
        assert np.array_equal(fold.map(column), values), column
    for statistic, values in fresh.maxima.items():
        assert np.array_equal(fold.maxima()[statistic], values)
    assert [row["study"] for row in fresh.studies] == [n for n in NAMES if n != "study03"]
    assert found.judged_by == {"fwe-voxel-0.05": "fwe-voxel-0.05"}
    # The project still has the row: what is opened again would not be this fold.
    with pytest.raises(CheckpointMismatch, match="input without is missing"):
        fold.analysis(CPU)
    stamp = (folder / "run.json").stat().st_mtime_ns
    again = jackknife(
        finished, analysis, tmp_path / "jk", studies=["study03"], permutations=15,
        thresholds=["fwe-voxel"],
    )  # fmt: skip
    assert (folder / "run.json").stat().st_mtime_ns == stamp
    assert again.folds == found.folds


def test_table_and_maps_say_what_the_folds_say(made, whole):
    _, _, finished, _ = made
    folder, found = whole
    assert found.left_out == NAMES
    assert set(found.judged_by.values()) == {"uncorrected-0.0025"}
    space, rule = finished.space, THRESHOLDS["uncorrected-0.0025"]
    z = np.stack([read_map(folder / f"folds/without_{n}/z.nii.gz", space) for n in NAMES])
    g = np.stack([read_map(folder / f"folds/without_{n}/g.nii.gz", space) for n in NAMES])
    passed = {"positive": (norm.sf(z) <= 0.0025) & (z > 1)}
    passed["negative"] = (norm.sf(-z) <= 0.0025) & (-z > 1)
    for side, voxels in passed.items():
        assert np.array_equal(
            read_map(folder / f"folds_uncorrected-0.0025_{side}.nii.gz", space), voxels.sum(0)
        )
        assert voxels.any()
    main = finished.map("z")
    same = (np.sign(z) == np.sign(main)).all(0)
    least = np.where(same, np.sign(main) * np.abs(z).min(0), 0)
    assert np.array_equal(read_map(folder / "z_min.nii.gz", space), least.astype(np.float32))
    sites = cluster_sites(finished, ["uncorrected-0.0025", "fwe-voxel-0.05"])
    pairs = list(zip(sites[::2], sites[1::2], strict=True))
    assert len(found.summary) == len(pairs) >= 2
    assert len(found.folds) == 7 * len(pairs)
    for n, (peak, cluster) in enumerate(pairs):
        rows = found.folds[7 * n : 7 * n + 7]
        own = passed[peak.side]
        for k, row in enumerate(rows):
            assert row["left_out"] == NAMES[k]
            assert np.float32(row["z_peak"]) == z[k, peak.voxels[0]]
            assert np.float32(row["g_peak"]) == g[k, peak.voxels[0]]
            assert row["peak_survives"] == own[k, peak.voxels[0]]
            assert row["share_of_voxels"] == own[k, cluster.voxels].mean()
            alive = (blobs(own[k], space, rule.k_min)[cluster.voxels] > 0).any()
            assert row["survives"] == alive
        total = found.summary[n]
        assert total["survives"] == sum(row["survives"] for row in rows)
        weak = np.argmin(np.sign(main[peak.voxels[0]]) * z[:, peak.voxels[0]])
        assert total["weakest_without"] == NAMES[weak]
        lost = [row["left_out"] for row in rows if not row["survives"]]
        assert total["lost_without"] == (", ".join(lost) or None)


def test_tables_are_written_as_they_are_given(whole):
    folder, found = whole
    for name, rows in (("jackknife", found.folds), ("summary", found.summary)):
        lines = (folder / f"{name}.tsv").read_text().splitlines()
        assert lines[0].split("\t") == list(rows[0])
        assert len(lines) == len(rows) + 1


def test_interrupted_work_goes_on_where_it_was(made, whole, tmp_path, monkeypatch):
    _, _, finished, analysis = made
    folder, expected = tmp_path / "jk", whole[1]

    def stop(stage, done, total):
        if stage == "jackknife" and done == 2:
            raise KeyboardInterrupt

    ask = {"thresholds": ("uncorrected", "fwe-voxel")}
    with pytest.raises(KeyboardInterrupt):
        jackknife(finished, analysis, folder, progress=stop, **ask)
    done = sorted(p.name for p in (folder / "folds").iterdir())
    assert done == ["without_study00", "without_study01"]
    # A third fold that dies among its maps is no fold yet.
    write = folds.write_named_map

    def fail(place, name, *rest):
        if name == "tau2":
            raise OutputError("disk full")
        return write(place, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(folds, "write_named_map", fail)
        with pytest.raises(OutputError, match="disk full"):
            jackknife(finished, analysis, folder, **ask)
    assert not (folder / "folds/without_study02/fold.json").exists()
    made_now = []
    everywhere = folds.everywhere

    def count(fold, progress):
        made_now.append(fold.design.dataset.names)
        return everywhere(fold, progress)

    monkeypatch.setattr(folds, "everywhere", count)
    again = jackknife(finished, analysis, folder, **ask)
    assert len(made_now) == 5
    assert (again.folds, again.summary) == (expected.folds, expected.summary)
    for path in sorted(whole[0].rglob("*.nii.gz")):
        assert path.read_bytes() == (folder / path.relative_to(whole[0])).read_bytes()


def test_some_studies_only(made, whole, tmp_path):
    _, _, finished, analysis = made
    found = jackknife(
        finished, analysis, tmp_path / "jk", studies=["study05"], thresholds=["uncorrected"]
    )
    wanted = [r for r in whole[1].folds if r["left_out"] == "study05"]
    wanted = [r for r in wanted if r["threshold"] == "uncorrected-0.0025"]
    assert found.folds == wanted


def test_refusals_write_nothing(made, tmp_path):
    _, _, finished, analysis = made
    folder = tmp_path / "jk"
    with pytest.raises(SettingError, match="'study99' is not in the model; it has: study00"):
        jackknife(finished, analysis, folder, studies=["study01", "study99"])
    with pytest.raises(SettingError, match="threshold is 'fdr'"):
        jackknife(finished, analysis, folder, thresholds=["fdr"])
    assert not folder.exists()
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="exists and holds no jackknife"):
        jackknife(finished, analysis, folder)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]


def test_folds_of_another_analysis_are_refused(made, whole):
    _, _, finished, analysis = made
    other = replace(analysis, settings=replace(analysis.settings, seed=5))
    with pytest.raises(CheckpointMismatch, match=r"another analysis \(seed is 5, there it is 0"):
        jackknife(finished, other, whole[0])


def test_too_few_studies_are_refused_before_work(made, tmp_path):
    project = write_project(tmp_path / "project", 4)
    settings = gpu_sdm.Settings(
        voxel_size=4, mask=write_mask(tmp_path / "mask.nii.gz", radius=2), permutations=2,
        imputations=2, covariates=("age",),
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(project), settings, out=tmp_path / "out", backend="cpu")
    finished = open_result(tmp_path / "out")
    with pytest.raises(SettingError, match="without study 'study00' the model has 2 coefficients"):
        jackknife(finished, finished.analysis(CPU), tmp_path / "jk")
    assert not (tmp_path / "jk").exists()


def test_identity_of_a_fold_names_the_study(made, whole):
    _, _, _, analysis = made
    assert without(analysis, "study04").content()["without"] == "study04"
    stored = json.loads((whole[0] / "folds/without_study04/fold.json").read_text())
    assert stored["content"]["without"] == "study04"
    assert stored["voxels_not_converged"] == 0
