"""Stage 5: images of studies as Hedges g, against what AES-SDM 5.141 made of them (cutler2021)."""

from __future__ import annotations

import numpy as np
from fidelity_data import ALL_DATA
from fidelity_ledger import Ledger
from fidelity_scores import agreement

import gpu_sdm
from gpu_sdm.data import Peaks, Study, StudyTerms
from gpu_sdm.io.image_effects import read_study_map, resampling
from gpu_sdm.io.images import inspect_image
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.volumes import load_space
from gpu_sdm.stages.effects import study_terms

CUTLER = ALL_DATA / "cutler2021"


def without_peaks(name: str, n1: int) -> Study:
    """Give a one-sample study that has no peaks."""
    empty = np.empty(0)
    peaks = Peaks(np.empty((0, 3)), np.empty((0, 3)), empty, empty > 0, empty.astype(int), "", "")
    return Study(name, n1, 0, float("nan"), peaks)


def published() -> dict[str, tuple[str, int]]:
    """Read what NeuroVault says of each study: "t" or "z", and its subjects."""
    text = (CUTLER / "NeuroVault_studies.txt").read_text(encoding="latin-1")
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    return {row[2]: (row[7].strip().lower(), int(row[8])) for row in rows if len(row) > 8}


def run(ledger: Ledger) -> None:
    """Score g and its variance where both have data, grid by grid."""
    kinds, space = published(), load_space(gpu_sdm.Settings())
    names = sorted(p.name.removesuffix(".nii.gz") for p in (CUTLER / "images").glob("*.nii.gz"))
    for name in names:
        published_as, n = kinds[name]
        terms = study_terms([without_peaks(name, n)])
        theirs = read_map(CUTLER / "pp" / f"pp_{name}.nii.gz", space).astype(float)
        variance = read_map(CUTLER / "pp" / f"pp_{name}_var.nii.gz", space).astype(float)
        # AES-SDM took every map for one of t.
        for kind in dict.fromkeys((published_as, "t")):
            image, _, _ = inspect_image(CUTLER / "images" / f"{name}.nii.gz", name, kind, names)
            ours = read_study_map(image, space, terms).g.astype(float)
            how = f"{published_as} read as {kind}" if kind != published_as else kind
            how += {"none": "", "linear": ", interpolated"}.get(resampling(image, space), ", cut")
            record(ledger, name, how, ours, theirs, variance, terms)


def record(
    ledger: Ledger,
    name: str,
    how: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    variance: np.ndarray,
    terms: StudyTerms,
) -> None:
    """Enter the scores of one study; NaN of ours and 0 of theirs mean that there is no data."""
    covered = variance > 0  # AES-SDM's own mask
    mine, yours = np.isfinite(ours), theirs != 0
    both = covered & mine & yours
    where = f"{name} ({how})"
    score = agreement(ours, theirs, both)
    for what, value in score._asdict().items():
        ledger.add("images", f"g, {what}", value, where)
    off = np.abs(ours - theirs)[both]
    ledger.add("images", "g, median |difference|", np.median(off), where)
    ledger.add("images", "g, share within 1e-5", (off <= 1e-5).mean(), where)
    made = terms.c[0] + terms.v2[0] * theirs**2
    ledger.add("images", "variance given g, largest error",
               np.abs(made - variance)[both].max(), where)  # fmt: skip
    ledger.add("images", "voxels with data in their mask", (covered & mine).sum(), where,
               (covered & yours).sum())  # fmt: skip
