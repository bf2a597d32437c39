"""The p maps that a threshold can be set on, by name, of our results and of SDM-PSI's folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gpu_sdm.clusters import MIN_VOXELS
from gpu_sdm.data import Pooled
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.finished import Finished, open_result
from gpu_sdm.inference import fdr_q, uncorrected_p
from gpu_sdm.io.sdm_results import SdmResults, models, open_sdm_results
from gpu_sdm.spaces import Space

Pair = tuple[np.ndarray, np.ndarray]  # (V,) of the positive and of the negative side


class Source(Protocol):
    """What a threshold needs of a finished analysis; `Finished` and `SdmResults` are such."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    @property
    def space(self) -> Space:
        """Grid and mask."""

    def has(self, name: str) -> bool:
        """Whether there is a map of this name."""

    def map(self, name: str) -> np.ndarray:
        """Give a map (V,) float32."""

    def maxima(self) -> dict[str, np.ndarray]:
        """Null of the maxima, by statistic."""


def open_source(folder: Path | str) -> Source:
    """Open a result of `gpu-sdm permute`, or an analysis folder of SDM-PSI.

    Raises
    ------
    InputError
        If it is neither.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("there is no such folder.", folder)
    if (folder / "run.json").is_file():
        return open_result(folder)
    if models(folder):
        return open_sdm_results(folder)
    raise InputError(
        "is neither a finished gpu-sdm result (run.json, maps/) nor an analysis folder of SDM-PSI "
        "(NAME_z.nii.gz, NAME_g.nii.gz, NAME_var.nii.gz); give one of the two.",
        folder,
    )


def pooled_of(source: Source) -> Pooled:
    """Give the meta-analysis of a finished result, each map (V,) float32."""
    names = ("g", "se", "z", "tau2", "i2", "h2", "q")
    return Pooled(**{name: source.map(name) for name in names})


def tested_map(source: Source) -> str:
    """Name the map whose maxima make the null: that of the score where there is one, else z."""
    return "score" if source.has("score") else "z"


def shown_statistic(source: Source, statistic: str) -> str:
    """Name a statistic of the null as figures do: "score" for the voxelwise one of a score test."""
    return "score" if statistic == "voxel" and tested_map(source) == "score" else statistic


def p_tolerance(source: Source) -> float:
    """By how much a stored p may exceed the p that was meant."""
    return source.p_tolerance if isinstance(source, SdmResults) else 0.0


def permutations_of(source: Source) -> int | None:
    """Count the permutations of the null, the observed one included; None where not known."""
    if isinstance(source, SdmResults):
        return source.permutations()
    return int(next(iter(source.maxima().values())).shape[1])


def _both(name: str) -> Callable[[Source], Pair]:
    return lambda source: (source.map(name), source.map(f"{name}_neg"))


def _either(name: str) -> Callable[[Source], Pair]:
    return lambda source: (source.map(name), source.map(name))


def _uncorrected(source: Source) -> Pair:
    z = np.asarray(source.map("z"), np.float64)
    p, p_neg = source.map("p"), source.map("p_neg")
    # SDM-PSI stores 1-p in single precision, where p below 3e-8 is lost.
    return (
        np.where(p > 0, p, uncorrected_p(z).astype(np.float32)),
        np.where(p_neg > 0, p_neg, uncorrected_p(-z).astype(np.float32)),
    )


def _fdr(source: Source) -> Pair:
    z = np.asarray(source.map("z"), np.float64)
    return fdr_q(uncorrected_p(z)), fdr_q(uncorrected_p(-z))


@dataclass(frozen=True, slots=True)
class NamedMap:
    """A p map of either side, by the name that the command line has for it.

    Parameters
    ----------
    name : str
        E.g. "fwe-tfce".
    says : str
        What its p is, for headings.
    needs : tuple of str
        Maps of the result it is made from; without the first it is not to be had.
    p : callable
        Gives p (V,) of the positive and of the negative side of a result.
    caveat : str
        What a reader must know; printed with every table.
    extent : int
        Smallest cluster in voxels, unless another is asked for.
    permuted : bool
        Whether p comes from the permutations, whose number bounds it from below.
    """

    name: str
    says: str
    needs: tuple[str, ...]
    p: Callable[[Source], Pair]
    caveat: str = ""
    extent: int = MIN_VOXELS
    permuted: bool = True


ONE_SIDED = "One-tailed per side, each side at its own alpha."
CLUSTER = (
    f"{ONE_SIDED} A cluster is significant as a whole: nothing is said about its single voxels, "
    "its peak among them."
)
# To add a map: a line here. p is looked up in the result, or computed from its maps.
MAPS: dict[str, NamedMap] = {
    named.name: named
    for named in (
        NamedMap("fwe-tfce", "TFCE, FWE", ("p_fwe_tfce",), _both("p_fwe_tfce"), ONE_SIDED),
        NamedMap("fwe-voxel", "voxel, FWE", ("p_fwe_voxel",), _both("p_fwe_voxel"), ONE_SIDED),
        NamedMap(
            "fwe-tfce-two-sided",
            "TFCE, FWE, two-sided",
            ("p_fwe_tfce_two_sided",),
            _either("p_fwe_tfce_two_sided"),
        ),
        NamedMap(
            "fwe-voxel-two-sided",
            "voxel, FWE, two-sided",
            ("p_fwe_voxel_two_sided",),
            _either("p_fwe_voxel_two_sided"),
        ),
        NamedMap(
            "fwe-extent",
            "cluster extent, FWE",
            ("p_fwe_cluster_extent",),
            _both("p_fwe_cluster_extent"),
            CLUSTER,
            extent=1,
        ),
        NamedMap(
            "fwe-mass",
            "cluster mass, FWE",
            ("p_fwe_cluster_mass",),
            _both("p_fwe_cluster_mass"),
            CLUSTER,
            extent=1,
        ),
        NamedMap(
            "uncorrected",
            "uncorrected",
            ("p",),
            _uncorrected,
            f"Not corrected for the number of voxels: false clusters are to be expected. "
            f"{ONE_SIDED}",
            permuted=False,
        ),
        NamedMap(
            "fdr",
            "FDR q",
            ("z",),
            _fdr,
            "q is Benjamini-Hochberg's on the uncorrected one-sided p, each side by itself. It "
            "bounds the expected share of false voxels among all that are shown, not the chance "
            "that a given voxel or cluster is false, and one large true effect lets more false "
            "voxels through elsewhere. It trusts the normal p of SDM-Z, which no permutation has "
            "checked.",
            permuted=False,
        ),
    )
}


def available(source: Source) -> list[str]:
    """Names of the maps that a result can be thresholded on."""
    return [name for name, named in MAPS.items() if source.has(named.needs[0])]


def named_map(name: str, source: Source | None = None) -> NamedMap:
    """Find a map by its name.

    Raises
    ------
    SettingError
        If there is none of that name, or `source` does not have it.
    """
    if name not in MAPS:
        raise SettingError(f"map is {name!r}; it must be one of: {', '.join(MAPS)}.")
    named = MAPS[name]
    if source is not None and not source.has(named.needs[0]):
        here = "; run gpu-sdm permute with that --statistic" if isinstance(source, Finished) else ""
        raise SettingError(
            f"{source.folder} has no {named.needs[0]} map, which --map {name} needs; it can be "
            f"thresholded on {', '.join(available(source))}{here}."
        )
    return named
