"""What a finished result says of itself, by the names that the pages of the report use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gpu_sdm.atlas import load_atlas
from gpu_sdm.config import Settings
from gpu_sdm.errors import InputError
from gpu_sdm.findings.sites import available_thresholds
from gpu_sdm.finished import Finished
from gpu_sdm.io.tables import MISSING

Row = Mapping[str, str]
SAYS = {
    "fwe-tfce-0.05": "TFCE, family-wise error p \N{LESS-THAN OR EQUAL TO} .05",
    "fwe-voxel-0.05": "voxels, family-wise error p \N{LESS-THAN OR EQUAL TO} .05",
    "fwe-extent-0.05": "cluster extent, family-wise error p \N{LESS-THAN OR EQUAL TO} .05",
    "fwe-mass-0.05": "cluster mass, family-wise error p \N{LESS-THAN OR EQUAL TO} .05",
    "uncorrected-0.0025": "uncorrected p \N{LESS-THAN OR EQUAL TO} .0025, |z| > 1",
}


def count(n: int, one: str, many: str) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> count(1, "study", "studies"), count(1234, "study", "studies")
    ('1 study', '1,234 studies')
    """
    return f"{n:,} {one if n == 1 else many}"


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table that gpu-sdm wrote: its columns, and rows of text as it stands in the file.

    Raises
    ------
    InputError
        If it cannot be read, or a line has too many or too few cells.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the table cannot be read: {error}.", path) from error
    columns, rows = header.split("\t"), []
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise InputError(
                f"found {len(cells)} cells where the header has {len(columns)}.", path, number
            )
        rows.append(dict(zip(columns, cells, strict=True)))
    return columns, rows


def number(text: str) -> float | None:
    """Read a cell as a number; None where there is none."""
    try:
        return None if text == MISSING else float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Facts:
    """A finished result for the report.

    Parameters
    ----------
    finished : Finished
        The result.
    """

    finished: Finished
    study_columns: Sequence[str] = field(init=False)
    study_rows: Sequence[Row] = field(init=False)
    peak_columns: Sequence[str] = field(init=False)
    peak_rows: Sequence[Row] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("study", "peak"):
            plural = "studies" if name == "study" else "peaks"
            columns, rows = read_rows(self.finished.folder / "tables" / f"{plural}.tsv")
            object.__setattr__(self, f"{name}_columns", columns)
            object.__setattr__(self, f"{name}_rows", rows)

    @property
    def run(self) -> Mapping[str, Any]:
        """Content of run.json."""
        return self.finished.run

    @property
    def settings(self) -> Settings:
        """What was asked for."""
        return self.finished.settings

    @property
    def project(self) -> str:
        """Name of the project; that of its folder where it says nothing."""
        path = Path(self.run["project"])
        plain = path.stem.lower() in ("project", "data", "peaks", "sdm_table", "studies")
        return path.parent.name if plain and path.parent.name else path.name

    @property
    def version(self) -> str:
        """Version of gpu-sdm that made the result."""
        return str(self.run.get("versions", {}).get("gpu-sdm", "of unknown version"))

    @property
    def studies(self) -> int:
        """Studies of the model."""
        return int(self.run["studies"])

    @property
    def subjects(self) -> int:
        """Their subjects."""
        return int(self.run["subjects"])

    @property
    def images(self) -> int:
        """Studies that come with a map."""
        return int(self.run.get("images", 0))

    @cached_property
    def used(self) -> list[Row]:
        """Rows of the study table that are in the model."""
        return [row for row in self.study_rows if row["in_model"] == "true"]

    @property
    def samples(self) -> tuple[int, int]:
        """How many studies have one sample, and how many two groups."""
        two = sum(row["n2"] not in ("0", MISSING) for row in self.used)
        return len(self.used) - two, two

    @property
    def designs(self) -> str:
        """How many studies compare groups."""
        one, two = self.samples
        parts = [f"{one} of one sample" if one else "", f"{two} of two groups" if two else ""]
        return " and ".join(part for part in parts if part)

    @property
    def peaks(self) -> int:
        """Peaks of the studies in the model."""
        return len(self.peak_rows)

    @property
    def unknown_heights(self) -> int:
        """Peaks of which only the sign is known."""
        return sum(row["height_known"] == "false" for row in self.peak_rows)

    def converted(self, kind: str) -> int:
        """Count the peaks that came to MNI space from "tal" or "brett"."""
        return sum(row["space"].endswith(f"_{kind}") for row in self.peak_rows)

    @property
    def voxels(self) -> int:
        """Voxels of the mask."""
        return self.finished.space.n_voxels

    @property
    def imputations(self) -> int:
        """Imputed data sets; 1 where everything was known."""
        return int(self.run["imputations"])

    @property
    def discards(self) -> int:
        """Studies that the leave-one-out rule dropped in each voxel."""
        if self.moderator and self.settings.impute_under == "null":
            return 0
        return int(self.run.get("discards", 0))

    @property
    def permutations(self) -> int:
        """Permutations, the observed one included."""
        return int(self.run["permutations"])

    @property
    def exact(self) -> bool:
        """Whether they are all there are."""
        return bool(self.run.get("exact"))

    @property
    def tested(self) -> list[str]:
        """What of a formula is tested."""
        return list(self.run.get("contrast", {}).get("tested", []))

    @property
    def moderator(self) -> bool:
        """Whether a slope or a difference is tested."""
        return bool(self.run.get("contrast", {}).get("moderator"))

    @property
    def atlas(self) -> str:
        """Name of the atlas that labels; empty if there is none."""
        return load_atlas().name

    @cached_property
    def clusters(self) -> dict[str, list[dict[str, str]]]:
        """Threshold name -> rows of its cluster table."""
        tables = self.finished.folder / "tables"
        return {
            name: read_rows(tables / f"clusters_{name}.tsv")[1]
            for name in available_thresholds(self.finished)
        }

    @cached_property
    def threshold(self) -> str:
        """The first threshold with a cluster, else the first there is."""
        return next(
            (name for name, rows in self.clusters.items() if rows), next(iter(self.clusters))
        )
