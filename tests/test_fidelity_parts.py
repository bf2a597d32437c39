"""The failing search's voxels and the stored null of bench/fidelity*.py."""

from __future__ import annotations

import fidelity_failures
import fidelity_null
import numpy as np
import pytest
from fidelity_failures import regions_apart, with_neighbours, write_failures
from fidelity_ledger import Ledger
from reference_data import enge_bounds
from scipy import ndimage

from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.fit_mean_sdm import FIT_MEAN_SDM
from gpu_sdm.permute.null import NullState
from gpu_sdm.spaces import SHAPES, Space

# ---------------------------------------------------------------- the failing minimiser


@pytest.fixture(scope="module")
def some(enge2021):
    lower, upper, c, v2, _ = enge_bounds(enge2021, 60, 7)
    return lower, upper, c, v2


def test_minimiser_means_are_those_of_the_two_searches(some, tmp_path, monkeypatch):
    lower, upper, c, v2 = some
    monkeypatch.setattr(fidelity_failures, "OUTPUT", tmp_path)
    terms = StudyTerms(np.ones(50), c, v2, np.full(50, 20.0), np.zeros(50))
    got = fidelity_failures.minimiser_means(Bounds(lower, upper), terms, 3)
    design = np.ones((50, 1)), np.ones(1), 3
    for means, search in zip(got, (FIT_MEAN_SDM, FIT_BOUNDS), strict=True):
        np.testing.assert_array_equal(means, search.on("cpu")(*some, *design)[0][0])


def test_failing_voxels_are_kept_continued_and_written(some, tmp_path, monkeypatch):
    lower, upper, c, v2 = some
    monkeypatch.setattr(fidelity_failures, "OUTPUT", tmp_path)
    monkeypatch.setattr(fidelity_failures, "BLOCK", 32)
    mask = np.zeros(SHAPES[4], bool)
    mask[20:25, 20:24, 20:23] = True
    space, n = Space(4, mask), np.full(50, 20.0)
    bounds, terms = Bounds(lower, upper), StudyTerms(np.ones(50), c, v2, n, 0 * n)
    regions = regions_apart(bounds, terms, 3, space)
    loose = regions["failing 0.02"]
    (kept,) = tmp_path.glob("minimiser-*.npy")
    means = np.load(kept)
    assert not np.isnan(means).any()
    np.testing.assert_array_equal(loose, np.abs(means[0] - means[1]) > 0.02)
    assert 0 < regions["failing 0.1"].sum() < loose.sum() < 60
    np.testing.assert_array_equal(regions["apart 0.02"], ~loose)
    np.testing.assert_array_equal(
        regions["apart 0.02 and neighbours"], ~with_neighbours(loose, space)
    )
    import nibabel

    written = write_failures(regions, space)
    assert [p.name for p in written] == [
        "minimiser_failures_0.02.nii.gz", "minimiser_failures_0.1.nii.gz",
    ]  # fmt: skip
    volume = np.asarray(nibabel.load(written[0]).dataobj)
    np.testing.assert_array_equal(space.extract(volume) > 0, loose)
    # The second block was lost: only it is computed anew.
    means[:, 32:] = np.nan
    means[0, 0] = 9
    np.save(kept, means)
    again = regions_apart(bounds, terms, 3, space)["failing 0.02"]
    assert again[0]
    np.testing.assert_array_equal(again[1:], loose[1:])


def test_neighbours_are_all_26():
    mask = np.zeros(SHAPES[4], bool)
    mask[10:26, 12:27, 9:22] = True
    mask[15:18, 15:18, 15:18] = False
    space = Space(4, mask)
    failed = np.zeros(space.n_voxels, bool)
    failed[[5, 900]] = True
    got = space.embed(with_neighbours(failed, space)) > 0
    box = ndimage.generate_binary_structure(3, 3)
    wanted = ndimage.binary_dilation(space.embed(failed) > 0, box) & space.mask
    np.testing.assert_array_equal(got, wanted)


# ---------------------------------------------------------------- null


def test_stored_null_is_continued(tmp_path, rng):
    path = tmp_path / "deep" / "null.npz"
    state = NullState.empty(("voxel", "tfce"), 40)
    state.add(0, {s: rng.random((2, 40)) for s in ("voxel", "tfce")})
    assert fidelity_null.finished(path) == 0
    fidelity_null.StoredNull(path, 40).save(state)
    assert fidelity_null.finished(path) == 40
    more = fidelity_null.StoredNull(path, 100).load()
    assert more.done == 40
    np.testing.assert_array_equal(more.maxima["tfce"][:, :40], state.maxima["tfce"])


def test_figures_of_a_null(rng, capsys):
    ours = {"voxel": rng.normal(4, 0.3, (2, 99)), "tfce": rng.normal(5e3, 1e3, (2, 99))}
    theirs = {"voxel": rng.normal(4, 0.3, (2, 999)), "tfce": rng.normal(5e3, 1e3, (2, 999))}
    ledger = Ledger()
    fidelity_null.record_null(ledger, "seed 0", ours, theirs, fidelity_null.BARS)
    rows = {row["what"]: row for row in ledger.rows}
    assert rows["mean max -z"]["ours"] == pytest.approx(ours["voxel"][1].mean())
    row = rows["95% of max TFCE, both sides"]
    assert row["ours"] == pytest.approx(np.percentile(ours["tfce"].ravel(), 95))
    assert row["theirs"] == pytest.approx(np.percentile(theirs["tfce"].ravel(), 95))
    assert row["met"] == (7423 * 0.95 <= row["ours"] <= 7423 * 1.05)
    assert rows["99% of max z, both sides"]["met"] is None
    assert rows["95% of max z, negative side"]["ours"] == pytest.approx(
        np.percentile(ours["voxel"][1], 95)
    )
    assert "max TFCE" in capsys.readouterr().out


def test_the_real_null_is_what_the_bars_speak_of(enge2021):
    maxima = np.loadtxt(enge2021 / "mod1" / "maxsMinsZ.asc").T[:, 1:]
    assert np.quantile(maxima[:2], 0.95) == pytest.approx(4.389, abs=5e-4)
    assert np.quantile(maxima[2:], 0.95) == pytest.approx(7423, abs=0.5)
