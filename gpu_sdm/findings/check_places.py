"""Doubts about coordinates: outside the brain, and inside it only with axes swapped or flipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations, product

import numpy as np
from scipy.special import bdtrc

from gpu_sdm.data import Notice, Study
from gpu_sdm.spaces import Space
from gpu_sdm.stages.peak_sums import in_mask

MISPRINTS = 0.02  # of peaks; of 2,421 in two published data sets .4 % lie outside
RARE = 1e-3
FEWER, SHOWN = 3, 3
NAMES = np.array(["x", "y", "z"])


def brain(mask: Space) -> Space:
    """Give the mask with every voxel within 8 mm of it, and without holes.

    Grey matter alone would put white matter and rounded coordinates outside.
    """
    from scipy.ndimage import binary_dilation, binary_fill_holes

    steps = -(-8 // mask.voxel_size)
    filled = binary_fill_holes(binary_dilation(mask.mask, iterations=steps))
    return Space(mask.voxel_size, filled)


def readings() -> list[tuple[str, np.ndarray]]:
    """Give the 23 other ways to read three columns as x, y, z, as (name, (3, 3) matrix).

    A mask is symmetric: that x has the wrong sign cannot be seen in it, and both signs of x are
    one reading.
    """
    found = []
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=2):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = (1, *signs)
            if (matrix == np.eye(3)).all():
                continue
            columns = NAMES[list(order)]
            changed = [
                f"{axis} = {'-' if sign < 0 else ''}{column}"
                for axis, column, sign in zip(NAMES, columns, (1, *signs), strict=True)
                if sign < 0 or axis != column
            ]
            found.append((", ".join(changed), matrix))
    return found


def axis_doubt(study: Study, head: Space) -> Notice | None:
    """Whether a study's peaks lie in the brain only with the axes read in another way.

    Notes
    -----
    So many must lie outside that 2 % of misprints would give as many once in 1000 studies, and
    another reading must leave at least three fewer outside, no more than misprints explain.
    """
    xyz = study.peaks.xyz_mm
    out = int((~in_mask(head, xyz)).sum())
    if _surprise(out, len(xyz)) > RARE:
        return None
    then = {name: int((~in_mask(head, xyz @ m.T)).sum()) for name, m in readings()}
    fewest = min(then.values())
    if out - fewest < FEWER or _surprise(fewest, len(xyz)) <= RARE:
        return None
    best = sorted((n for n, k in then.items() if k == fewest), key=lambda n: n.count("="))
    more = f" (or {len(best) - SHOWN} more)" if len(best) > SHOWN else ""
    return Notice(
        "swapped_axes",
        f"{study.peaks.source}: {out} of {len(xyz)} peaks lie outside the brain as given, {fewest} "
        f"with {'; or with '.join(best[:SHOWN])}{more}.",
    )


def _surprise(outside: int, peaks: int) -> float:
    """Chance of so many misprints."""
    return float(bdtrc(outside - 1, peaks, MISPRINTS)) if outside else 1.0


def place_doubts(
    studies: Iterable[Study], builtin: Space, mask: Space | None = None
) -> Iterator[Notice]:
    """Peaks outside the brain or a mask, and axes that may be swapped.

    Parameters
    ----------
    studies : iterable of Study
        Studies; those with images are passed over.
    builtin : Space
        Grey matter, from which the brain is made.
    mask : Space, optional
        The mask that the analysis will have.
    """
    head = brain(builtin)
    for study in studies:
        if not len(study.peaks):
            continue
        doubt = axis_doubt(study, head)
        if doubt is not None:
            yield doubt
        xyz = study.peaks.xyz_mm
        out = ~in_mask(head, xyz)
        off = np.zeros(len(xyz), bool) if mask is None else ~in_mask(mask, xyz)
        for i in np.flatnonzero(out | off):
            kind, what = (
                ("peak_outside_brain", "the brain")
                if out[i]
                else ("peak_outside_mask", "the mask given")
            )
            place = ", ".join(f"{v:.4g}" for v in xyz[i])
            yield Notice(
                kind,
                f"{study.peaks.source}:{study.peaks.lines[i]}: the peak ({place}) lies outside "
                f"{what}.",
            )
