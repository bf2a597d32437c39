"""Files that would fill the memory, never end, or may not be read."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import hostile_inputs as hostile
import numpy as np
import peak_memory
import pytest
import test_bad_inputs
from test_formats_flat import NUMBERS, workbook

from gpu_sdm.errors import InputError, SpaceError
from gpu_sdm.io import Assumed, _json, _text, read
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.subject_maps import inspect, read_maps
from gpu_sdm.io.volumes import load_template, read_mask, read_volume
from gpu_sdm.spaces import SHAPES, Space

MIB = 2**20
WHOLE = hostile.IMAGES["gigantic"][0]


def peak_mib(call, *args) -> float:
    """Memory that Python asked for while a call was refused, MiB."""
    tracemalloc.start()
    try:
        with pytest.raises((InputError, SpaceError)):
            call(*args)
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("reader", [read_mask, load_template])
def test_claims_of_a_header_are_not_believed(tmp_path, reader):
    path = tmp_path / "it.nii"
    for dims in ((3, 32767, 32767, 32767), (4, 60, 60, 60, 32767), (3, 400, 400, 400)):
        path.write_bytes(hostile.images.patched((40, f"{len(dims)}h", dims)))
        assert peak_mib(reader, path, 4) < 20


def test_gzip_bombs_behind_masks_maps_and_stacks_are_not_unpacked(tmp_path):
    """200 MiB of zeros behind a header that announces 1,344 bytes, or a whole stack."""
    bomb, stack = tmp_path / "bomb.nii.gz", tmp_path / "stack.nii.gz"
    for path, head in ((bomb, hostile.images.good()), (stack, hostile.images.patched(
            (40, "5h", (4, 6, 7, 8, 32767))))):  # fmt: skip
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(head)
            for _ in range(200):
                file.write(bytes(MIB))
    space = Space(4, np.ones(SHAPES[4], bool))
    assert peak_mib(read_map, bomb, space) < 20
    assert peak_mib(load_template, bomb, 4) < 20
    tracemalloc.start()
    try:
        assert read_volume(bomb)[0].shape == (6, 7, 8)
        maps = read_maps(inspect(stack), 4)
        assert [next(maps).shape for _ in range(3)] == [SHAPES[4]] * 3
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


def test_damage_that_the_length_does_not_show_is_seen_by_the_checksum(tmp_path):
    path = tmp_path / "it.nii.gz"
    raw = bytearray(gzip.compress(hostile.images.good(), compresslevel=0))
    raw[900] ^= 1  # within the data, stored as they are
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"cannot be unpacked \(CRC check failed"):
        read_volume(path)
    path.write_bytes(gzip.compress(hostile.images.good()) + b"junk")  # AES-SDM's go on like this
    assert read_volume(path)[0].shape == (6, 7, 8)


def test_too_much_text_is_refused_before_it_is_split(tmp_path, monkeypatch):
    path = tmp_path / "in.csv"
    path.write_bytes(hostile.FLAT.encode() + b"\n" * (_text.MOST_LINES + 1))
    assert peak_mib(read, path) < 20
    with path.open("wb") as file:
        file.write(hostile.FLAT.encode() + b"\n" * 70_000)  # a format is recognised by less
        file.truncate(_text.MOST_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(InputError, match="has 268,435,457 bytes, more than the 268,435,456"):
        read(path)


def test_json_that_would_grow_in_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_json, "MOST_CONTAINERS", 1000)
    path = tmp_path / "in.json"
    path.write_text('{"studies": [' + "{}," * 1000 + "{}]}")
    with pytest.raises(InputError, match="more than 1,000 objects and lists"):
        read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study\tn1\tt_thr\n" + "".join(f"s{i}\t20\t3\n" for i in range(20_001)),
         "holds more than 20,000 studies"),
        ("// Reference=MNI\n" + "// a\n// Subjects=9\n" * 20_001, "holds more than 20,000 studies"),
        ("study,n1,threshold,space,x,y,z\n" + "".join(f"s{i},9,3,,,,\n" for i in range(20_001)),
         "holds more than 20,000 studies"),
    ],
    ids=["sdm", "sleuth", "flat"],
)  # fmt: skip
def test_too_many_studies(tmp_path, text, said):
    path = tmp_path / ("sdm_table.txt" if text.startswith("study\t") else "in.txt")
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read(path, assumed=None)


def test_texts_that_took_quadratic_time(tmp_path):
    """A cell of 100,000 digits and a letter took 6 minutes, a row with 100,000 blanks 70 s."""
    digits = "9" * 100_000 + "x"
    started = time.monotonic()
    assert _text.number(digits) is None
    assert _text.number("9" * 999 + "x") is None
    with pytest.raises(InputError, match="a row is x, y, z in mm and t"):
        read(test_bad_inputs.write(tmp_path, {"ana.spm_mni.txt": "1" + " " * 100_000 + "2 3 x\n"}))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("case", ["a pipe for the table", "a pipe for the peaks", "endless peaks"])
def test_what_never_ends_is_not_waited_for(tmp_path, case):
    make, said = hostile.PLACES[case]
    started = time.monotonic()
    with pytest.raises(InputError, match=said):
        read(make(tmp_path))
    assert time.monotonic() - started < 2


def test_files_one_may_not_read(tmp_path):
    """Read by an account without rights, if this one has all."""
    code = (
        "import os, sys\nfrom gpu_sdm.io import read\nfrom gpu_sdm.errors import InputError\n"
        "b'a'.decode('utf-8-sig')\n"  # loaded while it may be
        "os.geteuid() or os.seteuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: read(path)\n"
        "    except InputError as error: print(error)\n"
    )
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        project = folder / "project"
        project.mkdir()
        test_bad_inputs.write(project, {})
        (folder / "in.csv").write_text(hostile.FLAT)
        (folder / "closed").mkdir()
        for path, mode in ((folder, 0o755), (project, 0o755), (folder / "in.csv", 0),
                           (project / "ana.spm_mni.txt", 0), (folder / "closed", 0)):  # fmt: skip
            path.chmod(mode)
        inputs = [folder / "in.csv", project, folder / "closed"]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, inputs)], capture_output=True, text=True,
            check=False, cwd=scratch, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        (folder / "closed").chmod(0o755)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all("cannot be read (Permission denied)" in line for line in lines), lines


def test_a_link_that_leads_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    test_bad_inputs.write(tmp_path, {"ana.spm_mni.txt": None})
    (tmp_path / "ana.spm_mni.txt").symlink_to("a")
    with pytest.raises(InputError, match=r"cannot be read .*symbolic links"):
        read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "a")
    with pytest.raises(InputError, match="no such file"):
        read_mask(tmp_path / "a", 4)


def test_laughs_and_bombs_in_workbooks_need_no_memory(tmp_path):
    for name in ("laughs in the sheet", "laughs in the styles", "zip bomb in the styles"):
        make, said = hostile.XLSX[name]
        (tmp_path / name).mkdir()
        path = make(tmp_path / name)
        with pytest.raises(InputError, match=said):
            read(path)
        assert peak_mib(read, path) < 40
    assert len(read(workbook(tmp_path / "good.xlsx", NUMBERS), assumed=Assumed(0.001)).studies) >= 2


def test_two_thousand_studies_and_a_name_for_each(tmp_path):
    """In seconds: what takes time for every pair of them would show."""
    rows = "".join(f"study {i}: é, 🧠 <b>&amp;,{10 + i % 9},3.1,mni,{i % 60},0,0,{3 + i % 5}.5\n"
                   .replace(": é,", ": é;") for i in range(2000))  # fmt: skip
    path = tmp_path / "in.csv"
    path.write_text("study,n1,threshold,space,x,y,z,t\n" + rows, encoding="utf-8")
    started = time.monotonic()
    found = read(path)
    assert len(found.studies) == 2000
    assert found.names[7] == "study 7: é; 🧠 <b>&amp;"
    assert time.monotonic() - started < 10


MILLION = """
import random, sys
from pathlib import Path
from gpu_sdm.io import read
from peak_memory import peak_mb
rng, path = random.Random(1), Path(sys.argv[1])
with path.open("w") as file:
    file.write("study,n1,threshold,space,x,y,z,t\\n")
    for i in range(1_000_000):
        place = f"{rng.randrange(-60, 60)},{rng.randrange(-90, 60)},{rng.randrange(-40, 70)}"
        file.write(f"Study {i // 500:04d},20,3.1,spm_mni,{place},{3.2 + rng.random() * 4:.2f}\\n")
found = read(path)
print(len(found.studies), sum(len(s.peaks) for s in found.studies), peak_mb())
"""


@pytest.mark.slow
def test_a_million_peaks_of_two_thousand_studies_fit(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path / "in.csv")], capture_output=True, text=True,
        check=True, env=os.environ | {"PYTHONPATH": str(Path(peak_memory.__file__).parent)},
    )  # fmt: skip
    studies, peaks, mib = map(int, done.stdout.split())
    assert (studies, peaks) == (2000, 1_000_000)
    assert mib < 600
    print(f"1,000,000 peaks of 2,000 studies: {mib} MiB")
