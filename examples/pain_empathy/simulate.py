"""Simulate the peaks of the worked example: no peak here was ever reported by anybody.

Usage: python examples/pain_empathy/simulate.py [FOLDER]

The studies (`studies.csv`: sizes, ages, sex, treatment, thresholds, spaces, directions) are those
of He et al., "Neural basis of pain empathy dysregulations in mental disorders"; the 143 peaks
that they analysed are not public. Here every subject of every study is simulated on the whole
brain mask (2 mm): smooth Gaussian noise, and in patients the four differences of `TRUTH`. Each
study is tested (two-sample t), thresholded as its paper says, and lists its local maxima as SPM
does, in its own space and only in the directions that it reported.

FOLDER (default: project_simulated beside this file) becomes an SDM project.
"""

from __future__ import annotations

import csv
import math
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.stats import t as student

from gpu_sdm.clusters import blobs
from gpu_sdm.coordinates import from_mni, to_mni
from gpu_sdm.findings.peaks import local_maxima, spread_out
from gpu_sdm.io.peak_files import BOX_HIGH, BOX_LOW
from gpu_sdm.spaces import Space
from gpu_sdm.templates import default_mask

HERE = Path(__file__).parent
SEED = 2026
VOXEL_SIZE = 2  # mm
# Hedges g of the four peaks of the paper's Table 3.
TABLE_3 = {
    (0, 48, 0): 0.392553,
    (60, -14, -12): 0.414338,
    (-22, -48, -28): -0.466374,
    (-52, -70, 2): -0.490509,
}
# Thresholded peaks give back less than there is: planted as they stand, Table 3's effects are too
# small for eleven studies of this size to list (docs/example.md has the numbers).
PLANTED = 1.5
# Difference patients - controls in SD of the subjects, at its centre.
TRUTH = {centre: PLANTED * g for centre, g in TABLE_3.items()}
TRUTH_FWHM_MM = 20.0  # of each planted difference
SHIFT_MM = 3.0  # SD, per axis, of a study's own centre about the true one
NOISE_FWHM_MM = 8.0  # of a subject's noise
# How each paper's words are taken: one-sided p of a voxel, smallest cluster in voxels of 2 mm.
# "Corrected" is a cluster correction: what formed the clusters is the voxels' threshold.
RULES = {
    "p<.001 uncorrected": (0.001, 10),
    "p<.005 uncorrected": (0.005, 25),
    "p<.01 uncorrected": (0.01, 60),
    "p<.05 uncorrected": (0.05, 500),
    "p<.05 corrected": (0.001, 20),
}
MAXIMA_PER_CLUSTER, APART_MM = 3, 8.0  # as SPM's table of results
SUFFIX = "_simulated"
SPACES = {"MNI": "other_mni", "Talairach": "other_tal"}
SIGNS = {"both": (1, -1), "P>HC": (1,), "HC>P": (-1,)}


@dataclass(frozen=True)
class Reported:
    """What one simulated study reports: places in its own space, mm, and t."""

    xyz: np.ndarray  # (n, 3)
    t: np.ndarray  # (n,)


def read_studies() -> list[dict[str, str]]:
    """Rows of studies.csv."""
    with (HERE / "studies.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rng(study: dict[str, str]) -> np.random.Generator:
    """Stream of a study: a function of seed and name, whatever the other studies are."""
    return np.random.default_rng((SEED, zlib.crc32(study["study"].encode())))


def _noise(rng: np.random.Generator, space: Space) -> np.ndarray:
    """(V,) float32 smooth noise of variance 1: wrapped at the edges, so the same everywhere."""
    sigma = NOISE_FWHM_MM / math.sqrt(8 * math.log(2)) / VOXEL_SIZE
    white = rng.standard_normal(space.shape[::-1], np.float32).T
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap")
    impulse = np.zeros(int(8 * sigma) * 2 + 1)
    impulse[len(impulse) // 2] = 1
    one_axis = np.sqrt((ndimage.gaussian_filter(impulse, sigma) ** 2).sum())
    return space.extract(smooth / np.float32(one_axis**3))


def planted(space: Space, shifts: np.ndarray | None = None) -> np.ndarray:
    """(V,) true difference patients - controls; `shifts` (4, 3) move its centres."""
    mm = space.mm()
    sigma = TRUTH_FWHM_MM / math.sqrt(8 * math.log(2))
    shifts = np.zeros((len(TRUTH), 3)) if shifts is None else shifts
    total = np.zeros(space.n_voxels)
    for (centre, height), shift in zip(TRUTH.items(), shifts, strict=True):
        distance2 = ((mm - centre - shift) ** 2).sum(axis=1)
        total += height * np.exp(-distance2 / (2 * sigma**2))
    return total


def t_map(study: dict[str, str], space: Space) -> np.ndarray:
    """(V,) two-sample t of patients against controls, from simulated subjects."""
    rng = _rng(study)
    difference = planted(space, rng.normal(0, SHIFT_MM, (len(TRUTH), 3)))
    sizes = int(study["n1"]), int(study["n2"])
    means, squares = [], np.zeros(space.n_voxels)
    for n, effect in zip(sizes, (difference, 0.0), strict=True):
        total, total2 = np.zeros(space.n_voxels), np.zeros(space.n_voxels)
        for _ in range(n):
            image = _noise(rng, space).astype(np.float64)
            total += image
            total2 += image**2
        means.append(total / n + effect)
        squares += total2 - total**2 / n
    variance = squares / (sum(sizes) - 2)
    return (means[0] - means[1]) / np.sqrt(variance * (1 / sizes[0] + 1 / sizes[1]))


def threshold(study: dict[str, str]) -> float:
    """|t| that a voxel of this study must pass, four decimals."""
    p, _ = RULES[study["reported_threshold"]]
    return round(float(student.isf(p, int(study["n1"]) + int(study["n2"]) - 2)), 4)


def report(study: dict[str, str], t: np.ndarray, space: Space) -> Reported:
    """List what the study's paper would: local maxima of the clusters that pass its threshold."""
    _, k_min = RULES[study["reported_threshold"]]
    peaks: list[int] = []
    for sign in SIGNS[study["directions"]]:
        number = blobs(sign * t > threshold(study), space, k_min)
        for cluster in range(1, number.max() + 1):
            found = local_maxima(sign * t, np.flatnonzero(number == cluster), space)
            peaks += spread_out(found, space, APART_MM)[:MAXIMA_PER_CLUSTER].tolist()
    name = SPACES[study["reported_space"]]
    xyz = np.round(from_mni(space.mm(np.array(peaks, int)), name))
    # At its edge the grid's box cannot hold a rounded Talairach millimetre.
    back = to_mni(xyz, name)
    inside = ((back >= BOX_LOW) & (back <= BOX_HIGH)).all(axis=1)
    return Reported(xyz[inside], np.round(t[peaks], 2)[inside])


def mean_age(study: dict[str, str]) -> str:
    """Mean age over all subjects of a study; NA where it is not known."""
    if "NA" in (study["age_patients"], study["age_controls"]):
        return "NA"
    n1, n2 = int(study["n1"]), int(study["n2"])
    age = (n1 * float(study["age_patients"]) + n2 * float(study["age_controls"])) / (n1 + n2)
    return f"{age:.2f}"


def table_row(study: dict[str, str]) -> dict[str, str]:
    """One row of sdm_table.txt."""
    return {
        "study": study["study"] + SUFFIX,
        "n1": study["n1"],
        "n2": study["n2"],
        "t_thr": f"{threshold(study):.4f}",
        "threshold": study["reported_threshold"].split()[1],
        "age": mean_age(study),
        **{c: v for c, v in study.items() if c not in ("study", "n1", "n2")},
        "peaks_are": "SIMULATED",
    }


def write_study(folder: Path, study: dict[str, str], found: Reported) -> Path:
    """Write the peak file of a study."""
    space = SPACES[study["reported_space"]] if len(found.t) else "no_peaks"
    path = folder / f"{study['study']}{SUFFIX}.{space}.txt"
    rows = [
        f"{x:g},{y:g},{z:g},{t:.2f}" for (x, y, z), t in zip(found.xyz + 0.0, found.t, strict=True)
    ]
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def write_project(folder: Path) -> int:
    """Write the whole project; return how many peaks it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    space = Space(VOXEL_SIZE, default_mask(VOXEL_SIZE))
    studies, n_peaks = read_studies(), 0
    for study in studies:
        found = report(study, t_map(study, space), space)
        write_study(folder, study, found)
        n_peaks += len(found.t)
        print(f"{study['study']}{SUFFIX}: {len(found.t)} SIMULATED peaks", file=sys.stderr)
    rows = [table_row(study) for study in studies]
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    (folder / "sdm_table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return n_peaks


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    where = Path(sys.argv[1]) if len(sys.argv) == 2 else HERE / "project_simulated"
    print(f"{where}: {write_project(where)} SIMULATED peaks of {len(read_studies())} studies")
