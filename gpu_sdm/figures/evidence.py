"""Rows behind the forest plots, funnel plots and jackknife strips of a result, by site."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.errors import InputError
from gpu_sdm.findings.bias import bias, funnel
from gpu_sdm.findings.extract import extract
from gpu_sdm.findings.heterogeneity import heterogeneity
from gpu_sdm.findings.refit import SiteEffects

Row = Mapping[str, Any]
Z_0025 = 2.8070337683438042  # uncorrected one-sided p = .0025, which unpermuted folds are held to


@dataclass(frozen=True, eq=False)
class Studies:
    """What a plot of one site shows.

    Parameters
    ----------
    rows : sequence of row
        Of its studies (and, of a forest, what they pool to).
    summary : row
        Heterogeneity of the site, or its tests of small-study effects.
    """

    rows: Sequence[Row]
    summary: Row


def _by_site(rows: Sequence[Row], summaries: Sequence[Row]) -> dict[str, Studies]:
    return {
        one["site"]: Studies([row for row in rows if row["site"] == one["site"]], one)
        for one in summaries
    }


def forests(at: SiteEffects, i2_map: np.ndarray) -> dict[str, Studies]:
    """Site name -> what its forest plot shows.

    Parameters
    ----------
    at : SiteEffects
        Effects of the studies.
    i2_map : (V,) float
        The result's I2, percent.
    """
    return _by_site(extract(at), heterogeneity(at, i2_map))


def funnels(at: SiteEffects) -> dict[str, Studies]:
    """Site name -> what its funnel plot shows."""
    return _by_site(funnel(at), bias(at))


@dataclass(frozen=True, eq=False)
class Strip:
    """What the jackknife strip of one cluster shows.

    Parameters
    ----------
    cluster : row
        Of summary.tsv, as text.
    folds : sequence of row
        left_out, z_peak and survives of each fold.
    whole : float
        z of the peak with all studies.
    """

    cluster: Mapping[str, str]
    folds: Sequence[Row]
    whole: float

    @property
    def line(self) -> dict[str, Any]:
        """The threshold that folds are held to, as `jackknife` takes it."""
        return {
            "threshold": Z_0025 if self.whole > 0 else -Z_0025,
            "threshold_is": "uncorrected p = .0025",
        }


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a table that gpu-sdm wrote, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _name(row: Mapping[str, str]) -> tuple[str, str]:
    return row["threshold"], row["cluster"]


def strips(folder: Path) -> dict[tuple[str, str], Strip]:
    """(threshold, cluster) -> its strip, of the tables in OUT/jackknife; none without them.

    Raises
    ------
    InputError
        If a table is not as gpu-sdm jackknife writes it.
    """
    if not (folder / "jackknife.tsv").is_file():
        return {}
    try:
        folds: dict[tuple[str, str], list[Row]] = {}
        for row in table(folder / "jackknife.tsv"):
            z, survives = float(row["z_peak"]), row["survives"] == "true"
            fold = {"left_out": row["left_out"], "z_peak": z, "survives": survives}
            folds.setdefault(_name(row), []).append(fold)
        rows = table(folder / "summary.tsv")
        return {_name(r): Strip(r, folds.get(_name(r), []), float(r["z_peak"])) for r in rows}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"the tables of the jackknife cannot be read ({error}); run gpu-sdm jackknife again.",
            folder,
        ) from error
