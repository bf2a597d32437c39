"""Numbers of other programs, and effect-size constants written anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import special

N1 = np.array([40.0, 20, 22, 24, 18, 30, 25, 30, 16, 22])
N2 = np.array([38.0, 20, 22, 25, 20, 28, 25, 30, 18, 23])


def hedges(n1: np.ndarray, n2: np.ndarray | None = None):
    """J, c, v2 and df, written anew."""
    df = n1 - 1 if n2 is None else n1 + n2 - 2
    c = 1 / n1 if n2 is None else 1 / n1 + 1 / n2
    j = np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    return j, c, 1 - (df - 2) / (df * j**2), df


def reference(path: Path, section: str) -> dict[str, list[float]]:
    """Numbers of one section of metansue's output."""
    text = path.read_text().split(f"===== {section} ")[1].split("seed1")[0]
    out: dict[str, list[float]] = {}
    for line in text.splitlines():
        name = ""
        for word in line.split():
            try:
                out[name].append(float(word))
            except (ValueError, KeyError):
                name = word.rstrip(":")
                out[name] = []
    return out


def enge_bounds(folder: Path, n_voxels: int, seed: int):
    """Bounds of a random set of voxels: lower, upper, c, v2, age."""
    import nibabel as nib

    rows = [r.split("\t") for r in (folder / "project/sdm_table.txt").read_text().splitlines()]
    mask = np.asarray(nib.load(folder / "sdm_mask.nii.gz").dataobj) > 0
    pick = np.argwhere(mask)
    pick = pick[np.sort(np.random.default_rng(seed).choice(len(pick), n_voxels, replace=False))]
    _, c, v2, _ = hedges(np.array([float(r[1]) for r in rows[1:]]))
    maps = [
        np.stack(
            [
                np.asarray(nib.load(folder / f"pp/{r[0]}_{side}.nii.gz").dataobj)[tuple(pick.T)]
                for r in rows[1:]
            ]
        ).astype(np.float32)
        for side in ("lower", "upper")
    ]
    return *maps, c, v2, np.array([float(r[4]) for r in rows[1:]])
