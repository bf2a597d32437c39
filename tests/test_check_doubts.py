"""The doubts of `gpu-sdm check`: each is raised where its rule says so, and not beside it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from some_studies import dataset, kinds, study

import gpu_sdm
from gpu_sdm.findings import check_places, check_samples, check_thresholds
from gpu_sdm.spaces import Space
from gpu_sdm.templates import default_mask

# --- heights and thresholds ----------------------------------------------------------------------


def test_implausible_height_is_the_point_of_the_noncentral_t():
    s = study(n1=14, t=[17.5, -18.2, 36.6])
    limit = stats.nct.isf(1e-3, 13, 2 * np.sqrt(14))
    assert check_thresholds.largest_credible_t(s) == pytest.approx(limit)
    assert 17.5 < limit < 18.2
    found = list(check_thresholds.height_doubts([s]))
    assert kinds(found) == ["implausible_height"]
    assert "smith2001.spm_mni.txt:3: |t| = 36.6 (d = 9.8), 2 of 3 heights" in found[0].message
    assert not list(check_thresholds.height_doubts([study(n1=14, t=[17.5])]))
    # The same t is credible in a large sample, and less so of two groups.
    assert not list(check_thresholds.height_doubts([study(n1=170, t=[25.0])]))
    assert kinds(check_thresholds.height_doubts([study(n1=20, n2=20, t=[15.0])]))


def test_equal_heights_are_a_ceiling():
    ceiling = study(t=[8.21, 4, 8.21, 5, -8.21])
    found = list(check_thresholds.height_doubts([ceiling]))
    assert kinds(found) == ["equal_heights"]
    assert ":1: the largest |t|, 8.21, is that of 3 of 5 peaks" in found[0].message
    assert not list(check_thresholds.height_doubts([study(t=[8.21, 4, 4, 4, 8.21])]))
    assert not list(check_thresholds.height_doubts([study(t=[np.nan] * 4)]))


def test_heights_that_pass_only_as_z():
    z = [3.12, 3.4, 3.3, 4.1, 4.6]  # t_thr is 3.5794, its z 3.0902
    assert kinds(check_thresholds.height_doubts([study(t=z)])) == ["heights_may_be_z"]
    # One too low for z as well, or few below: the reader's own warning says it.
    assert not list(check_thresholds.height_doubts([study(t=[2.9, *z])]))
    assert not list(check_thresholds.height_doubts([study(t=[3.12, 3.4, 4, 5, 6])]))


@pytest.mark.parametrize(
    ("t_thr", "n1", "n2", "kind", "part"),
    [
        (stats.norm.isf(0.001).round(2), 16, 0, "threshold_may_be_z", "3.7328"),
        (2.3, 10, 0, "threshold_may_be_z", "2.7786"),  # FSL
        (2.8453, 18, 0, "threshold_df", "p of 0.005 with df = 20"),  # Carp2012_children of li2024
        (stats.t.isf(0.001, 18).round(4), 19, 14, "threshold_df", "df = 18"),  # of one group
        (0.9, 20, 0, "unusual_threshold", "p of 0.19"),
        (22.2264, 15, 0, "unusual_threshold", "p of 1.3e-12"),  # vannest2012 of enge2021
    ],
)
def test_thresholds_of_something_else(t_thr, n1, n2, kind, part):
    found = list(check_thresholds.threshold_doubts(dataset(study(t_thr=t_thr, n1=n1, n2=n2))))
    assert kinds(found) == [kind]
    assert part in found[0].message


@pytest.mark.parametrize("p", [0.05, 0.01, 0.005, 0.001, 0.0001, 0.0005, 0.0025])
@pytest.mark.parametrize("digits", [4, 15])
def test_usual_thresholds_raise_no_doubt(p, digits):
    for n1, n2 in ((8, 0), (16, 0), (171, 0), (12, 11), (60, 50)):
        df = n1 + n2 - 2 if n2 else n1 - 1
        s = study(t_thr=round(stats.t.isf(p, df), digits), n1=n1, n2=n2)
        assert not list(check_thresholds.threshold_doubts(dataset(s))), (n1, n2)


def test_two_sided_and_unequal_thresholds():
    one, two = study("a2001"), study("b2002", t_thr=stats.t.isf(0.0005, 19))
    found = list(check_thresholds.threshold_doubts(dataset(one, two)))
    assert kinds(found) == ["two_sided_threshold"]
    assert "b2002: t_thr is that of a two-sided p of 0.001, in 1 other" in found[0].message
    assert not list(check_thresholds.threshold_doubts(dataset(two, two)))
    mild = study("c2003", t_thr=stats.t.isf(0.05, 19))
    found = list(check_thresholds.threshold_doubts(dataset(one, mild)))
    assert kinds(found) == ["unequal_thresholds"]
    assert "0.001 (a2001) to 0.05 (c2003)" in found[0].message


def test_a_column_df_is_compared_with_n():
    right, wrong, none = study(df=19.0), study(n1=12, n2=11, df=23.0), study(df=np.nan)
    found = list(check_thresholds.df_doubts([right, wrong, none]))
    assert kinds(found) == ["df_mismatch"]
    assert "column df is 23, but n1 = 12, n2 = 11 gives df = 21" in found[0].message


# --- samples and covariates ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Smith2010_adults", ("smith", "2010")),
        ("van Ent_2009", ("van ent", "2009")),
        ("2010", None),
        ("pain_07", None),
        ("Åström1999b", ("åström", "1999")),
        ("s12010", None),
    ],
)
def test_author_and_year(name, expected):
    assert check_samples.author_year(name) == expected


def test_one_sample_twice():
    a, b = study("lee2011aud", t=[5] * 4), study("lee2011vis", t=[6], xyz=[(40, 0, 0)])
    found = list(check_samples.sample_doubts([a, b]))
    assert kinds(found) == ["same_sample"]
    assert (
        "lee2011aud and lee2011vis: same first author and year, both n1 = 20." in found[0].message
    )
    for other in (study("lee2011vis", n1=21), study("lee2012vis"), study("kim2011vis")):
        assert not list(check_samples.sample_doubts([a, other]))
    copy = study("kim2015", n1=31, t=[7] * 5, xyz=[(2 * i, 0, 0) for i in range(5)])
    found = list(check_samples.sample_doubts([a, copy]))
    assert kinds(found) == ["shared_peaks"]
    assert "4 of their 4 and 5 peaks" in found[0].message
    apart = study("kim2015", t=[7] * 9, xyz=[(2 * i, 0, 0) for i in range(9)])
    many = study("ito2016", t=[7] * 9, xyz=[(2 * i + 12, 0, 0) for i in range(9)])
    assert not list(check_samples.sample_doubts([apart, many]))  # 3 of 9


def test_covariates_and_sizes():
    studies = [study(f"s{k}", n2=5 if k == 0 else 0, age=40.0, sex=float(k)) for k in range(3)]
    studies.append(study("s3", age=40.0, sex=np.nan))
    found = list(check_samples.covariate_doubts(dataset(*studies)))
    assert [(n.kind, n.message) for n in found] == [
        ("constant_covariate", "column 'age' is 40 in every study that has it."),
        ("covariate_missing", "column 'sex' is missing in 1 of 4 studies: s3."),
    ]
    found = list(check_samples.size_doubts(dataset(*studies)))
    assert kinds(found) == ["few_studies", "mixed_designs"]
    assert not list(check_samples.size_doubts(dataset(*[study(f"s{k}") for k in range(10)])))


# --- places --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grey() -> Space:
    return Space(4, default_mask(4))


def test_readings_are_the_proper_and_improper_turns_but_for_the_sign_of_x():
    found = check_places.readings()
    assert len(found) == 6 * 4 - 1
    every = {m.astype(int).tobytes() for _, m in found}
    assert len(every) == len(found)
    for _, m in found:
        assert np.allclose(m @ m.T, np.eye(3))
    swap = dict(found)["y = z, z = y"]
    assert (swap @ [1, 2, 3]).tolist() == [1, 3, 2]


def test_swapped_axes_are_seen_in_the_real_studies(li2024, grey):
    """Nothing in the published files, nearly all long lists with y and z exchanged, right name."""
    studies = [s for s in gpu_sdm.read(li2024 / "project").studies if len(s.peaks) >= 15]
    head, swap = check_places.brain(grey), "y = z, z = y"
    matrix = dict(check_places.readings())[swap]
    assert len(studies) == 39
    assert not any(check_places.axis_doubt(s, head) for s in studies)
    seen = 0
    for s in studies:
        xyz = s.peaks.xyz_mm @ matrix.T
        doubt = check_places.axis_doubt(
            dataclasses.replace(s, peaks=dataclasses.replace(s.peaks, xyz_mm=xyz)), head
        )
        seen += doubt is not None and swap in doubt.message
    assert seen >= 0.8 * len(studies)


def test_the_sign_of_x_cannot_be_seen(li2024, grey):
    head = check_places.brain(grey)
    for s in gpu_sdm.read(li2024 / "project").studies:
        flipped = dataclasses.replace(s.peaks, xyz_mm=s.peaks.xyz_mm * [-1, 1, 1])
        assert check_places.axis_doubt(dataclasses.replace(s, peaks=flipped), head) is None
