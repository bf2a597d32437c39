"""Both signs stay apart for every kind of colour vision, on paper and on the brain."""

from __future__ import annotations

import numpy as np
import pytest
from colours import MACHADO, ciede2000, contrast, lab, seen
from matplotlib.colors import to_rgb

from gpu_sdm.figures import palette

SIGHTS = (None, *MACHADO)
LEVELS = np.linspace(0, 1, 21)


def ramps(sight):
    return (lab(seen(palette.ramp(side)(LEVELS)[:, :3], sight)) for side in palette.RAMPS)


@pytest.mark.parametrize(
    ("one", "two", "published"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_is_that_of_sharma_2005(one, two, published):
    assert ciede2000(one, two) == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize("sight", SIGHTS)
def test_no_positive_colour_is_like_a_negative_one(sight):
    positive, negative = ramps(sight)
    assert ciede2000(positive[:, None], negative[None]).min() > 30  # 2 is just noticeable


@pytest.mark.parametrize("sight", SIGHTS)
def test_stronger_is_lighter_and_every_step_is_seen(sight):
    for ramp in ramps(sight):
        assert (np.diff(ramp[:, 0]) > 0).all()
        assert ciede2000(ramp[:-5], ramp[5:]).min() > 8


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_stand_out_of_the_grey_anatomy(sight):
    greys = lab(seen(np.repeat(np.linspace(0.1, 0.95, 18)[:, None], 3, axis=1), sight))
    for ramp in ramps(sight):
        assert ciede2000(ramp[:, None], greys[None]).min() > 10


def test_red_against_green_would_not_pass():
    red, green = (np.array(to_rgb(c)) for c in ("#C0392B", "#4C9A2A"))
    apart = {s: float(ciede2000(lab(seen(red, s)), lab(seen(green, s)))) for s in SIGHTS}
    assert apart[None] > 30 > apart["deuteranopia"]


@pytest.mark.parametrize("background", ["white", "black"])
def test_text_can_be_read(background):
    look = palette.Look(background=background)
    paper = np.array(to_rgb(background))
    for colour in (look.ink, look.muted):
        assert contrast(np.array(to_rgb(colour)), paper) >= 4.5


@pytest.mark.parametrize("low", [0.0, 2.3])
def test_the_scale_shows_nothing_between_its_thresholds(low):
    colours = palette.diverging(low, 8.0)

    def at(value: float) -> np.ndarray:
        return np.array(colours((value + 8) / 16))

    red, blue = at(8.0), at(-8.0)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert at(low + 0.1)[3] == at(-low - 0.1)[3] == 1
    if low:
        assert at(low)[3] == at(-low)[3] == 1  # the weakest voxel itself is drawn
        assert at(low - 0.1)[3] == at(0.1 - low)[3] == at(0)[3] == 0
    np.testing.assert_allclose(red[:3], palette.ramp("positive")(1.0)[:3])


def test_without_a_threshold_weak_values_fade():
    colours = palette.diverging(0.0, 4.0, fade=True)
    alpha = colours((np.array([0.0, 1.0, 2.0, 4.0]) + 4) / 8)[:, 3]
    np.testing.assert_allclose(alpha, [0, 0.5, 1, 1], atol=0.01)


def test_every_study_of_56_has_its_own_sign():
    assert len({palette.study_style(k) for k in range(56)}) == 56
    assert palette.study_style(56) == palette.study_style(0)
