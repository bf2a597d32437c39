"""Reported statistics to t at a study's own degrees of freedom, and Hedges' correction.

Every kind of statistic is one entry of `KINDS`.

References
----------
.. [1] Hedges (1981) Journal of Educational Statistics 6:107-128.
.. [2] Rosenthal R (1994) Parametric measures of effect size. In: The Handbook of Research
   Synthesis, pp. 231-244 (t from r, F, p and d).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from gpu_sdm.errors import SettingError

FAR_Z = 20.0  # beyond it the t distribution is inverted in logs
FAR_LOG_P = float(special.log_ndtr(-FAR_Z))


class Sample(NamedTuple):
    """What a conversion needs to know of a study."""

    df: float
    j: float  # Hedges' correction
    unit: float  # Cohen d of t = 1, sqrt(1/n1) or sqrt(1/n1 + 1/n2)


class Kind(NamedTuple):
    """A kind of statistic: its signed values to t (NaN outside the domain)."""

    title: str
    domain: str
    signed: bool  # whether a positive value says that the effect is positive
    to_t: Callable[[np.ndarray, Sample], np.ndarray]


def hedges_j(df: np.ndarray | float) -> np.ndarray:
    """Small-sample correction of Hedges g.

    Parameters
    ----------
    df : array or float
        Degrees of freedom, above 1.

    Returns
    -------
    array like `df`

    Notes
    -----
    Exact, Gamma(df/2) / (sqrt(df/2) Gamma((df-1)/2)); not 1 - 3/(4 df - 1), which is off by
    0.4 % at df = 4.
    """
    half = np.asarray(df, np.float64) / 2
    return np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half)


def sample(n1: int, n2: int = 0) -> Sample:
    """Constants of a study of `n1` (and `n2`) subjects."""
    df = n1 + n2 - 2 if n2 else n1 - 1
    return Sample(df, float(hedges_j(df)), float(np.sqrt(1 / n1 + (1 / n2 if n2 else 0.0))))


def t_of_z(z: np.ndarray, df: float) -> np.ndarray:
    """Give the t of the same p value as z.

    Parameters
    ----------
    z : array
        Signed z; NaN stays NaN.
    df : float
        Degrees of freedom of t.

    Returns
    -------
    array like `z`, float64

    Notes
    -----
    Finite wherever t is: beyond |z| = 20 the tail is inverted in logs (`t_of_log_p`), so that p
    below 1e-308 is no limit.

    Examples
    --------
    >>> [f"{t:.5g}" for t in t_of_z(np.array([1.959963984540054, -38.0]), 30)]
    ['2.0423', '-1.6539e+11']
    """
    z = np.asarray(z, np.float64)
    size = np.abs(z)
    t = -special.stdtrit(df, special.ndtr(-np.minimum(size, FAR_Z)))
    far = size > FAR_Z
    if far.any():
        t[far] = _far_t(special.log_ndtr(-size[far]), df)
    signed: np.ndarray = np.copysign(t, z)
    return signed


def t_of_log_p(log_p: np.ndarray, df: float) -> np.ndarray:
    """Give the t whose upper tail has the natural logarithm `log_p` (at most log 1/2)."""
    log_p = np.asarray(log_p, np.float64)
    t = -special.stdtrit(df, np.exp(np.maximum(log_p, FAR_LOG_P)))
    far = log_p < FAR_LOG_P
    if far.any():
        t[far] = _far_t(log_p[far], df)
    size: np.ndarray = np.abs(t)
    return size


def _far_t(log_p: np.ndarray, df: float) -> np.ndarray:
    """Invert far upper tails: an incomplete beta function in x = df / (df + t^2), in log x."""
    a = df / 2
    wanted = log_p + np.log(2 * a) + special.betaln(a, 0.5)
    log_x = np.minimum(wanted / a, -1e-12)
    for _ in range(30):  # contracts by 2 / t^2
        x = np.exp(log_x)
        series = np.log(special.hyp2f1(a + 0.5, 1, a + 1, x))
        log_x = np.minimum((wanted - 0.5 * np.log1p(-x) - series) / a, -1e-12)
    with np.errstate(over="ignore"):
        t: np.ndarray = np.sqrt(df * -np.expm1(log_x)) * np.exp(-log_x / 2)
    return t


def _t_of_p(p: np.ndarray, df: float, sides: int) -> np.ndarray:
    with np.errstate(divide="ignore"):
        log_p = np.log(np.abs(p)) - np.log(sides)
    possible = (p != 0) & (np.abs(p) <= sides / 2)
    size = np.full(p.shape, np.nan)
    size[possible] = t_of_log_p(log_p[possible], df)
    signed: np.ndarray = np.copysign(size, p)
    return signed


def _t_of_r(r: np.ndarray, df: float) -> np.ndarray:
    possible = np.abs(r) < 1
    rest = np.where(possible, (1 - r) * (1 + r), 1.0)
    return np.where(possible, r * np.sqrt(df / rest), np.nan)


KINDS: dict[str, Kind] = {
    "t": Kind("t", "a number", True, lambda v, _: v),
    "z": Kind("z", "a number", True, lambda v, s: t_of_z(v, s.df)),
    "p_one_sided": Kind(
        "one-sided p", "above 0 and at most 0.5", False, lambda v, s: _t_of_p(v, s.df, 1)
    ),
    "p_two_sided": Kind(
        "two-sided p", "above 0 and at most 1", False, lambda v, s: _t_of_p(v, s.df, 2)
    ),
    "r": Kind("correlation", "between -1 and 1", True, lambda v, s: _t_of_r(v, s.df)),
    "f": Kind("F(1, df)", "a number", False, lambda v, _: np.copysign(np.sqrt(np.abs(v)), v)),
    "d": Kind("Cohen d", "a number", True, lambda v, s: v / s.unit),
    "g": Kind("Hedges g", "a number", True, lambda v, s: v / (s.j * s.unit)),
}


def to_t(values: np.ndarray, kind: str, n1: int, n2: int = 0) -> np.ndarray:
    """Convert statistics to t at the study's degrees of freedom.

    Parameters
    ----------
    values : (n,) array
        Statistics. A p or F with a minus is one of a negative effect.
    kind : str
        A key of `KINDS`: "t", "z", "p_one_sided", "p_two_sided", "r", "f" (1 and df degrees of
        freedom), "d" or "g".
    n1, n2 : int
        Group sizes; n2 = 0 for one sample. df is n1 - 1, or n1 + n2 - 2.

    Returns
    -------
    (n,) float64
        Signed t; NaN where a value is outside the kind's domain (`KINDS[kind].domain`).

    Raises
    ------
    SettingError
        If the kind is unknown.

    Notes
    -----
    z and p keep their tail probability, found in logs where it is below that of z = 20; r is
    t / sqrt(t^2 + df), F is t^2, d is t sqrt(1/n1 + 1/n2) (t / sqrt(n1) for one sample), g is J d.

    Examples
    --------
    >>> to_t(np.array([0.001, -0.001]), "p_one_sided", 21).round(4).tolist()
    [3.5518, -3.5518]
    """
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise SettingError(f"the statistic is {kind!r}; it must be one of: {known}.")
    return KINDS[kind].to_t(np.asarray(values, np.float64), sample(n1, n2))
