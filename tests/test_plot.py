"""`gpu-sdm plot`: the files it writes, what they show, what it says and refuses."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from small_results import small_result
from test_figures import fits, words
from typer.testing import CliRunner

from gpu_sdm.cli import app
from gpu_sdm.errors import GpuSdmError, InputError, SettingError
from gpu_sdm.figures.bubble import bubble
from gpu_sdm.figures.drawn import KINDS, Plotter
from gpu_sdm.figures.of_result import rule_of, view
from gpu_sdm.figures.palette import Look
from gpu_sdm.figures.save import as_svg
from gpu_sdm.findings.bubble import Bubbles
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.threshold import Rule, threshold
from gpu_sdm.findings.threshold_files import save as save_threshold

NAME = "z_uncorrected-0.2-k10"
LOOSE = ["--threshold", "uncorrected", "--p", "0.2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_result(tmp_path_factory.mktemp("plot"))


def call(*arguments, fails=False):
    done = CliRunner().invoke(app, ["plot", *map(str, arguments)])
    if fails:
        assert isinstance(done.exception, GpuSdmError), done.output
        return str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_the_default_figures_of_a_result(made, tmp_path):
    out = made[0] / "out"
    done = call(out, *LOOSE, "--out", tmp_path / "new" / "f", "--dpi", 60, "--width", 85)
    assert done.stdout.strip().splitlines()[-1] == str(tmp_path / "new" / "f")
    names = {p.name for p in (tmp_path / "new" / "f").iterdir()}
    wanted = {f"slices_{NAME}.png", f"glass_{NAME}.png", f"mosaic_{NAME}.png", "glass_peaks.png"}
    assert names == wanted
    assert "warning" not in done.stderr


def test_every_figure_there_is_something_for(made, tmp_path):
    done = call(made[0] / "out", "all", *LOOSE, "--peaks", 1, "--dpi", 50, "--json", "-o", tmp_path)
    told = json.loads(done.stdout[done.stdout.index("{") :])
    files = sorted(tmp_path.iterdir())
    assert sorted(told["files"]) == [str(p) for p in files]
    assert {p.stem.split("_")[0] for p in files} == set(KINDS) - {"jackknife", "bubble"}
    assert "no jackknife" in done.stderr
    assert "no bubble" in done.stderr
    for path in files:
        with Image.open(path) as image:
            assert image.width == int(180 / 25.4 * 50)


def test_every_format_and_again_the_same(made, tmp_path):
    formats = ("--format", "png", "--format", "svg", "--format", "pdf")
    for folder in ("a", "b"):
        call(made[0] / "out", "null", "mosaic", *LOOSE, *formats, "--dpi", 50, "-o",
             tmp_path / folder)  # fmt: skip
    paths = sorted((tmp_path / "a").iterdir())
    assert [p.name for p in paths if "null_tfce" in p.name] == [
        f"null_tfce.{kind}" for kind in ("pdf", "png", "svg")
    ]
    for path in paths:
        content = path.read_bytes()
        assert content == (tmp_path / "b" / path.name).read_bytes(), path.name
        if path.suffix == ".svg":
            assert ET.fromstring(content).get("width").startswith("510.2362")
        elif path.suffix == ".pdf":
            assert content.startswith(b"%PDF")


def test_nothing_significant_is_said_in_the_figure_and_on_stderr(made, tmp_path):
    out = made[0] / "out"
    done = call(out, "mosaic", "--threshold", "fwe-voxel", "--p", 0.001, "--no-title",
                "--out", tmp_path, "--format", "svg")  # fmt: skip
    (path,) = tmp_path.iterdir()
    assert path.name == "mosaic_z_unthresholded.svg"
    said = "No cluster at p ≤ 0.001 (voxel, FWE), k ≥ 10: the unthresholded map is shown"
    assert said in " ".join(done.stderr.split())
    text = " ".join("".join(ET.parse(path).getroot().itertext()).split())
    assert said in text


def test_a_view_is_the_threshold_of_the_library(made):
    _, finished, _ = made
    rule = Rule(map="uncorrected", p=0.2)
    seen, found = view(finished, "g", rule), threshold(finished, rule)
    assert not seen.warning
    assert np.array_equal(seen.shown, found.numbers() > 0)
    assert np.array_equal(seen.values, finished.map("g"))
    places = sorted((r["x_mm"], r["y_mm"], r["z_mm"]) for r in found.clusters)
    assert sorted(map(tuple, seen.peaks.tolist())) == places
    height = np.abs(finished.map("z")[[int(s.voxels[0]) for s in seen.sites]])
    assert (np.diff(height) <= 0).all()
    assert seen.scale.unit == "Hedges g"
    assert not seen.scale.fade
    assert len(view(finished, "g", rule, peaks=1).sites) == 1
    assert view(finished, "z", rule, high=9.0).scale.high == 9
    points = view(finished, "z", rule, [(2.0, -14.0, 20.0)])
    assert points.peaks.tolist() == [[2.0, -14.0, 20.0]]
    with pytest.raises(SettingError, match="lies outside the mask"):
        view(finished, "z", rule, [(0.0, 90.0, 0.0)])
    with pytest.raises(InputError, match="no map 'nothing'"):
        view(finished, "nothing", rule)


def test_where_nothing_passes_the_extremes_are_shown(made):
    _, finished, _ = made
    seen = view(finished, "z", Rule(map="uncorrected", p=1e-12))
    z = finished.map("z")
    assert seen.shown.all()
    assert seen.scale.fade
    assert {int(s.voxels[0]) for s in seen.sites} == {int(z.argmax()), int(z.argmin())}


def test_p_maps_are_shown_as_signed_logarithms(made):
    _, finished, _ = made
    seen = view(finished, "p_fwe_tfce", Rule(map="uncorrected", p=0.2))
    z = finished.map("z")
    positive = z > 0
    np.testing.assert_allclose(
        seen.values[positive], -np.log10(finished.map("p_fwe_tfce")[positive]), rtol=1e-6
    )
    np.testing.assert_allclose(
        seen.values[~positive], np.log10(finished.map("p_fwe_tfce_neg")[~positive]), rtol=1e-6
    )
    assert "log₁₀ p_fwe_tfce" in seen.scale.unit


def test_thresholds_by_name_by_folder_and_unknown_ones(made, tmp_path):
    _, finished, _ = made
    assert rule_of(finished) == Rule(map="fwe-tfce", p=0.05)
    assert rule_of(finished, "uncorrected").p == 0.0025
    rule = Rule(map="uncorrected", p=0.31, extent=4, side="positive")
    folder = save_threshold(threshold(finished, rule))
    try:
        assert rule_of(finished, folder.name) == rule == rule_of(finished, str(folder))
        with pytest.raises(SettingError, match="leave out --p"):
            rule_of(finished, folder.name, 0.05)
        with pytest.raises(SettingError, match=f"or a finished one: {folder.name}"):
            rule_of(finished, "tfce")
        (folder / "threshold.json").write_text("{}")
        with pytest.raises(InputError, match="no threshold of gpu-sdm"):
            rule_of(finished, folder.name)
    finally:
        shutil.rmtree(folder.parent)
    with pytest.raises(SettingError, match="must be one of fwe-tfce, fwe-voxel"):
        rule_of(finished, "tfce")
    with pytest.raises(SettingError, match="p_fwe_cluster_extent"):
        rule_of(finished, "fwe-extent")


def test_the_last_point_of_convergence_is_the_p_map(made):
    _, finished, analysis = made
    seen = view(finished, "z", Rule(map="uncorrected", p=0.2))
    plotter = Plotter(finished, seen, Look(), lambda sites: site_effects(analysis, sites))
    ((name, figure),) = plotter.convergence()
    assert name == "convergence_tfce"
    ends = {float(line.get_ydata()[-1]) for line in figure.axes[0].lines if line.get_gid() == "p"}
    of = {1: "p_fwe_tfce", -1: "p_fwe_tfce_neg"}
    wanted = {
        round(float(finished.map(of[1 if s.side == "positive" else -1])[s.voxels[0]]), 6)
        for s in seen.sites
    }
    assert {round(p, 6) for p in ends} == wanted


def test_forest_and_funnel_say_what_the_findings_do(made):
    from gpu_sdm.findings.bias import bias
    from gpu_sdm.findings.heterogeneity import heterogeneity

    _, finished, analysis = made
    seen = view(finished, "z", Rule(map="uncorrected", p=0.2), peaks=1)
    plotter = Plotter(finished, seen, Look(), lambda sites: site_effects(analysis, sites))
    ((_, forest),), ((_, funnel),) = plotter.forest(), plotter.funnel()
    (row,), (egger,) = heterogeneity(plotter.at), bias(plotter.at)
    assert f"Q = {row['q']:.2f}, df = {row['df']}" in words(forest)
    assert f"z = {egger['egger_z']:.2f}" in words(funnel)
    boxes = [c for c in forest.axes[0].collections if c.get_gid() == "study"]
    assert len(boxes) == 7
    z = finished.map("z")[seen.sites[0].voxels[0]]
    assert np.sign(forest.axes[0].patches[0].get_xy()[1, 0]) == np.sign(z)


def test_cuts_and_points(made, tmp_path):
    out = made[0] / "out"
    call(out, "slices", *LOOSE, "--cuts", "y=-20,0, 12", "--format", "svg", "--out", tmp_path)
    text = "".join(ET.parse(tmp_path / f"slices_{NAME}.svg").getroot().itertext())
    for place in ("y = −20", "y = 0", "y = 12"):
        assert place in text
    message = call(out, "slices", "--cuts", "w=3", "--out", tmp_path / "no", fails=True)
    assert "--cuts is 'w=3'; give a plane and millimetres" in message
    message = call(out, "slices", "--at", "1,2", "--out", tmp_path / "no", fails=True)
    assert "give three numbers with commas" in message
    assert not (tmp_path / "no").exists()


def test_a_jackknife_that_was_run_is_drawn(made, tmp_path):
    home, finished, _ = made
    assert "run gpu-sdm jackknife" in call(home / "out", "jackknife", *LOOSE, fails=True)
    copy = tmp_path / "copy"
    shutil.copytree(home / "out", copy)
    folder = copy / "jackknife"
    folder.mkdir()
    (folder / "summary.tsv").write_text(
        "threshold\tcluster\tx_mm\ty_mm\tz_mm\tlabel\tz_peak\n"
        "uncorrected-0.0025\t1\t-10\t4\t8\tPutamen_L\t-3.5\n"
    )
    rows = [f"uncorrected-0.0025\t1\tstudy0{k}\t{-3 - k / 10}\t{str(k > 1).lower()}"
            for k in range(4)]  # fmt: skip
    head = "threshold\tcluster\tleft_out\tz_peak\tsurvives"
    (folder / "jackknife.tsv").write_text("\n".join([head, *rows]) + "\n")
    call(copy, "jackknife", *LOOSE, "--format", "svg", "--dpi", 50)
    root = ET.parse(copy / "figures" / "jackknife_uncorrected-0.0025_1.svg").getroot()
    text = "".join(root.itertext())
    for part in ("Putamen_L (−10, 4, 8)", "study03", "−2.81", "cluster lost", "cluster survives"):
        assert part in text
    assert finished.folder != copy


def test_bubbles_have_the_look_of_the_others():
    from small_results import MIDDLE

    line = np.linspace(20, 60, 11)
    shown = Bubbles(
        MIDDLE[0], ("a", "b"), np.array([25.0, 55.0]), np.array([0.1, 0.5]), np.array([0.1, 0.4]),
        np.array([0.5, 1.0]), line, line / 100, line / 100 - 0.2, line / 100 + 0.2, "age <$x$>", {},
        0.01, 2.5,
    )  # fmt: skip
    figure = bubble(shown, look=Look(85, "black"))
    points = figure.axes[0].collections[-1]
    np.testing.assert_allclose(points.get_offsets(), [[25, 0.1], [55, 0.4]])
    assert points.get_sizes()[1] > points.get_sizes()[0]
    root = ET.fromstring(as_svg(figure))
    assert "age <$x$>: 0.01, z = 2.50 at this voxel" in "".join(root.itertext())
    assert figure.get_facecolor()[:3] == (0, 0, 0)
    fits(figure)


def test_what_is_no_result_is_refused(made, tmp_path):
    assert "there is no such folder" in call(tmp_path / "none", fails=True)
    assert "neither a finished gpu-sdm result" in call(tmp_path, fails=True)
    assert "has no map 'x'" in call(made[0] / "out", "--map", "x", fails=True)
    assert not (made[0] / "out" / "figures").exists()
    gone = tmp_path / "gone"
    shutil.copytree(made[0] / "out", gone)
    run = json.loads((gone / "run.json").read_text())
    (gone / "run.json").write_text(json.dumps({**run, "project": str(tmp_path / "away")}))
    assert "no longer there" in call(gone, "forest", *LOOSE, fails=True)
    done = call(gone, "all", *LOOSE, "--dpi", 50, "--width", 60)
    assert "no forest" in done.stderr
    assert (gone / "figures" / "null_tfce.png").is_file()
