"""Databases of published peaks and of the words around them: Neurosynth and NeuroQuery."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm import cache
from gpu_sdm.coordinates import to_mni
from gpu_sdm.data import _freeze
from gpu_sdm.decode._files import read_features, read_lines, read_table
from gpu_sdm.errors import InputError
from gpu_sdm.io._nifti_file import sha256

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

PEAKS = re.compile(r"data-(?P<data>[\w]+)_version-(?P<version>[\w.]+)_coordinates\.tsv(\.gz)?")
FEATURES = re.compile(
    r"data-(?P<data>\w+)_version-(?P<version>[\w.]+)_vocab-(?P<vocab>\w+)"
    r"_source-(?P<source>\w+)_type-(?P<type>\w+)_features\.npz"
)
# What is taken where a folder has several vocabularies and none is asked for.
PREFERRED = ("terms", "neuroquery7547", "neuroquery6308", "LDA50")
SOURCES = ("abstract", "combined", "body", "title", "keywords")
# A study is "about" a topic from this loading on, and uses a term from one use on: every study has
# some trace of every topic.
LEAST = {"weight": 0.05}
LEAST_OTHER = 0.001


@dataclass(frozen=True, slots=True)
class Source:
    """Where a database comes from and on what terms."""

    title: str
    version: str
    home: str
    licence: str
    citation: str


KNOWN = {
    "neurosynth": Source(
        "Neurosynth",
        "7",
        "https://github.com/neurosynth/neurosynth-data",
        "Open Database License (ODbL) 1.0: name the source, share derived databases alike",
        "Yarkoni T, Poldrack RA, Nichols TE, Van Essen DC, Wager TD (2011) Large-scale automated "
        "synthesis of human functional neuroimaging data. Nature Methods 8:665-670. "
        "doi:10.1038/nmeth.1635",
    ),
    "neuroquery": Source(
        "NeuroQuery",
        "1",
        "https://github.com/neuroquery/neuroquery_data",
        "BSD 3-Clause",
        "Dockes J, Poldrack RA, Primet R, et al. (2020) NeuroQuery, comprehensive meta-analysis "
        "of human brain mapping. eLife 9:e53385. doi:10.7554/eLife.53385",
    ),
}


@dataclass(frozen=True, eq=False)
class Database:
    """Peaks and terms of K studies.

    Parameters
    ----------
    name, version : str
        As its files call it.
    folder : path
        Where it lies.
    ids : (K,) tuple of str
        Studies, in the order of its table.
    xyz_mm : (n, 3) float64
        Peaks as the database has them, study by study.
    start : (K + 1,) int64
        Study k has the peaks `start[k]` to `start[k + 1] - 1`.
    values : (K, T) sparse float64
        How much of each term or topic is in each study.
    terms : (T,) tuple of str
        Their names.
    vocabulary, source, kind : str
        Of the terms: e.g. "LDA50", "abstract", "weight".
    sha256 : mapping
        File name -> content hash of every file that was read.
    converted : int
        Studies whose peaks were taken from Talairach to MNI space.
    """

    name: str
    version: str
    folder: Path
    ids: tuple[str, ...]
    xyz_mm: np.ndarray
    start: np.ndarray
    values: csr_matrix
    terms: tuple[str, ...]
    vocabulary: str
    source: str
    kind: str
    sha256: Mapping[str, str]
    converted: int = 0

    def __post_init__(self) -> None:
        _freeze(self.xyz_mm, self.start)

    @property
    def label(self) -> str:
        """Name and version, as a folder is called."""
        return f"{self.name}-{self.version}"

    @property
    def study(self) -> np.ndarray:
        """(n,) int study of each peak."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.start))

    @property
    def least(self) -> float:
        """Value from which on a study has a term or topic."""
        return LEAST.get(self.kind, LEAST_OTHER)

    def digest(self) -> str:
        """Content hash of all its files."""
        files = (f"{name} {sha}" for name, sha in sorted(self.sha256.items()))
        return cache.key(*files, self.converted)

    def said(self) -> dict[str, object]:
        """Say in run.json what it is and whose."""
        known = KNOWN.get(self.name)
        return {
            "database": self.name,
            "version": self.version,
            "studies": len(self.ids),
            "peaks": len(self.xyz_mm),
            "studies_from_talairach_to_mni": self.converted,
            "vocabulary": self.vocabulary,
            "vocabulary_source": self.source,
            "terms": len(self.terms),
            "licence": known and known.licence,
            "citation": known and known.citation,
            "home": known and known.home,
            "sha256": dict(self.sha256),
        }


def default_folder(name: str) -> Path:
    """Where `gpu-sdm decode --fetch` puts a database."""
    return cache.folder() / "databases" / name


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_file())
    except OSError as error:
        raise InputError(
            "there is no such folder of a database; give the folder with "
            "data-NAME_version-V_coordinates.tsv.gz.",
            folder,
        ) from error


def _peaks_file(folder: Path, files: list[Path]) -> tuple[Path, str, str]:
    found = [(p, m) for p in files if (m := PEAKS.fullmatch(p.name))]
    if not found:
        raise InputError(
            "holds no data-NAME_version-V_coordinates.tsv.gz; give the folder of a Neurosynth or "
            "NeuroQuery database, or download one with: gpu-sdm decode --fetch.",
            folder,
        )
    if len({m["data"] for _, m in found}) > 1:
        names = ", ".join(sorted({m["data"] for _, m in found}))
        raise InputError(f"holds several databases ({names}); give each its own folder.", folder)
    path, match = max(found, key=lambda f: [int(v) for v in re.findall(r"\d+", f[1]["version"])])
    return path, match["data"], match["version"]


def _features_file(
    folder: Path, files: list[Path], data: str, version: str, vocabulary: str | None
) -> tuple[Path, re.Match[str]]:
    found = [(p, m) for p in files if (m := FEATURES.fullmatch(p.name))]
    found = [(p, m) for p, m in found if (m["data"], m["version"]) == (data, version)]
    there = sorted({m["vocab"] for _, m in found})
    if not found:
        raise InputError(
            f"holds no data-{data}_version-{version}_vocab-*_features.npz: no terms.", folder
        )
    wanted = vocabulary or next((v for v in PREFERRED if v in there), there[0])
    found = [(p, m) for p, m in found if m["vocab"] == wanted]
    if not found:
        raise InputError(f"has no vocabulary {wanted!r}; it has: {', '.join(there)}.", folder)
    order = {source: i for i, source in enumerate(SOURCES)}
    return min(found, key=lambda f: (order.get(f[1]["source"], len(order)), f[0].name))


def open_database(
    folder: Path | str, vocabulary: str | None = None, talairach: bool = False
) -> Database:
    """Open a database in the file layout of Neurosynth 7 and NeuroQuery 1.

    Parameters
    ----------
    folder : path
        Holds `data-NAME_version-V_coordinates.tsv.gz` (id, x, y, z), `..._metadata.tsv.gz` (id)
        and for each vocabulary `..._features.npz` and `..._vocabulary.txt`.
    vocabulary : str, optional
        Which one, where it has several.
    talairach : bool
        Take the peaks of studies that the database guesses to be in Talairach space to MNI, as
        NiMARE does; by default all stay where the database has them.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the files do not belong together.

    Notes
    -----
    Neurosynth's guess (from words of the article) is MNI for 10,204 studies, Talairach for 2,335
    and unknown for 1,832. NeuroQuery says nothing.
    """
    folder = Path(folder)
    files = _listed(folder)
    path, name, version = _peaks_file(folder, files)
    stem = f"data-{name}_version-{version}"
    studies = next(
        (p for p in files if p.name in (f"{stem}_metadata.tsv.gz", f"{stem}_metadata.tsv")), None
    )
    if studies is None:
        raise InputError(f"holds no {stem}_metadata.tsv.gz.", folder)
    features, match = _features_file(folder, files, name, version, vocabulary)
    words = folder / f"{stem}_vocab-{match['vocab']}_vocabulary.txt"
    if not words.is_file():
        raise InputError(f"holds no {words.name}, the names of its terms.", folder)
    ids = read_table(studies, ["id"])["id"].tolist()
    place = {study: k for k, study in enumerate(ids)}
    if len(place) < len(ids) or not ids:
        raise InputError("names a study twice, or none; wanted one row a study.", studies)
    terms = read_lines(words)
    if len(set(terms)) < len(terms):
        raise InputError("names a term twice.", words)
    values = read_features(features, (len(ids), len(terms)))
    peaks = read_table(path, ["id"], ["x", "y", "z"])
    study = peaks["id"].map(place).to_numpy(np.float64)
    unknown = np.flatnonzero(np.isnan(study))
    if len(unknown):
        raise InputError(
            f"study {peaks['id'].iloc[unknown[0]]!r} of row {int(unknown[0]) + 1:,} below the "
            f"header is not in {studies.name}.",
            path,
        )
    xyz = peaks[["x", "y", "z"]].to_numpy(np.float64)
    moved = _in_talairach(studies) if talairach else np.zeros(len(ids), bool)
    here = moved[study.astype(np.int64)]
    xyz[here] = to_mni(xyz[here], "other_tal")
    count = np.bincount(study.astype(np.int64), minlength=len(ids))
    # A study without any peak could be selected by none.
    with_peaks = np.flatnonzero(count)
    order = np.argsort(study, kind="stable")
    return Database(
        name,
        version,
        folder,
        tuple(ids[k] for k in with_peaks),
        xyz[order],
        np.concatenate([[0], np.cumsum(count[with_peaks])]),
        values[with_peaks],
        terms,
        match["vocab"],
        match["source"],
        match["type"],
        {p.name: sha256(p) for p in (path, studies, features, words)},
        int(moved[with_peaks].sum()),
    )


def _in_talairach(studies: Path) -> np.ndarray:
    """(K,) bool studies that the table says are in Talairach space."""
    try:
        space = read_table(studies, ["space"])["space"]
    except InputError as error:
        raise InputError(
            "does not say in which space studies are, so none can be taken to MNI; leave out "
            "--talairach.",
            studies,
        ) from error
    return (space == "TAL").to_numpy(bool)
