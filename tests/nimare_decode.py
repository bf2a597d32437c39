"""NiMARE's own numbers that the tests of decoding compare with; run it to renew them.

    python tests/nimare_decode.py FOLDER_OF_REAL_DATA > tests/nimare_decode_reference.json

Takes two minutes and 1.5 GB with the whole of Neurosynth 7: MKDAChi2 against all studies and
neurosynth_decode at one seed, peaks where the database has them.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

SEED_MM, RADIUS_MM = (0.0, 48.0, 0.0), 6.0
TABLES = {
    "neurosynth": (
        "neurosynth_v7/data-neurosynth_version-7", "vocab-LDA50_source-abstract_type-weight",
        "vocab-LDA50", 0.05,
    ),
    "neuroquery": (
        "neuroquery_v1/data-neuroquery_version-1",
        "vocab-neuroquery7547_source-abstract_type-count", "vocab-neuroquery7547", 0.001,
    ),
}  # fmt: skip


def tables(home: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str], float]:
    """Coordinates, annotations (one row a study), names of terms and their threshold."""
    stem, features, vocabulary, least = TABLES[name]
    xyz = pd.read_csv(home / f"{stem}_coordinates.tsv.gz", sep="\t", dtype={"id": str})
    ids = pd.read_csv(home / f"{stem}_metadata.tsv.gz", sep="\t", dtype={"id": str})["id"]
    terms = (home / f"{stem}_{vocabulary}_vocabulary.txt").read_text().split("\n")
    terms = [t for t in terms if t]
    values = sparse.load_npz(home / f"{stem}_{features}_features.npz").tocsr()
    common = np.flatnonzero(np.asarray((values >= least).sum(axis=0)).ravel() >= 100)
    some = pd.DataFrame(values[:, common].toarray(), columns=[terms[i] for i in common])
    some.insert(0, "id", ids.to_numpy())
    return xyz, some, list(some.columns[1:]), least


def selected(xyz: pd.DataFrame) -> list[str]:
    """Studies with a peak at the seed."""
    distance = np.linalg.norm(xyz[["x", "y", "z"]].to_numpy() - np.array(SEED_MM), axis=1)
    return sorted(set(xyz["id"][distance <= RADIUS_MM]))


def dataset(xyz: pd.DataFrame, ids: list[str], mask: Any) -> Any:
    """NiMARE's Dataset of some studies, all of them said to be in MNI space."""
    from nimare.dataset import Dataset

    groups = dict(list(xyz.groupby("id")))
    content = {
        study: {
            "contrasts": {
                "1": {
                    "coords": {
                        "space": "MNI",
                        **{c: groups[study][c].tolist() for c in ("x", "y", "z")},
                    },
                    "metadata": {"sample_sizes": [20]},
                }
            }
        }
        for study in ids
    }
    return Dataset(content, target="mni152_2mm", mask=mask)


def mkda(xyz: pd.DataFrame, ids: list[str], mask: Any, radius: float = 10) -> dict[str, np.ndarray]:
    """Association and uniformity z of `MKDAChi2`, volumes on the grid of the mask."""
    from nimare.meta.cbma.mkda import MKDAChi2
    from nimare.meta.kernel import MKDAKernel

    others = sorted(set(xyz["id"]) - set(ids))
    estimator = MKDAChi2(kernel_transformer=MKDAKernel(r=radius), mask=mask)
    found = estimator.fit(dataset(xyz, ids, mask), dataset(xyz, others, mask))
    return {
        name: np.asarray(found.get_map(f"z_desc-{name}").dataobj)
        for name in ("association", "uniformity")
    }


def reference(home: Path) -> dict[str, Any]:
    """All numbers of the JSON file."""
    import nibabel as nib
    import nimare
    from nimare.decode.discrete import neurosynth_decode

    from gpu_sdm.spaces import Space
    from gpu_sdm.templates import default_mask

    space = Space(2, default_mask(2))
    mask = nib.Nifti1Image(space.mask.astype(np.uint8), space.affine)
    content: dict[str, Any] = {"nimare": nimare.__version__, "seed_mm": SEED_MM, "terms": {}}
    for name in TABLES:
        xyz, annotations, terms, least = tables(home, name)
        ids = selected(xyz)
        found = neurosynth_decode(
            xyz, annotations, ids, features=terms, frequency_threshold=least, min_studies=100
        )
        rows = found.sort_values("zReverse")
        rows = pd.concat([rows.iloc[-15:], rows.iloc[:: max(1, len(rows) // 15)]])
        content["terms"][name] = {
            "studies": len(ids),
            "tested": len(found),
            "rows": {
                str(t): [float(r["pReverse"]), float(r["probReverse"]), float(r["zReverse"])]
                for t, r in rows.iterrows()
            },
        }
        if name == "neurosynth":
            maps = mkda(xyz, ids, mask)
            rng = np.random.default_rng(7)
            voxels = np.sort(rng.choice(space.n_voxels, 80, replace=False))
            content["mkda"] = {
                "mm": space.mm(voxels).astype(int).tolist(),
                **{k: [float(v) for v in space.extract(m)[voxels]] for k, m in maps.items()},
            }
    return content


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(reference(Path(sys.argv[1])), indent=1))
