"""The z map of each permutation of whole studies: Freedman and Lane's test of a moderator."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_sdm.data import StudyTerms
from gpu_sdm.ops._op import Op
from gpu_sdm.ops._study_permuted_z_cpu import study_statistic
from gpu_sdm.ops.pool import random_effects, weighted
from gpu_sdm.ops.wald import chi2_to_z, wald_chi2


def reduced_design(design: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, bool]:
    """Give the model in which the tested rows are 0.

    Parameters
    ----------
    design : (K, Q) float64
    rows : (R, Q) float64
        Linearly independent.

    Returns
    -------
    reduced : (K, Q - R) float64
        Orthonormal columns.
    plain : bool
        Whether it is a common mean and nothing else.
    """
    _, _, vt = np.linalg.svd(rows)
    q, _ = np.linalg.qr(design @ vt[len(rows) :].T)
    plain = q.shape[1] == 1 and bool(np.ptp(q) <= 1e-9 * np.abs(q).max())
    return q, plain


def study_permuted_z(
    orders: np.ndarray,
    effects: np.ndarray,
    terms: StudyTerms,
    *,
    design: np.ndarray,
    rows: np.ndarray,
    tau2: str = "dl",
    own_variance: bool = False,
) -> np.ndarray:
    """Compute the z map of each permutation of whole studies.

    Parameters
    ----------
    orders : (P, K) int
        Study k receives the residual of study ``orders[p, k]``.
    effects : (M, K, V) float32
        Imputed Hedges g.
    terms : StudyTerms
        Constants of the studies.
    design : (K, Q) float64
        Full model.
    rows : (R, Q) float64
        Tested combinations of coefficients; several are tested jointly.
    tau2 : {"dl", "reml"}
        Estimator of the between-study variance.
    own_variance : bool
        Where the reduced model is a common mean: an effect keeps the size of its own study,
        instead of taking that of the receiving one as in SDM-PSI.

    Returns
    -------
    (P, V) float32
        NaN where an input is NaN. Of several rows the z of the same p as the Wald statistic, at
        least 0.

    Notes
    -----
    Per imputation the reduced model (rows = 0) is fitted by random effects with its own tau2; its
    raw residuals are permuted, the same way in all imputations, and its fitted part added back:
    ``y*[k] = f[k] + r[s[k]]``, ``v*[k] = c[k] + v2[k] y*[k]^2``. Where the reduced model is a
    common mean that is ``y*[k] = y[s[k]]``. Effect and size belong together where effects are
    censored (what is known of a small study is large): with `own_variance` the rows of the
    design are what is permuted, which is exact where the moderator is independent of the data.

    References
    ----------
    .. [1] Freedman D, Lane D (1983) A nonstochastic interpretation of reported significance
       levels. J Bus Econ Stat 1:292-298.
    .. [2] Winkler AM et al. (2014) Permutation inference for the general linear model.
       NeuroImage 92:381-397.
    """
    c, v2 = terms.c[:, None], terms.v2[:, None]
    reduced, plain = reduced_design(design, rows)
    fitted, residual = [], []
    for one in effects:
        y = np.asarray(one, np.float64)
        f = np.zeros_like(y)
        if not plain:
            v = c + v2 * y * y
            t = random_effects(y, v, reduced, np.eye(reduced.shape[1])[0], tau2)[2]
            f = reduced @ weighted(1 / (v + t), y, reduced)[0].T
        fitted.append(f)
        residual.append(y - f)
    z = np.empty((len(orders), effects.shape[2]), np.float32)
    for p, order in enumerate(orders):
        estimates, covariances = [], []
        for f, r in zip(fitted, residual, strict=True):
            y = f + r[order]
            sizes = order if plain and own_variance else slice(None)
            v = c[sizes] + v2[sizes] * y * y
            t = random_effects(y, v, design, rows[0], tau2)[2]
            beta, cov, _ = weighted(1 / (v + t), y, design)
            estimates.append(beta @ rows.T)
            covariances.append(np.einsum("rp,vpq,sq->vrs", rows, cov, rows))
        z[p] = _z(np.array(estimates), np.array(covariances))
    return z


def _z(estimates: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    chi2, n_rows = wald_chi2(estimates, covariances), estimates.shape[2]
    if n_rows > 1:
        return chi2_to_z(chi2, n_rows)
    z: np.ndarray = np.sign(estimates.mean(axis=0)[:, 0]) * np.sqrt(chi2)
    return z


def _cpu(
    orders: np.ndarray,
    effects: np.ndarray,
    terms: StudyTerms,
    *,
    design: np.ndarray,
    rows: np.ndarray,
    tau2: str = "dl",
    own_variance: bool = False,
) -> np.ndarray:
    """Compiled version of `study_permuted_z`: one thread, releases the GIL."""
    reduced, plain = reduced_design(design, rows)
    # An orthonormal design tests the same, and rounding no longer depends on the units.
    basis, r = np.linalg.qr(np.asarray(design, np.float64))
    out = np.empty((len(orders), effects.shape[2]))
    study_statistic(
        np.ascontiguousarray(orders, np.int64),
        effects,
        np.stack([terms.c, terms.v2], axis=1).astype(np.float32),
        np.ascontiguousarray(basis, np.float32),
        np.ascontiguousarray(np.linalg.solve(r.T, rows.T).T, np.float32),
        np.ascontiguousarray(reduced, np.float32),
        plain,
        own_variance and plain,
        tau2 == "reml",
        out,
    )
    return (out if len(rows) == 1 else chi2_to_z(out, len(rows))).astype(np.float32)


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Nine studies, three imputations, six permutations; a slope beside a nuisance covariate."""
    n = rng.integers(8, 40, 9).astype(float)
    terms = StudyTerms(j=np.ones(9), c=1 / n, v2=0.5 / n, n1=n, n2=np.zeros(9))
    effects = 0.2 * rng.standard_normal((3, 9, 90)) + 0.4 * rng.standard_normal((9, 90))
    x = np.column_stack([np.ones(9), rng.standard_normal((9, 2))])
    orders = np.array([np.arange(9), *(rng.permutation(9) for _ in range(5))])
    rows = np.array([[0.0, 1.0, 0.0]])
    return (orders, effects.astype(np.float32), terms), {"design": x, "rows": rows}


STUDY_PERMUTED_Z = Op("study_permuted_z", study_permuted_z, _cpu, _sample, rtol=1e-5)
