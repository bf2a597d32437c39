"""Figures of the brain: the right voxels in the right place and colour."""

from __future__ import annotations

import socket
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from test_figures import fits, marked, words

from gpu_sdm.figures import glass, mosaic, slices, surface
from gpu_sdm.figures._brain import BRAIN_MM, hide, scale_of, underlay, volume_of
from gpu_sdm.figures._outline import outline
from gpu_sdm.figures._sheet import lines_of
from gpu_sdm.figures.palette import RAMPS, Look
from gpu_sdm.figures.save import as_bytes, as_svg
from gpu_sdm.spaces import SHAPES, Space

RIGHT, LEFT = (38.0, 14.0, -4.0), (-38.0, -62.0, 24.0)


@pytest.fixture(scope="module")
def space() -> Space:
    """Everything inside the brain at 4 mm."""
    whole = Space(4, np.ones(SHAPES[4], bool))
    mm = whole.mm()
    inside = (np.abs(mm / (74, 96, 70)) ** 2).sum(1) < 1
    return Space(4, whole.embed(inside) > 0)


@pytest.fixture(scope="module")
def two(space):
    """A positive blob on the right in front, a weaker negative one on the left behind."""
    mm, z = space.mm(), np.zeros(space.n_voxels, np.float32)
    for centre, height in ((RIGHT, 6.04), (LEFT, -4.2)):
        far = np.linalg.norm(mm - centre, axis=1)
        near = far < 12
        z[near] = height * (1 - far[near] / 30)
    return z


PEAKS = np.array([RIGHT, LEFT])
TEXTS = ["Insula_R\n(38, 14, −4)", "<Occipital> & $L$\n(−38, −62, 24)"]


def overlay_colours(axes) -> np.ndarray:
    (image,) = (i for i in axes.images if i.get_gid() == "overlay")
    data = image.get_array()
    return image.to_rgba(data)[np.isfinite(np.ma.filled(data, np.nan))]


def test_a_volume_knows_left_from_right(space, two):
    volume = volume_of(hide(two), space)
    for place, sign in ((RIGHT, 1), (LEFT, -1)):
        i, j, k = (volume.index(a, mm) for a, mm in enumerate(place))
        at = volume.origin + volume.step * np.array([i, j, k])
        assert np.abs(at - place).max() <= 2
        assert sign * volume.data[i, j, k] > 3
    plane, (left, right, low, high) = volume.plane("z", RIGHT[2])
    row, column = np.unravel_index(np.nanargmax(plane), plane.shape)
    assert left + (column + 0.5) * 4 == pytest.approx(38, abs=0.1)  # to the right of the picture
    assert low + (row + 0.5) * 4 == pytest.approx(14, abs=0.1)
    assert right - left == 4 * plane.shape[1]
    assert high - low == 4 * plane.shape[0]


def test_the_underlay_lies_in_the_same_space():
    brain = underlay()
    assert brain.step == 1
    inside = np.argwhere(np.isfinite(brain.data)) + brain.origin
    for axis, (low, high) in enumerate(BRAIN_MM):
        assert low <= inside[:, axis].min() < 0 < inside[:, axis].max() <= high
    # Frontal lobes reach less far than the occipital from the commissure; nothing is upside down.
    assert inside[:, 1].min() < -95
    assert inside[:, 1].max() < 80


def test_brains_from_the_cache_are_those_that_nilearn_draws(tmp_path, monkeypatch):
    def drawn():
        underlay.cache_clear()
        outline.cache_clear()
        brain, (paths, bounds) = underlay(), outline("l", "black")
        lines = [(p.vertices.tolist(), p.codes.tolist(), colour) for p, colour in paths]
        return brain.data, brain.origin.tolist(), brain.step, lines, bounds

    monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path))
    first = drawn()
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    with monkeypatch.context() as without:
        for name in ("nilearn", "nilearn.datasets", "nilearn.plotting"):
            without.setitem(sys.modules, name, None)  # cannot be imported
        second = drawn()
    assert first[1:] == second[1:]
    np.testing.assert_array_equal(first[0], second[0])
    assert len(first[3]) >= 1


def test_the_scale_covers_what_is_shown(two):
    scale = scale_of(hide(two), "z")
    assert (scale.low, scale.high) == (pytest.approx(np.abs(two[two != 0]).min()), 6.1)
    assert scale.positive
    assert scale.negative
    assert scale.unit == "SDM-Z"
    one = scale_of(hide(np.maximum(two, 0)), "g", high=2.0)
    assert (one.high, one.negative, one.unit) == (2.0, False, "Hedges g")
    assert scale_of(hide(np.zeros(3)), "z").high == 1


def test_slices_draw_both_signs_in_one_scale_with_one_bar(space, two):
    figure = slices.slices(two, space, PEAKS, TEXTS, look=Look(120))
    panels = [a for a in figure.axes if any(i.get_gid() == "overlay" for i in a.images)]
    assert len(panels) == 6
    reds, blues = (to_rgb(RAMPS[side][-1]) for side in ("positive", "negative"))
    for k, axes in enumerate(panels):
        colours = overlay_colours(axes)[:, :3]
        warm = colours[:, 0] > colours[:, 2]
        assert warm.all() if k < 3 else (~warm).all()
    assert reds[0] > reds[2]
    assert blues[2] > blues[0]
    (bar,) = marked(figure, "colour_bar")
    assert bar.get_xlim() == (-6.1, 6.1)
    assert bar.get_xlabel() == "SDM-Z"
    text = words(figure)
    for part in ("x = 38", "y = 14", "z = −4", "x = −38", "Insula_R (38, 14, −4)"):
        assert part in text
    assert text.count("L\n") >= 4
    fits(figure)


def test_a_side_that_does_not_occur_has_no_colours(space, two):
    figure = slices.slices(np.maximum(two, 0), space, PEAKS[:1], look=Look(85))
    (bar,) = marked(figure, "colour_bar")
    low, high = bar.get_xlim()
    assert low == pytest.approx(two[two > 0].min())
    assert high == 6.1
    figure = slices.slices(np.minimum(two, 0), space, PEAKS[1:], look=Look(85))
    assert marked(figure, "colour_bar")[0].get_xlim()[1] < 0


def test_only_what_passes_is_drawn(space, two):
    shown = two > 5
    figure = slices.cuts(two, space, [-4.0, 24.0], shown=shown, look=Look(85))
    (bar,) = marked(figure, "colour_bar")
    assert bar.get_xlim()[0] == pytest.approx(two[shown].min())
    first, second = (overlay_colours(a) for a in figure.axes[:2])
    z = space.mm()[:, 2]
    assert len(first) == (shown & (z == -4)).sum() > 0
    assert len(second) == 0
    assert "z = 24" in words(figure)


def test_a_mosaic_covers_every_cluster_and_says_where(space, two):
    figure = mosaic.mosaic(two, space, look=Look(180))
    z = space.mm()[:, 2][two != 0]
    places = mosaic.heights(two != 0, space, 8)
    assert places[0] <= z.min()
    assert places[-1] >= z.max()
    assert set(np.diff(places)) == {8.0}
    for mm in places:
        assert f"z = {mm:.0f}".replace("-", "−") in words(figure)
    drawn = sum(len(overlay_colours(a)) for a in figure.axes if "overlay" in gids(a))
    assert drawn == (np.isin(z, places)).sum()
    fits(figure)


def gids(axes) -> list:
    return [i.get_gid() for i in axes.images]


@pytest.mark.parametrize("cells", range(1, 25))
def test_rows_of_a_mosaic_are_short_by_few_cells(cells):
    for narrow in (False, True):
        columns = mosaic.columns_of(cells, narrow)
        rows = -(-cells // columns)
        assert columns <= (5 if narrow else 8)
        assert rows * columns - cells <= 3


def test_a_glass_brain_shows_the_largest_along_the_line_of_sight(space, two):
    kept = hide(two)
    seen, (left, right, _, _) = glass.project(kept, space, "z")
    assert np.nanmax(seen) == two.max()
    assert np.nanmin(seen) == two.min()
    column = np.unravel_index(np.nanargmax(seen), seen.shape)[1]
    assert left + (column + 0.5) * 4 == pytest.approx(38, abs=0.1)
    assert right > 40
    ours, _ = glass.project(kept, space, "l")
    assert np.nanmax(ours) < 0  # the right blob is not of the left hemisphere


def test_glass_labels_name_the_peaks_and_lie_apart(space, two):
    figure = glass.glass_map(two, space, peaks=PEAKS, texts=TEXTS, look=Look(180))
    notes = [n for n in marked(figure, "label") if n.get_text()]
    assert sorted(n.get_text() for n in notes) == sorted(TEXTS)
    root = ET.fromstring(as_svg(figure))
    texts = " ".join("".join(node.itertext()) for node in root.iter())
    assert "<Occipital> & $L$" in texts
    fits(figure)
    many = glass.glass_map(two, space, peaks=PEAKS, texts=TEXTS, look=Look(85, "black"))
    assert "2  <Occipital> & $L$ (−38, −62, 24)" in words(many)
    assert {n.get_text() for n in marked(many, "label")} == {"1", "2"}
    fits(many)


def test_peaks_have_the_colour_of_their_study_or_sign():
    xyz = np.array([RIGHT, LEFT, (0.0, 0.0, 0.0)])
    figure = glass.glass_peaks(xyz, ["a", "b", "a"], look=Look(180))
    by_axes = [[len(p.get_offsets()) for p in a.collections] for a in figure.axes]
    assert by_axes == [[1, 1], [2, 1], [2, 0], [2, 1]]  # left, behind, right, above
    assert "3 peaks of 2 studies" in words(figure)
    signs = glass.glass_peaks(xyz, sign=np.array([3.0, -3.0, 2.0]), look=Look(180))
    above = signs.axes[3]
    colours = [p.get_facecolor()[0] for p in above.collections]
    assert colours[0][0] > colours[0][2]
    assert colours[1][2] > colours[1][0]
    assert len(glass.glass_peaks(np.zeros((0, 3))).axes) == 4
    many = glass.glass_peaks(np.zeros((30, 3)), [f"s{k}" for k in range(30)])
    assert not many.legends
    fits(figure)


def test_the_surface_needs_no_network_and_keeps_sides_apart(space, two, monkeypatch):
    def refuse(*_):
        raise AssertionError("a figure opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    kept = hide(two)
    left, right = (surface.on_surface(kept, space, side) for side in ("left", "right"))
    assert np.nanmax(right) > 4
    assert np.nanmin(right) > 0
    assert np.nanmax(left) < 0
    # Means of voxels that are shown: never weaker than the weakest of them.
    assert np.nanmin(np.abs(right)) >= two[two > 0].min() - 1e-6
    assert np.isnan(surface.on_surface(hide(np.zeros_like(two)), space, "left")).all()
    figure = surface.surface(two, space, look=Look(85))
    views = [a.get_gid() for a in figure.axes if a.name == "3d"]
    assert views == ["left_lateral", "right_lateral", "left_medial", "right_medial"]
    assert all(c.get_rasterized() for a in figure.axes[:4] for c in a.collections)
    assert "SDM-Z" in words(figure)


def test_equal_maps_are_equal_files(space, two):
    def draw() -> bytes:
        return as_bytes(glass.glass_map(two, space, peaks=PEAKS, texts=TEXTS), "svg", 60)

    assert draw() == draw()


def test_long_headings_are_broken():
    assert len(lines_of("a title of several words " * 8, 9, 81)) >= 3
    assert lines_of("short", 9, 81) == ["short"]
