"""`gpu-sdm template`: what it refuses, what it shows, and the picture it draws."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from template_maps import run, write_image, write_subjects

from gpu_sdm import template_build as tb
from gpu_sdm.errors import InputError, SettingError, SpaceError
from gpu_sdm.io.volumes import save_template
from gpu_sdm.spaces import SHAPES, Space, grid_affine
from gpu_sdm.stages.bounds import bounds_of_peaks
from gpu_sdm.stages.template import DIRECTIONS, AdjacentMoments
from gpu_sdm.template_picture import kernel_at, mean_face_correlation
from gpu_sdm.templates import OFFSETS, default_mask, default_template, from_correlations


@pytest.fixture
def subjects(tmp_path):
    return write_subjects(tmp_path / "subjects")


def damaged(path, at, content):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(content)] = content
    path.write_bytes(raw)
    return path


def hostile(folder):
    """(file, error, words) of images that cannot be used, each beside eleven good ones."""
    ones = np.full(SHAPES[4], 0.5, np.float32)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(SHAPES[4]).astype(np.float32)
    far = grid_affine(4)
    far[:3, 3] = 5000
    text = folder / "text.nii.gz"
    text.write_text("not an image")
    cut = write_image(folder / "cut.nii.gz", noise)
    cut.write_bytes(cut.read_bytes()[:9000])
    nowhere = write_image(folder / "nowhere.nii", noise)
    damaged(damaged(nowhere, 252, b"\0\0"), 254, b"\0\0")
    nan = damaged(write_image(folder / "nan.nii", noise), 280, struct.pack("<f", np.nan))
    size = write_image(folder / "size.nii", noise)
    damaged(size, 40, struct.pack("<4h", 3, -46, 55, 46))
    huge = write_image(folder / "huge.nii", noise)
    damaged(huge, 40, struct.pack("<4h", 3, 30000, 30000, 30000))
    rgb = write_image(folder / "rgb.nii", noise.astype(np.complex64))
    template = folder / "template.nii"
    save_template(from_correlations(np.full((*SHAPES[4], 13), 0.9), 4), template)
    return [
        (folder / "none.nii", InputError, "is no file"),
        (folder / "none*.nii", InputError, "matches no file"),
        (text, InputError, "is not a NIfTI image"),
        (cut, InputError, "cannot be unpacked .* damaged or cut short"),
        (nowhere, InputError, "does not say where its voxels lie"),
        (nan, InputError, "affine that is not a number"),
        (size, InputError, r"\(-46, 55, 46\), so it holds no voxel"),
        (huge, InputError, "header is damaged"),
        (rgb, InputError, "holds complex64 values; a map holds plain real numbers"),
        (template, InputError, "is a correlation template"),
        (write_image(folder / "constant.nii", ones), InputError, r"constant \(0.5\)"),
        (write_image(folder / "empty.nii", ones * np.nan), SpaceError, "no data .* in MNI space"),
        (write_image(folder / "zero.nii", ones * 0), SpaceError, "no data"),
        (write_image(folder / "far.nii", noise, far), SpaceError, "no data"),
        (write_image(folder / "plane.nii", ones[0]), InputError, r"size \(55, 46\); a map has"),
    ]


def test_bad_images_are_named_in_one_sentence(subjects, tmp_path, capfd):
    files = sorted(subjects.iterdir())[:11]
    bad = tmp_path / "bad"
    bad.mkdir()
    for path, error, words in hostile(bad):
        with pytest.raises(error, match=words) as raised:
            tb.build_template([*files, path], 4)
        assert path.name in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"holds no \.nii or"):
        tb.build_template([tmp_path / "bad" / ".."], 4)
    with pytest.raises(InputError, match=r"s00.nii.gz: is given twice"):
        tb.build_template([subjects, files[0]], 4)
    copy = tmp_path / "copy.nii"
    copy.write_bytes(nib.load(files[3]).to_bytes())
    with pytest.raises(InputError, match=r"s03.nii.gz: holds the same values as .*copy.nii"):
        tb.build_template([*files, copy], 4)
    assert capfd.readouterr().out == ""


def test_too_few_subjects_are_refused(subjects):
    files = sorted(subjects.iterdir())
    for n in (1, 9):
        with pytest.raises(InputError, match=rf"^{n} map.* at least 10"):
            tb.build_template(files[:n], 4)
    for n in (9, 13):
        with pytest.raises(SettingError, match=rf"min-subjects is {n}; .* \[10, 12\]"):
            tb.build_template(files, 4, min_subjects=n)
    said = []
    tb.build_template(files, 4, say=said.append)
    assert "sampling error is 0.11" in said[0]  # (1 - .64) / sqrt(11)
    rows = np.stack([np.asarray(nib.load(f).dataobj) for f in files], -1)
    single = np.zeros_like(rows)
    single[16:30:4, 20:34:4, 14:28:4] = rows[16:30:4, 20:34:4, 14:28:4]
    lonely = subjects.parent / "lonely.nii"
    write_image(lonely, single)
    with pytest.raises(SpaceError, match="No two adjacent voxels have data in 12 maps"):
        tb.build_template([lonely], 4)


def test_where_it_cannot_be_written_nothing_is_read(subjects, tmp_path):
    (tmp_path / "there.nii.gz").write_bytes(b"mine")
    (tmp_path / "beside.json").write_text("mine")
    cases = [
        (tmp_path / "no" / "t.nii.gz", "there is no such folder"),
        (tmp_path / "t.txt", "end its name with .nii.gz"),
        (tmp_path / "there.nii.gz", "exists; choose another --out, or --force"),
        (tmp_path / "beside.nii.gz", "beside.json exists"),
    ]
    for out, words in cases:
        done = run("template", "build", tmp_path / "not looked at", "--out", out)
        assert done.exit_code == 1
        assert words in str(done.exception)
    assert (tmp_path / "there.nii.gz").read_bytes() == b"mine"
    own = subjects / "own.nii.gz"  # a folder may hold the template made of it
    for _ in range(2):
        done = run("template", "build", subjects, "-o", own, "--voxel-size", 4, "--force")
        assert done.exit_code == 0, done.output
    assert json.loads((subjects / "own.json").read_text())["subjects"] == 12
    done = run("template", "build", own, subjects, "-o", own, "--voxel-size", 4, "--force")
    assert "to be read and to be written" in str(done.exception)


def test_ctrl_c_leaves_nothing(subjects, tmp_path, monkeypatch):
    added = []
    plain = AdjacentMoments.add

    def add(self, values):
        added.append(1)
        if len(added) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        plain(self, values)

    monkeypatch.setattr(AdjacentMoments, "add", add)
    out = tmp_path / "t.nii.gz"
    done = run("template", "build", subjects, "--out", out, "--voxel-size", 4)
    assert done.exit_code != 0
    assert len(added) == 3
    assert "interrupted; nothing was written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["subjects"]


def test_show_prints_the_numbers_of_the_design(tmp_path):
    """Measured apart from this code, on links with one end in the mask; here both ends count."""
    mask = tmp_path / "mask.nii.gz"
    write_image(mask, default_mask(2).astype(np.uint8), grid_affine(2))
    done = run("template", "show", "--mask", mask, "--json")
    assert done.exit_code == 0, done.output
    whole = json.loads(done.stdout)
    rows = {row["direction"]: row for row in whole["directions"]}
    wanted = {
        "x faces": (0.9726, 0.954, 0.986),
        "y faces": (0.9777, 0.962, 0.988),
        "z faces": (0.9752, 0.958, 0.987),
    }
    for name, (mean, low, high) in wanted.items():
        row = rows[name]
        assert 0 < row["r"] - mean < 1.5e-3
        assert (row["r_5"], row["r_95"]) == pytest.approx((low, high), abs=2e-3)
    assert 0 < rows["edges"]["r"] - 0.952 < 0.004
    assert 0 < rows["corners"]["r"] - 0.929 < 0.005
    assert whole["domain"]["domain_voxels"] == 298_663
    table = run("template", "show", "--voxel-size", 4)
    assert table.stdout == ""
    for word in ("x faces", "corners", "virtual mm", "100.0% of the built-in grey-matter mask"):
        assert word in " ".join(table.stderr.replace("│", "").split())


def test_the_picture_is_drawn(tmp_path):
    out = tmp_path / "t.png"
    done = run("template", "show", "--voxel-size", 4, "--out", out, "--peak", "-44,14,-8")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(out)
    raw = out.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">2I", raw[16:24])
    assert width > 1200
    assert height > 600
    for arguments, words in (
        (("--peak", "0,0"), "--peak is .0,0.; give three numbers"),
        (("--peak", "90,90,90"), r"no voxel at the peak \(90, 90, 90\); the nearest is --peak"),
        (("--out", tmp_path / "t.jpg"), "end its name with .png"),
        (("--out", tmp_path / "no" / "t.png"), "no such folder"),
    ):
        done = run("template", "show", "--voxel-size", 4, "--out", tmp_path / "x.png", *arguments)
        assert done.exit_code == 1
        assert re.search(words, str(done.exception))
    assert [p.name for p in tmp_path.iterdir()] == ["t.png"]


def test_a_file_shows_on_its_own_grid(subjects, tmp_path):
    built = tb.build_template([subjects], 4)
    tb.write_template(built, tmp_path / "own.nii.gz")
    done = run("template", "show", tmp_path / "own.nii.gz", "--json")
    whole = json.loads(done.stdout)
    assert whole["voxel_size"] == 4
    for shown, wanted in zip(whole["directions"], built.report["directions"], strict=True):
        assert shown["links"] == wanted["links"]
        assert shown["r"] == pytest.approx(wanted["r"], abs=1e-6)
    done = run(
        "template", "show", write_image(tmp_path / "odd.nii", np.ones((5, 5, 5, 13), np.float32))
    )
    assert re.search(r"odd.nii: the image has shape \(5, 5, 5\)", str(done.exception))


def test_the_kernel_and_the_mean_correlation_are_those_of_the_links():
    """The kernel against the bounds of a lone peak; the mean against a sum over neighbours."""
    template = default_template(4)
    space = Space(4, default_mask(4))
    peak = (-46.0, 14.0, -8.0)
    bounds, _ = bounds_of_peaks(
        [np.array([peak])], [np.array([0.8])], np.array([0.5]), space, template, threads=1
    )
    k = space.extract(kernel_at(template, peak))
    np.testing.assert_allclose(1 - (bounds.upper[0] - bounds.lower[0]), k, atol=1e-6)
    assert k.max() == 1
    assert 0.05 < (k > 0).mean() < 0.5
    costs = template.costs.reshape((*template.shape, 13), order="F").astype(float)
    r = np.exp(-(costs**2) * 4 * np.log(2) / 20**2)
    mean = mean_face_correlation(template)
    for at in np.argwhere(np.isfinite(mean))[::5003]:
        found = []
        for column in np.concatenate([DIRECTIONS[f"{a} faces"] for a in "xyz"]):
            found += [r[(*at, column)], r[(*(at - OFFSETS[column]), column)]]
        assert mean[tuple(at)] == pytest.approx(np.mean([x for x in found if x > 0]), abs=1e-6)


def test_the_page_shows_what_is_printed():
    """Commands and options of docs/templates.md exist; its table is that of the command."""
    page = (Path(__file__).parents[1] / "docs" / "templates.md").read_text(encoding="utf-8")
    for command in ("build", "learn", "show"):
        help_text = run("template", command, "--help").stdout
        for line in re.findall(rf"^gpu-sdm template {command} .*", page, re.M):
            for option in re.findall(r"--[a-z-]+", line):
                assert option in help_text
    shown = re.search(r"```text\n(.*?)```", page, re.S)[1]
    printed = run("template", "show").stderr
    assert [x.rstrip() for x in printed.splitlines() if x.strip()] == [
        x.rstrip() for x in shown.splitlines() if x.strip()
    ]
