"""The device engine, run on a device made of NumPy and the host-built kernels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from host_build import HostDevice, needs_compiler

from gpu_sdm.backend import Backend
from gpu_sdm.data import StudyTerms
from gpu_sdm.errors import NumericalError, OutOfMemory
from gpu_sdm.ops.permuted_effects import permuted_effects, study_coefficients
from gpu_sdm.ops.permuted_z import permuted_z
from gpu_sdm.permute import launch
from gpu_sdm.permute.device import DeviceEngine, general_table
from gpu_sdm.permute.engine import TIE_TOLERANCE, Problem, permute
from gpu_sdm.permute.plan import TILE, ExplicitPlan, PermutationPlan
from gpu_sdm.permute.scaled import Scaled
from gpu_sdm.permute.scores import Scores
from gpu_sdm.permute.voxel_blocks import arranged
from gpu_sdm.permute.weights import DeviceWeights, HostWeights
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.subjects import SubjectBank

pytestmark = needs_compiler

N1, N2 = (9, 12, 20, 7, 5), (0, 10, 0, 8, 0)
BOTH = ("voxel", "tfce")


def terms_of(n1: tuple[int, ...], n2: tuple[int, ...]) -> StudyTerms:
    from scipy.special import gammaln

    a, b = np.array(n1, float), np.array(n2, float)
    df = np.where(b > 0, a + b - 2, a - 1)
    j = np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    c = 1 / a + np.where(b > 0, 1 / np.maximum(b, 1), 0)
    return StudyTerms(j=j, c=c, v2=1 - (df - 2) / (df * j**2), n1=a, n2=b)


def problem_of(
    rng: np.random.Generator,
    covariate: bool = False,
    tau2: str = "dl",
    exchange: str = "subjects",
    rescale_sd: bool = True,
    score: bool = False,
) -> Problem:
    mask = np.zeros(SHAPES[4], bool)
    mask[10:17, 12:18, 8:15] = rng.random((7, 6, 7)) < 0.9
    space = Space(4, mask)
    v = space.n_voxels

    def group(n: int) -> np.ndarray:
        x = rng.standard_normal((n, v))
        x -= x.mean(axis=0)
        return (x / x.std(axis=0, ddof=1)).astype(np.float32)

    residuals = [
        np.concatenate([group(n) for n in (a, b) if n]) for a, b in zip(N1, N2, strict=True)
    ]
    bank = SubjectBank(tuple(residuals), np.array(N1), np.array(N2), 0.0)
    effects = (0.2 * rng.standard_normal((4, 5, v)) + 0.4).astype(np.float32)
    design = np.ones((5, 1 + covariate))
    if covariate:
        design[:, 1] = [-20, -5, 0, 10, 15]
    contrast = np.eye(design.shape[1])[-1]
    terms = terms_of(N1, N2)
    observed = permuted_z(
        np.stack([w @ r for w, r in zip(identity_weights(), residuals, strict=True)]),
        np.array([[1.0]] * 5, np.float32),
        effects, terms, design=design, contrast=contrast, tau2=tau2, rescale_sd=rescale_sd,
    )  # fmt: skip
    scores = Scores(effects[0]) if score else None
    return Problem(
        effects, bank if exchange == "subjects" else None, terms, design, contrast, tau2,
        rescale_sd, space, space.neighbours(), scores.observed() if scores else observed[0],
        scores=scores,
    )  # fmt: skip


def identity_weights() -> list[np.ndarray]:
    rows = [np.r_[np.ones(a), np.zeros(b)] / a for a, b in zip(N1, N2, strict=True)]
    return [row[None].astype(np.float32) for row in rows]


def plan_of(exchange: str = "subjects") -> PermutationPlan:
    return PermutationPlan(3, tuple("abcde"), N1, N2, exchange)


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"rescale_sd": False},
        {"exchange": "studies"},
        {"exchange": "studies", "score": True},
        {"covariate": True},
        {"tau2": "reml"},
        {"covariate": True, "tau2": "reml", "exchange": "studies"},
    ],
    ids=str,
)
def test_the_device_gives_the_maxima_of_the_cpu(rng: np.random.Generator, case: dict) -> None:
    problem, plan = problem_of(rng, **case), plan_of(case.get("exchange", "subjects"))
    permutations = 2 * TILE
    expected = permute(problem, plan, permutations, BOTH, Backend("cpu", "", 1)).maxima
    found = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0, 2)
    assert found["voxel"].dtype == np.float32
    assert found["tfce"].dtype == np.float64
    np.testing.assert_allclose(found["voxel"], expected["voxel"], atol=TIE_TOLERANCE["voxel"])
    np.testing.assert_allclose(found["tfce"], expected["tfce"], rtol=TIE_TOLERANCE["tfce"])


def test_tiles_in_flight_and_threads_change_no_bit(rng: np.random.Generator) -> None:
    problem, plan = problem_of(rng), plan_of()
    whole = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0, 2)
    for block in (1, 32):
        single = DeviceEngine(problem, plan, HostDevice(block=block), BOTH)
        for name in BOTH:
            parts = [single.maxima(start)[name] for start in (0, TILE)]
            np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[name])


def test_any_split_gives_the_same_null(rng: np.random.Generator) -> None:
    engine = DeviceEngine(problem_of(rng), plan_of(), HostDevice(), BOTH)
    whole = engine.maxima(0, 2)
    for cuts in ([0, 64], [0, 1, 31, 33, 64], [0, 40, 41, 64]):
        parts = [engine.rows(a, b) for a, b in pairwise(cuts)]
        for name in BOTH:
            np.testing.assert_array_equal(
                np.concatenate([p[name] for p in parts], axis=1), whole[name]
            )


def test_memory_that_runs_out_halves_the_permutations_in_flight(rng: np.random.Generator) -> None:
    problem, plan = problem_of(rng), plan_of()
    said: list[str] = []
    device = HostDevice()
    engine = DeviceEngine(problem, plan, device, BOTH, said.append)
    device.failures = 4  # another program takes the memory
    assert engine.group == launch.MOST_TILES * TILE
    found = engine.maxima(0, 2)
    assert engine.launch.tiles == 1
    assert engine.launch.tfce_blocks == 2
    assert len(said) == 4
    assert f"going on with {TILE} permutations at once" in said[-1]
    full = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0, 2)
    for name in BOTH:
        np.testing.assert_array_equal(found[name], full[name])


def test_a_device_too_small_says_what_is_needed(rng: np.random.Generator) -> None:
    problem = problem_of(rng)
    with pytest.raises(OutOfMemory, match=r"need .* GB .* 4 imputations, 71 subjects"):
        DeviceEngine(problem, plan_of(), HostDevice(free=1000), BOTH)
    device = HostDevice()
    engine = DeviceEngine(problem, plan_of(), device, BOTH)
    device.failures = 99
    with pytest.raises(OutOfMemory, match="use fewer imputations, larger voxels"):
        engine.maxima(0)


def test_voxel_blocks_and_short_launches_change_no_bit(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, plan = problem_of(rng), plan_of()
    whole = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0)
    monkeypatch.setattr(launch, "TERMS_PER_LAUNCH", TILE * 5 * 4 * 64)
    monkeypatch.setattr(launch, "MAPS_PER_BLOCK", 2)
    device = HostDevice()
    cut = DeviceEngine(problem, plan, device, BOTH).maxima(0)
    names = [name for name, _, _ in device.launches]
    assert names.count("permuted_z") == -(-problem.effects.shape[2] // 64)
    assert names.count("max_tfce") > 1
    for name in BOTH:
        np.testing.assert_array_equal(cut[name], whole[name])
    monkeypatch.setattr(launch, "voxel_block", lambda sizes: 100)
    blocks = DeviceEngine(problem, plan, HostDevice(), BOTH).maxima(0)
    np.testing.assert_allclose(blocks["voxel"], whole["voxel"], atol=1e-5)


def test_weights_drawn_on_the_device_are_those_of_the_plan() -> None:
    n1, n2 = (9, 12, 200, 7, 2, 130), (0, 10, 0, 8, 5, 71)
    plan = PermutationPlan(7, ("a", "b", "c", "d", "e", "f"), n1, n2)
    scaled = Scaled.of(study_coefficients(terms_of(n1, n2)))
    device = HostDevice()
    drawn, brought = DeviceWeights(plan, scaled, device), HostWeights(plan, scaled, device, True)
    for start in (0, 5 * TILE, 2**31 - TILE):
        weights, share = drawn.tile(start)
        expected_weights, expected_share = brought.tile(start)
        assert weights is not None
        assert expected_weights is not None
        np.testing.assert_array_equal(share, expected_share)
        for a, b in zip(weights, expected_weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_given_permutations_run_too(rng: np.random.Generator) -> None:
    problem, random = problem_of(rng), plan_of()
    numbers = np.arange(TILE)
    drawn = tuple((random.labels if N2[k] else random.signs)(k, numbers) for k in range(len(N1)))
    given = DeviceEngine(problem, ExplicitPlan(drawn, N1, N2), HostDevice()).maxima(0)
    np.testing.assert_array_equal(
        given["voxel"], DeviceEngine(problem, random, HostDevice()).maxima(0)["voxel"]
    )
    assert set(given) == {"voxel"}


def test_nan_names_permutation_and_voxel(rng: np.random.Generator) -> None:
    problem = problem_of(rng)
    effects = problem.effects.copy()
    effects[2, 1, 17] = np.nan
    x, y, w = problem.space.mm(np.array([17]))[0]
    broken = Problem(
        effects, problem.bank, problem.terms, problem.design, problem.contrast, "dl", True,
        problem.space, problem.neighbours, problem.observed_z,
    )  # fmt: skip
    engine = DeviceEngine(broken, plan_of(), HostDevice(), BOTH)
    with pytest.raises(NumericalError, match=rf"MNI \({x:g}, {y:g}, {w:g}\) in permutation 64"):
        engine.maxima(2 * TILE)


def test_only_whole_tiles_are_served(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="not a multiple of 32"):
        DeviceEngine(problem_of(rng), plan_of(), HostDevice()).maxima(7)


def test_the_general_table_keeps_the_tested_combination() -> None:
    x = np.column_stack(
        [np.ones(6), [-3, -2, -1, 1, 2, 3.0], 1e3 * np.array([1, -2, 1, 0, 2, -2.0])]
    )
    h = np.array([0.0, 1.0, 0.0])
    basis, combination = general_table(x, h)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    y = np.array([0.3, 0.1, 0.7, 0.2, 0.9, 0.4])
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(combination @ (basis.T @ y), h @ coefficients, rtol=1e-10)


@pytest.mark.parametrize("rescale_sd", [True, False])
@pytest.mark.parametrize("whole_studies", [True, False])
def test_the_studies_own_units_change_nothing(
    rng: np.random.Generator, rescale_sd: bool, whole_studies: bool
) -> None:
    """The formula of kernels/permuted_effect.cuh, in float64, against the subjects' own."""
    table = study_coefficients(terms_of(N1, N2), rescale_sd, whole_studies)
    scaled = Scaled.of(table)
    assert scaled.rescale == (rescale_sd and not whole_studies)
    effects, sums = rng.standard_normal((2, 5, 40))
    share = rng.uniform(-1, 1, 5)
    expected = permuted_effects(None if whole_studies else sums, share, effects, table)
    g = effects * scaled.effect[:, None]
    difference = (share * scaled.slope + scaled.offset)[:, None] * g
    if not whole_studies:
        difference += sums * scaled.residual[:, None]
    s, t, c = scaled.table.T[:, :, None]
    variance = 1 + g**2 - difference**2 if scaled.rescale else np.ones_like(g)
    u = difference / np.sqrt(np.maximum(variance, 1e-6))
    np.testing.assert_allclose(s * u, expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(t * u**2 + c, expected[1], rtol=1e-9)


@pytest.mark.parametrize("width", [1, 31, 32, 33, 100])
def test_effects_are_arranged_as_their_twin_says(rng: np.random.Generator, width: int) -> None:
    effects = rng.standard_normal((3, 5, width)).astype(np.float32)
    scale = rng.uniform(0.5, 2, 5).astype(np.float32)
    kernel = HostDevice().kernel("arrange_effects.cu", "arrange_effects")
    expected = arranged(effects, scale)
    assert expected.shape == (-(-width // 32), 3, 5, 32)
    assert expected[0, 2, 4, 0] == effects[2, 4, 0] * scale[4]
    for grid, block in ((1, 1), (3, 32), (2, 256)):
        found = np.full_like(expected, np.nan)
        for m, own in enumerate(effects):
            kernel(grid, block, [own.copy(), scale, found, *map(np.int64, (m, 3, 5, width))])
        np.testing.assert_array_equal(found, expected)
