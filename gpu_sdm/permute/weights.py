"""Where the device engine gets the weights of the subjects from: drawn there, or brought there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpu_sdm.backend.cuda import Device
from gpu_sdm.permute import launch
from gpu_sdm.permute.plan import TILE, PermutationPlan, Plan
from gpu_sdm.permute.scaled import Scaled, row_length
from gpu_sdm.rng import stream_key

Tile = tuple[list[Any] | None, Any]


class HostWeights:
    """Weights of any plan, drawn on the host and copied tile by tile.

    Parameters
    ----------
    plan : Plan
        The permutations.
    scaled : Scaled or None
        Constants of the studies; None leaves f as it is drawn.
    device : Device
        Where they go.
    subjects : bool
        False where whole studies are exchanged and only f is wanted.
    """

    def __init__(self, plan: Plan, scaled: Scaled | None, device: Device, subjects: bool):
        self._plan, self._scaled = plan, scaled
        self._device, self._subjects = device, subjects

    def tile(self, start: int) -> Tile:
        """Weights (TILE, N_k) of each study, and its shares, of the tile from `start`.

        The shares are the rows of `Scaled.share`, or f (TILE, K) as it is drawn.
        """
        numbers = np.arange(start, start + TILE)
        pairs = [self._plan.weights(k, numbers) for k in range(self._plan.n_studies)]
        share = np.stack([f for _, f in pairs], axis=1)
        if self._scaled is None:
            return None, self._device.asarray(share)
        weights = None
        if self._subjects:
            factors = self._scaled.residual.astype(np.float32)
            weights = [
                self._device.asarray(w * factor)
                for (w, _), factor in zip(pairs, factors, strict=True)
                if w is not None
            ]
        return weights, self._device.asarray(self._scaled.share(share))


class DeviceWeights:
    """Weights of random subject permutations, drawn on the device: the same to the bit.

    Parameters
    ----------
    plan : PermutationPlan
        The permutations; of subjects.
    scaled : Scaled
        Constants of the studies.
    device : Device
        Where they are drawn.
    """

    def __init__(self, plan: PermutationPlan, scaled: Scaled, device: Device):
        n1, n2 = np.array(plan.n1, np.int32), np.array(plan.n2, np.int32)
        sizes = (n1 + n2).astype(np.int64)
        self._offset = np.concatenate([[0], np.cumsum(sizes)])
        stages = ["label" if n else "flip" for n in n2]
        keys = [
            stream_key(plan.seed, stage, name)
            for stage, name in zip(stages, plan.names, strict=True)
        ]
        self._device = device
        self._draw = device.kernel("permutation_weights.cu", "permutation_weights")
        self._divide = device.kernel("permutation_weights.cu", "permutation_share")
        self._study = device.asarray(np.repeat(np.arange(len(n1), dtype=np.int32), sizes))
        self._first = device.asarray(self._offset)
        self._n1, self._n2 = device.asarray(n1), device.asarray(n2)
        self._keys = device.asarray(np.array(keys, np.uint32))
        self._residual = device.asarray(scaled.residual.astype(np.float32))
        self._slope, self._added = device.asarray(scaled.slope), device.asarray(scaled.offset)

    def tile(self, start: int) -> Tile:
        """Weights (TILE, N_k) of each study, and the rows of `Scaled.share`, of a tile."""
        device, n_studies, n = self._device, len(self._n1), int(self._offset[-1])
        row = row_length(n_studies)
        weights = device.empty((TILE * n,), np.float32)
        count = device.empty((n_studies, TILE), np.int32)
        share = device.empty((TILE, row), np.float32)
        device.fill(count, 0)
        device.launch(
            self._draw,
            launch.grid(TILE * n, launch.BLOCK, device.processors),
            launch.BLOCK,
            [
                self._study, self._first, self._n1, self._n2, self._keys, self._residual, weights,
                count, *map(np.int64, (start, TILE, n)),
            ],
        )  # fmt: skip
        device.launch(
            self._divide,
            launch.grid(TILE * row, launch.BLOCK, device.processors),
            launch.BLOCK,
            [
                count, self._n1, self._slope, self._added, share,
                *map(np.int64, (TILE, n_studies, row)),
            ],
        )  # fmt: skip
        edges = TILE * self._offset
        parts = [weights[a:b].reshape(TILE, -1) for a, b in pairwise(edges)]
        return parts, share
