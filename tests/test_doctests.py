"""The examples in docstrings run and give what they say, and all of the Python API has some."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from image_projects import project as write_image_project
from image_projects import save, smooth_t
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.findings.refit import site_effects
from gpu_sdm.findings.sites import point_sites
from gpu_sdm.finished import open_result

ROOT = Path(__file__).parents[1]
API = re.findall(
    r"^   (gpu_sdm\.[\w.]+)$",
    (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "gpu_sdm").rglob("*.py")
    if "    >>> " in p.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What examples speak of: a project, two results of different samples, sites, a folder."""
    home = tmp_path_factory.mktemp("doctests")
    (home / "new").mkdir()
    write_project(home / "project", studies=6)
    write_project(home / "further", studies=5, seed=2)
    for path in (home / "further").glob("study*"):  # other studies, of other samples
        path.rename(path.with_name(path.name.replace("study", "other")))
    table = home / "further" / "sdm_table.txt"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *(r.replace("study", "other") for r in rows)]) + "\n")
    rng = np.random.default_rng(0)
    images = write_image_project(home / "images", [f"s{i}\t{15 + i}\tt" for i in range(2)])
    for i in range(2):
        save(images / f"s{i}.nii.gz", smooth_t(rng))
    mask = write_mask(home / "mask.nii.gz", radius=5)
    settings = gpu_sdm.Settings(permutations=20, imputations=2, voxel_size=4, mask=mask)
    results = [
        gpu_sdm.run(gpu_sdm.read(home / name), settings, out=home / out, backend="cpu")
        for name, out in (("project", "out"), ("further", "other"))
    ]
    finished = open_result(home / "out")
    analysis = finished.analysis(gpu_sdm.get_backend("cpu"))
    return {
        "project": home / "project", "mask": mask, "images": images, "folder": home / "new",
        "out": home / "out", "other": home / "other", "result": results[0],
        "finished": finished, "analysis": analysis,
        "at": site_effects(analysis, point_sites(finished.space, [(0, -16, 16)])),
    }  # fmt: skip


@pytest.mark.parametrize("name", API)
def test_the_python_api_has_examples(name):
    home, _, what = name.rpartition(".")
    assert ">>> " in (getattr(importlib.import_module(home), what).__doc__ or "")


def test_the_reference_names_the_api():
    assert {f"gpu_sdm.{n}" for n in gpu_sdm.__all__ if not n.startswith("_")} <= set(API)
    assert len(API) > 20
    assert len(MODULES) > 20


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name, names):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    told: list[str] = []
    for test in finder.find(module, extraglobs=names):
        runner.run(test, out=told.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(told)
