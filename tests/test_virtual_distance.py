import numpy as np
import pytest

from gpu_sdm import templates
from gpu_sdm.ops.virtual_distance import Graph, peak_distance, virtual_distance
from gpu_sdm.stages.bounds import peak_kernel

PEAK = np.array([-42.0, 18.0, 12.0])  # left inferior frontal, on a voxel of the 2 and 4 mm grids


@pytest.fixture(scope="module")
def graphs():
    found = {}
    for size in (2, 3, 4):
        t = templates.default_template(size)
        found[size] = Graph(t.costs, templates.OFFSETS, size, t.domain)
    return found


def field(graph, xyz, fwhm=20.0, anisotropy=1.0):
    """Kernel of one peak on the whole grid."""
    voxels, far = peak_distance(graph, np.asarray(xyz, float), 1.5 * fwhm, anisotropy)
    k = np.zeros(len(graph.costs))
    k[voxels] = peak_kernel(far, fwhm)
    return k


# ---------------------------------------------------------------- shortest paths


@pytest.mark.parametrize("seed", range(3))
def test_compiled_paths_equal_scipys(seed):
    args, kwargs = virtual_distance.sample(np.random.default_rng(seed))
    voxels, far = virtual_distance.cpu(*args, **kwargs)
    again, exact = virtual_distance.numpy(*args, **kwargs)
    assert len(voxels) > 100
    assert (voxels == again).all()
    np.testing.assert_allclose(far, exact, rtol=virtual_distance.rtol, atol=1e-12)
    assert np.isinf(args[0].scratch()).all()  # the next peak of this thread starts clean


@pytest.mark.parametrize("anisotropy", [1.0, 0.4])
def test_compiled_paths_equal_scipys_on_the_real_template(graphs, anisotropy):
    for xyz in (PEAK + 1, np.array([47.3, -61.8, 30.1])):
        ours = peak_distance(graphs[2], xyz, 30.0, anisotropy, "cpu")
        scipys = peak_distance(graphs[2], xyz, 30.0, anisotropy, "numpy")
        assert (ours[0] == scipys[0]).all()
        np.testing.assert_allclose(ours[1], scipys[1], atol=1e-10)


@pytest.mark.parametrize(
    ("shift", "starts"),
    [((0, 0, 0), [0]), ((1, 0, 0), [1] * 2), ((1, 0, 1), [2**0.5] * 4), ((1, 1, 1), [3**0.5] * 8)],
)
def test_odd_millimetres_start_from_2_4_or_8_voxels_at_their_real_distance(graphs, shift, starts):
    voxels, start = graphs[2].sources(PEAK + shift)
    np.testing.assert_allclose(start, starts)
    assert (np.diff(voxels) > 0).all()
    k = field(graphs[2], PEAK + shift)
    assert (k[voxels] == 1).all()  # nearer than 1.75 mm: the peak itself


def test_decimals_that_a_conversion_leaves_do_not_add_sources(graphs):
    exact, _ = graphs[2].sources(PEAK)
    fuzzy, _ = graphs[2].sources(PEAK + 1e-9)
    assert (exact == fuzzy).all()


def test_kernel_changes_little_as_a_peak_moves_by_a_tenth_of_a_millimetre(graphs):
    """The slope of the Gaussian alone is .007 per 0.1 mm, the 1.75 mm rule a step of .021.

    With every surrounding voxel a source at its real distance the jumps were .10, .12 and .15.
    """
    jump = 0.0
    for start in (PEAK, np.array([-2.0, -46.0, 12.0]), np.array([32.0, -64.0, 44.0])):
        path = start + np.arange(21)[:, None] * np.array([0.1, 0.05, -0.02])
        fields = np.array([field(graphs[2], p) for p in path])
        jump = max(jump, np.abs(np.diff(fields, axis=0)).max())
    print(f"largest |dk| per 0.1 mm: {jump:.4f}")
    assert jump < 0.04


def test_no_kernel_below_2_to_the_minus_9(graphs):
    k = field(graphs[2], PEAK)
    assert k[k > 0].min() >= 2**-9
    assert k[k > 0].min() < 2**-9 * 1.01


def test_width_acts_through_the_kernel_and_not_through_the_template(graphs):
    """k^(w^2) is the same for every width w: one field of distances."""
    narrow, wide = field(graphs[2], PEAK, 10.0), field(graphs[2], PEAK, 20.0)
    inside = (narrow > 0) & (narrow < 1)
    np.testing.assert_allclose(narrow[inside], wide[inside] ** 4, rtol=1e-9)
    assert 5 < (wide > 0).sum() / (narrow > 0).sum() < 10  # 8 in open space


def test_anisotropy_0_is_the_euclidean_gaussian(graphs):
    graph = graphs[2]
    k = field(graph, np.add(PEAK, (0.7, 0, 0)), anisotropy=0.0)
    everywhere = graph.distance_mm(np.arange(len(k)), np.add(PEAK, (0.7, 0, 0)))
    sigma = 20 / np.sqrt(8 * np.log(2))
    gauss = np.exp(-(everywhere**2) / (2 * sigma**2))
    gauss[(everywhere >= 30) | ~graph.domain] = 0
    gauss[everywhere <= 1.75] = 1
    np.testing.assert_allclose(k, gauss, rtol=1e-12)


def test_anisotropy_mixes_squared_distances(graphs):
    graph = graphs[4]
    ends = {a: peak_distance(graph, PEAK, 60.0, a) for a in (0.0, 0.3, 1.0)}
    far = {}
    for a, (voxels, d) in ends.items():
        far[a] = np.full(len(graph.costs), np.inf)
        far[a][voxels] = d
    mixed = np.sqrt(0.7 * far[0.0] ** 2 + 0.3 * far[1.0] ** 2)
    both = np.isfinite(mixed) & (far[0.3] > 0) & np.isfinite(far[0.3])
    assert both.sum() > 1000
    np.testing.assert_allclose(far[0.3][both], mixed[both], rtol=1e-12)


@pytest.mark.parametrize("size", [3, 4])
def test_coarser_grids_show_the_same_field(graphs, size):
    for xyz in (PEAK, np.array([46.0, -60.0, 30.0]), np.array([0.0, -4.0, 56.0])):
        fine = field(graphs[2], xyz).reshape(graphs[2].shape, order="F")
        coarse = field(graphs[size], xyz).reshape(graphs[size].shape, order="F")
        i, j, k = np.indices(graphs[2].shape).reshape(3, -1)
        at = np.rint(np.array([i, j, k]) * 2 / size).astype(int)
        again = coarse[tuple(np.minimum(at, np.array(coarse.shape)[:, None] - 1))]
        fine = fine.reshape(-1)
        near = (fine > 0) | (again > 0)
        r = np.corrcoef(fine[near], again[near])[0, 1]
        print(f"{size} mm against 2 mm: r {r:.3f}")
        assert r > 0.9
