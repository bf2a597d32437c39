"""Databases that are damaged, hostile or not databases: one sentence each, no pickle, no crash."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile

import numpy as np
import pytest
from scipy import sparse
from small_database import STEM, TERMS, pack, write_database

from gpu_sdm.decode import _files
from gpu_sdm.decode.database import default_folder, open_database
from gpu_sdm.decode.fetch import database_of, fetch
from gpu_sdm.errors import InputError, SettingError

FEATURES = f"{STEM}_vocab-terms_source-abstract_type-tfidf_features.npz"
PEAKS, STUDIES = f"{STEM}_coordinates.tsv.gz", f"{STEM}_metadata.tsv.gz"
WORDS = f"{STEM}_vocab-terms_vocabulary.txt"


@pytest.fixture
def folder(tmp_path):
    return write_database(tmp_path / "db", studies=30)


def refused(folder, words):
    with pytest.raises(InputError, match=words) as raised:
        open_database(folder)
    assert "\n" not in str(raised.value)


def edit(path, change):
    pack(path, change(gzip.decompress(path.read_bytes()).decode()))


def test_what_is_read(folder):
    found = open_database(folder)
    assert (found.label, found.vocabulary, found.kind) == ("neurosynth-7", "terms", "tfidf")
    assert found.terms == TERMS
    assert len(found.ids) == 29  # the one without peaks is left out
    assert "1007" not in found.ids
    assert found.values.shape == (29, 10)
    assert set(found.sha256) == {PEAKS, STUDIES, FEATURES, WORDS}
    assert np.diff(found.start).min() > 0
    assert "ODbL" in found.said()["licence"]


def test_order_of_rows_does_not_matter(folder):
    before = open_database(folder)

    def turned(text):
        head, *rows = text.strip().split("\n")
        return "\n".join([head, *reversed(rows)]) + "\n"

    edit(folder / PEAKS, turned)
    after = open_database(folder)
    assert after.ids == before.ids
    assert sorted(map(tuple, after.xyz_mm)) == sorted(map(tuple, before.xyz_mm))
    assert after.digest() != before.digest()


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (PEAKS, lambda t: t.replace("\tx\t", "\tX\t"), "has no column 'x'; its columns are id"),
        (PEAKS, lambda t: t.replace("\n1000\tt1\t", "\n1000\tt1\tnan", 1), "the x is 'nan.*row 1 "),
        (PEAKS, lambda t: t.replace("\n1000\tt1\t", "\n1000\tt1\tfoo", 1), "wanted a number"),
        (PEAKS, lambda t: t.replace("\n1000\t", "\n9\t", 1), "study '9' of row 1 below"),
        (PEAKS, lambda t: t + "1000\tt1\t1\n", "the y is '' in row|not a tab-separated"),
        (STUDIES, lambda t: t.replace("1001\t", "1000\t"), "names a study twice"),
        (STUDIES, lambda t: t + "99\tMNI\tx\n", r"has 30 studies and 10 terms.* have 31 and 10"),
        (STUDIES, lambda t: t.replace("id\t", "pmid\t"), "has no column 'id'"),
    ],
)
def test_damaged_tables(folder, file, change, words):
    edit(folder / file, change)
    refused(folder, words)


def test_files_that_are_not_there(folder, tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "holds no data-NAME_version-V_coordinates")
    (folder / WORDS).rename(folder / "x")
    refused(folder, "the names of its terms")
    (folder / FEATURES).unlink()
    refused(folder, "no terms")
    (folder / STUDIES).unlink()
    refused(folder, "metadata")
    write_database(folder, name="data-neuroquery_version-1")
    refused(folder, "several databases")


def test_truncated_and_oversized_files(folder, monkeypatch):
    whole = (folder / PEAKS).read_bytes()
    (folder / PEAKS).write_bytes(whole[: len(whole) // 2])
    refused(folder, "cut short")
    (folder / PEAKS).write_bytes(b"no gzip")
    refused(folder, "cannot be read")
    (folder / PEAKS).write_bytes(gzip.compress(b"\xff\xfe" + os.urandom(500)))
    refused(folder, "not a tab-separated table|no column")
    (folder / PEAKS).write_bytes(whole)
    monkeypatch.setattr(_files, "MOST_BYTES", 1000)
    refused(folder, "more than 1,000 bytes once unpacked")


class Bomb:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("pickle-was-run",)


def test_features_never_run_a_pickle(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(folder / FEATURES, format=np.array(Bomb(), dtype=object))
    refused(folder, "not a sparse table of terms")
    (folder / FEATURES).write_bytes(pickle.dumps(Bomb()))
    refused(folder, "not a sparse table of terms")
    assert not (tmp_path / "pickle-was-run").exists()


def test_features_of_wrong_shape_index_or_value(folder, monkeypatch):
    good = sparse.load_npz(folder / FEATURES).tocsr()
    path = folder / FEATURES
    sparse.save_npz(path, good[:, :5])
    refused(folder, r"has 30 studies and 5 terms; .* have 30 and 10")
    bad = good.copy()
    bad.indices[3] = 10**6
    np.savez(path, format=b"csr", shape=bad.shape, data=bad.data, indices=bad.indices,
             indptr=bad.indptr)  # fmt: skip
    refused(folder, "not a sparse table of terms")
    bad = good.copy()
    bad.indptr[4] = -7
    np.savez(path, format=b"csr", shape=bad.shape, data=bad.data, indices=bad.indices,
             indptr=bad.indptr)  # fmt: skip
    refused(folder, "not a sparse table of terms")
    np.savez(path, format=b"coo", shape=good.shape, data=[1.0], row=[99], col=[0])
    refused(folder, "not a sparse table of terms")
    for value in (-1.0, np.nan, np.inf):
        bad = good.copy()
        bad.data[0] = value
        sparse.save_npz(path, bad)
        refused(folder, "negative or no number")
    sparse.save_npz(path, sparse.dia_matrix(good))
    refused(folder, "stored as dia")
    sparse.save_npz(path, sparse.coo_matrix(good))
    assert (open_database(folder).values != sparse.csr_matrix(good)[np.arange(30) != 7]).nnz == 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(10**6))
    monkeypatch.setattr(_files, "MOST_BYTES", 10**5)
    refused(folder, "more than 100,000 bytes")


def test_a_vocabulary_is_chosen(folder):
    topics = FEATURES.replace("vocab-terms", "vocab-LDA50").replace("tfidf", "weight")
    sparse.save_npz(folder / topics, sparse.csr_matrix(np.full((30, 2), 0.06)))
    (folder / WORDS.replace("terms", "LDA50")).write_text("0_a_b\n1_c_d\n")
    assert open_database(folder).vocabulary == "terms"
    found = open_database(folder, "LDA50")
    assert (found.kind, found.least, found.terms) == ("weight", 0.05, ("0_a_b", "1_c_d"))
    with pytest.raises(InputError, match="no vocabulary 'LDA400'; it has: LDA50, terms"):
        open_database(folder, "LDA400")


def test_talairach_needs_to_be_said(folder):
    edit(folder / STUDIES, lambda t: t.replace("MNI", "TAL", 3))
    assert open_database(folder, talairach=True).converted == 3
    edit(folder / STUDIES, lambda t: t.replace("\tspace\t", "\tx\t"))
    with pytest.raises(InputError, match="leave out --talairach"):
        open_database(folder, talairach=True)


class Nimare:
    """Stands for `nimare.extract`: what a download leaves behind."""

    def __init__(self, error=None, short=False):
        self.error, self.short, self.asked = error, short, []

    def fetch_neurosynth(self, data_dir, **selection):
        self.asked.append(selection)
        print("Downloading")
        inner = write_database(default_folder("x").__class__(data_dir) / "neurosynth", studies=30)
        if self.short:
            (inner / FEATURES).write_bytes(b"<html>")
        if self.error:
            raise self.error


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_fetch_once(own_cache, monkeypatch, capsys):
    nimare = Nimare()
    monkeypatch.setattr("gpu_sdm.decode.fetch._extract", lambda: nimare)
    with pytest.raises(InputError, match="gpu-sdm decode --fetch --database neurosynth"):
        database_of(None)
    found = fetch("neurosynth")
    assert found.folder == default_folder("neurosynth") == own_cache / "databases" / "neurosynth"
    assert nimare.asked[0]["version"] == "7"
    assert nimare.asked[0]["return_type"] == "files"
    assert capsys.readouterr().out == ""  # NiMARE's talk is not our result
    assert fetch("neurosynth").digest() == found.digest()
    assert len(nimare.asked) == 1
    assert database_of(None).digest() == found.digest()
    assert list((own_cache / "databases").iterdir()) == [found.folder]


@pytest.mark.parametrize(
    ("nimare", "words"),
    [
        (Nimare(OSError("no route to host")), r"no route to host\): is this machine offline"),
        (Nimare(ValueError("no files")), r"NiMARE could not download.*ValueError: no files"),
        (Nimare(short=True), "not a sparse table of terms"),
    ],
)
def test_a_failed_download_leaves_nothing(own_cache, monkeypatch, nimare, words):
    monkeypatch.setattr("gpu_sdm.decode.fetch._extract", lambda: nimare)
    with pytest.raises(InputError, match=words):
        fetch("neurosynth")
    assert list((own_cache / "databases").iterdir()) == []


def test_without_nimare(own_cache, monkeypatch):
    import importlib

    def missing(name):
        raise ModuleNotFoundError("No module named 'nimare'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SettingError, match=r"pip install 'gpu-sdm\[nimare\]'"):
        fetch("neurosynth")
    with pytest.raises(SettingError, match="to fetch there are: neurosynth, neuroquery"):
        fetch("brainmap")
    with pytest.raises(InputError, match="no such folder; give one"):
        database_of("brainmap")
