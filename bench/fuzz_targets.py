"""Every reader as something that takes bytes, small valid files of each, and what may come of it.

`attempt` is the judge: bytes end in a Dataset (or whatever the reader gives) that keeps its
promises, or in one sentence of a GpuSdmError. Anything else is a finding.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_seeds as seeds
import numpy as np
from fuzz_judge import is_sentence, keeps_promises, require

from gpu_sdm.data import Dataset
from gpu_sdm.errors import GpuSdmError, OutputError
from gpu_sdm.io import READERS, Assumed, format_of
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io.atlas_files import read_atlas_file, read_region_names
from gpu_sdm.io.convert import convert, differences
from gpu_sdm.io.sdm_results import SdmResults
from gpu_sdm.io.subject_maps import inspect, read_maps
from gpu_sdm.io.tables import read_maxima
from gpu_sdm.io.volumes import load_template, read_mask
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.contrast import contrast_rows
from gpu_sdm.stages.formula import columns_of, model_matrix
from gpu_sdm.stages.images import image_effects
from gpu_sdm.stages.where import select

FORMATS = ("csv", "tsv", "xlsx", "nimads", "sleuth", "sdm")
PARTS = b"\n====\n"  # between the files of one input


class Target(NamedTuple):
    """A reader."""

    title: str
    seeds: Callable[[], Sequence[bytes]]
    run: Callable[[bytes, Path], Any]
    tokens: Sequence[bytes] = seeds.TEXT_TOKENS


def attempt(target: Target, data: bytes, folder: Path) -> str:
    """Give bytes to a reader in an empty folder; say "read" or "refused".

    Raises
    ------
    Finding
        If what was read breaks a promise, or the sentence is none.
    Exception
        Whatever else the reader let through.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        found = target.run(data, folder)
    except GpuSdmError as error:
        is_sentence(str(error))
        return "refused"
    if isinstance(found, Dataset):
        keeps_promises(found, folder)
    return "read"


def _reader(name: str, file: str) -> Callable[[bytes, Path], Dataset]:
    """Reader of a format that is one file; as `check` does, then as an analysis does."""

    def run(data: bytes, folder: Path) -> Dataset:
        path = folder / file
        path.write_bytes(data)
        return _both(name, path)

    return run


def _both(name: str, path: Path) -> Dataset:
    try:
        recognised = format_of(path) == name
    except GpuSdmError:
        recognised = False
    ledger = Ledger()
    try:
        READERS[name].read(path, False, None, ledger)
    except GpuSdmError:
        ledger.errors.clear()
    for error in ledger.errors:
        is_sentence(str(error))
    return READERS[name].read(path, recognised, Assumed(0.001), None)


def _sdm(data: bytes, folder: Path) -> Dataset:
    names = ("sdm_table.txt", "ana.spm_mni.txt", "bob.fsl_tal.txt", "cyd.no_peaks.txt")
    for name, part in zip(names, data.split(PARTS), strict=False):
        (folder / name).write_bytes(part)
    return _both("sdm", folder)


def _parquet(data: bytes, folder: Path) -> Dataset:
    tables = seeds.parquet_tables()
    which = list(tables)[data[0] % len(tables)] if data else next(iter(tables))
    for name, content in tables.items():
        (folder / name).write_bytes(data[1:] if name == which else content)
    return _both("parquet", folder)


def _sheet(data: bytes, folder: Path) -> Dataset:
    """Put bytes in place of the sheet (and the shared texts) of a valid workbook."""
    sheet, _, strings = data.partition(PARTS)
    with (
        zipfile.ZipFile(io.BytesIO(seeds.workbook())) as old,
        zipfile.ZipFile(folder / "in.xlsx", "w") as new,
    ):
        for name in old.namelist():
            part = old.read(name)
            if name.endswith("sheet1.xml"):
                part = sheet
            elif name.endswith("sharedStrings.xml") and strings:
                part = strings
            new.writestr(name, part)
    return _both("xlsx", folder / "in.xlsx")


@cache
def _space() -> Space:
    mask = np.zeros(SHAPES[4], bool)
    mask[18:30, 24:36, 17:30] = True
    return Space(4, mask)


def _image(data: bytes, folder: Path) -> Any:
    kinds = ("t", "z", "g", "d", "contrast")
    kind = kinds[data[-1] % len(kinds)] if data else "t"
    (folder / "sdm_table.txt").write_text(f"study\tn1\timage\nana\t12\t{kind}\nbob\t15\t\n")
    (folder / "ana.nii.gz").write_bytes(data)
    (folder / "ana_se.nii").write_bytes(seeds.image())
    (folder / "bob.nii.gz").write_bytes(seeds.image())
    dataset = _both("sdm", folder)
    effects = image_effects(dataset.studies, _space(), threads=1)[0]
    require(bool((np.abs(effects[np.isfinite(effects)]) < 1e9).all()), "absurd effects")
    return dataset


def _mask(data: bytes, folder: Path) -> Any:
    (folder / "mask.nii.gz").write_bytes(data)
    mask = read_mask(folder / "mask.nii.gz", 4)
    require(bool(mask.any()), "an empty mask")
    return mask


def _atlas(data: bytes, folder: Path) -> Any:
    (folder / "atlas.nii").write_bytes(data)
    return read_atlas_file(folder / "atlas.nii")


def _regions(data: bytes, folder: Path) -> Any:
    for file in ("names.json", "names.txt"):
        (folder / file).write_bytes(data)
        try:
            found = read_region_names(folder / file)
            require(all(found.values()), "a region without a name")
        except GpuSdmError:
            if file == "names.txt":
                raise
    return found


def _template(data: bytes, folder: Path) -> Any:
    header, rest = data[:352], data[352:]
    (folder / "template.nii").write_bytes(header + rest + seeds.template()[352 + len(rest) :])
    return load_template(folder / "template.nii", 4)


def _subjects(data: bytes, folder: Path) -> Any:
    (folder / "maps.nii.gz").write_bytes(data)
    file = inspect(folder / "maps.nii.gz")
    return [m.shape for m, _ in zip(read_maps(file, 4), range(4), strict=False)]


def _maxima(data: bytes, folder: Path) -> Any:
    (folder / "maxima.tsv").write_bytes(data)
    found = read_maxima(folder / "maxima.tsv")
    require(all(np.isfinite(v).all() for v in found.values()), "not finite")
    return found


def _sdm_maxima(data: bytes, folder: Path) -> Any:
    (folder / "maxsMinsZ.asc").write_bytes(data)
    return SdmResults(folder, "MyMean", _space()).maxima()


def _convert(data: bytes, folder: Path) -> Any:
    """Whatever can be read is written in one format after the other, and reads back the same."""
    (folder / "in.csv").write_bytes(data)
    dataset = READERS["flat"].read(folder / "in.csv", False, Assumed(0.001), None)
    for name in FORMATS:
        try:
            convert(dataset, folder / f"out.{name}", name)
        except OutputError as error:
            require(name in ("nimads", "sdm"), f"{name}: {error}")
    again = READERS["flat"].read(folder / "out.csv", False, None, None)
    lost = differences(dataset.studies, again.studies)
    require(not lost, f"csv: {lost}")
    return dataset


def _formula(data: bytes, folder: Path) -> Any:
    dataset, text = seeds.in_memory(), data.decode("utf-8", "surrogateescape")
    study = dataset.studies[0]
    _, categorical = columns_of(text, [*study.covariates, *study.labels])
    return model_matrix(text, dataset, categorical, True).x


def _where(data: bytes, folder: Path) -> Any:
    return select(seeds.in_memory(), data.decode("utf-8", "surrogateescape"))


def _contrast(data: bytes, folder: Path) -> Any:
    names = ("Intercept", "age", "C(drug)[T.b]")
    terms = {"1": [0], "age": [1], "C(drug)": [2]}
    levels = {"drug[a]": np.array([1.0, 0, 0]), "drug[b]": np.array([1.0, 0, 1])}
    text = data.decode("utf-8", "surrogateescape")
    rows, _ = contrast_rows([text], names, terms, levels)
    require(bool(np.isfinite(rows).all()), "weights that are not finite")
    return rows


def _images() -> list[bytes]:
    plain = [seeds.image(1), seeds.image(2), seeds.image(1, integers=True)]
    return [*plain, gzip.compress(plain[0], mtime=0), gzip.compress(plain[2], mtime=0)]


TARGETS: dict[str, Target] = {
    "sdm": Target("SDM table and peak files", lambda: [PARTS.join(s) for s in seeds.SDM], _sdm),
    "flat": Target("CSV and TSV", lambda: seeds.FLAT, _reader("flat", "in.csv")),
    "xlsx": Target("XLSX as a file", lambda: [seeds.workbook()], _reader("xlsx", "in.xlsx")),
    "xlsx-sheet": Target(
        "XLSX, the sheet and its texts", lambda: [PARTS.join(seeds.sheet_parts())], _sheet,
        seeds.XML_TOKENS,
    ),
    "sleuth": Target("Sleuth foci", lambda: seeds.SLEUTH, _reader("sleuth", "in.txt")),
    "nimads": Target("NIMADS JSON", seeds.nimads, _reader("nimads", "in.json"), seeds.JSON_TOKENS),
    "nimare": Target("NiMARE JSON", seeds.nimare, _reader("nimare", "in.json"), seeds.JSON_TOKENS),
    "parquet": Target(
        "NiMARE parquet tables",
        lambda: [bytes([i]) + t for i, t in enumerate(seeds.parquet_tables().values())], _parquet,
    ),
    "image": Target("study images", _images, _image, seeds.NIFTI_TOKENS),
    "mask": Target("masks", _images, _mask, seeds.NIFTI_TOKENS),
    "atlas": Target("atlas images", lambda: [seeds.image(1, True)], _atlas, seeds.NIFTI_TOKENS),
    "regions": Target("atlas names", lambda: seeds.REGIONS, _regions, seeds.JSON_TOKENS),
    "template": Target(
        "templates", lambda: [seeds.template()[:400]], _template, seeds.NIFTI_TOKENS
    ),
    "subjects": Target("maps of subjects", seeds.stacks, _subjects, seeds.NIFTI_TOKENS),
    "maxima": Target("null/maxima.tsv", lambda: seeds.MAXIMA, _maxima),
    "sdm-maxima": Target("SDM-PSI's maxsMinsZ.asc", lambda: seeds.SDM_MAXIMA, _sdm_maxima),
    "convert": Target("CSV read and written in 6 formats", lambda: seeds.FLAT, _convert),
    "formula": Target("--formula", lambda: seeds.FORMULAS, _formula, seeds.CODE_TOKENS),
    "where": Target("--where", lambda: seeds.WHERES, _where, seeds.CODE_TOKENS),
    "contrast": Target("--contrast", lambda: seeds.CONTRASTS, _contrast, seeds.CODE_TOKENS),
}  # fmt: skip


def available() -> dict[str, Target]:
    """Readers whose libraries are installed."""
    from importlib.util import find_spec

    # NiMARE may lie there for its data files alone, without what it imports.
    needed = ("nimare", "pyarrow", "fuzzywuzzy")
    parquet = all(find_spec(module) is not None for module in needed)
    return {n: t for n, t in TARGETS.items() if n != "parquet" or parquet}


def dictionary(target: Target) -> str:
    """Tokens in the form that libFuzzer reads."""
    lines = []
    for i, token in enumerate(target.tokens):
        if len(token) <= 60:
            escaped = "".join(f"\\x{b:02x}" for b in token)
            lines.append(f'token{i}="{escaped}"')
    return "\n".join(lines) + "\n"


def as_json(content: Any) -> str:
    """JSON of a result, indented by 2."""
    return json.dumps(content, indent=2) + "\n"
