"""Figures of numbers: what they show is what they were given."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from gpu_sdm.errors import OutputError, SettingError
from gpu_sdm.figures.convergence import convergence, running_p
from gpu_sdm.figures.forest import forest
from gpu_sdm.figures.funnel import funnel
from gpu_sdm.figures.jackknife import jackknife
from gpu_sdm.figures.null import fwe_threshold, null
from gpu_sdm.figures.palette import IMPUTED, NEGATIVE, POSITIVE, STUDY, Look
from gpu_sdm.figures.save import as_bytes, as_svg, save

SVG = "{http://www.w3.org/2000/svg}"
NARROW = Look(85, "black")
EVIL = "<b>&amp; 'x' $y_1$"
SITE = {
    "site": "here", "kind": "peak", "x_mm": -38.0, "y_mm": 14.0, "z_mm": -4.0, "voxels": 1,
    "label": "Insula_L",
}  # fmt: skip


def forest_rows(count=5, known=(0, 1)):
    rows = []
    for k in range(count):
        g, se = 0.1 * k, 0.2 + 0.01 * k
        rows.append(
            {
                **SITE, "role": "study", "study": f"study {k}" if k else EVIL, "g": g,
                "ci_low": g - 1.96 * se, "ci_high": g + 1.96 * se, "weight": 10.0 + k,
                "known": k in known,
            }
        )  # fmt: skip
    pooled = {**SITE, "role": "pooled", "study": f"{count} studies", "g": 0.2, "ci_low": 0.1,
              "ci_high": 0.3, "weight": 100.0, "known": None}  # fmt: skip
    return [*rows, pooled]


SPREAD = {"q": 3.2, "df": 4, "p_q": 0.5249, "i2": 12.34, "tau2": 0.0432, "prediction_low": -0.9,
          "prediction_high": 1.4}  # fmt: skip


def marked(figure: Figure, gid: str) -> list:
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def words(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_forest_has_a_box_per_study_and_a_diamond():
    rows = forest_rows()
    figure = forest(rows, SPREAD)
    boxes = marked(figure, "study")
    places = np.array([box.get_offsets()[0] for box in boxes])
    np.testing.assert_allclose(places[:, 0][::-1], [row["g"] for row in rows[:-1]])
    sizes = [box.get_sizes()[0] for box in boxes]
    assert sizes == sorted(sizes, reverse=True)  # drawn from the last study up
    hollow = [to_hex(box.get_facecolor()[0]) == "#ffffff" for box in boxes]
    assert hollow == [True, True, True, False, False]
    edges = [to_hex(box.get_edgecolor()[0]).upper() for box in boxes]
    assert edges == [IMPUTED] * 3 + [STUDY] * 2
    (diamond,) = marked(figure, "pooled")
    assert {round(float(x), 6) for x in diamond.get_xy()[:, 0]} == {0.1, 0.2, 0.3}
    (interval,) = marked(figure, "prediction")
    assert list(interval.get_xdata()) == [-0.9, 1.4]
    low, high = figure.axes[0].get_xlim()
    assert low < -0.9
    assert high > max(row["ci_high"] for row in rows)
    text = words(figure)
    assert "I² = 12.3 %" in text
    assert "τ² = 0.043" in text
    assert "p = 0.525" in text
    assert "imputed" in text
    assert "Insula_L (−38, 14, −4)" in text


def test_forest_of_known_effects_speaks_of_no_imputation_and_a_slope_has_no_prediction():
    figure = forest(forest_rows(known=range(5)), {**SPREAD, "prediction_low": np.nan})
    assert "imputed" not in words(figure)
    assert not marked(figure, "prediction")
    assert not marked(forest(forest_rows()), "prediction")


def funnel_rows():
    g, se = [0.1, 0.5, 0.9, 0.3], [0.1, 0.2, 0.3, 0.25]
    return [
        {"site": "s", "study": f"s{k}", "g": g[k], "se": se[k], "known": k < 3, "pooled_g": 0.35}
        for k in range(4)
    ]


EGGER = {"egger_regressor": "se", "egger_slope": 2.0, "egger_g_at_0": -0.1, "egger_z": 1.5,
         "egger_p": 0.1336, "egger_tau2": 0.0}  # fmt: skip


def test_funnel_shows_points_line_and_p():
    figure = funnel(funnel_rows(), EGGER)
    (known,), (imputed,) = marked(figure, "known"), marked(figure, "imputed")
    np.testing.assert_allclose(known.get_offsets(), [[0.1, 0.1], [0.5, 0.2], [0.9, 0.3]])
    np.testing.assert_allclose(imputed.get_offsets(), [[0.3, 0.25]])
    assert len(imputed.get_facecolor()) == 0  # hollow
    (line,) = marked(figure, "egger")
    x, y = np.array(line.get_xdata()), np.array(line.get_ydata())
    np.testing.assert_allclose(x, -0.1 + 2 * y)
    assert "Egger: z = 1.50, p = 0.134" in words(figure)
    axes = figure.axes[0]
    assert axes.get_ylim()[1] == 0  # precise studies on top
    assert axes.get_ylim()[0] > 0.3
    low, high = axes.get_xlim()
    assert low < 0.1
    assert high > 0.9


def test_funnel_contours_end_where_p_does():
    patches = [p for p in funnel(funnel_rows()).axes[0].patches if p.get_label() == "p < .05"]
    inner = patches[0].get_xy()[1]  # z SE at the bottom
    assert inner[0] / inner[1] == pytest.approx(1.959963984540054)


def test_funnel_without_a_line():
    for none in ({**EGGER, "egger_z": None, "egger_p": None}, None):
        figure = funnel(funnel_rows(), none)
        assert not marked(figure, "egger")
    other = funnel(funnel_rows(), {**EGGER, "egger_regressor": "inverse-root-n"})
    assert not marked(other, "egger")
    assert "1/√n" in words(other)


@pytest.mark.parametrize(("whole", "colour"), [(4.0, POSITIVE), (-4.0, NEGATIVE)])
def test_jackknife_marks_lost_folds_and_the_threshold(whole, colour):
    folds = [
        {"left_out": name, "z_peak": whole * share, "g_peak": 0.1, "survives": share > 0.5}
        for name, share in (("a", 0.9), (EVIL, 1.1), ("c", 0.4))
    ]
    figure = jackknife(folds, whole, threshold=whole / 2)
    (kept,), (lost,) = marked(figure, "kept"), marked(figure, "lost")
    np.testing.assert_allclose(kept.get_offsets(), [[0.9 * whole, 2], [1.1 * whole, 1]])
    np.testing.assert_allclose(lost.get_offsets(), [[0.4 * whole, 0]])
    assert to_hex(kept.get_facecolor()[0]).upper() == colour
    assert to_hex(lost.get_facecolor()[0]) == "#ffffff"
    assert marked(figure, "threshold")[0].get_xdata()[0] == whole / 2
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert names == ["c", EVIL, "a"]
    with pytest.raises(SettingError, match="value"):
        jackknife(folds, whole, value="t")


def limits_of(values, whole, threshold):
    folds = [{"left_out": "a", "z_peak": v, "survives": True} for v in values]
    axes = (figure := jackknife(folds, whole, threshold=threshold)).axes[0]
    low, high = axes.get_xlim()
    assert low < min(*values, whole)
    assert max(*values, whole) < high
    return low, high, words(figure)


def test_the_axis_of_a_jackknife_shows_differences():
    low, high, said = limits_of([7.9, 8.7], 8.4, 2.8)
    assert (8.7 - 7.9) / (high - low) > 0.5
    assert "2.80, left of the axis" in said
    low, high, said = limits_of([-4.6, -3.9], -4.2, -2.8)
    assert high < -2.8
    assert "2.80, right of the axis" in said
    low, high, said = limits_of([2.6, 3.4], 3.1, 2.8)  # near: on the axis, zero not
    assert 0 < low < 2.6
    assert "of the axis" not in said
    assert limits_of([0.4, 1.4], 0.9, 1.2)[0] < 0  # zero is near
    low, high, _ = limits_of([8.39, 8.41], 8.4, 2.8)  # next to no difference looks like it
    assert (8.41 - 8.39) / (high - low) < 0.05
    assert np.isfinite(limits_of([0.0, 0.0], 0.0, None)[:2]).all()


def test_null_marks_observed_and_threshold_on_both_sides(rng):
    maxima = rng.gamma(4, 1, (2, 200))
    maxima[0, 0] = 30.0
    figure = null(maxima, "tfce")
    for axes, values in zip(figure.axes, maxima, strict=True):
        (seen,) = (a for a in axes.lines if a.get_gid() == "observed")
        (cut,) = (a for a in axes.lines if a.get_gid() == "threshold")
        assert seen.get_xdata()[0] == values[0]
        at = cut.get_xdata()[0]
        assert (values >= at).mean() <= 0.05 < (values >= np.sort(values)[-11]).mean()
    bars = [p for p in figure.axes[0].patches if hasattr(p, "get_height")]
    assert sum(p.get_height() for p in bars) == 199  # the permuted ones
    assert "p = 0.005" in words(figure)
    assert to_hex(figure.axes[0].patches[0].get_facecolor()).upper() == POSITIVE
    assert to_hex(figure.axes[1].patches[0].get_facecolor()).upper() == NEGATIVE


def test_the_threshold_is_the_smallest_value_that_passes():
    values = np.array([5.0, 1, 2, 2, 3, 4, 4, 4, 1, 0])
    assert fwe_threshold(values, 0.1) == 5
    assert fwe_threshold(values, 0.4) == 4
    assert fwe_threshold(values, 0.39) == 5  # three ties at 4
    assert fwe_threshold(values, 0.05) == np.inf
    assert not marked(null(np.ones((2, 3)), "voxel"), "threshold")


def test_running_p_ends_at_the_p_of_the_maps_and_its_band_is_exact(rng):
    from scipy.stats import binomtest

    maxima = rng.normal(size=300)
    observed = np.quantile(maxima, 0.9)
    maxima[0] = 5
    p, low, high = running_p(maxima, observed)
    assert p[-1] == (maxima >= observed).mean()
    assert p[0] == 1
    for n in (1, 7, 50, 299):
        b = int((maxima[1 : n + 1] >= observed).sum())
        exact = binomtest(b, n).proportion_ci(0.95, "exact")
        assert (low[n], high[n]) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_convergence_joins_equal_curves(rng):
    maxima = rng.normal(size=100)
    maxima[0] = 9
    figure = convergence({"a": (maxima, 8.0), "b $x$": (maxima, 7.0), "c": (maxima, 0.5)})
    lines, bands = marked(figure, "p"), marked(figure, "band")
    assert len(lines) == len(bands) == 2
    assert lines[0].get_ydata()[-1] == 0.01
    assert "a, b $x$: p = 0.01" in words(figure)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_files_are_the_same_bytes(kind, tmp_path, monkeypatch):
    first = as_bytes(forest(forest_rows(), SPREAD), kind, 100)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 33}):
        again = as_bytes(forest(forest_rows(), SPREAD), kind, 100)
        assert matplotlib.rcParams["font.size"] == 30  # the user's settings are put back
    assert first == again
    path = save(forest(forest_rows(), SPREAD), tmp_path / f"a.{kind}", 100)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("look", [Look(), NARROW])
def test_svg_is_well_formed_and_names_are_escaped(look):
    folds = [{"left_out": EVIL, "z_peak": 3.0, "survives": True}]
    for figure in (forest(forest_rows(), SPREAD, look=look), jackknife(folds, 3.0, look=look)):
        root = ET.fromstring(as_svg(figure))
        texts = [node.text for node in root.iter(f"{SVG}text")]
        assert EVIL in texts
        assert root.get("width") == f"{look.width * 72:.6f}".rstrip("0") + "pt"
        assert not list(root.iter(f"{SVG}script"))


def test_png_has_its_size_and_resolution():
    from PIL import Image

    figure = funnel(funnel_rows(), look=Look(85))
    with Image.open(io.BytesIO(as_bytes(figure, "png", 300))) as image:
        assert image.width == int(85 / 25.4 * 300)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert "Software" not in image.info


def fits(figure: Figure) -> None:
    figure.draw_without_rendering()
    for text in figure.findobj(lambda a: hasattr(a, "get_fontsize")):
        assert text.get_fontsize() >= 6 or not text.get_text().strip()
    page, drawn = figure.get_size_inches(), figure.get_tightbbox()
    assert drawn.min.min() > -0.03
    assert (drawn.max < page + 0.03).all()


def test_no_text_is_smaller_than_six_points_or_cut():
    for look in (Look(85), Look(180)):
        for figure in (
            forest(forest_rows(12), SPREAD, look=look),
            funnel(funnel_rows(), EGGER, look=look),
            null(np.arange(1.0, 41).reshape(2, 20), look=look),
        ):
            fits(figure)


def test_wrong_names_and_looks_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"figures are \.png, \.svg or \.pdf"):
        save(funnel(funnel_rows()), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingError, match="width"):
        Look(width_mm=10)
    with pytest.raises(SettingError, match="background"):
        Look(background="pink")
