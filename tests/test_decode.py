"""Co-activation and terms of a small database: against NiMARE, scipy and hand counts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from small_database import PARTNER_MM, SEED_MM, TERMS, ball, point, write_database

from gpu_sdm.atlas import load_atlas
from gpu_sdm.decode.coactivation import coactivation, one_way, total_counts, two_way
from gpu_sdm.decode.counts import STUDY_COUNTS, nearest_voxels, sphere
from gpu_sdm.decode.database import Database, open_database
from gpu_sdm.decode.decoded import Decoded, Rules, decode
from gpu_sdm.decode.overlap import dice
from gpu_sdm.decode.seeds import Seed, studies_at
from gpu_sdm.decode.terms import associate, usable_terms
from gpu_sdm.decode.words import chosen_terms, speaks_of_behaviour
from gpu_sdm.errors import InputError, SettingError
from gpu_sdm.findings.sites import Site


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Database:
    return open_database(write_database(tmp_path_factory.mktemp("database")))


def test_counting_is_the_same_compiled(rng):
    args, kwargs = STUDY_COUNTS.sample(rng)
    by_hand, compiled = (STUDY_COUNTS.on(b)(*args, **kwargs) for b in ("numpy", "cpu"))
    np.testing.assert_array_equal(by_hand, compiled)
    assert by_hand.max() > 1


def test_a_study_counts_once_whatever_its_peaks():
    ijk = np.array([[5, 5, 5], [5, 5, 6], [5, 5, 5], [-1, 5, 5]], np.int32)
    for backend in ("numpy", "cpu"):
        count = STUDY_COUNTS.on(backend)(ijk, np.array([0, 2, 3, 4]), sphere(4, 4), (9, 9, 9))
        assert count[5, 5, 5] == 2
        assert count[5, 5, 7] == 1
        assert count[0, 5, 5] == 1  # within reach of a peak outside the grid
        assert count.sum() == 12 + 7 + 1


def test_sphere_is_that_of_a_distance():
    assert len(sphere(10, 2)) == 515
    assert len(sphere(6, 4)) == 19
    assert np.linalg.norm(sphere(10, 3) * 3.0, axis=1).max() <= 10


def test_peaks_go_to_the_nearest_voxel_half_way_to_the_even_one():
    space = ball()
    mm = space.mm(np.array([0, 100]))
    np.testing.assert_array_equal(nearest_voxels(mm, space), space.ijk()[[0, 100]])
    ijk = nearest_voxels(np.array([[88.0, -126, -72], [84.0, -126, -72]]), space)
    assert ijk[:, 0].tolist() == [0, 2]  # 0.5 and 1.5


def test_two_way_is_the_chi_square_of_scipy(rng):
    a, b = rng.integers(0, 30, 40), rng.integers(0, 200, 40)
    a[0], b[0] = 0, 0
    a[1], b[1] = 30, 200
    z, p = two_way(a, b, 30, 200)
    for i in range(2, 40):
        table = [[a[i], 30 - a[i]], [b[i], 200 - b[i]]]
        chi2, wanted, _, _ = stats.chi2_contingency(table, correction=False)
        assert z[i] ** 2 == pytest.approx(chi2, rel=1e-10)
        assert p[i] == pytest.approx(wanted, rel=1e-10)
        assert (z[i] > 0) == (a[i] / 30 > b[i] / 200)
    assert z[:2].tolist() == [0, 0]
    assert p[:2].tolist() == [1, 1]


def test_one_way_by_hand():
    z = one_way(np.array([1, 3, 8]), 10)
    np.testing.assert_allclose(z, np.array([-3, -1, 4]) * np.sqrt(10 / (4 * 6)), rtol=1e-12)
    assert (one_way(np.zeros(4), 10) == 0).all()


def test_coactivation_finds_the_partner(small):
    space = ball()
    chosen = studies_at(small, point(SEED_MM), space, 6)
    found = coactivation(small, chosen, space, total_counts(small, space))
    assert found.studies + found.others == len(small.ids) == 159  # one has no peak
    near = np.linalg.norm(space.mm() - np.array(PARTNER_MM), axis=1)
    off_seed = np.linalg.norm(space.mm() - np.array(SEED_MM), axis=1) > 20
    best = np.argmax(np.where(off_seed, found.z, -1))
    assert near[best] <= 8
    assert found.found(0.05)[best]
    np.testing.assert_allclose(
        found.q,
        stats.false_discovery_control(
            two_way(found.active, found.active_others, found.studies, found.others)[1]
        ),
        rtol=1e-10,
    )
    again = coactivation(
        small, chosen, space, total_counts(small, space, backend="numpy"), backend="numpy"
    )
    np.testing.assert_array_equal(found.z, again.z)
    share = found.active[best] / found.studies, found.active_others[best] / found.others
    assert found.posterior()[best] == pytest.approx(share[0] / sum(share))


def test_total_is_kept_for_the_same_content_only(small, tmp_path):
    space = ball()
    total = total_counts(small, space)
    np.testing.assert_array_equal(total, total_counts(small, space))
    other = open_database(write_database(tmp_path / "other", seed=6))
    assert (total_counts(other, space) != total).any()
    assert (total_counts(small, space, 6) != total).any()


def test_equals_nimare_here_and_now(small, tmp_path):
    """MKDAChi2, neurosynth_decode and ROIAssociationDecoder of the NiMARE that is installed."""
    pytest.importorskip("nimare", reason="NiMARE ABSENT: pip install gpu-sdm[nimare]")
    nib = pytest.importorskip("nibabel")
    import nimare_decode as reference
    import pandas as pd

    space = ball()
    mask = nib.Nifti1Image(space.mask.astype(np.uint8), space.affine)
    chosen = studies_at(small, point(SEED_MM), space, 6)
    xyz = pd.DataFrame(small.xyz_mm, columns=["x", "y", "z"])
    xyz["id"] = np.array(small.ids)[small.study]
    ids = [i for i, c in zip(small.ids, chosen, strict=True) if c]
    tested = usable_terms(small, np.ones(len(small.terms), bool), 10)
    notes = pd.DataFrame(small.values[:, tested].toarray(), columns=[f"t{i}" for i in tested])
    names = list(notes)
    notes.insert(0, "id", small.ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nimare.decode.discrete import neurosynth_decode
        from nimare.stats import pearson

        maps = reference.mkda(xyz, ids, mask)
        rows = neurosynth_decode(xyz, notes, ids, features=names)
        r = pearson(chosen.astype(float), notes[names].to_numpy().T)
    found = coactivation(small, chosen, space, total_counts(small, space))
    np.testing.assert_allclose(found.z, space.extract(maps["association"]), atol=1e-5)
    np.testing.assert_allclose(found.uniformity_z, space.extract(maps["uniformity"]), atol=1e-5)
    terms = associate(small, chosen, tested)
    np.testing.assert_allclose(terms.q, rows["pReverse"], rtol=1e-6)
    np.testing.assert_allclose(terms.posterior, rows["probReverse"], rtol=1e-10)
    np.testing.assert_allclose(terms.r, r, rtol=1e-9)


def test_exact_p_and_correlation_by_scipy_and_numpy(small):
    chosen = studies_at(small, point(SEED_MM), ball(), 6)
    terms = associate(small, chosen, usable_terms(small, np.ones(10, bool), 10))
    assert terms.names == TERMS[:-1]  # the last is rare
    assert terms.names[terms.top(1)[0]] == "motion"
    for i, name in enumerate(terms.names):
        value = small.values[:, [small.terms.index(name)]].toarray().ravel()
        has = value > 0
        table = [[(has & chosen).sum(), (~has & chosen).sum()],
                 [(has & ~chosen).sum(), (~has & ~chosen).sum()]]  # fmt: skip
        sides = [stats.fisher_exact(table, side)[1] for side in ("less", "greater")]
        assert terms.p_exact[i] == pytest.approx(min(1, 2 * min(sides)), rel=1e-9)
        assert terms.r[i] == pytest.approx(np.corrcoef(chosen, value)[0, 1], rel=1e-9)


def test_words_of_anatomy_and_methods_go(tmp_path):
    for term in ("amygdala", "left hemisphere", "motor network", "functional connectivity",
                 "task", "specific", "3_cortex_anterior_cingulate"):  # fmt: skip
        assert not speaks_of_behaviour(term, term[0] == "3"), term
    for term in ("reward", "working memory", "self", "motion perception", "emotion regulation"):
        assert speaks_of_behaviour(term), term
    assert speaks_of_behaviour("42_visual_cortex_sensory", topic=True)
    terms = ("reward", "amygdala", "motion")
    assert chosen_terms(terms, "tfidf").tolist() == [True, False, True]
    assert chosen_terms(terms, "tfidf", everything=True).all()
    file = tmp_path / "terms.txt"
    file.write_text("# mine\n-Motion\n")
    assert chosen_terms(terms, "tfidf", file).tolist() == [True, False, False]
    file.write_text("amygdala\nreward\n-reward\n")
    assert chosen_terms(terms, "tfidf", file).tolist() == [False, True, False]
    file.write_text("sorrow\n")
    with pytest.raises(InputError, match=r"1 term.*lacks: sorrow"):
        chosen_terms(terms, "tfidf", file)
    file.write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no term"):
        chosen_terms(terms, "tfidf", file)


def test_terms_too_rare_are_named(small):
    with pytest.raises(SettingError, match=r"at least 150 of the 159 .* lower --min-term-studies"):
        usable_terms(small, np.ones(10, bool), 150)


def whole(small: Database, seeds: list[Seed], **rules) -> Decoded:
    keep = chosen_terms(small.terms, small.kind)
    rules = {"min_term_studies": 10} | rules
    return decode(small, seeds, ball(), keep, load_atlas(), Rules(**rules))


def test_overlap_of_seeds(small):
    found = whole(small, [point(SEED_MM), point(PARTNER_MM, 2)])
    (row,) = found.overlap
    a, b = (f.coactivation.found(0.05) for f in found.found)
    assert row["voxels_both"] == (a & b).sum() > 50
    assert row["dice"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert row["share_a"] == pytest.approx((a & b).sum() / a.sum())
    assert np.isnan(dice(a & False, b & False))
    peaks = [r for r in found.peaks if r["seed"] == 1]
    assert [r["rank"] for r in peaks] == list(range(1, len(peaks) + 1))
    assert peaks[0]["distance_mm"] < 10
    second = np.array([peaks[1][c] for c in ("x_mm", "y_mm", "z_mm")])
    assert np.linalg.norm(second - np.array(PARTNER_MM)) < 10
    sizes = {r["region"]: r["voxels"] for r in found.regions if r["seed"] == 1}
    assert sum(sizes.values()) == (a.sum() if load_atlas().regions else 0)


def test_seeds_of_few_studies_are_refused(small):
    far = point((60.0, 50.0, 60.0), 2)
    found = whole(small, [point(SEED_MM), far])
    assert [f.seed.number for f in found.found] == [1]
    assert "too few to tell" in found.refused[0]["why"]
    with pytest.raises(SettingError, match=r"60,50,60.*--min-studies is 20: too few"):
        whole(small, [far])


def test_a_cluster_takes_the_peaks_in_its_voxels(small):
    space = ball()
    voxels = np.flatnonzero(np.linalg.norm(space.mm() - np.array(SEED_MM), axis=1) <= 5)
    seed = Seed(1, Site("c", "cluster", voxels, (0, 0, 0)), (0, 0, 0))
    chosen = studies_at(small, seed, space, 1.0)
    member = {tuple(v) for v in space.ijk()[voxels]}
    ijk = nearest_voxels(small.xyz_mm, space)
    wanted = {s for s, v in zip(small.study, map(tuple, ijk), strict=True) if v in member}
    assert set(np.flatnonzero(chosen)) == wanted
    assert len(wanted) > 40
