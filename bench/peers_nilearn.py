"""nilearn: permuted_ols, the maximum of a one-sample t and of its TFCE under sign flips."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers_common import (
    STUDIES,
    agreement,
    both_threads,
    effects_of,
    equal_terms,
    limits,
    our_null,
    problem_of,
    require,
    row,
    space_of,
    timed,
)

from gpu_sdm.ops.permuted_z import PERMUTED_Z
from gpu_sdm.ops.tfce import TFCE
from gpu_sdm.spaces import Space

SEED = 5
BARS = {"voxel": 1.0, "tfce": 100.0}
STEPS = 100


def _signs(n: int) -> np.ndarray:
    """Signs (n + 1, K) that nilearn draws in one job; they accumulate, and the first are +1."""
    chunk = np.random.RandomState(SEED).randint(1, np.iinfo(np.int32).max - 1)
    rng = np.random.RandomState(chunk)
    drawn = np.array([rng.randint(2, size=(STUDIES, 1))[:, 0] * 2 - 1 for _ in range(n)])
    return np.vstack([np.ones((1, STUDIES)), drawn.cumprod(axis=0)]).astype(np.int8)


def _masker(space: Space) -> Any:
    from nibabel.nifti1 import Nifti1Image
    from nilearn.maskers import NiftiMasker

    return NiftiMasker(Nifti1Image(space.mask.astype(np.uint8), space.affine)).fit()


def _their_order(space: Space) -> np.ndarray:
    """Our position of each of nilearn's voxels: it reads the mask with z fastest, we with x."""
    return np.asarray(space.embed(np.arange(space.n_voxels))[space.mask], np.int64)


def _theirs(maps: np.ndarray, masker: Any, n: int, tfce: bool, jobs: int) -> dict[str, Any]:
    from nilearn.mass_univariate import permuted_ols

    return permuted_ols(
        np.ones((len(maps), 1)), maps, model_intercept=False, n_perm=n, two_sided_test=True,
        random_state=SEED, n_jobs=jobs, masker=masker, tfce=tfce, verbose=0,
    )  # fmt: skip


def one_tfce_map(t: np.ndarray, space: Space) -> dict[str, Any]:
    """Compare one positive TFCE map; nilearn takes a hundredth step, at the maximum itself."""
    from nilearn.mass_univariate._utils import calculate_tfce
    from scipy.ndimage import generate_binary_structure

    volume = space.embed(np.maximum(t, 0)).astype(np.float64)[..., None]
    theirs = space.extract(
        calculate_tfce(volume, generate_binary_structure(3, 1), two_sided_test=False)[..., 0]
    )
    ours = TFCE.on("cpu")(np.asarray(t, np.float64), space.neighbours())
    ours[np.argmax(t)] += float(t.max()) ** 2
    return agreement(
        "one TFCE map with nilearn's step at the maximum, largest relative difference",
        np.abs(ours - theirs).max() / theirs.max(),
        1e-6,
    )


def _compared(theirs: np.ndarray, null: np.ndarray, what: str, bar: float) -> dict[str, Any]:
    """Largest of either side, permutation by permutation, the observed one left out."""
    ours = null.max(axis=0)[1:].astype(np.float64)
    theirs = np.ravel(theirs)
    return agreement(what, (np.abs(ours - theirs) / theirs).max(), bar)


def measure(quick: bool) -> list[dict[str, Any]]:
    """Time one permutation of each, voxel and TFCE."""
    version = require("nilearn", "nilearn")
    space = space_of(4, 900) if quick else space_of(2)
    effects = effects_of(space, 1)
    order, masker = _their_order(space), _masker(space)
    maps = effects[0].astype(np.float64)[:, order]
    counts = {"voxel": 16 if quick else 100, "tfce": 2 if quick else 8}
    t = PERMUTED_Z.on("cpu")(None, np.ones((STUDIES, 1), np.float32), effects, equal_terms())[0]
    problem = problem_of(space, effects, equal_terms(), t)
    rows = []
    for name, n in counts.items():
        theirs, tfce = {}, name == "tfce"
        jobs = [1] if quick else both_threads()
        for threads in jobs:
            # The observed map is enhanced as well: it counts as one more permutation.
            with limits(1 if tfce else threads):
                found = timed(
                    lambda: _theirs(maps, masker, n, tfce, threads if tfce else 1),  # noqa: B023
                    1 if quick or tfce else 2,
                )
            theirs[str(threads)] = found.per(n + 1)
            if threads == 1:
                value = found.value
            elif tfce:
                theirs[str(threads)].pop("cpu_s")  # spent in processes of joblib
        signs = _signs(n if quick else max(n, 64))
        ours, null = our_null(problem, signs, ("voxel", name), 1 if quick else 3, warm_up=2)
        first = {s: m[:, : n + 1] for s, m in null.maxima.items()}
        observed = np.empty(space.n_voxels)
        observed[order] = value["t"][0]
        agreements = [
            agreement("observed t, largest difference", np.abs(observed - t).max(), 1e-4),
            _compared(value["h0_max_t"], first["voxel"],
                      f"largest |t| of {n} flips, largest relative difference", 1e-5),
        ]  # fmt: skip
        if tfce:
            agreements += [
                one_tfce_map(observed, space),
                _largest_tfce(value["h0_max_tfce"], first, n),
            ]
        rows.append(
            row(
                "one-sample t under sign flips, maximum of " + ("TFCE" if tfce else "|t|"),
                f"nilearn {version}",
                {"voxels": space.n_voxels, "studies": STUDIES, "permutations": n,
                 "imputations": 1},
                theirs,
                ours,
                agreements,
                None if quick else BARS[name],
                "ours: random effects with one small variance, which is the t; both sides"
                + (f"; ours timed on {len(signs)} permutations" if tfce else ""),
            )
        )  # fmt: skip
    return rows


def _largest_tfce(theirs: np.ndarray, null: dict[str, np.ndarray], n: int) -> dict[str, Any]:
    """Compare the largest scores: heights differ on the side with the smaller maximum.

    nilearn steps both sides by a hundredth of the larger of their maxima and takes a hundredth
    step, at the maximum; we step each side by a hundredth of its own.
    """
    voxel, tfce = null["voxel"][:, 1:], null["tfce"][:, 1:]
    larger = voxel.argmax(axis=0)
    same = tfce.argmax(axis=0) == larger
    theirs = np.ravel(theirs)
    ours = tfce.max(axis=0)
    # Where the largest score is on the side of the largest |t|, heights are the same; it may or
    # may not be at the peak voxel, which gains the step at the maximum, h^2.
    gain = voxel.max(axis=0) ** 2
    off = np.minimum(np.abs(theirs - ours), np.abs(theirs - ours - gain)) / theirs
    wanted = off[same] if same.any() else np.array([np.inf])
    return agreement(
        f"largest TFCE score of {int(same.sum())} of {n} flips with the same heights, largest "
        "relative difference",
        wanted.max(),
        1e-3,
    )
