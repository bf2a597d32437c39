from dataclasses import replace

import numpy as np
import pytest

from gpu_sdm import cache, templates
from gpu_sdm.config import Settings
from gpu_sdm.io.sdm_table import read_sdm_project
from gpu_sdm.io.volumes import read_bounds, read_mask
from gpu_sdm.ops.virtual_distance import Graph, peak_distance
from gpu_sdm.spaces import Space
from gpu_sdm.stages import bounds as stage
from gpu_sdm.stages.bounds import bounds_of_peaks, peak_kernel, study_bounds
from gpu_sdm.stages.effects import effect_to_bound, peak_effects

PEAK = np.array([-42.0, 18.0, 12.0])  # left inferior frontal, on a voxel of the 2 and 4 mm grids
HELD_OUT = np.random.default_rng(1).permutation(50)[25:29]


@pytest.fixture(scope="module")
def coarse():
    return Space(4, templates.default_mask(4)), templates.default_template(4)


@pytest.fixture(scope="module")
def held_out(enge2021):
    """Four studies on which the template was not fitted: data, SDM-PSI's bounds and ours."""
    dataset = read_sdm_project(enge2021 / "project", compat=True)
    dataset = dataset.subset([dataset.names[i] for i in HELD_OUT])
    space = Space(2, read_mask(enge2021 / "sdm_mask.nii.gz", 2))
    space, real = read_bounds(enge2021 / "pp", dataset.names, space)
    settings = Settings(compat="sdm-6.21")
    ours, notices, reach = study_bounds(dataset, space, templates.default_template(2), settings)
    return dataset, space, real, ours, notices, reach


# ---------------------------------------------------------------- bounds


def test_bounds_follow_the_formula(coarse):
    """Two peaks, written out from their fields."""
    space, template = coarse
    xyz, g, b = np.array([PEAK, np.add(PEAK, (14, 4, 0))]), np.array([0.9, -1.3]), 0.7
    bounds, reach = bounds_of_peaks([xyz], [g], np.array([b]), space, template)
    graph = Graph(template.costs, templates.OFFSETS, 4, template.domain)
    d = np.full((2, len(template.costs)), np.inf)
    for i in range(2):
        voxels, far = peak_distance(graph, xyz[i], 30.0, 1.0)
        d[i, voxels] = far
    d = d[:, space.index]
    k = np.where(np.isfinite(d), peak_kernel(d, 20.0), 0)
    assert (reach.reached == (k > 0).sum(axis=1)).all()
    unknown = (k < 1).all(axis=0)
    w = 1 / np.where(d > 0, d, 1) ** 2
    w = w / np.maximum(w.sum(axis=0), 1e-300)
    lower = -b + (w * k * (g + b)[:, None]).sum(axis=0)
    upper = b + (w * k * (g - b)[:, None]).sum(axis=0)
    np.testing.assert_allclose(bounds.lower[0, unknown], lower[unknown], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(bounds.upper[0, unknown], upper[unknown], rtol=2e-6, atol=1e-6)
    away = (k == 0).all(axis=0)
    assert away.any()
    assert (bounds.lower[0, away] == np.float32(-b)).all()
    assert (bounds.upper[0, away] == np.float32(b)).all()
    assert (bounds.lower <= bounds.upper).all()
    known = ~unknown
    assert (bounds.lower[0, known] == bounds.upper[0, known]).all()
    assert (bounds.lower[0, unknown] < bounds.upper[0, unknown]).all()


def test_peaks_at_one_place_share_equally(coarse):
    space, template = coarse
    xyz, g = np.array([PEAK, PEAK, np.add(PEAK, (40, 0, 0))]), np.array([1.0, 0.4, -2.0])
    bounds, _ = bounds_of_peaks([xyz], [g], np.array([0.5]), space, template)
    here = np.flatnonzero((space.mm() == PEAK).all(axis=1))
    assert bounds.lower[0, here] == pytest.approx(0.7, abs=1e-7)
    assert bounds.upper[0, here] == bounds.lower[0, here]


def test_a_study_without_peaks_is_bounded_by_its_threshold(coarse):
    none = np.zeros((0, 3))
    bounds, reach = bounds_of_peaks([none] * 2, [np.zeros(0)] * 2, np.array([0.5, 0.8]), *coarse)
    assert (bounds.lower == np.float32([[-0.5], [-0.8]])).all()
    assert (bounds.upper == np.float32([[0.5], [0.8]])).all()
    assert len(reach.study) == 0


def test_peaks_outside_the_mask_spread_in_and_lost_ones_are_counted(coarse):
    space, template = coarse
    nowhere = np.array([88.0, -120.0, -70.0])
    paths = template.domain & ~space.mask.ravel(order="F")
    i = np.flatnonzero(paths)[paths.sum() // 2]
    unanalysed = space.affine[:3] @ np.append(np.unravel_index(i, space.shape, order="F"), 1)
    xyz = np.array([PEAK, unanalysed, nowhere])
    bounds, reach = bounds_of_peaks([xyz], [np.array([1, 2, 3.0])], np.array([0.5]), *coarse)
    assert reach.in_mask.tolist() == [True, False, False]
    assert (reach.reached > 0).tolist() == [True, True, False]
    near = (np.abs(space.mm() - unanalysed) < 9).all(axis=1)
    assert 0.2 < bounds.lower[0, near].max() < bounds.upper[0, near].max() <= 2


def test_the_number_of_threads_and_other_studies_change_no_bit(coarse, rng):
    space = coarse[0]
    xyz = [space.mm(rng.integers(0, space.n_voxels, n)) + 1.0 for n in (3, 9, 1, 5)]
    g = [rng.normal(size=len(x)) for x in xyz]
    b = np.array([0.4, 0.5, 0.6, 0.7])
    seen: list[tuple[int, int]] = []
    one, _ = bounds_of_peaks(
        xyz, g, b, *coarse, threads=1, progress=lambda d, n: seen.append((d, n))
    )
    many, reach = bounds_of_peaks(xyz, g, b, *coarse, threads=4)
    alone, _ = bounds_of_peaks(xyz[1:2], g[1:2], b[1:2], *coarse)
    assert (one.lower == many.lower).all()
    assert (one.upper == many.upper).all()
    assert (alone.lower[0] == one.lower[1]).all()
    assert seen == [(i, 18) for i in range(1, 19)]
    assert reach.study.tolist() == [0] * 3 + [1] * 9 + [2] + [3] * 5
    assert reach.peak.tolist() == [*range(3), *range(9), 0, *range(5)]


def test_backends_agree_on_bounds(coarse):
    args = [np.array([PEAK, PEAK + 9])], [np.array([1.0, -0.5])], np.array([0.5]), *coarse
    cpu, plain = (bounds_of_peaks(*args, backend=name)[0] for name in ("cpu", "numpy"))
    np.testing.assert_allclose(cpu.lower, plain.lower, atol=1e-6)
    np.testing.assert_allclose(cpu.upper, plain.upper, atol=1e-6)


# ---------------------------------------------------------------- against SDM-PSI's own maps


def test_held_out_studies_have_the_template_pages_score(held_out):
    dataset, _, real, ours, _, _ = held_out
    twice_b = 2 * effect_to_bound(dataset.studies)[:, None]
    model = 1 - (ours.upper - ours.lower) / twice_b
    sdms = 1 - (real.upper - real.lower) / twice_b
    seen = sdms > 0.00195
    r = np.corrcoef(model[seen], sdms[seen])[0, 1]
    rmse = np.sqrt(((model - sdms)[seen] ** 2).mean())
    there = model > 1e-4
    dice = (2 * (there & seen).sum(axis=1) / (there.sum(axis=1) + seen.sum(axis=1))).mean()
    lower, upper = (
        np.corrcoef(getattr(ours, side).ravel(), getattr(real, side).ravel())[0, 1]
        for side in ("lower", "upper")
    )
    print(f"held out: r {r:.4f} RMSE {rmse:.4f} Dice {dice:.4f}; all 25: .941 .0600 .906")
    print(f"against SDM-PSI's bounds: lower r {lower:.4f}, upper r {upper:.4f}")
    assert r > 0.93
    assert rmse < 0.065
    assert dice > 0.88
    assert lower > 0.95
    assert upper > 0.96


def test_known_effects_at_peaks_are_exact(held_out):
    """Where SDM-PSI's map and ours both hold a known effect it is the same one."""
    _, _, real, ours, _, _ = held_out
    sdms, mine = real.lower == real.upper, ours.lower == ours.upper
    both = sdms & mine
    assert both.sum() > 150
    assert both.sum() > 0.85 * sdms.sum()
    np.testing.assert_allclose(ours.lower[both], real.lower[both], rtol=1e-5, atol=1e-5)


def test_sdm_shares_equally_between_peaks_nearer_than_a_voxel(enge2021):
    """Measured: chou2006b has voxels 1 and 1.41 mm from two peaks, and holds the plain mean."""
    dataset = read_sdm_project(enge2021 / "project", compat=True).subset(["chou2006b"])
    mask = np.zeros(templates.SHAPES[2], bool)
    for xyz in ([24, -66, 12], [24, -64, 12], [-56, -38, 6]):
        mask[tuple(((np.array(xyz) - [90, -126, -72]) / [-2, 2, 2]).astype(int))] = True
    space = Space(2, mask)
    space, real = read_bounds(enge2021 / "pp", dataset.names, space)
    template = templates.default_template(2)
    ours, _, _ = study_bounds(dataset, space, template, Settings(compat="sdm-6.21"))
    assert (real.lower == real.upper).all()
    assert (ours.lower == ours.upper).all()
    np.testing.assert_allclose(ours.lower, real.lower, rtol=1e-6)


def test_unreached_voxels_are_plus_minus_the_threshold_as_in_sdm(held_out):
    _, _, real, ours, _, _ = held_out
    far = (np.abs(real.lower + real.upper) < 1e-6) & (np.abs(ours.lower + ours.upper) < 1e-6)
    assert far.mean() > 0.2
    np.testing.assert_allclose(ours.upper[far], real.upper[far], rtol=1e-5)


# ---------------------------------------------------------------- data sets and the cache


def test_notices_name_the_peaks(enge2021, coarse):
    """Only the left hemisphere is analysed."""
    dataset = read_sdm_project(enge2021 / "project")
    dataset = dataset.subset(dataset.names[1:4])
    left = coarse[0].mask.copy()
    left[:23] = False
    space = Space(4, left)
    _, notices, reach = study_bounds(dataset, space, coarse[1], Settings(voxel_size=4))
    assert len(reach.study) == sum(len(s.peaks) for s in dataset.studies)
    x = np.concatenate([s.peaks.xyz_mm[:, 0] for s in dataset.studies])
    assert (~reach.in_mask[x > 1]).all()
    assert reach.in_mask[x < -1].mean() > 0.8
    kinds = [notice.kind for notice in notices]
    assert kinds.count("peak_outside_mask") == (~reach.in_mask).sum() > 3
    assert kinds.count("peak_no_reach") == (reach.reached == 0).sum() > 0
    lost = np.flatnonzero(reach.reached == 0)[0]
    peaks = dataset.studies[reach.study[lost]].peaks
    line = peaks.lines[reach.peak[lost]]
    words = [notice.message for notice in notices if notice.kind == "peak_no_reach"]
    assert words[0].startswith(f"{peaks.source}:{line}: the peak (")


def test_bounds_come_from_the_cache_until_something_that_counts_changes(
    enge2021, coarse, tmp_path, monkeypatch
):
    monkeypatch.setenv("GPU_SDM_CACHE", str(tmp_path))
    dataset = read_sdm_project(enge2021 / "project")
    dataset = dataset.subset(dataset.names[:2])
    settings = Settings(voxel_size=4)
    first, notices, reach = study_bounds(dataset, *coarse, settings)
    assert [e.kind for e in cache.entries()] == ["bounds"]

    def refuse(*_args, **_kwargs):
        raise AssertionError("computed again")

    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(stage, "bounds_of_peaks", refuse)
        same = replace(settings, imputations=7, seed=3, discards=2)
        again, said, rows = study_bounds(dataset, *coarse, same, lambda *x: calls.append(x))
        assert (again.lower == first.lower).all()
        assert (again.upper == first.upper).all()
        assert said == notices
        assert (rows.reached == reach.reached).all()
        assert calls == [(len(reach.study), len(reach.study))]
        space, template = coarse
        fewer = space.mask.copy()
        fewer[space.ijk()[0][0], space.ijk()[0][1], space.ijk()[0][2]] = False
        near = templates.Template(4, template.costs * np.float32(1.01))
        changed = replace(dataset.studies[0], n1=dataset.studies[0].n1 + 1)
        for args in (
            (dataset, *coarse, replace(settings, fwhm=21.0)),
            (dataset, *coarse, replace(settings, anisotropy=0.5)),
            (dataset, *coarse, replace(settings, compat="sdm-6.21")),
            (dataset, Space(4, fewer), template, settings),
            (dataset, space, near, settings),
            (replace(dataset, studies=(changed, *dataset.studies[1:])), *coarse, settings),
            (replace(dataset, studies=dataset.studies[::-1]), *coarse, settings),
        ):
            with pytest.raises(AssertionError, match="computed again"):
                study_bounds(*args)


def test_compatibility_changes_unknown_heights_and_decimals(enge2021, coarse):
    dataset = read_sdm_project(enge2021 / "project")
    study = next(s for s in dataset.studies if len(s.peaks) and not s.peaks.known.all())
    dataset = dataset.subset([study.name])
    plain, _, _ = study_bounds(dataset, *coarse, Settings(voxel_size=4))
    compat, _, _ = study_bounds(dataset, *coarse, Settings(voxel_size=4, compat="sdm-6.21"))
    assert np.abs(peak_effects(study, True)).max() > np.abs(peak_effects(study)).max()
    assert compat.upper.max() > plain.upper.max()
