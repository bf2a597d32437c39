"""The command `model`, its subgroups and its pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import invoke
from moderated import MODELS, PLACE, analysis, peak, write_moderated
from projects import write_mask

import gpu_sdm
from gpu_sdm.commands.model import model
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.bubble import bubbles, write
from gpu_sdm.findings.models import open_source, subgroups
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.sites import point_sites
from gpu_sdm.finished import open_result
from gpu_sdm.pipeline import execute
from gpu_sdm.stages.meta import coefficients


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    home = tmp_path_factory.mktemp("model")
    return write_moderated(home / "project"), write_mask(home / "mask.nii.gz", radius=5)


def test_bubbles_are_the_regression_of_the_studies(inputs):
    prepared = analysis(inputs, "1 + age + drug")
    result = execute(prepared)
    at = site_effects(prepared, point_sites(result.space, [tuple(result.space.mm()[peak(result)])]))
    shown = bubbles(at, 0)
    here = peak(result)
    assert shown.estimate == pytest.approx(result.maps["g"][here], rel=1e-5)
    assert shown.z == pytest.approx(result.maps["z"][here], rel=1e-4)
    ages = [s.covariates["age"] for s in prepared.design.dataset.studies]
    np.testing.assert_allclose(shown.x, ages, atol=1e-9)
    slope = np.diff(shown.fitted) / np.diff(shown.at)
    np.testing.assert_allclose(slope, shown.estimate)
    # What is taken off is the other term's share: its coefficient, from group to group.
    model = prepared.design
    unit = np.eye(len(model.names))[model.names.index("drug[T.b]")]
    (drug,) = coefficients(at.effects, prepared.terms, model.X, [unit], "dl")
    taken = shown.g - shown.adjusted
    b = np.array([st.labels["drug"] == "b" for st in model.dataset.studies])
    np.testing.assert_allclose(taken[b][:, None] - taken[~b], drug.g[0], atol=1e-9)
    # The band: 1.96 standard errors, at the mean age those of the mean at average covariates.
    (mean,) = coefficients(at.effects, prepared.terms, model.X, [np.eye(3)[0]], "dl")
    half = np.interp(np.mean(ages), shown.at, shown.high - shown.fitted)
    assert half == pytest.approx(1.959964 * mean.se[0], rel=1e-3)
    assert (shown.low < shown.fitted).all()
    assert (shown.fitted < shown.high).all()


def test_bubbles_of_a_mean_or_of_several_rows_are_refused(inputs):
    for name, said in (("mean", "tests a mean"), ("joint", "jointly")):
        prepared = analysis(inputs, *MODELS[name])
        at = site_effects(prepared, point_sites(prepared.space, [PLACE]))
        with pytest.raises(SettingError, match=said):
            bubbles(at, 0)


def test_pictures_name_the_groups_and_are_the_same_bytes_again(inputs, tmp_path):
    prepared = analysis(inputs, *MODELS["groups"])
    at = site_effects(prepared, point_sites(prepared.space, [PLACE]))
    assert set(bubbles(at, 0).ticks.values()) == {"adult", "young"}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (picture,) = write(at, tmp_path / folder)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert {Path(f).suffix for f in files} == {".png", ".svg", ".tsv"}
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "a" / files[-1]).read_text().splitlines()
    assert len(table) == 15


def test_subgroups_of_a_column(inputs):
    dataset = gpu_sdm.read(inputs[0])
    models, count = subgroups(dataset, "group")
    assert [m.folder for m in models] == ["mean_adult", "mean_young", "adult_minus_young"]
    assert sum(count.values()) == 14
    for column, said in (
        ("scanner", "holds 1 groups"), ("age", "holds 14 groups"), ("sex", "not in the table"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=said):
            subgroups(dataset, column)
    with pytest.raises(SettingError, match="'young' has 1 study"):
        subgroups(dataset, "group", "age > 36.5 or study == 's00'")


def command(*arguments):
    more = ["--no-report"] if "--out" in arguments else []
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "gpu_sdm.cli", "model", *map(str, arguments), *more],
        capture_output=True, text=True, check=False, env=dict(os.environ, NO_COLOR="1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_compat_imputes_as_that_program_unless_told_otherwise(inputs, tmp_path, monkeypatch):
    class AskedFor(Exception):
        pass

    def stop(prepared, **_):
        raise AskedFor(prepared.settings.impute_under)

    monkeypatch.setattr("gpu_sdm.pipeline.execute", stop)
    project, mask = inputs
    given = {"formula": "1 + age", "contrast": ["age"], "mask": mask, "voxel_size": 4}
    for more, wanted in (
        ({}, "null"), ({"compat": "sdm-6.21"}, "model"),
        ({"compat": "sdm-6.21", "impute_under": "null"}, "null"),
        ({"impute_under": "model"}, "model"),
    ):  # fmt: skip
        with pytest.raises(AskedFor, match=f"^{wanted}$"):
            model(project, out=tmp_path / "out", backend="cpu", **given, **more)


def test_the_command_from_project_to_pictures(inputs, tmp_path):
    project, mask = inputs
    small = ["--voxel-size", 4, "--mask", mask, "--imputations", 3]
    common = ["--backend", "cpu", "--permutations", 40]
    out = tmp_path / "age"
    done = command(project, "--formula", "1 + age", "--contrast", "age", "--out", out,
                   "--plot", "0,-16,18", *small, *common)  # fmt: skip
    assert done.stdout.splitlines()[-1] == str(out)
    assert "1 + age, tested: age" in " ".join(done.stdout.split())
    assert {p.suffix for p in (out / "plots").iterdir()} == {".png", ".svg", ".tsv"}
    # From OUT its settings are taken: imputations, mask, grid, permutations.
    sub = tmp_path / "sub"
    done = command(out, "--subgroup", "group", "--out", sub, "--backend", "cpu")
    rows = (sub / "subgroups.tsv").read_text().splitlines()
    assert [r.split("\t")[0] for r in rows[1:]] == ["mean_adult", "mean_young", "adult_minus_young"]
    settings = open_result(sub / "mean_adult").settings
    assert (settings.imputations, settings.permutations, settings.voxel_size) == (3, 40, 4)
    assert settings.formula == "0 + C(group)"
    done = command(sub / "adult_minus_young", "--plot=0,-16,18", "--backend", "cpu")
    assert done.stdout.splitlines()[-1] == str(sub / "adult_minus_young" / "plots")
    assert open_source(out).settings.formula is None
    for arguments, said in (
        ({"formula": "1 + age"}, "give --formula or --subgroup, and --out DIR"),
        ({"formula": "1 + size", "out": tmp_path / "n"}, "'size' is not in the table"),
        ({"formula": "1 + age", "plot": ["0,-16,18"], "out": tmp_path / "n"}, "tests a mean"),
        ({"subgroup": "group", "contrast": ["x"], "out": tmp_path / "n"}, "its own contrasts"),
    ):
        with pytest.raises(SettingError, match=said):
            model(out, backend="cpu", **arguments)
        assert not list(tmp_path.glob("n*"))


@pytest.mark.slow
def test_the_example_of_the_docs_runs(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    python, bash = (
        re.search(rf"```{kind}\n(.*?)```", text, re.S)[1] for kind in ("python", "bash")
    )
    subprocess.run([sys.executable, "-W", "error", "-c", python], cwd=tmp_path, check=True)
    run = f'set -e\ngpu-sdm() {{ "{sys.executable}" -W error -m gpu_sdm.cli "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", run + bash], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1])),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plots = {p.suffix for p in (tmp_path / "growing-age" / "plots").iterdir()}
    assert plots == {".png", ".svg", ".tsv"}
    rows = (tmp_path / "growing-groups" / "subgroups.tsv").read_text().splitlines()
    assert len(rows) == 4


def test_a_plot_that_cannot_be_drawn_is_refused_before_the_work(inputs, tmp_path, monkeypatch):
    def worked(*_, **__):
        raise AssertionError("the permutations were run")

    monkeypatch.setattr("gpu_sdm.pipeline.execute", worked)
    project, mask = inputs
    for text, says in (("0,-16", "--plot is '0,-16'"), ("0,-16,100", "lies outside the mask")):
        done = invoke(
            "model", project, "--formula", "1 + age", "--contrast", "age", "--plot", text,
            "--out", tmp_path / "out", "--voxel-size", 4, "--mask", mask, "--imputations", 3,
            "--backend", "cpu",
        )  # fmt: skip
        assert says in str(done.exception)
        assert not (tmp_path / "out").exists()
