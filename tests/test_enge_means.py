"""From SDM-PSI's own bounds of enge2021 to the maps of its mean model.

The default finds the optimum of the likelihood, `compat` searches as the original does. Left out of
a score of the default, by a rule that sees the inputs alone: voxels where the original's search
ends more than 0.1 away from the optimum. Scores with them are printed beside. Measured once over
the whole brain, with smoothing (docs/fidelity.md):

=======================================  =====  ======  =====  =====  =====
voxels                                   g r    g bias  tau2   I2     z
=======================================  =====  ======  =====  =====  =====
default, all 193,768                     .9774  -.0031  .9864  .9856  .9501
default, without the 1.8 % left out      .9859  -.0045  .9902  .9873  .9644
without their 26 neighbours too (10.7)   .9895  -.0062  .9919  .9894  .9763
compat, all 193,768                      .9960  +.0020  .9957  .9937  .9890
=======================================  =====  ======  =====  =====  =====

Slab and random voxels here were drawn by a seed after the rule was fixed. With every voxel the
published bar of g r >= .98 is NOT reached by the default in either (.958 and .974).
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from reference_data import hedges

from gpu_sdm.config import SEARCHES, Settings
from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.io import read
from gpu_sdm.io.volumes import load_space
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.fit_mean_sdm import FIT_MEAN_SDM
from gpu_sdm.ops.impute import IMPUTE
from gpu_sdm.ops.pool import POOL
from gpu_sdm.rng import stream_key
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import study_bounds
from gpu_sdm.stages.estimate import default_discards, estimate
from gpu_sdm.stages.impute import impute
from gpu_sdm.stages.meta import meta
from gpu_sdm.templates import default_template

MAPS = {"g": "g", "tau2": "tau2", "i2": "h_i2", "z": "z"}
# Slab and voxels were drawn by this seed after the rule above was fixed, and scored once.
SEED = 20261122
START = int(np.random.default_rng(SEED).integers(8, 75))
SLAB = slice(START, START + 10)
FAILURE = 0.1
X, ONE = np.ones((50, 1)), np.ones(1)


@pytest.fixture(scope="module")
def enge(enge2021):
    """Slab and random positions of the mask, bounds and SDM-PSI's maps there."""

    def volume(name):
        return np.asarray(nib.load(enge2021 / name).dataobj, np.float32)

    rows = [r.split("\t") for r in (enge2021 / "project/sdm_table.txt").read_text().splitlines()]
    names = [r[0] for r in rows[1:]]
    mask = (volume("sdm_mask.nii.gz") > 0) & (volume("mod1/mod1_g.nii.gz") != 0)
    in_slab = np.zeros_like(mask)
    in_slab[:, :, SLAB] = True
    slab = np.flatnonzero((mask & in_slab).ravel(order="F"))
    everywhere = np.flatnonzero(mask.ravel(order="F"))
    some = np.sort(np.random.default_rng(SEED).choice(everywhere, 5000, replace=False))
    at = np.concatenate([slab, some])
    cut = len(slab)

    def read(name):
        return volume(name).ravel(order="F")[at]

    lower, upper = (
        np.stack([read(f"pp/{name}_{side}.nii.gz") for name in names])
        for side in ("lower", "upper")
    )
    real = {ours: read(f"mod1/mod1_{name}.nii.gz").astype(float) for ours, name in MAPS.items()}
    n = np.array([float(r[1]) for r in rows[1:]])
    j, c, v2, _ = hedges(n)
    return {
        "names": names,
        "terms": StudyTerms(j, c, v2, n, np.zeros(50)),
        "space": Space(2, mask & in_slab),
        "slab": (lower[:, :cut], upper[:, :cut], {k: v[:cut] for k, v in real.items()}),
        "some": (lower[:, cut:], upper[:, cut:], {k: v[cut:] for k, v in real.items()}),
        "index": some.astype(np.int32),
    }  # fmt: skip


def score(title, ours, real, keep=slice(None)):
    """Correlation and bias of each map, printed."""
    out = {
        k: (np.corrcoef(getattr(ours, k)[keep], real[k][keep])[0, 1],
            (getattr(ours, k)[keep] - real[k][keep]).mean())
        for k in MAPS
    }  # fmt: skip
    print(f"\n{title}: " + ", ".join(f"{k} r {r:.4f} bias {b:+.4f}" for k, (r, b) in out.items()))
    return out


def assert_close(scores):
    assert scores["g"][0] >= 0.98
    assert abs(scores["g"][1]) <= 0.01
    assert scores["tau2"][0] >= 0.98
    assert scores["i2"][0] >= 0.98
    assert scores["z"][0] >= 0.95


def search_ends(enge, lower, upper):
    """Mean (V,) at which SDM-PSI's own search ends."""
    terms = enge["terms"]
    return FIT_MEAN_SDM.cpu(lower, upper, terms.c, terms.v2, X, ONE, 3)[0][0]


def test_compat_searches_as_the_original_does(enge):
    """Every voxel of two slices counts; the published bar of the whole mask is g r >= .98."""
    z = enge["space"].mm()[:, 2]
    part = np.flatnonzero(z < z.min() + 4)
    lower, upper, real = enge["slab"]
    bounds, real = Bounds(lower[:, part], upper[:, part]), {k: v[part] for k, v in real.items()}
    terms = enge["terms"]
    kept = np.zeros(enge["space"].n_voxels, bool)
    kept[part] = True
    space = Space(2, enge["space"].embed(kept) > 0)
    found = {}
    for search in SEARCHES:
        fit = estimate(
            bounds, terms, X, ONE, default_discards(50), space, keep=False, search=search
        )
        effects, _ = impute(bounds, fit, terms, X, enge["names"], Settings(), space)
        ours = meta(effects, terms, X, ONE, "dl", space)
        found[search] = score(f"{len(part)} voxels, search {search}", ours, real)
    assert found["sdm-6.21"]["g"][0] >= 0.98
    assert abs(found["sdm-6.21"]["g"][1]) <= 0.01
    assert found["sdm-6.21"]["z"][0] >= 0.97
    for name in MAPS:
        assert found["sdm-6.21"][name][0] > found["optimum"][name][0]


@pytest.mark.slow
def test_ten_slices_with_smoothing(enge):
    """All voxels of the slab, through the stages."""
    lower, upper, real = enge["slab"]
    bounds, terms, space = Bounds(lower, upper), enge["terms"], enge["space"]
    fit = estimate(bounds, terms, X, ONE, default_discards(50), space)
    assert fit.not_converged == 0
    effects, fallbacks = impute(bounds, fit, terms, X, enge["names"], Settings(), space)
    ours = meta(effects, terms, X, ONE, "dl", space)
    share = fallbacks / lower.size
    assert share < 0.06
    everywhere = score(f"slab of {lower.shape[1]}, fallbacks {share:.4f}", ours, real)
    assert everywhere["g"][0] >= 0.95
    assert everywhere["z"][0] >= 0.91
    plain = FIT_BOUNDS.cpu(lower, upper, terms.c, terms.v2, X, ONE, 3)[0][0]
    stuck = np.abs(search_ends(enge, lower, upper) - plain) > FAILURE
    # Smoothing carries a failure to the face neighbours.
    beside = space.neighbours()
    touched = stuck | (stuck[beside] & (beside >= 0)).any(axis=1)
    assert_close(score(f"slab without {touched.mean():.4f}", ours, real, ~touched))


def unsmoothed(enge, lower, upper):
    """Coefficients and pooled maps of the random voxels from some bounds."""
    terms = enge["terms"]
    beta, tau2, _, converged = FIT_BOUNDS.cpu(lower, upper, terms.c, terms.v2, X, ONE, 3)
    assert converged.all()
    keys = np.array([stream_key(0, "impute", s) for s in enge["names"]], np.uint32)
    effects, _ = IMPUTE.cpu(
        lower, upper, np.repeat(beta, 50, 0), tau2, terms.c, terms.v2, keys, enge["index"], 0, 50,
        "sdm",
    )  # fmt: skip
    return beta[0], POOL.cpu(effects, terms.c, terms.v2, X, ONE)


def failures(enge, beta):
    """Random voxels to leave out, told from SDM-PSI's own bounds alone."""
    lower, upper, _ = enge["some"]
    return np.abs(search_ends(enge, lower, upper) - beta) > FAILURE


def test_random_voxels_without_smoothing(enge):
    lower, upper, real = enge["some"]
    beta, ours = unsmoothed(enge, lower, upper)
    everywhere = score("5,000 voxels", ours, real)
    assert everywhere["g"][0] >= 0.97
    assert everywhere["z"][0] >= 0.935
    keep = ~failures(enge, beta)
    assert (~keep).mean() < 0.035
    assert_close(score(f"without {(~keep).mean():.4f} of them", ours, real, keep))


def test_random_voxels_from_the_peaks(enge, enge2021):
    """The whole chain with the built-in template; bar of g: r >= .92 where nothing failed."""
    settings = Settings(compat="sdm-6.21", mask=enge2021 / "sdm_mask.nii.gz")
    dataset = read(enge2021 / "project", compat=True)
    space = load_space(settings)
    bounds, _, _ = study_bounds(dataset, space, default_template(2), settings)
    at = np.searchsorted(space.index, enge["index"])
    assert np.array_equal(space.index[at], enge["index"])
    lower, upper, real = enge["some"]
    _, ours = unsmoothed(enge, bounds.lower[:, at], bounds.upper[:, at])
    keep = ~failures(enge, unsmoothed(enge, lower, upper)[0])
    assert score("from the peaks", ours, real)["g"][0] >= 0.91
    close = score(f"from the peaks, without {(~keep).mean():.4f}", ours, real, keep)
    assert close["g"][0] >= 0.92
    assert abs(close["g"][1]) <= 0.01
