import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_sdm.coordinates import CONVERSIONS, from_mni, to_mni
from gpu_sdm.errors import SettingError

# MNI, then the reported coordinate, worked by hand from the matrices as BrainMap prints them
# (icbm_spm2tal.m, icbm_fsl2tal.m); icbm_other2tal: the pairs NiMARE 0.0.3 to 0.5 tests against.
LANCASTER = {
    "spm_tal": [
        ((0, 0, 0), (-1.0207, -1.7667, 4.0926)),
        ((-42, 18, 24), (-40.1275, 13.1133, 26.4612)),
        ((30, -60, 12), (26.4557, -58.8519, 9.9594)),
    ],
    "fsl_tal": [
        ((0, 0, 0), (-1.0680, -1.0239, 3.1883)),
        ((-42, 18, 24), (-40.8180, 14.9949, 25.7003)),
        ((30, -60, 12), (27.0888, -58.8429, 10.4573)),
    ],
    "other_tal": [
        ((-44, 31, 27), (-42.3176, 26.0594, 29.7364)),
        ((20, -32, 14), (17.4781, -32.6076, 14.0009)),
        ((28, -76, 28), (24.7353, -75.0184, 23.3283)),
    ],
}
NIMARE_TAL2MNI = [
    ((-44, 31, 27), (-45.83997568, 35.97904559, 23.55194326)),
    ((20, -32, 14), (22.69248975, -31.34145016, 13.91284087)),
    ((28, -76, 28), (31.53113226, -76.61685748, 33.22105166)),
]
# Lancaster et al. 2007, table IV: the same landmarks fitted by SPM2 and in Talairach space.
TABLE_IV = [((73.7, -26.0, 7.0), (68.3, -26.9, 8.3)), ((6.3, 75.1, 5.9), (5.7, 67.5, 17.1))]
# Brett's page prints x' = .9900 x, y' = .9688 y + .0460 z, z' = -.0485 y + .9189 z above the AC
# and .0420, .8390 below it: four digits, so 0.01 mm.
BRETT_ABOVE = [
    ((10, 12, 14), (9.9, 12.2692, 12.2821)),  # the example printed in the help of mni2tal
    ((10, 12, 14), (9.9, 12.2696, 12.2826)),
    ((-42, -60, 30), (-41.58, -56.748, 30.477)),
    ((30, 60, 1), (29.7, 58.174, -1.9911)),  # above the AC although the reported z is negative
]
BRETT_BELOW = [
    ((10, 12, -14), (9.9, 11.0376, -12.328)),
    ((40, 20, -30), (39.6, 18.116, -26.14)),
    ((-20, -60, -2), (-19.8, -58.212, 1.232)),  # below although the reported z is positive
]


@pytest.mark.parametrize("space", LANCASTER)
def test_lancaster_points_both_ways(space):
    mni, reported = map(np.array, zip(*LANCASTER[space], strict=True))
    np.testing.assert_allclose(from_mni(mni, space), reported, atol=1e-10)
    np.testing.assert_allclose(to_mni(reported, space), mni, atol=1e-10)


def test_other_tal_equals_nimare():
    reported, mni = map(np.array, zip(*NIMARE_TAL2MNI, strict=True))
    np.testing.assert_allclose(to_mni(reported, "other_tal"), mni, atol=5e-9)


def test_spm_tal_brings_the_landmarks_of_table_iv_together():
    mni, reported = map(np.array, zip(*TABLE_IV, strict=True))
    before = np.linalg.norm(mni - reported, axis=1)
    after = np.linalg.norm(to_mni(reported, "spm_tal") - mni, axis=1)
    assert (after < 2).all()  # the paper: from 5-13 mm to 1-2 mm
    assert (after < before / 3).all()


@pytest.mark.parametrize("space", ["spm_brett", "fsl_brett", "other_brett"])
@pytest.mark.parametrize("points", [BRETT_ABOVE, BRETT_BELOW], ids=["above", "below"])
def test_brett_points_above_and_below_the_ac(space, points):
    mni, reported = map(np.array, zip(*points, strict=True))
    np.testing.assert_allclose(from_mni(mni, space), reported, atol=0.01)
    np.testing.assert_allclose(to_mni(reported, space), mni, atol=0.015)


def test_mni_is_left_as_it_is():
    xyz = np.array([[1.5, -2.25, 3.125], [-90, 90, 108]])
    for space in ("spm_mni", "fsl_mni", "other_mni"):
        assert np.array_equal(to_mni(xyz, space), xyz)


MM = st.floats(-130, 130, allow_nan=False)


@pytest.mark.parametrize("space", CONVERSIONS)
@given(xyz=st.tuples(MM, MM, MM))
def test_round_trip_both_ways(space, xyz):
    point = np.array([xyz])
    assert np.abs(from_mni(to_mni(point, space), space) - point).max() < 1e-6
    assert np.abs(to_mni(from_mni(point, space), space) - point).max() < 1e-6


@pytest.mark.parametrize("space", CONVERSIONS)
def test_continuous_and_orientation_kept(space):
    # A grid that crosses the AC plane: no jump larger than the step, no mirrored axis.
    z = np.arange(-20, 20, 0.1)
    line = to_mni(np.stack([np.full_like(z, 30), np.full_like(z, -50), z], axis=1), space)
    steps = np.diff(line, axis=0)
    assert (np.linalg.norm(steps, axis=1) < 0.13).all()
    assert (steps[:, 2] > 0.09).all()
    corners = to_mni(100 * np.eye(3), space) - to_mni(np.zeros((1, 3)), space)
    assert (np.diag(corners) > 90).all()


def test_unknown_space_names_the_known_ones():
    with pytest.raises(SettingError, match=r"space is 'mni152'; .*spm_mni, fsl_mni"):
        to_mni(np.zeros((1, 3)), "mni152")
