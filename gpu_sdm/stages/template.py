"""Correlations of adjacent voxels over subjects, one subject at a time, and what they say."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gpu_sdm.templates import OFFSETS, Template, correlations, index_steps

# A standard deviation below this share of the first value is rounding, not variance.
FLAT = 1e-6

_COUNT = np.abs(OFFSETS).sum(axis=1)
DIRECTIONS = {
    "x faces": np.flatnonzero((_COUNT == 1) & (OFFSETS[:, 0] == 1)),
    "y faces": np.flatnonzero((_COUNT == 1) & (OFFSETS[:, 1] == 1)),
    "z faces": np.flatnonzero((_COUNT == 1) & (OFFSETS[:, 2] == 1)),
    "edges": np.flatnonzero(_COUNT == 2),
    "corners": np.flatnonzero(_COUNT == 3),
}


class AdjacentMoments:
    """Running moments of every pair of adjacent voxels, in float64.

    Parameters
    ----------
    shape : tuple of int
        (X, Y, Z) of the block of voxels that is looked at.

    Attributes
    ----------
    images : int
        Maps added so far.
    coverage : (X, Y, Z) int32
        Maps with data at each voxel.

    Notes
    -----
    Sums are of the values less the first one seen at the voxel, so that a large mean costs no
    digits. A pair counts the subjects with data at both its voxels. Memory, 610 bytes per voxel,
    does not grow with the number of maps.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.images = 0
        self.coverage = np.zeros(shape, np.int32)
        self._first = np.full(shape, np.nan)
        pairs = (len(OFFSETS), *shape)
        self._n = np.zeros(pairs, np.int32)
        self._u, self._v, self._uu, self._vv, self._uv = (np.zeros(pairs) for _ in range(5))
        self._own, self._square = np.zeros(shape), np.zeros(shape)

    def add(self, values: np.ndarray) -> None:
        """Take in one subject's map, (X, Y, Z) float64 with NaN where it has no data."""
        there = np.isfinite(values)
        new = there & np.isnan(self._first)
        self._first[new] = values[new]
        d = np.where(there, values - self._first, 0)
        square = d * d
        self._own += d
        self._square += square
        self.coverage += there
        self.images += 1
        for column, (here, ahead) in enumerate(_ENDS):
            a, b, in_a, in_b = d[here], d[ahead], there[here], there[ahead]
            self._n[column][here] += in_a & in_b
            self._u[column][here] += a * in_b
            self._v[column][here] += b * in_a
            self._uu[column][here] += square[here] * in_b
            self._vv[column][here] += square[ahead] * in_a
            self._uv[column][here] += a * b

    def _spread(
        self, n: np.ndarray, total: np.ndarray, square: np.ndarray, first: np.ndarray
    ) -> np.ndarray:
        """Sum of squares about the mean; 0 where it is no more than rounding."""
        about = square - total**2 / np.maximum(n, 1)
        return np.where(about > n * (FLAT * first) ** 2, about, 0)

    def varies(self) -> np.ndarray:
        """(X, Y, Z) bool voxels whose values differ between maps."""
        return self._spread(self.coverage, self._own, self._square, self._first) > 0

    def correlations(self, least: int) -> np.ndarray:
        """Pearson correlation of each voxel with its neighbours over the subjects.

        Parameters
        ----------
        least : int
            Subjects with data at both voxels that a pair must have.

        Returns
        -------
        (X, Y, Z, 13) float64
            In the order of `OFFSETS`; NaN where a pair has fewer subjects or no variance, or
            leads out of the block.
        """
        r = np.full((*self.coverage.shape, len(OFFSETS)), np.nan)
        for column, (here, ahead) in enumerate(_ENDS):
            n = self._n[column][here]
            u, v = self._u[column][here], self._v[column][here]
            su = self._spread(n, u, self._uu[column][here], self._first[here])
            sv = self._spread(n, v, self._vv[column][here], self._first[ahead])
            both = self._uv[column][here] - u * v / np.maximum(n, 1)
            fine = (n >= least) & (su > 0) & (sv > 0)
            value = np.divide(both, np.sqrt(su * sv), out=np.full(n.shape, np.nan), where=fine)
            r[..., column][here] = np.clip(value, -1, 1)
        return r


def _ends(offset: np.ndarray) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the voxels that have a neighbour at an offset, and of those neighbours."""
    here = tuple(slice(max(0, -d), min(0, -d) or None) for d in offset.tolist())
    ahead = tuple(slice(max(0, d), min(0, d) or None) for d in offset.tolist())
    return here, ahead


_ENDS = [_ends(offset) for offset in OFFSETS]


def direction_rows(template: Template, inside: np.ndarray | None = None) -> list[dict[str, object]]:
    """Describe the links of a template by direction.

    Parameters
    ----------
    template : Template
        Any.
    inside : (X, Y, Z) bool, optional
        Count only links between two of these voxels.

    Returns
    -------
    list of dict
        direction, links, r (mean), r_5, r_95 (percentiles), step_mm (real), virtual_mm (mean
        cost), virtual_per_mm; figures None where a direction has no link.
    """
    rows: list[dict[str, object]] = []
    steps = index_steps(template.shape)
    allowed = None if inside is None else inside.ravel(order="F")
    for name, columns in DIRECTIONS.items():
        costs = []
        for column in columns:
            linked = np.isfinite(template.costs[:, column])
            if allowed is not None:
                linked &= allowed & np.roll(allowed, -steps[column])
            costs.append(template.costs[linked, column])
        all_costs = np.concatenate(costs).astype(np.float64)
        step = float(template.voxel_size * np.sqrt(_COUNT[columns[0]]))
        row: dict[str, object] = {"direction": name, "links": len(all_costs)}
        figures = dict.fromkeys(("r", "r_5", "r_95", "step_mm", "virtual_mm", "virtual_per_mm"))
        if len(all_costs):
            r = correlations(all_costs).astype(np.float64)
            low, high = np.percentile(r, [5, 95])
            cost = all_costs.mean()
            found = (r.mean(), low, high, step, cost, cost / step)
            figures = dict(zip(figures, map(float, found), strict=True))
        rows.append(row | figures)
    return rows


def shape_of_domain(template: Template, inside: np.ndarray) -> dict[str, float | int]:
    """Say how much a template covers, and whether it hangs together.

    Parameters
    ----------
    template : Template
        Any.
    inside : (X, Y, Z) bool
        The analysis mask.

    Returns
    -------
    dict
        domain_voxels; share_of_grid; share_of_mask (of `inside`, in the domain);
        share_of_links (of the links that the domain could have); pieces; largest_piece (share
        of the domain).
    """
    domain = template.domain
    from_, column = np.nonzero(np.isfinite(template.costs))
    steps = index_steps(template.shape)
    possible = sum(int((domain & np.roll(domain, -step)).sum()) for step in steps)
    number = np.cumsum(domain) - 1
    ends = number[from_], number[from_ + steps[column]]
    n = int(domain.sum())
    links = sparse.coo_matrix((np.ones(len(from_), bool), ends), shape=(n, n))
    pieces, label = connected_components(links, directed=False)
    mask = inside.ravel(order="F")
    return {
        "domain_voxels": n,
        "share_of_grid": n / len(domain),
        "share_of_mask": float(domain[mask].mean()),
        "share_of_links": len(from_) / possible,
        "pieces": int(pieces),
        "largest_piece": float(np.bincount(label).max() / n),
    }
