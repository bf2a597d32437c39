from math import gamma, sqrt

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import nct

from gpu_sdm.data import Peaks, Study
from gpu_sdm.errors import SettingError
from gpu_sdm.io import read
from gpu_sdm.stages.effects import (
    effect_to_bound,
    hedges_g,
    hedges_j,
    peak_effects,
    study_terms,
)

NA = np.nan
T_ONE = np.array([3.4, NA, NA, NA, 3.2, 2.8, 2.1, 3.1, 2.0, 3.4])
N_ONE = np.array([40, 20, 22, 24, 18, 30, 25, 30, 16, 22])
T_TWO = np.array([4.8, 3.2, NA, NA, NA, 3.2, 2.0, 2.3, 2.7, 3.1])
N2_TWO = np.array([38, 20, 22, 25, 20, 28, 25, 30, 18, 23])
T_ALL = np.array([3.4, 1.0, 0.2, -0.5, 3.2, 2.8, 2.1, 3.1, 2.0, 3.4])
CASES = {"smc": (T_ONE, 0), "smd": (T_TWO, N2_TWO), "smc_complete": (T_ALL, 0)}
PRINTED = 1e-9  # metansue prints ten digits


def study(n1=20, n2=0, t=(), known=(), threshold=3.0, name="s"):
    n = len(t)
    peaks = Peaks(
        np.zeros((n, 3)), np.zeros((n, 3)), np.array(t, float), np.array(known, bool),
        np.arange(1, n + 1), "spm_mni", "s.spm_mni.txt",
    )  # fmt: skip
    return Study(name, n1, n2, threshold, peaks)


def printed(path, case):
    """Rows of numbers under one heading of metansue's output."""
    rows, on = {}, False
    for line in path.read_text().splitlines():
        if line.startswith("====="):
            on = line.split()[1] == case
        elif on and line.split()[0] in ("y", "var", "y_up", "J"):
            rows[line.split()[0]] = np.array(line.split()[1:], float)
    return rows


@pytest.mark.parametrize("case", CASES)
def test_metansue_effects_variances_and_bounds(metansue_reference, case):
    t, n2 = CASES[case]
    want = printed(metansue_reference, case)
    y, var = hedges_g(t, N_ONE, n2)
    known = ~np.isnan(t)
    assert np.isnan(y[~known]).all()
    assert np.isnan(var[~known]).all()
    np.testing.assert_allclose(y[known], want["y"][known], rtol=PRINTED)
    np.testing.assert_allclose(var[known], want["var"][known], rtol=PRINTED)
    # Where the effect is unknown metansue prints the variance of an effect of 0.
    zero = hedges_g(np.zeros(10), N_ONE, n2)[1]
    np.testing.assert_allclose(zero[~known], want["var"][~known], rtol=PRINTED)

    df = N_ONE - 1 if case != "smd" else N_ONE + n2 - 2
    np.testing.assert_allclose(hedges_j(df), want["J"], rtol=PRINTED)
    # metansue's default threshold is two-sided p = .05 of the study's t.
    from scipy.stats import t as student

    sizes = zip(N_ONE, np.broadcast_to(n2, 10), student.isf(0.025, df), strict=True)
    studies = [study(int(a), int(b), threshold=c) for a, b, c in sizes]
    np.testing.assert_allclose(effect_to_bound(studies), want["y_up"], rtol=PRINTED)


def test_j_is_the_exact_gamma_ratio():
    for df in (2, 3, 4, 7, 20, 57, 200):
        exact = gamma(df / 2) / (sqrt(df / 2) * gamma((df - 1) / 2))
        assert hedges_j(df) == pytest.approx(exact, rel=1e-13)
    assert 1 - 3 / (4 * 4 - 1) - hedges_j(4) > 1e-3  # not the usual approximation
    assert hedges_j(1e6) == pytest.approx(1 - 3 / (4e6 - 1), rel=1e-9)


@pytest.mark.parametrize(("n1", "n2"), [(12, 0), (9, 14)])
@pytest.mark.parametrize("delta", [0.0, 0.6])
def test_g_is_unbiased_under_the_noncentral_t(n1, n2, delta):
    df, c = (n1 - 1, 1 / n1) if n2 == 0 else (n1 + n2 - 2, 1 / n1 + 1 / n2)
    law = nct(df, delta / sqrt(c))
    mean_t, var_t = law.stats("mv")
    g, _ = hedges_g(np.array([mean_t]), n1, n2)
    assert g[0] == pytest.approx(delta, abs=1e-12)
    # E of the variance formula is the variance of g: it is unbiased too.
    j, v2 = study_terms([study(n1, n2)]).j[0], study_terms([study(n1, n2)]).v2[0]
    second = (j * sqrt(c)) ** 2 * (var_t + mean_t**2)
    assert c + v2 * second == pytest.approx((j * sqrt(c)) ** 2 * var_t, rel=1e-10)


def test_one_and_two_sample_studies_mixed():
    studies = [study(20), study(12, 15), study(4), study(2, 3)]
    terms = study_terms(studies)
    assert terms.n2.tolist() == [0, 15, 0, 3]
    np.testing.assert_allclose(terms.c, [1 / 20, 1 / 12 + 1 / 15, 1 / 4, 1 / 2 + 1 / 3])
    for k, s in enumerate(studies):
        g, var = hedges_g(2.5, s.n1, s.n2)
        assert s.df == {0: 19, 1: 25, 2: 3, 3: 3}[k]
        assert terms.j[k] == hedges_j(s.df)
        assert terms.c[k] + terms.v2[k] * g**2 == pytest.approx(var, rel=1e-15)
    assert not terms.j.flags.writeable


@pytest.mark.parametrize(("n1", "n2"), [(3, 0), (1, 9), (9, 1), (2, 2)])
def test_too_small_groups_are_refused(n1, n2):
    with pytest.raises(SettingError, match="group sizes are too small"):
        hedges_g(np.array([2.0]), n1, n2)


def test_peaks_of_unknown_height():
    s = study(20, t=[4.0, 3.0, -3.0], known=[True, False, False])
    g = peak_effects(s)
    bound = effect_to_bound([s])[0]
    assert g.tolist() == [hedges_g(4.0, 20)[0], bound, -bound]
    # SDM-PSI 6.21 takes the number of the threshold for g.
    assert peak_effects(s, compat=True).tolist() == [g[0], 3.0, -3.0]
    assert len(peak_effects(study())) == 0


NAMES = ("aylward2005", "backes2002", "booth2007", "gaillard2003", "kersey2016", "wu2016")


@pytest.mark.parametrize("kind", ["known", "sign only"])
def test_sdm_psi_own_bounds_at_its_peaks(enge2021, kind):
    dataset = read(enge2021 / "project", compat=True)
    checked = 0
    for s in (s for s in dataset.studies if s.name in NAMES):
        lower, upper = (
            nib.load(enge2021 / "pp" / f"{s.name}_{side}.nii.gz") for side in ("lower", "upper")
        )
        low, up = (np.asarray(image.dataobj, np.float64) for image in (lower, upper))
        mask = np.asarray(nib.load(enge2021 / "sdm_mask.nii.gz").dataobj) > 0
        xyz, g = s.peaks.xyz_mm, peak_effects(s, compat=True)
        voxels = np.linalg.solve(lower.affine, np.c_[xyz, np.ones(len(xyz))].T)[:3].T
        bound = effect_to_bound([s])[0]
        for i, voxel in enumerate(voxels):
            # At a voxel centre, and no second peak near enough to share the voxel.
            apart = np.linalg.norm(np.delete(xyz, i, 0) - xyz[i], axis=1)
            centred = np.abs(voxel - voxel.round()).max() < 1e-6
            at = tuple(voxel.round().astype(int))
            if not centred or not mask[at] or (len(apart) and apart.min() < 6):
                continue
            if s.peaks.known[i] != (kind == "known"):
                continue
            assert low[at] == pytest.approx(g[i], rel=1e-5)
            assert up[at] == pytest.approx(g[i], rel=1e-5)
            checked += 1
        # Where no peak reaches, the bounds are those of the threshold.
        assert up[mask].max() <= max(bound, np.abs(g).max()) + 1e-4
        assert np.isclose(up[mask], bound, rtol=1e-5).any()
        assert np.isclose(low[mask], -bound, rtol=1e-5).any()
    assert checked >= 3
