"""NiMARE's own files: a Dataset as JSON, and a studyset as a folder of parquet tables."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_sdm.data import Dataset
from gpu_sdm.errors import InputError
from gpu_sdm.io._json import json_start, load_json
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io._text import read_file, reason
from gpu_sdm.io._thresholds import Assumed
from gpu_sdm.io.nimads import dataset_of
from gpu_sdm.io.peak_files import MOST_PEAKS

AXES = ("x", "y", "z")
STATISTICS = {"t_stat": "T", "z_stat": "Z"}
MOST_UNPACKED = 1 << 29  # bytes of a parquet table
PARQUET = ("studies.parquet", "analyses.parquet")


def sniff(path: Path) -> bool:
    """Whether `path` is a JSON object with contrasts."""
    return b'"contrasts"' in json_start(path)


def sniff_parquet(path: Path) -> bool:
    """Whether `path` is a folder that holds a studyset's tables."""
    return path.is_dir() and all((path / name).is_file() for name in PARQUET)


def read_nimare(
    path: Path, compat: bool = False, assumed: Assumed | None = None, ledger: Ledger | None = None
) -> Dataset:
    """Read a NiMARE Dataset from JSON; as `read_nimads`, with contrasts for analyses.

    Raises
    ------
    InputError
        If the file or a value in it cannot be used; the message names the place.
    """
    content, digest = load_json(path)
    whole = _object(content, "the file", path)
    studies = [_study(key, study, path) for key, study in whole.items()]
    sha256 = {path.name: digest}
    return dataset_of({"studies": studies}, path, sha256, compat, assumed, ledger)


def _object(value: Any, where: str, path: Path) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is not an object, as a NiMARE Dataset has it.", path)
    return value


def _study(key: str, study: Any, path: Path) -> dict[str, Any]:
    own = _object(study, key, path)
    facts = {k: v for k, v in own.items() if k not in ("contrasts", "metadata")}
    analyses = []
    for name, contrast in _object(own.get("contrasts"), f"{key}.contrasts", path).items():
        where = f"{key}.contrasts.{name}"
        parts = _object(contrast, where, path)
        images = _object(parts.get("images"), f"{where}.images", path)
        analyses.append(
            {
                "id": name,
                "points": _points(parts.get("coords"), f"{where}.coords", path),
                "images": [v for v in images.values() if isinstance(v, str)],
                "metadata": _object(parts.get("metadata"), f"{where}.metadata", path),
                "annotations": _object(parts.get("labels"), f"{where}.labels", path),
            }
        )
    more = _object(own.get("metadata"), f"{key}.metadata", path)
    return {"id": key, "metadata": {**facts, **more}, "analyses": analyses}


def _points(coords: Any, where: str, path: Path) -> list[dict[str, Any]]:
    parts = _object(coords, where, path)
    columns = [parts.get(c) or [] for c in AXES]
    given = {kind: parts[c] for c, kind in STATISTICS.items() if parts.get(c)}
    sizes = {len(c) if isinstance(c, list) else -1 for c in (*columns, *given.values())}
    if len(sizes) > 1 or -1 in sizes:
        raise InputError(f"{where} has columns that are no lists of one length.", path)
    space = parts.get("space")
    return [
        {
            "space": space,
            "coordinates": list(xyz),
            "values": [{"kind": k, "value": v[i]} for k, v in given.items()],
        }
        for i, xyz in enumerate(zip(*columns, strict=True))
    ]


def _check_sizes(tables: Sequence[Path]) -> None:
    """Refuse tables that unpack to more than can be held: a few bytes may stand for many rows."""
    from pyarrow import parquet

    for table in tables:
        with parquet.ParquetFile(table) as file:
            known = file.metadata
        size = sum(known.row_group(i).total_byte_size for i in range(known.num_row_groups))
        if known.num_rows > MOST_PEAKS or size > MOST_UNPACKED:
            raise InputError(
                f"unpacks to {known.num_rows:,} rows and {size:,} bytes, more than "
                f"{MOST_PEAKS:,} and {MOST_UNPACKED:,}; split it.",
                table,
            )


def read_parquet(
    path: Path, compat: bool = False, assumed: Assumed | None = None, ledger: Ledger | None = None
) -> Dataset:
    """Read a studyset's folder of parquet tables, through NiMARE; as `read_nimads`.

    Raises
    ------
    InputError
        If NiMARE is not installed or cannot read the folder, or a value cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on versions of what it imports
            from nimare.studyset import Studyset
    except ImportError as error:
        raise InputError(
            "is a parquet studyset, which NiMARE reads: pip install 'gpu-sdm[nimare]', or save it "
            f"as NIMADS JSON ({error}).",
            path,
        ) from error
    tables = sorted(path.glob("*.parquet"))
    sha256 = {file.name: hashlib.sha256(read_file(file)).hexdigest() for file in tables}
    try:
        _check_sizes(tables)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = Studyset(str(path)).to_dict()
    except InputError:
        raise
    except Exception as error:  # NiMARE raises whatever the damage led to
        raise InputError(f"cannot be read by NiMARE ({reason(error)}).", path) from error
    return dataset_of(content, path, sha256, compat, assumed, ledger)
