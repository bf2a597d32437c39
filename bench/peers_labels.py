"""TFCE by labelling at every height (scipy, cc3d) against the flooding and union-find of ours."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from peers_common import agreement, effects_of, equal_terms, row, space_of, timed
from scipy import __version__ as scipy_version
from scipy.ndimage import generate_binary_structure, label

from gpu_sdm.ops.max_tfce import MAX_TFCE
from gpu_sdm.ops.permuted_z import PERMUTED_Z
from gpu_sdm.ops.tfce import EXTENT_POWER, HEIGHT_POWER, STEPS, TFCE
from gpu_sdm.spaces import Space

FACES = generate_binary_structure(3, 1)

Labeller = Callable[[np.ndarray], np.ndarray]


def labelled_tfce(z: np.ndarray, space: Space, labels_of: Labeller) -> np.ndarray:
    """TFCE (V,) by labelling the volume anew at each of the 99 heights."""
    volume = np.zeros(space.mask.size)
    volume[space.index] = z
    volume = volume.reshape(space.shape, order="F")
    score = np.zeros(volume.shape)
    dh = z.max() / STEPS
    for i in range(1, STEPS):
        h = i * dh
        labels = labels_of(volume > h)
        extent = np.bincount(labels.ravel(order="K")).astype(np.float64)
        extent[0] = 0
        score += (extent**EXTENT_POWER * h**HEIGHT_POWER)[labels]
    return space.extract(score)


def _scipy(above: np.ndarray) -> np.ndarray:
    return label(above, FACES)[0]


def _peers() -> dict[str, Labeller]:
    found: dict[str, Labeller] = {f"scipy.ndimage.label {scipy_version}": _scipy}
    if importlib.util.find_spec("cc3d") is None:
        print("SKIPPED cc3d: connected-components-3d is not installed", file=sys.stderr)
        return found
    import cc3d

    version = importlib.metadata.version("connected-components-3d")
    found[f"cc3d {version}"] = lambda above: cc3d.connected_components(above, connectivity=6)
    return found


def measure(quick: bool) -> list[dict[str, Any]]:
    """Time one map of one side: the whole TFCE map, and its largest score alone."""
    space = space_of(4, 3000) if quick else space_of(2)
    signs = np.random.default_rng(4).choice(np.array([-1, 1], np.float32), (20, 4))
    effects = effects_of(space, 1)
    z = np.asarray(PERMUTED_Z.on("cpu")(None, signs, effects, equal_terms()), np.float64)
    maps, neighbours = np.concatenate([z, -z]), space.neighbours()
    TFCE.on("cpu")(maps[0], neighbours)
    MAX_TFCE.on("cpu")(maps[:1], neighbours)
    whole = timed(lambda: TFCE.on("cpu")(maps[0], neighbours), 3)
    largest = timed(lambda: MAX_TFCE.on("cpu")(maps, neighbours), 3)
    rows = []
    for name, labels_of in _peers().items():
        theirs = timed(lambda: labelled_tfce(maps[0], space, labels_of), 1)  # noqa: B023
        scores = theirs.value
        off = np.abs(scores - whole.value).max() / scores.max()
        top = abs(largest.value[0] - scores.max()) / scores.max()
        sizes = {"voxels": space.n_voxels, "studies": 20, "permutations": 1, "imputations": 1}
        rows += [
            row(
                "TFCE map of one side, 99 heights", name, sizes, {"1": theirs.per(1)},
                {"1": whole.per(1)},
                [agreement("scores, largest difference over the largest score", off, 1e-9)],
                note="union-find over sorted voxels",
            ),
            row(
                "largest TFCE score of one side, 99 heights", name, sizes, {"1": theirs.per(1)},
                {"1": largest.per(len(maps))},
                [agreement("largest score, relative difference", top, 1e-9)],
                note=f"flooding from the peaks; mean of {len(maps)} sides of flipped maps",
            ),
        ]  # fmt: skip
    return rows
