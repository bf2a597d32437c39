"""A small database in the files of Neurosynth, with known co-activation and known words; seeds."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from scipy import sparse

from gpu_sdm.decode.seeds import Seed
from gpu_sdm.findings.sites import Site
from gpu_sdm.spaces import SHAPES, Space

SEED_MM, PARTNER_MM = (0, -16, 18), (16, -32, 26)
TERMS = (
    "motion", "reward", "amygdala", "memory", "network analysis", "speech", "fear", "pain", "touch",
    "rare",
)  # fmt: skip
STEM = "data-neurosynth_version-7"


def write_database(
    folder: Path, studies: int = 160, seed: int = 5, kind: str = "tfidf", name: str = STEM
) -> Path:
    """Every third study has a peak near the seed, most of these one near its partner too.

    Those speak of motion; reward, memory and the rest fall anywhere; one study has no peak.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["id\ttable_id\tx\ty\tz"]
    values = np.zeros((studies, len(TERMS)))
    for k in range(studies):
        peaks = rng.uniform((-60, -80, -30), (60, 50, 60), (int(rng.integers(3, 9)), 3)).round()
        if k % 3 == 0:
            near = [np.array(SEED_MM) + rng.integers(-2, 3, 3)]
            if rng.random() < 0.8:
                near.append(np.array(PARTNER_MM) + rng.integers(-3, 4, 3))
            peaks = np.vstack([peaks, near])
        if k == 7:
            peaks = peaks[:0]
        rows += [f"{1000 + k}\tt1\t{x:g}\t{y:g}\t{z:g}" for x, y, z in peaks]
        values[k, 0] = (rng.random() < (0.7 if k % 3 == 0 else 0.1)) * rng.uniform(0.1, 0.5)
        values[k, 1:9] = (rng.random(8) < 0.3) * rng.uniform(0.1, 0.5, 8)
    values[1, 9] = 0.2
    pack(folder / f"{name}_coordinates.tsv.gz", "\n".join(rows) + "\n")
    titles = (f'{1000 + k}\tMNI\t"a title\nin two lines"' for k in range(studies))
    pack(folder / f"{name}_metadata.tsv.gz", "\n".join(["id\tspace\ttitle", *titles]) + "\n")
    features = folder / f"{name}_vocab-terms_source-abstract_type-{kind}_features.npz"
    sparse.save_npz(features, sparse.csr_matrix(values))
    (folder / f"{name}_vocab-terms_vocabulary.txt").write_text("\n".join(TERMS) + "\n")
    return folder


def pack(path: Path, text: str) -> None:
    """Write a gzipped text."""
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def ball(voxel_size: int = 4) -> Space:
    """All voxels within 60 mm of the middle."""
    grid = Space(voxel_size, np.ones(SHAPES[voxel_size], bool))
    inside = np.linalg.norm(grid.mm() - np.array([0, -16, 18]), axis=1) <= 60
    return Space(voxel_size, grid.embed(inside) > 0)


def point(xyz: tuple[float, float, float], number: int = 1) -> Seed:
    """The seed at a position."""
    name = ",".join(f"{v:g}" for v in xyz)
    return Seed(number, Site(name, "point", np.array([0]), xyz), xyz)
