"""`gpu-sdm decode` as a user meets it, and its radar charts."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_database import PARTNER_MM, SEED_MM, write_database
from small_results import small_result

from gpu_sdm.cli import main
from gpu_sdm.errors import SettingError
from gpu_sdm.figures.radar import radar
from gpu_sdm.spaces import SHAPES, grid_affine

AT, PARTNER = (",".join(f"{v:g}" for v in xyz) for xyz in (SEED_MM, PARTNER_MM))
FEW = ("--min-term-studies", "10")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("decode")
    small_result(home)
    write_database(home / "db")
    return home


@pytest.fixture
def run(made, monkeypatch, capsys):
    def call(*words, database=True):
        given = ("--database", made / "db") if database else ()
        monkeypatch.setattr(sys, "argv", ["gpu-sdm", "decode", *map(str, (*words, *given))])
        with pytest.raises(SystemExit) as stop:
            main()
        done = capsys.readouterr()
        return stop.value.code, done.out, done.err

    return call


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_a_result_decoded(made, run):
    r = np.full(SHAPES[4], 0.5, np.float32)
    r[:23] = 0.1
    nib.save(nib.Nifti1Image(r, grid_affine(4)), made / "r.nii.gz")
    code, out, err = run(
        made / "out", "--at", AT, "--at", PARTNER, *FEW,
        "--connectivity", f"{AT}={made / 'r.nii.gz'}", "--n", "40",
    )  # fmt: skip
    assert code == 0, err
    folder = made / "out" / "decode" / "neurosynth-7"
    assert out.splitlines()[-1] == str(folder)
    assert "motion" in err
    seeds = table(folder / "seeds.tsv")
    assert [row["site"] for row in seeds] == [AT, PARTNER]
    assert int(seeds[0]["conjunction_voxels"]) > 0
    assert seeds[1]["conjunction_voxels"] == "n/a"
    maps = {p.name for p in (folder / "maps").iterdir()}
    stem = "seed1_0_-16_18_"
    assert maps == {
        f"{s}{n}.nii.gz"
        for s, names in (
            (stem, "association_z uniformity_z association_q coactivation connectivity_z "
                   "conjunction"),
            ("seed2_16_-32_26_", "association_z uniformity_z association_q coactivation"),
        )
        for n in names.split()
    }  # fmt: skip
    joint, coactive, z = (
        np.asarray(nib.load(folder / "maps" / f"{stem}{n}.nii.gz").dataobj)
        for n in ("conjunction", "coactivation", "connectivity_z")
    )
    assert (joint > 0).sum() == int(seeds[0]["conjunction_voxels"])
    np.testing.assert_allclose(joint[joint > 0], np.minimum(coactive, z)[joint > 0])
    assert (joint[:23] == 0).all()
    terms = table(folder / "terms.tsv")
    assert (terms[0]["seed"], terms[0]["rank"], terms[0]["term"]) == ("1", "1", "motion")
    assert {row["term"] for row in table(folder / "terms_all.tsv")} == {
        "motion", "reward", "memory", "speech", "fear", "pain", "touch"
    }  # fmt: skip
    assert {row["map"] for row in table(folder / "conjunction_regions.tsv")} <= {
        "coactivation", "conjunction"
    }  # fmt: skip
    assert [r["map"] for r in table(folder / "overlap.tsv")] == ["coactivation"]
    assert table(folder / "coactivation.tsv")[0]["rank"] == "1"
    said = json.loads((folder / "run.json").read_text())
    assert said["database"]["sha256"]
    assert "Yarkoni" in said["database"]["citation"]
    assert "ODbL" in said["database"]["licence"]
    assert said["result"]["out"] == str(made / "out")
    assert said["versions"]["gpu-sdm"]
    assert said["connectivity"][0]["sha256"]
    for name in ("radar_all", "radar_seed1_0_-16_18"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{name}.svg").read_text()


def test_the_same_files_again_and_json(made, run):
    first, again = made / "first", made / "again"
    for out in (first, again):
        code, text, err = run(made / "out", "--at", AT, "--out", out, "--json", *FEW)
        assert code == 0, err
    said = json.loads(text)
    assert said["folder"] == str(again)
    assert said["terms"][0]["term"] == "motion"
    for path in sorted(first.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(first)).read_bytes(), path


def test_points_without_a_result(made, run):
    out = made / "points"
    code, text, err = run("--at", AT, "--voxel-size", "4", "--out", out, *FEW)
    assert (code, text.strip()) == (0, str(out)), err
    assert json.loads((out / "run.json").read_text())["result"]["out"] is None


def test_clusters_of_a_result(made, run):
    code, _, err = run(
        made / "out", "--threshold", "uncorrected", "--seeds", "cluster", "--min-studies", "2",
        "--out", made / "clusters", *FEW,
    )  # fmt: skip
    assert code == 0, err
    assert all("cluster" in r["site"] for r in table(made / "clusters" / "seeds.tsv"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--at", AT), "there is no result: give the OUT folder"),
        (("OUT", "--at", "60,40,60"), "lies outside the mask"),
        (("OUT", "--at", AT, "--min-studies", "150"), "too few to tell"),
        (("OUT", "--at", AT, "--connectivity", "7=x.nii"), "PEAK one of: 1 or 0,-16,18"),
        (("OUT", "--at", AT, "--connectivity", "1=nowhere.nii"), "no such file"),
        (("OUT", "--at", AT, "--vocabulary", "x"), "has no vocabulary 'x'; it has: terms"),
        (("OUT", "--at", AT, "--terms-file", "nowhere.txt"), "cannot be read"),
        (("OUT", "--at", AT, "--out", "OUT"), "holds no run"),
    ],
)
def test_refusals_write_nothing(made, run, words, says):
    before = {p: p.read_bytes() for p in made.rglob("*") if p.is_file()}
    words = [made / "out" if w == "OUT" else w for w in words]
    code, out, err = run(*words, *FEW)
    assert code == 1
    assert out == ""
    assert says in " ".join(err.split())
    assert {p: p.read_bytes() for p in made.rglob("*") if p.is_file()} == before


def test_radar_orders_terms_by_the_seed_they_go_with():
    values = {
        "A (0,0,0)": {"x": 1.0, "y": 5.0, "z": -2.0, "w": 0.5},
        "B (1,1,1)": {"x": 3.0, "y": 1.0, "z": 4.0, "w": 0.1},
    }
    found = {name: {t: t == "y" for t in terms} for name, terms in values.items()}
    figure = radar(values, found=found)
    axes = figure.axes[0]
    full = [line.get_ydata().tolist() for line in axes.lines if line.get_gid() == "sure"]
    empty = [line.get_ydata().tolist() for line in axes.lines if line.get_gid() == "unsure"]
    assert full == [[5], [1]]
    assert empty == [[0.5, 1], [0.1, 4, 3]]  # none at the centre
    lines = {line.get_gid(): line for line in axes.lines}
    assert lines["seed1"].get_ydata().tolist() == [5, 0.5, 0, 1, 5]  # y w | z x, closed
    assert lines["seed2"].get_ydata().tolist() == [1, 0.1, 4, 3, 1]
    texts = [t.get_text() for t in axes.texts]
    assert [t for t in texts if t.isalpha()] == ["y", "w", "z", "x"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(values)
    assert lines["seed1"].get_color() != lines["seed2"].get_color()
    assert lines["seed1"].get_marker() != lines["seed2"].get_marker()


def test_radar_needs_three_common_terms():
    with pytest.raises(SettingError, match="3 or more terms"):
        radar({"A": {"x": 1.0, "y": 2.0}})
    with pytest.raises(SettingError, match="same"):
        radar({"A": {"x": 1.0, "y": 2.0, "z": 1.0}, "B": {"x": 1.0, "y": 2.0, "w": 1.0}})


PAGE = (Path(__file__).parents[1] / "docs" / "decode.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    for line in block.splitlines()
    if "--fetch" not in line
]


@pytest.mark.parametrize("line", LINES)
def test_commands_of_the_page(made, run, line, tmp_path):
    r = np.full(SHAPES[4], 0.5, np.float32)
    nib.save(nib.Nifti1Image(r, grid_affine(4)), tmp_path / "r.nii")
    words = shlex.split(line)
    assert words[:2] == ["gpu-sdm", "decode"]
    known = {
        "demo-output": made / "out", "0,48,0": AT, "peaks": tmp_path / "peaks",
        "0,48,0=r_map.nii.gz": f"{AT}={tmp_path / 'r.nii'}", "fwe-tfce": "uncorrected",
        "60,-14,-12": AT, "-22,-48,-28": AT, "-52,-70,2": AT,
    }  # fmt: skip
    kept = [known.get(w, w) for w in words[2:]]
    if "--database" in kept:
        at = kept.index("--database")
        del kept[at : at + 2]
    if str(tmp_path / "peaks") not in map(str, kept):
        kept += ["--out", tmp_path / "out"]
    code, out, err = run(*kept, "--min-studies", "2", "--voxel-size", "4", *FEW)
    assert code == 0, err
    assert (Path(out.splitlines()[-1]) / "run.json").is_file()
