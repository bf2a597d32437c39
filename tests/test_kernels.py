"""The permuted-z kernels' own source, built for the host, against the NumPy twin.

Block sizes 1, 32 and 256.
"""

from __future__ import annotations

import numpy as np
import pytest
from host_build import HostKernel, needs_compiler
from scipy.special import gammaln

from gpu_sdm.data import StudyTerms
from gpu_sdm.ops.permuted_effects import study_coefficients
from gpu_sdm.ops.permuted_z import permuted_z
from gpu_sdm.permute import launch
from gpu_sdm.permute.device import general_table
from gpu_sdm.permute.scaled import Scaled
from gpu_sdm.permute.voxel_blocks import arranged

pytestmark = needs_compiler

BLOCKS = (1, 32, 256)
Z_ERROR = 1e-4  # decisions.md; the worst seen here is below 1e-5


def terms_of(n1: np.ndarray, n2: np.ndarray) -> StudyTerms:
    df = np.where(n2 > 0, n1 + n2 - 2, n1 - 1)
    j = np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    c = 1 / n1 + np.where(n2 > 0, 1 / np.maximum(n2, 1), 0)
    return StudyTerms(j=j, c=c, v2=1 - (df - 2) / (df * j**2), n1=n1, n2=n2)


def inputs(
    rng: np.random.Generator, k: int, m: int, p: int, v: int, two: float = 0.5, spread: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, StudyTerms]:
    """Studies of 8 to 60 subjects, a share `two` of them two-sample; realistic permuted means."""
    n1 = rng.integers(8, 60, k).astype(float)
    n2 = np.where(rng.random(k) < two, rng.integers(8, 60, k), 0).astype(float)
    sums = (rng.standard_normal((k, p, v)) / np.sqrt(n1)[:, None, None]).clip(-0.5, 0.5)
    share = np.where(n2[:, None] > 0, rng.uniform(0.3, 0.7, (k, p)), rng.uniform(-0.4, 0.4, (k, p)))
    effects = 0.4 * rng.standard_normal((k, v)) + spread * rng.standard_normal((m, k, v))
    return (
        sums.astype(np.float32), share.astype(np.float32), effects.astype(np.float32),
        terms_of(n1, n2),
    )  # fmt: skip


def run_z(
    sums: np.ndarray | None,
    share: np.ndarray,
    effects: np.ndarray,
    terms: StudyTerms,
    block: int,
    design: np.ndarray | None = None,
    contrast: np.ndarray | None = None,
    tau2: str = "dl",
    rescale_sd: bool = True,
    grid: int = 3,
    **knobs: int | str,
) -> np.ndarray:
    scaled = Scaled.of(study_coefficients(terms, rescale_sd, sums is None))
    (m, k, v), p = effects.shape, share.shape[1]
    general, subjects = design is not None, sums is not None
    knobs = {"BLOCK": max(block, launch.BLOCK)} | knobs
    if general:
        chosen = launch.general_knobs(k, design.shape[1], tau2 == "reml", subjects, scaled.rescale)
        kernel = HostKernel("permuted_z_general.cu", "permuted_z_general", **(chosen | knobs))
        basis, combination = general_table(design, contrast)
        kernel.constant("DESIGN", basis)
        kernel.constant("CONTRAST", combination)
    else:
        chosen = launch.knobs(k, subjects, scaled.rescale)
        kernel = HostKernel("permuted_z.cu", "permuted_z", **(chosen | knobs))
    kernel.constant("TABLE", scaled.table.astype(np.float32))
    f = scaled.share(share.T)
    means = f
    if sums is not None:
        means = np.ascontiguousarray(sums * scaled.residual[:, None, None], np.float32)
    placed = arranged(effects, scaled.effect)
    z = np.full((p, v), -77, np.float32)
    middle = v // 3 // launch.LANES * launch.LANES  # in two launches, the cut between groups
    for first, last in ((0, middle), (middle, v)):
        numbers = [m, p, v, 0, v, first, last] + ([] if general else [k])
        kernel(
            grid, block,
            [means, f, placed, z, *map(np.int64, numbers)],
        )  # fmt: skip
    return z


def error(z: np.ndarray, twin: np.ndarray) -> float:
    assert z.shape == twin.shape
    assert np.isfinite(twin).all()
    return float(np.abs(z - twin.astype(np.float64)).max())


@pytest.mark.parametrize(
    ("k", "m", "p", "v"),
    [(2, 50, 5, 37), (11, 50, 7, 67), (11, 2, 32, 33), (24, 5, 3, 31), (25, 2, 3, 40),
     (50, 50, 3, 41), (64, 2, 3, 33), (135, 50, 3, 35), (600, 5, 2, 33), (11, 200, 2, 10)],
)  # fmt: skip
def test_permuted_z_is_the_twin(rng: np.random.Generator, k: int, m: int, p: int, v: int) -> None:
    data = inputs(rng, k, m, p, v)
    twin = permuted_z(*data)
    whole = run_z(*data, block=1)
    assert error(whole, twin) < Z_ERROR
    for block in BLOCKS[1:]:
        np.testing.assert_array_equal(run_z(*data, block=block, grid=2), whole)


@pytest.mark.parametrize(
    "knobs",
    [
        {"R": 1},
        {"R": 4, "SUMS": 1},
        {"R": 3, "SUMS": 0},
        {"KEEP": 0, "SUMS": 0},
        {"KEEP": 8},
        {"KEEP": 8, "SUMS": 1},
        {"KEEP": 0, "R": 1, "SUMS": 1},
    ],
    ids=str,
)
def test_knobs_change_speed_alone(rng: np.random.Generator, knobs: dict[str, int]) -> None:
    data = inputs(rng, 11, 5, 7, 67)
    assert error(run_z(*data, block=32, **knobs), permuted_z(*data)) < Z_ERROR


@pytest.mark.parametrize("two", [0.0, 1.0])
@pytest.mark.parametrize("rescale_sd", [True, False])
@pytest.mark.parametrize("whole_studies", [True, False])
def test_permuted_z_of_every_kind_of_study(
    rng: np.random.Generator, two: float, rescale_sd: bool, whole_studies: bool
) -> None:
    sums, share, effects, terms = inputs(rng, 11, 5, 6, 50, two)
    given_sums = sums
    if whole_studies:
        given_sums, share = None, np.sign(share - share.mean()).astype(np.float32)
    twin = permuted_z(given_sums, share, effects, terms, rescale_sd=rescale_sd)
    z = run_z(given_sums, share, effects, terms, 32, rescale_sd=rescale_sd)
    assert error(z, twin) < Z_ERROR


def test_image_like_data_does_not_cancel(rng: np.random.Generator) -> None:
    # Large common effects that all imputations agree on: Q = S2 - S1^2/S0 would lose its digits.
    sums, share, effects, terms = inputs(rng, 50, 3, 4, 50, spread=0.0)
    effects = np.float32(2.0) + np.float32(0.02) * effects
    share = np.ones_like(share)
    sums *= np.float32(0.01)
    twin = permuted_z(sums, share, effects, terms)
    assert error(run_z(sums, share, effects, terms, 32), twin) < Z_ERROR


def test_one_study_known(rng: np.random.Generator) -> None:
    # All studies but one vary over the whole range between imputations.
    sums, share, effects, terms = inputs(rng, 11, 50, 4, 50, spread=1.5)
    effects[:, 3] = effects[0, 3]
    assert error(
        run_z(sums, share, effects, terms, 32), permuted_z(sums, share, effects, terms)
    ) < (Z_ERROR)


@pytest.mark.parametrize("k", [11, 135])
def test_nan_in_gives_nan_out_there_and_only_there(rng: np.random.Generator, k: int) -> None:
    clean = inputs(rng, k, 3, 3, 40)
    expected = run_z(*clean, block=32)
    for what, at, where in (
        (0, (1, 2, 7), (2, 7)), (1, (k - 1, 1), (1, slice(None))), (2, (2, 1, 9), (slice(None), 9)),
    ):  # fmt: skip
        data = [np.array(a) if isinstance(a, np.ndarray) else a for a in clean]
        data[what][at] = np.nan
        bad = np.zeros(expected.shape, bool)
        bad[where] = True
        z = run_z(*data, block=32)  # type: ignore[arg-type]
        assert np.isnan(z[bad]).all()
        np.testing.assert_array_equal(z[~bad], expected[~bad])


def designs(k: int, q: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = np.ones((k, q))
    x[:, 1:] = rng.standard_normal((k, q - 1)) * 10.0 ** rng.integers(-2, 3, q - 1)
    x[:, 1:] -= x[:, 1:].mean(axis=0)
    return x, np.eye(q)[-1]


@pytest.mark.parametrize("tau2", ["dl", "reml"])
@pytest.mark.parametrize(("k", "q", "m"), [(11, 1, 5), (11, 2, 20), (50, 3, 3), (135, 8, 2)])
def test_general_design_is_the_twin(
    rng: np.random.Generator, k: int, q: int, m: int, tau2: str
) -> None:
    data = inputs(rng, k, m, 3, 37)
    x, h = designs(k, q, rng)
    twin = permuted_z(*data, design=x, contrast=h, tau2=tau2)
    first = run_z(*data, 1, x, h, tau2)
    assert error(first, twin) < Z_ERROR
    for block in BLOCKS[1:]:
        np.testing.assert_array_equal(run_z(*data, block, x, h, tau2), first)


def test_general_design_of_whole_studies_in_double(rng: np.random.Generator) -> None:
    _, share, effects, terms = inputs(rng, 20, 4, 5, 30)
    x, h = designs(20, 2, rng)
    share = np.sign(share).astype(np.float32)
    twin = permuted_z(None, share, effects, terms, design=x, contrast=h, tau2="reml")
    z = run_z(None, share, effects, terms, 32, x, h, "reml", REAL="double")
    assert error(z, twin) < Z_ERROR


def test_general_design_keeps_nan(rng: np.random.Generator) -> None:
    sums, share, effects, terms = inputs(rng, 11, 2, 2, 20)
    effects[1, 4, 5] = np.nan
    for tau2 in ("dl", "reml"):
        z = run_z(sums, share, effects, terms, 32, np.ones((11, 1)), np.ones(1), tau2)
        assert np.isnan(z[:, 5]).all()
        assert np.isfinite(np.delete(z, 5, axis=1)).all()
