"""How many subjects a correlation template needs, on fields whose true distances are known.

Stationary Gaussian fields on the built-in domain, of which one virtual mm is one real mm at the
reference width (kernel of sigma 6 mm, FWHM 14). Templates are estimated from the first n of them;
printed are the spread of r and what becomes of kernels of 20 mm around 40 voxels.

    python bench/template_subjects.py --voxel-size 4 --subjects 10 20 30 50 100 200 400
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy import ndimage

from gpu_sdm.ops.virtual_distance import Graph, virtual_distance
from gpu_sdm.spaces import SHAPES
from gpu_sdm.stages.bounds import REACH_PER_FWHM, peak_kernel
from gpu_sdm.stages.template import AdjacentMoments, direction_rows
from gpu_sdm.templates import (
    OFFSETS,
    REFERENCE_FWHM,
    Template,
    default_mask,
    default_template,
    from_correlations,
)

SIGMA_MM = REFERENCE_FWHM / math.sqrt(8 * math.log(2)) / math.sqrt(2)
PEAKS, FARTHEST_MM = 40, 60.0
DISTANCES_MM = (10, 20)


def distances(template: Template, peaks: np.ndarray) -> np.ndarray:
    """(n, X*Y*Z) virtual mm from each voxel of `peaks`; inf out of reach."""
    graph = Graph(template.costs, OFFSETS, template.voxel_size, template.domain)
    found = np.full((len(peaks), len(template.costs)), np.inf)
    for row, peak in zip(found, peaks, strict=True):
        voxels, far = virtual_distance.on("cpu")(graph, peak[None], np.zeros(1), FARTHEST_MM)
        row[voxels] = far
    return found


def kernel(distance: np.ndarray) -> np.ndarray:
    """Give k as an analysis takes it, the collapse near the peak apart."""
    inside = distance < REACH_PER_FWHM * REFERENCE_FWHM
    k = np.zeros(distance.shape)
    k[inside] = peak_kernel(distance[inside], REFERENCE_FWHM)
    return k


def main() -> None:
    """Print a line per number of subjects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxel-size", type=int, default=4)
    parser.add_argument("--subjects", type=int, nargs="+", default=[10, 20, 30, 50, 100, 200, 400])
    parser.add_argument("--seed", type=int, default=5)
    asked = parser.parse_args()
    size, rng = asked.voxel_size, np.random.default_rng(asked.seed)
    domain = default_template(size).domain.reshape(SHAPES[size], order="F")
    inside = np.flatnonzero(default_mask(size).ravel(order="F") & domain.ravel(order="F"))
    peaks = rng.choice(inside, PEAKS, replace=False)
    true = np.zeros((*domain.shape, len(OFFSETS)))
    for column, offset in enumerate(OFFSETS):
        both = domain & np.roll(domain, tuple(-offset), (0, 1, 2))
        true[both, column] = math.exp(-(size**2) * (offset**2).sum() / (4 * SIGMA_MM**2))
    wanted = distances(from_correlations(true, size), peaks)
    rings = {mm: np.abs(wanted - mm) < 1 for mm in DISTANCES_MM}
    print(f"true r of faces {true.max():.4f}; " + "".join(
        f"true k at {mm} mm {kernel(wanted[ring]).mean():.3f}; " for mm, ring in rings.items()
    ))  # fmt: skip
    moments = AdjacentMoments(SHAPES[size])
    for n in range(1, max(asked.subjects) + 1):
        white = rng.standard_normal(domain.shape)
        field = ndimage.gaussian_filter(white, SIGMA_MM / size, mode="wrap")
        moments.add(np.where(domain, field, np.nan))
        if n not in asked.subjects:
            continue
        r = np.nan_to_num(moments.correlations(n))
        template = from_correlations(np.maximum(r, 0), size)
        x = direction_rows(template)[0]
        found = distances(template, peaks)
        k, truth = kernel(found), kernel(wanted)
        near = truth > 0
        print(
            f"n {n:4d}  r {x['r']:.4f} ({x['r_5']:.3f}-{x['r_95']:.3f})"
            + "".join(f"  k at {mm} mm {k[ring].mean():.3f} (sd {k[ring].std():.3f})"
                      for mm, ring in rings.items())
            + f"  rmse of k {math.sqrt(np.mean((k - truth)[near] ** 2)):.3f}",
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
