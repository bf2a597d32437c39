"""Labels of peaks: apart from one another and from the points, their lines not crossed."""

from __future__ import annotations

import numpy as np
from matplotlib.text import Text

from gpu_sdm.figures.labels import _uncross, label_points, overlap, peak_text, place_boxes
from gpu_sdm.figures.palette import Look, drawing, new_figure


def test_labels_meet_neither_each_other_nor_the_points(rng):
    points = rng.uniform(60, 140, (8, 2))
    sizes = np.tile([45.0, 14.0], (8, 1))
    boxes = place_boxes(points, sizes, (0, 0, 200, 200))
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], 50)
    meet = overlap(boxes, boxes)
    assert (meet[~np.eye(8, dtype=bool)] == 0).all()
    assert (overlap(boxes, np.hstack([points, points])) == 0).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 200


def test_labels_whose_lines_cross_exchange_places():
    points = np.array([[100.0, 100.0], [60.0, 100.0]])
    left, right = [20.0, 50.0, 70.0, 64.0], [90.0, 50.0, 140.0, 64.0]
    dots, frame = np.hstack([points, points]), np.array([0.0, 0, 200, 200])
    apart = np.array([right, left])  # the first point's label to the right
    np.testing.assert_allclose(_uncross(points, apart, dots, frame), apart)
    # Crossed, the long label ends up on its own side within the room that both had.
    crossed = np.array([[20.0, 50, 90, 64], [90.0, 50, 140, 64]])
    mended = _uncross(points, crossed, dots, frame)
    np.testing.assert_allclose(mended, [[70.0, 50, 140, 64], [20.0, 50, 70, 64]])
    # Nor onto a third one.
    third = [145.0, 50.0, 190.0, 64.0]
    boxes = np.array([[-20.0, 50.0, 70.0, 64.0], [95.0, 50, 125, 64], third])
    points = np.vstack([points, [[167.0, 100.0]]])
    dots = np.hstack([points, points])
    mended = _uncross(points, boxes, dots, np.array([-50.0, 0, 200, 200]))
    assert (overlap(mended, mended)[~np.eye(3, dtype=bool)] == 0).all()
    np.testing.assert_allclose(mended[2], third)


def test_written_labels_do_not_overlap_on_the_page():
    look = Look(120)
    with drawing(look):
        figure = new_figure(look, 80)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        xy = np.array([[0.5, 0.5], [0.52, 0.5], [0.5, 0.53], [0.54, 0.54], [0.47, 0.48]])
        texts = [peak_text(f"Temporal_Mid_{k}", (-60, -14, k)) for k in range(5)]
        notes = label_points(axes, xy, texts, look)
        assert label_points(axes, xy[:0], [], look) == []
    figure.draw_without_rendering()
    boxes = np.array([Text.get_window_extent(note).extents for note in notes])
    assert (overlap(boxes, boxes)[~np.eye(5, dtype=bool)] == 0).all()
    assert texts[0] == "Temporal_Mid_0\n(−60, −14, 0)"
