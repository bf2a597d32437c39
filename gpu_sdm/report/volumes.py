"""The maps of a result inside a page: exact, compressed, and readable by the page's viewer."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_sdm.atlas import NEAR_MM, NO_LABEL, Atlas, load_atlas
from gpu_sdm.figures._brain import BRAIN_MM
from gpu_sdm.figures._brain import underlay as brain
from gpu_sdm.figures.palette import ramp
from gpu_sdm.finished import Finished
from gpu_sdm.report.html import Html, data_block, join, tag
from gpu_sdm.spaces import SHAPES, Space, grid_affine, transformed

UNDERLAY_MM = 2


@dataclass(frozen=True, slots=True)
class Shown:
    """A map that the viewer offers.

    Parameters
    ----------
    name : str
        Of its file in maps/.
    label : str
        What the page calls it.
    says : str
        One sentence.
    kind : {"signed", "plain", "p"}
        Two signs, none, or a p value with a map for each side.
    """

    name: str
    label: str
    says: str
    kind: str


MAPS = (
    Shown("z", "SDM-Z", "The effect divided by its standard error.", "signed"),
    Shown("score", "Score", "Pull of the bounds on the mean at zero, which is tested.", "signed"),
    Shown("g", "Hedges g", "The tested effect.", "signed"),
    Shown("tfce", "TFCE", "Threshold-free cluster enhancement of SDM-Z, signed.", "signed"),
    Shown("p_fwe_tfce", "FWE p (TFCE)", "Corrected for the whole mask, from TFCE.", "p"),
    Shown("p_fwe_voxel", "FWE p (voxel)", "Corrected for the whole mask, voxelwise.", "p"),
    Shown("p_fwe_cluster_extent", "FWE p (extent)", "Of the cluster's extent.", "p"),
    Shown("p_fwe_cluster_mass", "FWE p (mass)", "Of the cluster's mass.", "p"),
    Shown("se", "Standard error", "Standard error of Hedges g.", "plain"),
    Shown("tau2", "\N{GREEK SMALL LETTER TAU}\N{SUPERSCRIPT TWO}", "Between studies.", "plain"),
    Shown("i2", "I\N{SUPERSCRIPT TWO} (%)", "Share of heterogeneity, percent.", "plain"),
    Shown("q", "Q", "Cochran's Q, a chi-squared.", "plain"),
)


def pack(values: np.ndarray) -> str:
    """Give an array as text: bytes of equal place together, gzip, base64.

    Neighbouring values share their high bytes, so that these compress where they lie together.
    """
    raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))
    planes = raw.view(np.uint8).reshape(len(raw), -1).T
    return base64.b64encode(gzip.compress(planes.tobytes(), 6, mtime=0)).decode()


def counts_of(p: np.ndarray, permutations: int) -> np.ndarray | None:
    """Give p (V,) float32 as counts of permutations; None where it is not made of such."""
    k = np.rint(p.astype(np.float64) * permutations)
    if not np.array_equal((k / permutations).astype(np.float32), p):
        return None
    return k.astype(np.uint16 if permutations < 2**16 else np.uint32)


def _signed(finished: Finished, name: str) -> np.ndarray:
    """Give a map with two signs; the two one-sided maps of TFCE as one."""
    values = finished.map(name)
    if name != "tfce":
        return values
    other = finished.map("tfce_neg")
    # Each is zero where the other is not: nothing is lost.
    return np.where(other > 0, -other, values)


def _p_maps(finished: Finished, name: str) -> Iterator[np.ndarray]:
    for side in ("", "_neg", "_two_sided"):
        yield finished.map(f"{name}{side}")


def map_entries(finished: Finished) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Describe every map that the result has, and pack it.

    Returns
    -------
    entries : list of dict
        For the viewer: id, label, kind, blobs, dtype, largest value; for p the permutations.
    blobs : dict of str to str
        Content of each blob.
    """
    entries: list[dict[str, Any]] = []
    blobs: dict[str, str] = {}
    permutations = int(finished.run["permutations"])
    for shown in MAPS:
        if not finished.has(shown.name):
            continue
        entry: dict[str, Any] = {"id": shown.name, "label": shown.label, "says": shown.says}
        if shown.kind == "p":
            parts = list(_p_maps(finished, shown.name))
            counted = [counts_of(p, permutations) for p in parts]
            exact = all(c is not None for c in counted)
            arrays = [c for c in counted if c is not None] if exact else parts
            entry |= {"permutations": permutations, "counts": exact, "max": 1.0}
        else:
            arrays = [_signed(finished, shown.name)]
            entry["max"] = float(np.abs(arrays[0]).max())
        names = [f"map-{shown.name}-{i}" for i in range(len(arrays))]
        blobs |= {name: pack(a) for name, a in zip(names, arrays, strict=True)}
        entries.append(entry | {"kind": shown.kind, "blobs": names, "dtype": arrays[0].dtype.name})
    return entries, blobs


def labels(space: Space, atlas: Atlas) -> tuple[list[str], np.ndarray]:
    """Name every voxel of a mask as `atlas.label_of` does.

    Returns
    -------
    names : list of str
        Different names.
    which : (V,) uint16
        Number of each voxel's name.
    """
    mm = space.mm()
    if not atlas.regions:
        return [""], np.zeros(len(mm), np.uint16)
    found = atlas.number_at(mm)
    near = _near(mm[found == 0], atlas)
    texts = np.array([atlas.regions.get(n, "") for n in range(max(atlas.regions) + 1)], object)
    words = texts[found]
    words[found == 0] = near
    names, which = np.unique(words.astype(str), return_inverse=True)
    return names.tolist(), which.astype(np.uint16)


def _near(mm: np.ndarray, atlas: Atlas) -> list[str]:
    """Do for many points (n, 3) outside all regions what `label_of` does for one."""
    place = transformed(np.linalg.inv(atlas.affine), mm)
    if len(mm) == 0 or np.ptp(place - np.rint(place), axis=0).max() > 1e-6:
        return atlas.label_of(mm) if len(mm) else []  # grids that do not go together
    centre = np.rint(place).astype(int)
    rest = mm[0] - transformed(atlas.affine, centre[0])
    reach = np.ceil(NEAR_MM / np.linalg.norm(atlas.affine[:3, :3], axis=0)).astype(int) + 1
    box = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1)
    steps = box.reshape(-1, 3)
    distance = np.linalg.norm(steps @ atlas.affine[:3, :3].T - rest, axis=1)
    number = np.zeros(len(mm), int)
    # Nearest first; of equals the first of the box, as argmin takes it.
    for step in np.argsort(np.round(distance, 9), kind="stable"):
        if distance[step] > NEAR_MM * (1 + 1e-9):
            break
        open_ = np.flatnonzero(number == 0)
        number[open_] = atlas.number_at(transformed(atlas.affine, centre[open_] + steps[step]))
    return [f"near {atlas.regions[n]}" if n else NO_LABEL for n in number.tolist()]


def underlay() -> np.ndarray:
    """Give nilearn's MNI152 brain on the 2 mm grid, (X, Y, Z) uint8."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    fine = brain()
    # A little smoothing, as every second voxel of 1 mm is taken.
    smooth = gaussian_filter(np.nan_to_num(fine.data), 0.6 / fine.step)
    shape, affine = SHAPES[UNDERLAY_MM], grid_affine(UNDERLAY_MM)
    ijk = np.indices(shape).reshape(3, -1)
    mm = affine[:3, :3] @ ijk + affine[:3, 3:]
    values = map_coordinates(smooth, (mm - fine.origin[:, None]) / fine.step, order=1, cval=0.0)
    bright = np.clip(values / np.percentile(values[values > 0.1], 99.5), 0, 1)
    grey: np.ndarray = np.rint(255 * bright).astype(np.uint8).reshape(shape)
    return grey


def window(space: Space) -> list[list[float]]:
    """Give what the viewer shows along each axis, mm: the brain, and the whole mask."""
    mm, half = space.mm(), space.voxel_size / 2
    return [
        [min(low, float(mm[:, a].min()) - half) - 2, max(high, float(mm[:, a].max()) + half) + 2]
        for a, (low, high) in enumerate(BRAIN_MM)
    ]


def _colours(name: str) -> str:
    """256 colours as hexadecimal digits, six each."""
    import matplotlib

    colours = ramp(name) if name in ("positive", "negative") else matplotlib.colormaps[name]
    rgb: np.ndarray = np.rint(255 * colours(np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
    return rgb.tobytes().hex()


def viewer_data(finished: Finished, start: dict[str, Any], presets: list[dict[str, Any]]) -> Html:
    """Give the data blocks of the viewer.

    Parameters
    ----------
    finished : Finished
        The result.
    start : dict
        What is shown first: `show`, `where`, `side`, `t` and `mm`.
    presets : list of dict
        Thresholds by name: `label`, `where`, `side`, `t`.
    """
    space = finished.space
    entries, blobs = map_entries(finished)
    names, which = labels(space, load_atlas())
    blobs["mask"] = pack(np.packbits(space.mask.ravel(order="F"), bitorder="little"))
    blobs["labels"] = pack(which)
    blobs["underlay"] = pack(underlay().ravel(order="F"))
    content = {
        "step": space.voxel_size,
        "shape": list(space.shape),
        "voxels": space.n_voxels,
        "window": window(space),
        "origin": [float(v) for v in space.affine[:3, 3]],
        "underlay": {"step": UNDERLAY_MM, "shape": list(SHAPES[UNDERLAY_MM])},
        "ramps": {
            "positive": _colours("positive"),
            "negative": _colours("negative"),
            "plain": _colours("viridis"),
        },
        "maps": entries,
        "regions": names,
        "presets": presets,
        "start": start,
    }
    return join(
        [
            data_block("viewer-data", content),
            *(
                tag("script", Html(text), type="text/plain", id=f"blob-{name}")
                for name, text in blobs.items()
            ),
        ]
    )
