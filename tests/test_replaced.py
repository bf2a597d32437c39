"""What a user keeps in OUT survives the result around it; findings of an old null are set apart."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path, PurePath

import pytest
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm import output
from gpu_sdm.commands import _on_result
from gpu_sdm.errors import CheckpointMismatch, OutputError
from gpu_sdm.findings.folder import replace_folder
from gpu_sdm.io.replaced import FINDINGS, foreign, is_own
from gpu_sdm.io.tables import write_bytes

COMMANDS = Path(_on_result.__file__).parent
MINE = ("notes.txt", "maps/my figure.png", "tables/for the paper/t.csv", ".hidden", "null/x.tsv")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("replaced")
    write_project(home / "project", studies=6)
    write_mask(home / "mask.nii.gz", radius=4)
    run(home, home / "made")
    return home


def run(home, out, **changes):
    asked = {"imputations": 2, "voxel_size": 4, "permutations": 20, "mask": home / "mask.nii.gz"}
    stop = changes.pop("progress", lambda *_: None)
    force = changes.pop("force", False)
    settings = gpu_sdm.Settings(**(asked | changes))
    return gpu_sdm.run(
        gpu_sdm.read(home / "project"), settings, out=out, force=force, progress=stop
    )


@pytest.fixture
def used(home, tmp_path):
    """A result with findings of every kind of place, and files of the user's own."""
    out = tmp_path / "out"
    shutil.copytree(home / "made", out)
    for name in MINE:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    for name in ("thresholds/a/z.nii.gz", "bias/bias.tsv", "jackknife/folds.tsv",
                 "jackknife/folds/without_s/g.nii.gz", "jackknife/jackknife.json"):  # fmt: skip
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"old {name}")
    return out


def tree(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_every_file_of_a_result_is_known_as_the_runs_own(home):
    for i, more in enumerate([{}, {"statistic": ("cluster-extent", "cluster-mass")},
                              {"formula": "1 + age", "contrast": ("age",)}]):  # fmt: skip
        out = home / f"own{i}"
        run(home, out, **more)
        assert foreign(out) == []
        assert all(is_own(PurePath(p)) for p in tree(out))
    assert not is_own(PurePath("maps/my.nii.gz"))
    assert not is_own(PurePath("maps/deeper/z.nii.gz"))


def test_every_folder_that_a_command_writes_into_a_result_is_known():
    """A command whose folder is not in FINDINGS would leave stale findings beside new maps."""
    inside = re.compile(r'(?:\bout|result|finished\.folder|source|found\.folder) / "([\w.-]+)"')
    names = set()
    for path in [*COMMANDS.glob("*.py"), *(COMMANDS.parent / "findings").glob("*.py")]:
        text = path.read_text()
        names |= set(re.findall(r'out_option\("([\w.-]+)', text))
        names |= set(re.findall(r'show_default="OUT/([\w.-]+)', text)) | set(inside.findall(text))
    own = {"run.json", "maps", "null", "tables", "subgroups.tsv"}
    assert {"thresholds", "jackknife", "bias", "heterogeneity"} <= names
    assert names - own <= FINDINGS, names - own - FINDINGS


def test_more_permutations_keep_what_was_put_there_and_set_findings_apart(home, used, tmp_path):
    before = tree(used)
    run(home, used, permutations=40)
    run(home, tmp_path / "plain", permutations=40)
    now = tree(used)
    aside = "earlier/20-permutations"
    moved = {"thresholds/a/z.nii.gz", "bias/bias.tsv", "jackknife/folds.tsv"}
    assert now == (before - moved) | {f"{aside}/{name}" for name in moved}
    assert all((used / name).read_text() == name for name in MINE)
    assert (used / aside / "bias/bias.tsv").read_text() == "old bias/bias.tsv"
    for name in tree(tmp_path / "plain") - {"run.json"}:
        assert (used / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert not output.partial_of(used).exists()
    (used / "bias").mkdir()
    (used / "bias" / "bias.tsv").write_text("new")
    run(home, used, permutations=45)
    assert (used / "earlier/40-permutations/bias/bias.tsv").read_text() == "new"
    assert (used / aside / "bias/bias.tsv").exists()


def test_force_keeps_it_too(home, used):
    run(home, used, seed=3, force=True)
    assert all((used / name).read_text() == name for name in MINE)
    (aside,) = (used / "earlier").iterdir()
    assert aside.name.startswith("replaced-")
    assert tree(aside) >= {"thresholds/a/z.nii.gz", "jackknife/folds/without_s/g.nii.gz"}
    assert not (used / "jackknife").exists()


def test_it_is_said_what_was_set_apart(home, used):
    from gpu_sdm.analysis import prepare
    from gpu_sdm.backend import get_backend
    from gpu_sdm.pipeline import execute

    settings = gpu_sdm.Settings(
        imputations=2, voxel_size=4, permutations=30, mask=home / "mask.nii.gz"
    )
    said = []
    analysis = prepare(gpu_sdm.read(home / "project"), settings, get_backend("cpu"))
    execute(analysis, out=used, say=said.append)
    (sentence,) = said
    assert "20-permutations (bias, jackknife/folds.tsv, thresholds)" in sentence
    assert "give their commands again" in sentence


def test_a_folder_of_the_name_out_old_is_not_touched(home, tmp_path):
    (tmp_path / "out.old").mkdir()
    (tmp_path / "out.old" / "thesis.tex").write_text("years of work")
    run(home, tmp_path / "out")
    run(home, tmp_path / "out", permutations=30)
    assert (tmp_path / "out.old" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("moment", ["old moved away", "new in place", "half carried over"])
def test_a_kill_while_a_result_is_replaced(home, used, moment):
    partial, everything = output.partial_of(used), {n: n for n in MINE}
    partial.mkdir()
    used.rename(partial / "replaced")
    if moment != "old moved away":
        run(home, partial.parent / "new", permutations=40)
        (partial.parent / "new").rename(used)
        if moment == "half carried over":
            (partial / "replaced" / "notes.txt").rename(used / "notes.txt")
            (used / "earlier/20-permutations").mkdir(parents=True)
            (partial / "replaced" / "bias").rename(used / "earlier/20-permutations/bias")
        with pytest.raises(OutputError, match="is finished with 40 permutations"):
            run(home, used, permutations=40)
    else:
        run(home, used, permutations=40)
    assert {n: (used / n).read_text() for n in MINE} == everything
    assert (used / "earlier/20-permutations/bias/bias.tsv").exists()
    assert (used / "earlier/20-permutations/thresholds/a/z.nii.gz").exists()
    assert not partial.exists()


def test_unfinished_forced_work_goes_on_with_the_same_command_and_without_force(home, tmp_path):
    out = tmp_path / "out"
    run(home, out, seed=5)

    def stop(stage, done, total):
        if stage == "permutations" and done >= 32:
            raise KeyboardInterrupt

    for again in (True, False):
        with pytest.raises(KeyboardInterrupt):
            run(home, out, permutations=70, force=True, progress=stop)
        begun: dict[str, int] = {}
        run(home, out, permutations=70, force=again,
            progress=lambda stage, done, _, begun=begun: begun.setdefault(stage, done))  # fmt: skip
        assert begun["permutations"] >= 32
        assert json.loads((out / "run.json").read_text())["settings"]["seed"] == 0
        shutil.rmtree(out)
        run(home, out, seed=5)
    with pytest.raises(KeyboardInterrupt):
        run(home, out, permutations=70, force=True, progress=stop)
    shutil.rmtree(out)
    run(home, tmp_path / "other", seed=6)
    (tmp_path / "other").rename(out)  # not the result that was to be replaced
    with pytest.raises(CheckpointMismatch, match="seed is 0, there it is 6"):
        run(home, out, permutations=70)


def test_a_result_put_at_out_meanwhile_is_not_replaced(home, tmp_path):
    out = tmp_path / "out"

    def put(stage, done, total):
        if stage == "permutations" and done == total and not out.exists():
            shutil.copytree(home / "made", out)

    before = tree(home / "made")
    with pytest.raises(OutputError, match="another result was put at"):
        run(home, out, permutations=70, progress=put)
    assert tree(out) == before
    shutil.rmtree(out)
    run(home, out, permutations=70)


def test_a_folder_of_findings_keeps_what_others_put_there_and_a_killed_writers_rest_goes(tmp_path):
    out = tmp_path / "t"

    def write(folder):
        write_bytes(folder / "one.tsv", b"1")

    replace_folder(out, "threshold", {"name": "a"}, {}, write)
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("mine")
    dead = 2**22 + 1  # above the largest process number of Linux
    out.rename(tmp_path / f".t.{dead}.old")
    (tmp_path / f".t.{dead}.partial").mkdir()
    replace_folder(out, "threshold", {"name": "a"}, {}, write)
    assert tree(tmp_path) == {"t/one.tsv", "t/threshold.json", "t/notes/mine.txt"}
    (out / f".one.tsv.{dead}.tmp").write_text("half")
    write_bytes(out / "one.tsv", b"2")
    assert tree(out) == {"one.tsv", "threshold.json", "notes/mine.txt"}
