"""Behavioural characterisation: the terms of studies with a peak at a seed against the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from gpu_sdm.data import _freeze
from gpu_sdm.decode.coactivation import PRIOR, two_way
from gpu_sdm.decode.database import Database
from gpu_sdm.errors import SettingError
from gpu_sdm.inference import fdr_q

MIN_STUDIES = 100


@dataclass(frozen=True, eq=False)
class Terms:
    """Association of T terms with a seed, each (T,).

    Parameters
    ----------
    names : tuple of str
        The terms that were tested.
    studies, studies_seed : int
        Studies with the term, in the database and among those of the seed.
    z, p : float64
        Signed root of the two-way chi-square and its two-sided p.
    q : float64
        False discovery rate over the tested terms.
    p_exact : float64
        Fisher's exact p, two-sided (twice the smaller tail).
    posterior : float64
        Probability of the term given a peak at the seed, both equally likely before (0.5).
    r : float64
        Correlation over studies of "has a peak at the seed" with the value of the term.
    """

    names: tuple[str, ...]
    studies: np.ndarray
    studies_seed: np.ndarray
    z: np.ndarray
    p: np.ndarray
    q: np.ndarray
    p_exact: np.ndarray
    posterior: np.ndarray
    r: np.ndarray

    def __post_init__(self) -> None:
        _freeze(self.studies, self.studies_seed, self.z, self.p, self.q, self.p_exact)
        _freeze(self.posterior, self.r)

    def top(self, n: int) -> np.ndarray:
        """(at most n,) int: the terms of largest positive z, of equals the first by name."""
        order = np.lexsort((np.array(self.names), -self.z))[:n]
        return order[self.z[order] > 0]

    def row(self, i: int) -> dict[str, object]:
        """Columns of the table of terms."""
        return {
            "term": self.names[i],
            "z": float(self.z[i]),
            "p": float(self.p[i]),
            "q": float(self.q[i]),
            "p_exact": float(self.p_exact[i]),
            "posterior": float(self.posterior[i]),
            "r": float(self.r[i]),
            "studies_seed": int(self.studies_seed[i]),
            "studies": int(self.studies[i]),
        }


def usable_terms(
    database: Database, keep: np.ndarray, min_studies: int = MIN_STUDIES
) -> np.ndarray:
    """Positions of the terms that are tested.

    Parameters
    ----------
    database : Database
        K studies, T terms.
    keep : (T,) bool
        Those to look at.
    min_studies : int
        Terms of fewer studies are left out.

    Raises
    ------
    SettingError
        If none is left.
    """
    count = _has(database).sum(axis=0)
    n = np.asarray(count).ravel()
    found = np.flatnonzero(keep & (n >= min_studies) & (n < len(database.ids)))
    if not len(found):
        raise SettingError(
            f"none of the {int(keep.sum()):,} terms to look at is in at least {min_studies} of the "
            f"{len(database.ids):,} studies; lower --min-term-studies."
        )
    return found


def _has(database: Database) -> Any:
    """(K, T) sparse 1 where a study has a term."""
    return (database.values >= database.least).astype(np.int64)


def associate(database: Database, selected: np.ndarray, tested: np.ndarray) -> Terms:
    """Compare how often the studies of a seed and all others have each term.

    Parameters
    ----------
    database : Database
        K studies, T terms.
    selected : (K,) bool
        Studies of the seed.
    tested : (t,) int
        From `usable_terms`.

    Notes
    -----
    z, q and posterior are those of NiMARE's `NeurosynthDecoder` ("reverse", its p being our q),
    r that of its `ROIAssociationDecoder` for a region in which the seed's studies are 1 and all
    others 0. The chi-square is too small a p where few studies are expected: beside it stands
    Fisher's exact one.

    References
    ----------
    .. [1] Yarkoni T et al. (2011) Large-scale automated synthesis of human functional
       neuroimaging data. Nature Methods 8:665-670.
    """
    has = _has(database)[:, tested].tocsr()
    n = np.asarray(has.sum(axis=0)).ravel()
    a = np.asarray(has[selected].sum(axis=0)).ravel()
    size, n_seed = len(selected), int(selected.sum())
    z, p = two_way(a, n - a, n_seed, size - n_seed)
    with_term, without = a / n, (n_seed - a) / (size - n)
    both = PRIOR * with_term + (1 - PRIOR) * without
    posterior = np.divide(PRIOR * with_term, both, out=np.full(len(n), np.nan), where=both > 0)
    tails = (stats.hypergeom.sf(a - 1, size, n, n_seed), stats.hypergeom.cdf(a, size, n, n_seed))
    return Terms(
        tuple(database.terms[t] for t in tested),
        n,
        a,
        z,
        p,
        fdr_q(p),
        np.minimum(1, 2 * np.minimum(*tails)),
        posterior,
        _correlation(database, selected, tested),
    )


def _correlation(database: Database, selected: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """(t,) correlation over studies of a selection with the values of terms."""
    values = database.values[:, tested].tocsc()
    size = len(selected)
    mean = np.asarray(values.mean(axis=0)).ravel()
    square = np.asarray(values.multiply(values).sum(axis=0)).ravel() / size - mean**2
    share = selected.mean()
    cross = np.asarray(values.T @ selected.astype(np.float64)).ravel() / size - share * mean
    below = np.sqrt(np.maximum(square, 0) * share * (1 - share))
    r: np.ndarray = np.divide(cross, below, out=np.full(len(mean), np.nan), where=below > 0)
    return r
