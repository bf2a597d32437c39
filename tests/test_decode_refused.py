"""Databases that cannot answer, and what a killed download leaves."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from small_database import SEED_MM, STEM, ball, pack, point, write_database

from gpu_sdm.atlas import Atlas
from gpu_sdm.decode import fetch
from gpu_sdm.decode.database import default_folder, open_database
from gpu_sdm.decode.decoded import Rules, decode
from gpu_sdm.errors import SettingError


def no_atlas() -> Atlas:
    return Atlas("", np.zeros((1, 1, 1), np.int32), np.eye(4), {})


def test_a_seed_in_every_study_has_none_to_compare_with(tmp_path):
    base = open_database(write_database(tmp_path / "db"))
    with pytest.raises(SettingError, match=r"all of the 159 studies .*: there are no others"):
        decode(
            base, [point(SEED_MM)], ball(), np.ones(len(base.terms), bool), no_atlas(),
            Rules(radius_mm=1000, min_term_studies=10),
        )  # fmt: skip


def test_only_studies_with_peaks_are_counted_as_moved(tmp_path):
    folder = write_database(tmp_path / "db")
    rows = [f"{1000 + k}\tTAL" for k in range(160)]
    pack(folder / f"{STEM}_metadata.tsv.gz", "\n".join(["id\tspace", *rows]) + "\n")
    base = open_database(folder, talairach=True)
    assert base.converted == len(base.ids) == 159  # one study has no peak


def test_what_a_killed_download_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = default_folder("neurosynth").with_name(f".neurosynth.{ended.pid}.partial")
    left.mkdir(parents=True)
    (left / "half.tsv.gz").write_bytes(b"")
    monkeypatch.setattr(fetch, "_extract", SimpleNamespace)
    monkeypatch.setattr(
        fetch, "_download", lambda extract, name, folder: write_database(folder / name)
    )
    assert fetch.fetch("neurosynth").folder == default_folder("neurosynth")
    assert not left.exists()
