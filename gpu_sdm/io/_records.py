"""Studies as flat tables and JSON files give them, and the Dataset they make."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gpu_sdm.coordinates import to_mni
from gpu_sdm.data import Dataset, Notice, Peaks, Study
from gpu_sdm.errors import InputError, TooFewStudies
from gpu_sdm.io._keep_on import Ledger, noted
from gpu_sdm.io._table_rows import (
    FORBIDDEN_IN_NAME,
    FORMULA,
    LONGEST_NAME,
    MOST_STUDIES,
    Row,
    composed,
    name_fault,
    too_many_studies,
)
from gpu_sdm.io._text import LARGEST_T, shown
from gpu_sdm.io._thresholds import CLUSTER, CLUSTER_MEANING, MISSING, Assumed, study_threshold
from gpu_sdm.io.peak_files import MOST_PEAKS, NO_PEAKS, check_box, peak_doubts
from gpu_sdm.io.sdm_table import CORRECTIONS, UNKNOWN, covariate_columns, group_sizes
from gpu_sdm.io.sdm_table import MISSING as NO_VALUE
from gpu_sdm.statistics import KINDS, to_t

SIGN = "sign"  # the kind of a height of which only the sign is known
CUT_NAME = 150  # characters of a name that is made


@dataclass(slots=True)
class PeakColumns:
    """Peaks of one study while they are read, 40 bytes each."""

    place: array[float] = field(default_factory=lambda: array("d"))  # x, y, z, x, y, z, ...
    value: array[float] = field(default_factory=lambda: array("d"))  # NaN: height not reported
    sign: array[int] = field(default_factory=lambda: array("b"))  # 0: that of the value
    kind: list[str] = field(default_factory=list)  # a key of KINDS, or SIGN
    line: array[int] = field(default_factory=lambda: array("q"))

    def add(
        self, xyz: Iterable[float], value: float | None, kind: str, line: int, sign: int = 0
    ) -> None:
        """Append a peak; `value` None where the height is not known."""
        self.place.extend(xyz)
        self.value.append(math.nan if value is None else value)
        self.sign.append(sign)
        self.kind.append(SIGN if value is None else kind)
        self.line.append(line)

    def __len__(self) -> int:
        return len(self.value)


@dataclass(slots=True)
class Record:
    """One study as it was written: cells as text, peaks as numbers."""

    row: Row  # cells study, n1, n2, threshold ("corrected" or "uncorrected") and covariates
    threshold: str = ""  # number; "" not given, "NA" unknown
    threshold_kind: str = "t"
    space: str = NO_PEAKS
    peaks: PeakColumns = field(default_factory=PeakColumns)
    source: str = ""

    @property
    def name(self) -> str:
        """Study name."""
        return self.row.get("study")


def to_dataset(
    records: Sequence[Record],
    columns: Sequence[str],
    path: Path,
    sha256: Mapping[str, str],
    notices: Iterable[Notice] = (),
    compat: bool = False,
    assumed: Assumed | None = None,
    ledger: Ledger | None = None,
) -> Dataset:
    """Make the Dataset of what a reader found.

    Parameters
    ----------
    records : sequence of Record
        Studies in order, with unique names.
    columns : sequence of str
        Covariate columns of their rows.
    path : path
        The input.
    sha256 : mapping
        Content hash by file name.
    notices : iterable of Notice
        Doubts of the reader.
    compat : bool
        Truncate converted millimetres toward zero, as SDM-PSI 6.21 does.
    assumed : Assumed, optional
        Stands in for thresholds that are not given.
    ledger : Ledger, optional
        Takes the errors of studies, which are left out.

    Raises
    ------
    InputError
        If a study cannot be used, or fewer than 2 are left.
    """
    if not records:
        raise InputError("holds no study.", path)
    if len(records) > MOST_STUDIES:
        raise too_many_studies(path)
    if sum(len(r.peaks) for r in records) > MOST_PEAKS:
        raise InputError(f"holds more than {MOST_PEAKS:,} peaks; split it.", path)
    found = list(notices)
    if ledger is not None:
        ledger.names += [record.name for record in records]
    covariates, texts, doubts = covariate_columns(columns, [r.row for r in records], path)
    found += doubts
    studies, kinds, filled, positive = [], Counter[str](), 0, [0, 0]
    for record in records:
        with noted(ledger):
            row, name = record.row, record.name
            n1, n2 = group_sizes(row, path)
            said, t_threshold = record.threshold.lower(), math.nan
            if assumed is not None and said in ("", *UNKNOWN):
                t_threshold, filled = assumed.t(n1, n2), filled + 1
            else:
                with noted(ledger):
                    t_threshold = study_threshold(
                        record.threshold, record.threshold_kind, name, (n1, n2), path, row.line
                    )
            peaks, doubts, unsigned = _peaks(record, n1, n2, t_threshold, path, compat)
            kinds.update(peaks.kinds)
            positive = [positive[0] + unsigned, positive[1] + (unsigned > 0)]
            word = row.get("threshold").lower()
            study = Study(
                name, n1, n2, t_threshold, peaks,
                {c: values[name] for c, values in covariates.items()},
                word if word in CORRECTIONS else "",
                {c: values[name] for c, values in texts.items()},
            )  # fmt: skip
            if math.isnan(t_threshold):
                if said in UNKNOWN:
                    text = f"{row.place(path)}study {shown(name)} has an unknown threshold; it is"
                    found.append(Notice(MISSING, f"{text} left out."))
                if ledger is not None:
                    ledger.unused.append(study)
                continue
            if record.threshold and record.threshold_kind.startswith(CLUSTER):
                text = f"{row.place(path)}the threshold of study {shown(name)} {CLUSTER_MEANING}"
                found.append(Notice("cluster_threshold", text))
            found += doubts
            studies.append(study)
    if filled and assumed is not None:
        found.append(assumed.notice(path.name, filled))
    if positive[0]:
        text = f"{path.name}: {positive[0]:,} peaks of {positive[1]:,} studies have no sign; they "
        found.append(Notice("sign_assumed", f"{text}are taken as positive."))
    kinds.pop(SIGN, None)
    if set(kinds) - {"t"}:
        counted = ", ".join(f"{n:,} {KINDS[k].title}" for k, n in kinds.items() if k != "t")
        text = f"{path.name}: {counted} were converted to t at each study's degrees of freedom."
        found.append(Notice("statistic_converted", text))
    if len(studies) < 2 and (ledger is None or not ledger.errors):
        with noted(ledger):
            raise TooFewStudies(
                f"holds {len(studies)} usable study; a meta-analysis needs at least 2.", path
            )
    return Dataset(tuple(studies), tuple(found), path, dict(sha256))


def _peaks(
    record: Record, n1: int, n2: int, t_threshold: float, path: Path, compat: bool
) -> tuple[Peaks, list[Notice], int]:
    """Peaks of a study, doubts about them, and how many have a sign that nobody gave."""
    columns, source = record.peaks, record.source or path.name
    if not len(columns):
        return Peaks.none(NO_PEAKS, source), [], 0
    reported = np.array(columns.place).reshape(-1, 3)
    value, sign = np.array(columns.value), np.array(columns.sign, float)
    lines, kind = np.array(columns.line, int), np.array(columns.kind)
    known, negative = kind != SIGN, sign < 0
    t = np.copysign(t_threshold, np.where(negative, -1.0, 1.0))
    assumed = ~known & (sign == 0)
    for k in sorted(set(columns.kind) - {SIGN}):
        of = kind == k
        found = to_t(np.where(negative, -np.abs(value), value)[of], k, n1, n2)
        bad = ~(np.abs(found) <= LARGEST_T)
        if bad.any():
            where, wrong = int(lines[of][bad][0]), value[of][bad][0]
            raise InputError(
                f"study {shown(record.name)} has {KINDS[k].title} = {wrong:g}; it must be "
                f"{KINDS[k].domain}, and amount to a |t| of at most {LARGEST_T:g}.",
                path.parent / source,
                where,
            )
        t[of] = found
        if not KINDS[k].signed:
            assumed |= of & (sign == 0) & (value > 0)
    xyz_mm = to_mni(reported, record.space)
    if compat:
        xyz_mm = np.trunc(xyz_mm) + 0.0  # -0 becomes 0
    check_box(xyz_mm, reported, path.parent / source, lines, f"the space {record.space}")
    plain = set(columns.kind) <= {"t", SIGN}
    peaks = Peaks(
        xyz_mm, reported, t, known, lines, record.space, source,
        None if plain else np.where(known, np.where(negative, -np.abs(value), value), np.nan),
        () if plain else tuple(columns.kind),
    )  # fmt: skip
    doubts = peak_doubts(peaks, t_threshold)
    return peaks, doubts, int(assumed.sum())


def unique_names(names: Iterable[str], path: Path) -> tuple[list[str], list[Notice]]:
    """Make names that can name files: no path separators or control characters, none twice."""
    used: dict[str, int] = {}  # name in lower case -> how often it was wanted
    found, notices = [], []
    for i, name in enumerate(names, 1):
        if i > MOST_STUDIES:
            raise too_many_studies(path)
        plain = own = _file_name(name) or f"study {i}"
        while own.lower() in used:
            used[plain.lower()] += 1
            own = f"{plain} ({used[plain.lower()]})"
        used[own.lower()] = 1
        found.append(own)
        if own != name:
            text = f"{path.name}: study {shown(name)} is called {shown(own)} here."
            notices.append(Notice("renamed_study", text))
    return found, notices


def _file_name(name: str) -> str:
    """Nearest name without fault; "" if nothing is left."""
    plain = FORBIDDEN_IN_NAME.sub("_", composed(name[:LONGEST_NAME].strip()))[:CUT_NAME]
    plain = plain.lstrip(FORMULA + ". ").encode()[: LONGEST_NAME - 20].decode(errors="ignore")
    plain = plain.strip()
    return f"_{plain}" if plain and name_fault(plain) else plain  # nul.txt


def is_missing(cell: str) -> bool:
    """Whether a cell stands for no value."""
    return cell.strip().lower() in NO_VALUE
