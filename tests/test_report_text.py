"""report.html says in words what was done, and gives the command that does it again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from dataclasses import replace

import pytest
from report_pages import Page, hostile_result

import gpu_sdm
from gpu_sdm.finished import open_result
from gpu_sdm.io.tables import write_json
from gpu_sdm.report import build
from gpu_sdm.report.facts import Facts
from gpu_sdm.report.html import join
from gpu_sdm.report.methods import methods
from gpu_sdm.report.provenance import command
from gpu_sdm.report.references import KNOWN, Citations
from gpu_sdm.report.words import caveats


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return hostile_result(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def page(out):
    """The words alone: pictures take most of the time."""
    return Page(build._methods(Facts(open_result(out))))


def stored(out, tmp_path, **settings):
    """The same result with other settings in its run.json."""
    folder = tmp_path / "changed"
    shutil.copytree(out, folder)
    run = json.loads((folder / "run.json").read_text())
    run["settings"] |= settings
    write_json(folder / "run.json", run)
    return open_result(folder)


def test_methods_say_what_was_done(page):
    said = page.text("methods").replace("\N{NO-BREAK SPACE}", "")
    said = re.sub(r" ?\[[\d, ]+\]", "", said)
    for part in (
        "8 studies (6 of one sample and 2 of two groups;",
        "with age as nuisance",
        "5 data sets were imputed",
        "by 40 permutations (the observed one included)",
        "(voxels of |z| > 3.0902, joined by faces, edges and corners)",
        "a correlation of 0.77 between neighbouring voxels",
        "full width at half maximum 20 mm",
        f"gpu-sdm {gpu_sdm.__version__}",
        "The seed of all random draws is 0.",
    ):
        assert part in said, part


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"tau2": "reml"}, "tau² by restricted likelihood, with"),
        ({"anisotropy": 0.0}, "with an isotropic kernel"),
        ({"anisotropy": 0.5}, "an anisotropic kernel (full width at half maximum 20 mm, aniso"),
        ({"anisotropy": 0.0}, "maximum 20 mm). The most likely"),
        ({}, "20 mm) over the program&#x27;s own model of the correlations of grey matter. "),
        ({"template": "/a/own.nii.gz"}, "over a correlation template of our own (own.nii.gz)."),
        ({"noise": "gaussian:8"}, "a Gaussian smoothness of 8 mm"),
        ({"exchange": "peaks"}, "Peaks were moved over the mask"),
        ({"exchange": "studies"}, "Signs of whole studies were flipped"),
        ({"imputation": "truncated-normal"}, "(truncated normal draws"),
        ({"where": "age > 3"}, "8 studies for which age &gt; 3 (6 of one sample"),
        ({"compat": "sdm-6.21"}, "Known deviations of SDM-PSI 6.21"),
    ],
)
def test_methods_follow_the_settings(out, tmp_path, settings, part):
    facts = Facts(stored(out, tmp_path, **settings))
    text = re.sub("<[^>]+>", "", "".join(methods(facts, (), Citations())))
    assert part in re.sub(r"\s?\[[\d, ]+\]", "", text.replace("\N{NO-BREAK SPACE}", ""))


def test_methods_of_a_slope_name_no_study_left_out(out, tmp_path):
    found = stored(out, tmp_path, formula="1 + age", contrast=["age"], covariates=[])
    run = found.run | {"contrast": {"tested": ["age"], "moderator": True}, "discards": 2}
    text = re.sub("<[^>]+>", "", "".join(methods(Facts(replace(found, run=run)), (), Citations())))
    assert "within the bounds (SDM-PSI&#x27;s law). The linear model 1 + age was" in text
    assert "; age was tested, and" in text
    assert "Residuals of whole studies were permuted" in text


def test_references_are_numbered_as_they_are_cited(page):
    cited = [int(given["href"][5:]) for given, _ in page.all("a") if given["href"][:5] == "#ref-"]
    firsts = list(dict.fromkeys(cited))
    listed = [text for given, text in page.all("li") if given.get("id", "").startswith("ref-")]
    assert firsts == list(range(1, len(listed) + 1))
    bibtex = next(text for given, text in page.all("pre") if given.get("data-copy") == "BibTeX")
    assert bibtex.count("@") == len(listed)
    assert bibtex.count("{") == bibtex.count("}")
    for key in ("psi", "tfce", "dl", "rubin", "essdm", "anisotropic", "hedges"):
        assert f"{{{key}," in bibtex
    assert "Davey Smith, G." in KNOWN["egger"].bibtex()
    assert "and Mataix-Cols, D." in KNOWN["essdm"].bibtex()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tau2": "reml", "fwhm": 17.5, "noise": "gaussian:8", "seed": 12, "discards": 1},
        {"exchange": "studies", "compat": "sdm-6.21", "impute_under": "model"},
        {"stop_at": [-4.0, 2.0, 56.0], "stop_hits": 30, "statistic": ["voxel"],
         "cluster_threshold": None, "stop_statistic": "voxel"},
        {"covariates": [], "formula": "1 + age", "contrast": ["age"], "where": "age > 3",
         "impute_under": "model"},
    ],
)  # fmt: skip
def test_the_command_repeats_the_result(out, tmp_path, monkeypatch, settings):
    from gpu_sdm import analysis
    from gpu_sdm.cli import main

    finished = stored(out, tmp_path, **settings)
    seen = []
    monkeypatch.setattr(analysis, "prepare", lambda *given: seen.append(given[1]) or exit(7))
    monkeypatch.setattr(sys, "argv", shlex.split(command(Facts(finished))))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 7
    assert seen[0].as_dict() == finished.run["settings"]


def test_the_summary_speaks_to_readers_of_a_page(out):
    said = Page((out / "report.html").read_text(encoding="utf-8")).text("summary")
    assert not re.search(r"--|\.md|OUT\b|gpu-sdm", said)
    finished = open_result(out)
    for exchange, part in (
        ("subjects", "exchanging the subjects"),
        ("studies", "turning the signs of whole studies"),
        ("peaks", "moving the reported peaks"),
    ):
        settings = replace(finished.settings, exchange=exchange)
        words = str(join(caveats(Facts(replace(finished, settings=settings)))))
        assert part in words
        assert "40 permutations no corrected p can be below 0.025" in words
    run = finished.run | {"contrast": {"moderator": True}}
    words = str(join(caveats(Facts(replace(finished, run=run)))))
    assert "permuting between studies" in words
