"""Reported coordinates to MNI: Lancaster's and Brett's Talairach transforms and their inverses.

Every reported space is one entry of `CONVERSIONS`; a space with its own piece above and below
the AC plane has two matrices.

References
----------
.. [1] Lancaster et al. (2007) Human Brain Mapping 28:1194-1205 (icbm_spm2tal, icbm_fsl2tal and
   icbm_other2tal as distributed by BrainMap).
.. [2] Brett (1999) The MNI brain and the Talairach atlas (mni2tal).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpu_sdm.errors import SettingError


def _brett(zoom_z: float) -> np.ndarray:
    """(4, 4) pitch of 0.05 rad after zooms, spm_matrix([0 0 0 .05 0 0 .99 .97 zoom_z])."""
    c, s = math.cos(0.05), math.sin(0.05)
    pitch = np.array([[1, 0, 0, 0], [0, c, s, 0], [0, -s, c, 0], [0, 0, 0, 1]])
    return pitch @ np.diag([0.99, 0.97, zoom_z, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """MNI to a reported space: one affine where MNI z >= 0, one where z < 0."""

    above: np.ndarray  # (4, 4)
    below: np.ndarray  # (4, 4)

    def forward(self, mni: np.ndarray) -> np.ndarray:
        """(n, 3) MNI mm to the reported space."""
        return np.where(mni[:, 2:] >= 0, _apply(self.above, mni), _apply(self.below, mni))

    def inverse(self, reported: np.ndarray) -> np.ndarray:
        """(n, 3) reported mm to MNI.

        Notes
        -----
        Both pieces agree on the plane z = 0 and keep its sides apart, so the two inverses give
        MNI z the same sign: the one from the upper piece tells which piece the point came from.
        The sign of the *reported* z would not (the plane is tilted by 0.05 rad).
        """
        upper = _apply(np.linalg.inv(self.above), reported)
        if self.below is self.above:
            return upper
        return np.where(upper[:, 2:] >= 0, upper, _apply(np.linalg.inv(self.below), reported))


def _apply(affine: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    there: np.ndarray = xyz @ affine[:3, :3].T + affine[:3, 3]
    return there


def _affine(*rows: tuple[float, float, float, float]) -> Conversion:
    matrix = np.array([*rows, (0.0, 0.0, 0.0, 1.0)])
    return Conversion(matrix, matrix)


MNI = _affine((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
BRETT = Conversion(_brett(0.92), _brett(0.84))

CONVERSIONS: dict[str, Conversion] = {
    "spm_mni": MNI,
    "fsl_mni": MNI,
    "other_mni": MNI,
    "spm_tal": _affine(
        (0.9254, 0.0024, -0.0118, -1.0207),
        (-0.0048, 0.9316, -0.0871, -1.7667),
        (0.0152, 0.0883, 0.8924, 4.0926),
    ),
    "fsl_tal": _affine(
        (0.9464, 0.0034, -0.0026, -1.0680),
        (-0.0083, 0.9479, -0.0580, -1.0239),
        (0.0053, 0.0617, 0.9010, 3.1883),
    ),
    "other_tal": _affine(
        (0.9357, 0.0029, -0.0072, -1.0423),
        (-0.0065, 0.9396, -0.0726, -1.3940),
        (0.0103, 0.0752, 0.8967, 3.6475),
    ),
    "spm_brett": BRETT,
    "fsl_brett": BRETT,
    "other_brett": BRETT,
}


def to_mni(xyz: np.ndarray, space: str) -> np.ndarray:
    """Convert reported coordinates to MNI.

    Parameters
    ----------
    xyz : (n, 3) array
        Reported coordinates, mm.
    space : str
        A key of `CONVERSIONS`, for example "spm_tal".

    Returns
    -------
    (n, 3) float64
        MNI millimetres.

    Raises
    ------
    SettingError
        If the space is unknown.
    """
    return _conversion(space).inverse(_points(xyz))


def from_mni(xyz: np.ndarray, space: str) -> np.ndarray:
    """Convert (n, 3) MNI millimetres to a reported space, the inverse of `to_mni`."""
    return _conversion(space).forward(_points(xyz))


def _points(xyz: np.ndarray) -> np.ndarray:
    return np.asarray(xyz, np.float64).reshape(-1, 3)


def _conversion(space: str) -> Conversion:
    try:
        return CONVERSIONS[space]
    except KeyError:
        known = ", ".join(CONVERSIONS)
        raise SettingError(f"space is {space!r}; it must be one of: {known}.") from None
