"""Write an SDM project from the 21 pain studies whose peaks ship inside the NiMARE wheel.

Usage: python examples/pain21_project.py FOLDER

The peaks (Maumet et al. 2016) come without heights and without thresholds. Heights are entered
as `p` (positive, unknown) and every study is ASSUMED to have been thresholded at an uncorrected
one-sided p of 0.001.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from scipy.stats import t as student

P_ASSUMED = 0.001


def pain_studies() -> dict[str, dict]:
    """Read NiMARE's JSON without importing NiMARE."""
    found = importlib.util.find_spec("nimare")
    if found is None or not found.submodule_search_locations:
        sys.exit("NiMARE is not installed: python -m pip install --no-deps nimare==0.22.1")
    folder = Path(found.submodule_search_locations[0]) / "resources"
    return json.loads((folder / "nidm_pain_dset.json").read_text(encoding="utf-8"))


def write_project(folder: Path) -> tuple[int, int]:
    """Write sdm_table.txt and the peak files; return the numbers of studies and peaks."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, n_peaks = ["study\tn1\tt_thr\tthreshold"], 0
    for key, study in pain_studies().items():
        contrast = study["contrasts"]["1"]
        name, (n,) = key.removesuffix(".nidm"), contrast["metadata"]["sample_sizes"]
        rows.append(f"{name}\t{n}\t{student.isf(P_ASSUMED, n - 1):.6f}\tuncorrected")
        coordinates = contrast["coords"]
        peaks = [
            f"{x:g},{y:g},{z:g},p"
            for x, y, z in zip(coordinates["x"], coordinates["y"], coordinates["z"], strict=True)
        ]
        (folder / f"{name}.other_mni.txt").write_text("\n".join(peaks) + "\n", encoding="utf-8")
        n_peaks += len(peaks)
    (folder / "sdm_table.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return len(rows) - 1, n_peaks


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    k, n = write_project(Path(sys.argv[1]))
    print(
        f"{sys.argv[1]}: {k} pain studies, {n} peaks of unknown height; thresholds are ASSUMED "
        f"(uncorrected one-sided p = {P_ASSUMED})"
    )
