"""Terms and co-activation in Neurosynth and NeuroQuery: NiMARE, the paper's peaks, the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from small_database import ball, point

from gpu_sdm.atlas import load_atlas
from gpu_sdm.decode.coactivation import coactivation, total_counts
from gpu_sdm.decode.database import Database, open_database
from gpu_sdm.decode.seeds import studies_at
from gpu_sdm.decode.terms import associate, usable_terms
from gpu_sdm.decode.words import chosen_terms
from gpu_sdm.spaces import Space
from gpu_sdm.templates import default_mask

REFERENCE = json.loads(Path(__file__).with_name("nimare_decode_reference.json").read_text())
PEAKS = {(0, 48, 0): 386, (60, -14, -12): 229, (-22, -48, -28): 138, (-52, -70, 2): 403}


@pytest.fixture(scope="module")
def neurosynth(neurosynth_v7) -> Database:
    return open_database(neurosynth_v7)


@pytest.fixture(scope="module")
def neuroquery(neuroquery_v1) -> Database:
    return open_database(neuroquery_v1)


def test_equals_nimare_on_neurosynth(neurosynth):
    """Pinned by nimare_decode.py: MKDAChi2 of 386 studies against the other 13,985."""
    space, pinned = Space(2, default_mask(2)), REFERENCE["mkda"]
    chosen = studies_at(neurosynth, point((0, 48, 0)), space, 6)
    found = coactivation(neurosynth, chosen, space, total_counts(neurosynth, space))
    place = {tuple(mm): i for i, mm in enumerate(space.mm().astype(int).tolist())}
    at = [place[tuple(mm)] for mm in pinned["mm"]]
    np.testing.assert_allclose(found.z[at], pinned["association"], atol=1e-5)
    np.testing.assert_allclose(found.uniformity_z[at], pinned["uniformity"], atol=1e-5)
    here = found.found(0.05)
    region = np.array(load_atlas().label_of(space.mm(np.flatnonzero(here & (found.z > 10)))))
    if load_atlas().regions:
        assert {"Precuneus_L", "Cingulate_Post_L", "Angular_L"} <= set(region.tolist())


@pytest.mark.parametrize("name", ["neurosynth", "neuroquery"])
def test_terms_equal_nimare_on_real_databases(name, request):
    database = request.getfixturevalue(name)
    pinned = REFERENCE["terms"][name]
    chosen = studies_at(database, point((0, 48, 0)), ball(), 6)
    assert chosen.sum() == pinned["studies"]
    terms = associate(
        database, chosen, usable_terms(database, np.ones(len(database.terms), bool), 100)
    )
    assert len(terms.names) == pinned["tested"]
    for term, (q, posterior, z) in pinned["rows"].items():
        i = terms.names.index(term)
        assert terms.q[i] == pytest.approx(q, rel=1e-6)
        assert terms.posterior[i] == pytest.approx(posterior, rel=1e-9)
        assert np.sign(terms.z[i]) * stats.norm.isf(terms.q[i] / 2) == pytest.approx(z, abs=1e-5)


def test_studies_at_the_peaks_of_the_paper(neurosynth):
    assert (len(neurosynth.ids), len(neurosynth.xyz_mm)) == (14371, 507891)
    for xyz, studies in PEAKS.items():
        assert studies_at(neurosynth, point(xyz), ball(), 6).sum() == studies


def test_talairach_studies_can_be_taken_to_mni(neurosynth_v7):
    """NiMARE 0.22.1, which always does it, finds 364 studies at (0, 48, 0)."""
    moved = open_database(neurosynth_v7, talairach=True)
    assert moved.converted == 2335
    assert studies_at(moved, point((0, 48, 0)), ball(), 6).sum() == 364


def test_what_the_peaks_of_the_paper_do(neuroquery):
    database = neuroquery
    assert (len(database.ids), len(database.xyz_mm)) == (13459, 469260)
    tested = usable_terms(database, chosen_terms(database.terms, database.kind), 100)
    tops = []
    for xyz in PEAKS:
        terms = associate(database, studies_at(database, point(xyz), ball(), 6), tested)
        top = [terms.names[i] for i in terms.top(15)]
        assert not any("cortex" in t or "network" in t for t in top)
        tops.append(set(top))
    assert {"reward", "self", "choice", "valence"} <= tops[0]
    assert {"auditory", "listening", "comprehension"} <= tops[1]
    assert {"motor", "movements", "finger", "coordination"} <= tops[2]
    assert {"motion", "visual", "observation", "action"} <= tops[3]


def test_the_page_has_these_numbers(neurosynth, neuroquery):
    """Studies and terms of the table in docs/decode.md."""
    page = (Path(__file__).parents[1] / "docs" / "decode.md").read_text(encoding="utf-8")
    database = neuroquery
    keep = chosen_terms(database.terms, database.kind)
    tested, sure = usable_terms(database, keep, 100), 0
    for xyz in PEAKS:
        where = ",".join(map(str, xyz))
        cells = next(r for r in page.splitlines() if r.startswith(f"| {where} |")).split(" | ")
        chosen = studies_at(database, point(xyz), ball(), 6)
        assert cells[2] == f"{PEAKS[xyz]}, {chosen.sum()}"
        terms = associate(database, chosen, tested)
        first, *rest = (terms.names[i] for i in terms.top(15))
        z = terms.z[terms.names.index(first)]
        assert cells[4] == ", ".join([f"{first} ({z:.1f})", *rest]) + " |"
        sure += (terms.q[terms.top(15)] <= 0.05).sum()
    assert f"{sure} have q <= .05" in " ".join(page.split())
    topics = usable_terms(neurosynth, chosen_terms(neurosynth.terms, neurosynth.kind), 100)
    left = f"{len(tested)} of NeuroQuery's {len(database.terms):,} terms are left that also have"
    assert f"{left} 100 studies, {len(topics)} of Neurosynth's 50" in " ".join(page.split())
