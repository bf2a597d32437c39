"""NIMADS studysets (NeuroStore, NiMARE): JSON of studies, their analyses and points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_sdm.coordinates import CONVERSIONS
from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import InputError
from gpu_sdm.io._json import json_start, load_json
from gpu_sdm.io._keep_on import Ledger, noted
from gpu_sdm.io._records import SIGN, Record, to_dataset, unique_names
from gpu_sdm.io._table_rows import COLUMNS, Row
from gpu_sdm.io._text import number, shown
from gpu_sdm.io._thresholds import Assumed
from gpu_sdm.io.peak_files import IMAGE, NO_PEAKS

MOST_COLUMNS = 100  # covariates; more are the weights of a vocabulary
# Kinds of point values in order of preference; a bare p says nothing of its sides.
VALUES = {
    "t": "t", "t_stat": "t", "tstat": "t", "z": "z", "z_stat": "z", "zstat": "z", "f": "f",
    "r": "r", "d": "d", "g": "g", "p_one_sided": "p_one_sided", "p_two_sided": "p_two_sided",
    SIGN: SIGN,
}  # fmt: skip
NOT_COVARIATES = {*COLUMNS, IMAGE, "sample_size", "sample_sizes", "coordinate_space"}
FAMILIES = {"mni": "other_mni", "ale": "other_mni", "tal": "other_tal"}


class Found(NamedTuple):
    """An analysis, where it lies in the file, and what is said of it."""

    where: str
    names: tuple[str, str]  # of the study, of the analysis
    alone: bool  # the study's only one
    analysis: Mapping[str, Any]
    facts: Mapping[str, Any]  # metadata and annotations, the more specific ones first


def sniff(path: Path) -> bool:
    """Whether `path` is a JSON object with studies."""
    return b'"studies"' in json_start(path)


def read_nimads(
    path: Path, compat: bool = False, assumed: Assumed | None = None, ledger: Ledger | None = None
) -> Dataset:
    """Read a NIMADS studyset.

    Parameters
    ----------
    path : path
        JSON of a nested studyset.
    compat : bool
        Truncate converted millimetres as SDM-PSI 6.21 does.
    assumed : Assumed, optional
        Stands in for thresholds that are not given (no `t_thr` in the metadata of an analysis).
    ledger : Ledger, optional
        Takes the errors of studies; reading goes on.

    Returns
    -------
    Dataset
        A study per analysis, called by the id of its study, and that of the analysis where the
        study has several.

    Raises
    ------
    InputError
        If the file or a value in it cannot be used; the message names the place.
    """
    content, digest = load_json(path)
    return dataset_of(content, path, {path.name: digest}, compat, assumed, ledger)


def dataset_of(
    content: Any,
    path: Path,
    sha256: Mapping[str, str],
    compat: bool,
    assumed: Assumed | None,
    ledger: Ledger | None = None,
) -> Dataset:
    """Dataset of a studyset in memory."""
    notices: list[Notice] = []
    analyses = []
    for found in _analyses(content, path):
        with noted(ledger):
            study, analysis = found.names
            title = study if found.alone else f"{study}-{analysis}"
            points = _list(found.analysis, "points", found.where, path)
            reason = ""
            if not points and _list(found.analysis, "images", found.where, path):
                reason = "it has images and no coordinates"
            elif not _sizes(found, path):
                reason = "it has no sample size"
            if reason:
                text = f"{path.name}: study {shown(title)} is left out: {reason}."
                notices.append(Notice("incomplete_study", text))
            else:
                analyses.append((title, found, points))
    if not analyses:
        raise InputError(
            f"holds no study that can be used ({len(notices)} without sample size or coordinates); "
            "give studies sample_sizes in their metadata, and points.",
            path,
        )
    names, renamed = unique_names((title for title, *_ in analyses), path)
    columns = _columns([found.facts for _, found, _ in analyses], path, notices)
    records = []
    for name, (_, found, points) in zip(names, analyses, strict=True):
        with noted(ledger):
            records.append(_record(name, found, points, columns, path, notices))
    return to_dataset(records, columns, path, sha256, [*notices, *renamed], compat, assumed, ledger)


def _analyses(content: Any, path: Path) -> Iterator[Found]:
    notes: dict[str, dict[str, Any]] = {}
    for i, annotation in enumerate(_list(content, "annotations", "", path)):
        where = f"annotations[{i}]"
        for j, note in enumerate(_list(annotation, "notes", where, path)):
            about = _mapping(note, f"{where}.notes[{j}]", path)
            facts = _mapping(about.get("note") or {}, f"{where}.notes[{j}].note", path)
            notes.setdefault(str(about.get("analysis")), {}).update(facts)
    for i, entry in enumerate(_list(content, "studies", "", path)):
        where = f"studies[{i}]"
        study = _mapping(entry, where, path)
        analyses = _list(study, "analyses", where, path)
        own = _mapping(study.get("metadata") or {}, f"{where}.metadata", path)
        title = str(study.get("id") or study.get("name") or "")
        for j, entry in enumerate(analyses):
            at = f"{where}.analyses[{j}]"
            analysis = _mapping(entry, at, path)
            said: dict[str, Any] = {}
            for more in (
                notes.get(str(analysis.get("id")), {}),
                _flat(analysis.get("annotations") or {}, f"{at}.annotations", path),
                _mapping(analysis.get("metadata") or {}, f"{at}.metadata", path),
                own,
            ):
                said.update({k: v for k, v in more.items() if said.get(k) is None})
            for key, of, called in (("title", study, title), ("analysis", analysis, "")):
                full = str(of.get("name") or "")
                if full and full not in (called, str(of.get("id"))):
                    said.setdefault(key, full)
            label = str(analysis.get("id") or analysis.get("name") or j + 1)
            yield Found(at, (title, label), len(analyses) == 1, analysis, said)


def _flat(annotations: Any, where: str, path: Path) -> dict[str, Any]:
    """Annotations of an analysis: labels, or labels by annotation."""
    found: dict[str, Any] = {}
    for key, value in _mapping(annotations, where, path).items():
        found.update(value if isinstance(value, Mapping) else {key: value})
    return found


def _mapping(value: Any, where: str, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        # Not the content of a list: nested deeply, it could not even be written out.
        found = "a list" if isinstance(value, list) else shown(str(value))
        raise InputError(
            f"{where or 'the file'} is {found} and not an object; download the studyset nested, "
            "not as lists of ids.",
            path,
        )
    return value


def _list(parent: Any, key: str, where: str, path: Path) -> Sequence[Any]:
    value = _mapping(parent, where, path).get(key) or []
    if not isinstance(value, list):
        raise InputError(f"{where}{'.' if where else ''}{key} is no list.", path)
    return value


def _number(value: Any) -> float | None:
    return None if isinstance(value, (bool, Mapping, list)) else number(str(value))


def _cell(value: Any) -> str:
    if value is None or isinstance(value, (Mapping, list)):
        return ""
    return str(int(value)) if isinstance(value, bool) else " ".join(str(value).split())


def _sizes(found: Found, path: Path) -> list[str]:
    """Cells n1 and n2, n2 "0" where there is one group; empty where none is given."""
    for key in ("sample_sizes", "sample_size"):
        value = found.facts.get(key)
        sizes = [_cell(v) for v in (value if isinstance(value, list) else [value])]
        if sizes and all(sizes):
            if len(sizes) > 2:
                raise InputError(
                    f"{found.where} has {len(sizes)} groups; a study has one or two.", path
                )
            return [*sizes, "0"][:2]
    return []


def _columns(facts: Sequence[Mapping[str, Any]], path: Path, notices: list[Notice]) -> list[str]:
    """Names of what may serve as covariates."""
    found = dict.fromkeys(
        key for one in facts for key, value in one.items()
        if isinstance(key, str) and key.strip() and key.isprintable()
        and key.lower() not in NOT_COVARIATES
        and not isinstance(value, (Mapping, list))
    )  # fmt: skip
    if len(found) > MOST_COLUMNS:
        text = f"{path.name}: its {len(found):,} labels are no covariates here; at most "
        notices.append(Notice("labels_left_out", f"{text}{MOST_COLUMNS} would be."))
        return []
    return list(found)


def _record(
    name: str,
    found: Found,
    points: Sequence[Any],
    columns: Sequence[str],
    path: Path,
    notices: list[Notice],
) -> Record:
    facts = found.facts
    n1, n2 = _sizes(found, path)
    cells = {"study": name, "n1": n1, "n2": n2, "threshold": _cell(facts.get("threshold"))}
    cells |= {c: _cell(facts.get(c)) for c in columns}
    record = Record(
        Row(None, cells), threshold=_cell(facts.get("t_thr")), source=f"{path.name}[{name}]"
    )
    spaces: dict[str, int] = {}
    for i, entry in enumerate(points):
        at = f"{found.where}.points[{i}]"
        point = _mapping(entry, at, path)
        xyz = [_number(v) for v in _list(point, "coordinates", at, path)]
        if len(xyz) != 3 or None in xyz:
            raise InputError(f"{at}.coordinates is not three numbers.", path)
        spaces.setdefault(_cell(point.get("space")), i)
        value, kind, sign = _value(point, at, path)
        record.peaks.add((v for v in xyz if v is not None), value, kind, i + 1, sign)
    record.space = _space(spaces, facts, found.where, path, notices, name)
    return record


def _value(point: Mapping[str, Any], at: str, path: Path) -> tuple[float | None, str, int]:
    """Statistic of a point and its kind; None where the height is not known, and the sign."""
    given: dict[str, float] = {}
    for i, entry in enumerate(_list(point, "values", at, path)):
        one = _mapping(entry, f"{at}.values[{i}]", path)
        kind = VALUES.get(_cell(one.get("kind")).lower().replace(" ", "_").replace("-", "_"))
        if kind is not None and one.get("value") is not None:
            value = _number(one["value"])
            if value is None:
                found = "a list" if isinstance(one["value"], list) else shown(str(one["value"]))
                raise InputError(f"{at}.values[{i}].value is {found} and not a number.", path)
            given.setdefault(kind, value)
    for kind in VALUES.values():
        if kind in given:
            sign = -1 if given[kind] < 0 else 1 if kind == SIGN else 0
            return (None if kind == SIGN else given[kind]), kind, sign
    return None, SIGN, 0


def _space(
    spaces: Mapping[str, int],
    facts: Mapping[str, Any],
    where: str,
    path: Path,
    notices: list[Notice],
    name: str,
) -> str:
    own = _cell(facts.get("coordinate_space"))
    if not spaces:
        return NO_PEAKS
    stated = [s for s in spaces if s]
    if len(stated) > 1:
        raise InputError(
            f"{where} has points in several spaces ({', '.join(map(shown, stated))}); make it two "
            "analyses.",
            path,
        )
    given = stated[0] if stated else ""
    family = next((FAMILIES[k] for k in FAMILIES if k in given.lower()), None)
    if own in CONVERSIONS and family is not None and own[-3:] == family[-3:]:
        return own
    if "" in spaces:
        family = family or FAMILIES["mni"]
        text = f"{path.name}: study {shown(name)} does not say the space of all its points; "
        notices.append(Notice("space_assumed", f"{text}{family[-3:].upper()} is assumed."))
    if family is None:
        raise InputError(f"{where} has points in {shown(given)}; it must be MNI or TAL.", path)
    return family
