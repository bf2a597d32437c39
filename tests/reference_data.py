"""Numbers of other programs, and effect-size constants written anew.

Also read by `bench/fidelity_pooling.py`: needs neither pytest nor fixtures.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import special

N1 = np.array([40.0, 20, 22, 24, 18, 30, 25, 30, 16, 22])
N2 = np.array([38.0, 20, 22, 25, 20, 28, 25, 30, 18, 23])


def hedges(n1: np.ndarray, n2: np.ndarray | None = None):
    """J, c, v2 and df, written anew."""
    df = n1 - 1 if n2 is None else n1 + n2 - 2
    c = 1 / n1 if n2 is None else 1 / n1 + 1 / n2
    j = np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    return j, c, 1 - (df - 2) / (df * j**2), df


def reference(path: Path, section: str) -> dict[str, list[float]]:
    """Numbers of one section of metansue's output."""
    text = path.read_text().split(f"===== {section} ")[1].split("seed1")[0]
    out: dict[str, list[float]] = {}
    for line in text.splitlines():
        name = ""
        for word in line.split():
            try:
                out[name].append(float(word))
            except (ValueError, KeyError):
                name = word.rstrip(":")
                out[name] = []
    return out


def enge_bounds(folder: Path, n_voxels: int, seed: int):
    """Bounds of a random set of voxels: lower, upper, c, v2, age."""
    import nibabel as nib

    rows = [r.split("\t") for r in (folder / "project/sdm_table.txt").read_text().splitlines()]
    mask = np.asarray(nib.load(folder / "sdm_mask.nii.gz").dataobj) > 0
    pick = np.argwhere(mask)
    pick = pick[np.sort(np.random.default_rng(seed).choice(len(pick), n_voxels, replace=False))]
    _, c, v2, _ = hedges(np.array([float(r[1]) for r in rows[1:]]))
    maps = [
        np.stack(
            [
                np.asarray(nib.load(folder / f"pp/{r[0]}_{side}.nii.gz").dataobj)[tuple(pick.T)]
                for r in rows[1:]
            ]
        ).astype(np.float32)
        for side in ("lower", "upper")
    ]
    return *maps, c, v2, np.array([float(r[4]) for r in rows[1:]])


def li_extract(folder: Path):
    """SDM-PSI's own imputations of li2024 at (22, -63, 42).

    Gives effects and printed variances (50, 135), n (135,), the design (135, 2) and the results
    that the file prints: row name -> cells.
    """
    effects: dict[str, list[float]] = {}
    variances: dict[str, list[float]] = {}
    result: dict[str, tuple[str, ...]] = {}
    with gzip.open(folder / "extracts/extract_22_-63_42.txt.gz", "rt") as file:
        for line in file:
            cells = line.rstrip("\n").split("\t")
            found = re.match(r"(.+)_I\d{5}$", cells[0])
            if found:
                effects.setdefault(found[1], []).append(float(cells[1]))
                variances.setdefault(found[1], []).append(float(cells[2]))
            else:
                result[re.sub("<.*?>|&.*?;", "", cells[0])] = tuple(cells[1:])
    y, v = np.array(list(effects.values())).T, np.array(list(variances.values())).T
    # the table lacks seven of the studies: n is what gives the printed variances
    candidates = np.arange(4, 400.0)
    _, c, v2, _ = hedges(candidates)
    error = np.abs(c[:, None, None] + v2[:, None, None] * y**2 - v).max(1)
    n = candidates[error.argmin(0)]
    text = next((folder / "project").glob("sdm_table*")).read_text()
    table = [r.split("\t") for r in text.splitlines()][1:]
    listed = {r[0]: float(r[1]) for r in table}
    assert len(effects) == 135
    assert sum(s in listed for s in effects) == 128
    assert all(listed.get(s, k) == k for s, k in zip(effects, n, strict=True))
    adult = [s.split("_")[1] == "adults" for s in effects]
    x = np.where(adult, 1.0, -1.0)
    return y, v, n, np.column_stack([np.ones(135), x - x.mean()]), result


def metansue_complete(path: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Effects of metansue's complete case, and its results by their names (`seed1` row)."""
    text = path.read_text().split("===== smc_complete")[1]
    found = re.findall(r"(\w+) (-?\d\S*)", text.split("seed1:")[1].split("\n")[0])
    y = np.array(reference(path, "smc_complete")["y"])
    return y, {name: float(value) for name, value in found}


def metansue_bounds(path: Path, section: str):
    """Bounds of one of metansue's cases: lower, upper (10, 1), c, v2, and its numbers."""
    want = reference(path, section)
    _, c, v2, _ = hedges(N1, N2 if section == "smd" else None)
    y, b = np.array(want["y"]), np.array(want["y_up"])
    lower, upper = (np.where(y == 0, side * b, y)[:, None] for side in (-1, 1))
    return lower, upper, c, v2, want


def metafor_cases() -> Iterator[tuple[dict, np.ndarray, np.ndarray, np.ndarray]]:
    """DL and REML cases of metafor that ship with pymare: case, y, v, design."""
    spec = importlib.util.find_spec("pymare")  # not imported: only its files are wanted
    folder = Path(spec.submodule_search_locations[0]) / "tests/data"
    rows = list(csv.DictReader((folder / "metafor_small_sample.csv").read_text().splitlines()))
    columns = {"intercept": [], "one": ["mod1"], "two": ["mod1", "mod2"]}
    for case in json.loads((folder / "metafor_reference.json").read_text())["cases"]:
        if case["method"] in ("DL", "REML"):
            part = [r for r in rows if r["case"] == case["design"]]
            y, v, *mods = (
                np.array([float(r[name]) for r in part])
                for name in ("y", "v", *columns[case["model"]])
            )
            yield case, y, v, np.column_stack([np.ones(len(y)), *mods])
