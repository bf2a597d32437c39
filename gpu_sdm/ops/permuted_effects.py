"""Effects of one study under a permutation of its simulated subjects, in closed form.

Subject i of imputation m is `e_i + d` (patients; `d = g / J`), `e` the unit residuals. Whatever
the permutation, the mean of group 1 is `m1 = E + f d` with two numbers that no imputation
changes: `E`, the permuted mean of the residuals, and `f`, the mean sign (one sample) or the share
of true patients among those labelled patients. As the sum of all subjects and of their squares is
known, difference and variance are polynomials in m1 and d, with coefficients that depend on the
study alone:

    diff = a m1 + b d,      sd^2 = 1 + alpha d^2 + beta m1^2 + gamma d m1,
    g* = J diff / sd,       var(g*) = c + v2 g*^2.

Of a study that averages contrasts, the polynomial in sd^2 has a further factor
(`gpu_sdm.stages.samples`).
"""

from __future__ import annotations

import numpy as np

from gpu_sdm.data import StudyTerms

# Columns of the coefficient table; the compiled versions rely on this order.
COLUMNS = ("inverse_j", "j", "a", "b", "alpha", "beta", "gamma", "c", "v2_j2")

# Rounding can push the variance of a handful of identical subjects below 0.
SMALLEST_VARIANCE = 1e-6


def study_coefficients(
    terms: StudyTerms, rescale_sd: bool = True, whole_studies: bool = False
) -> np.ndarray:
    """Tabulate the constants of the permuted effect of each study.

    Parameters
    ----------
    terms : StudyTerms
        Constants of the K studies.
    rescale_sd : bool
        Re-estimate the subjects' standard deviation; False keeps 1 (SDM-PSI 6.21).
    whole_studies : bool
        The sign of the whole study flips, its subjects stay: g* = f g.

    Returns
    -------
    (K, 9) float64
        Columns as in `COLUMNS`.
    """
    n1, n2 = terms.n1, terms.n2
    table = np.zeros((len(n1), len(COLUMNS)))
    two = n2 > 0
    ratio = np.where(two, n1 / np.where(two, n2, 1), 0.0)
    df = np.where(two, n1 + n2 - 2, n1 - 1)
    table[:, 0], table[:, 1], table[:, 2] = 1 / terms.j, terms.j, 1.0
    if not whole_studies:
        # One sample is the same formula with ratio 0.
        table[:, 2], table[:, 3] = 1 + ratio, -ratio
        if rescale_sd:
            table[:, 4] = n1 * (1 - ratio) / df
            table[:, 5] = -n1 * (1 + ratio) / df
            table[:, 6] = 2 * n1 * ratio / df
            table[:, 4:7] *= terms.factor[:, None]
    table[:, 7], table[:, 8] = terms.c, terms.v2 * terms.j**2
    return table


def permuted_effects(
    sums: np.ndarray | None, share: np.ndarray, effects: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give the effects and variances of one permutation and imputation.

    Parameters
    ----------
    sums : (K, V) or None
        Permuted residual means E; None where whole studies are exchanged.
    share : (K,)
        f, see above.
    effects : (K, V)
        Imputed Hedges g.
    table : (K, 9) float64
        From `study_coefficients`.

    Returns
    -------
    effects, variances : (K, V) float64
    """
    inverse_j, j, a, b, alpha, beta, gamma, c, v2_j2 = np.asarray(table, float).T[:, :, None]
    d = effects.astype(np.float64) * inverse_j
    m1 = share.astype(np.float64)[:, None] * d
    if sums is not None:
        m1 = m1 + sums
    variance = 1 + alpha * d**2 + m1 * (beta * m1 + gamma * d)
    variance = np.where(variance < SMALLEST_VARIANCE, SMALLEST_VARIANCE, variance)
    unit = (a * m1 + b * d) / np.sqrt(variance)
    return j * unit, c + v2_j2 * unit**2
