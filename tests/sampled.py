"""Projects with contrasts of one sample, and runs of them, for tests."""

from __future__ import annotations

from pathlib import Path

from numpy.testing import assert_array_equal
from projects import write_mask

import gpu_sdm

CPU = gpu_sdm.get_backend("cpu")


def settings(home: Path, **more) -> gpu_sdm.Settings:
    mask = home / "mask.nii.gz"
    if not mask.exists():
        write_mask(mask, radius=5)
    given = {"permutations": 8, "imputations": 4, "statistic": ("voxel",)} | more
    return gpu_sdm.Settings(voxel_size=4, mask=mask, **given)


def with_samples(folder: Path, labels: dict[str, str]) -> Path:
    """Add the column `sample` to a project's table."""
    table = folder / "sdm_table.txt"
    header, *rows = table.read_text().splitlines()
    rows = [f"{row}\t{labels.get(row.split(chr(9))[0], 'NA')}" for row in rows]
    table.write_text("\n".join([f"{header}\tsample", *rows]) + "\n")
    return folder


def double(folder: Path, name: str, again: str) -> None:
    """Enter a study twice, its second row right after the first."""
    table = folder / "sdm_table.txt"
    rows = table.read_text().splitlines()
    at = next(i for i, row in enumerate(rows) if row.startswith(f"{name}\t"))
    rows.insert(at + 1, rows[at].replace(name, again, 1))
    table.write_text("\n".join(rows) + "\n")
    (folder / f"{again}.spm_mni.txt").write_bytes((folder / f"{name}.spm_mni.txt").read_bytes())


def run(project: Path, home: Path, **more) -> gpu_sdm.Result:
    return gpu_sdm.run(gpu_sdm.read(project), settings(home, **more), backend="cpu")


def assert_same(one: gpu_sdm.Result, other: gpu_sdm.Result) -> None:
    assert one.maps.keys() == other.maps.keys()
    for name, values in one.maps.items():
        assert_array_equal(values, other.maps[name], err_msg=name)
    for name, values in one.maxima.items():
        assert_array_equal(values, other.maxima[name], err_msg=name)
