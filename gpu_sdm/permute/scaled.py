"""The constants of the permuted effects as the kernels want them: each study in a unit of its own.

With g and D = J diff of `gpu_sdm.ops.permuted_effects` the cross term of the variance vanishes,
whatever the design, and only one constant is left:

    D = J a E + (a f + b) g,      sd^2 = 1 + h (g^2 - D^2),      h = factor / J^2 times n / df,

n the subjects of one sample, n1 n2 / (n1 + n2) of two. Counted in units of 1 / sqrt(h) effects and
residual means need no constant at all, and y = u / sqrt(h), var(y) = (v2 / h) u^2 + c with u = D /
sd remain (kernels/permuted_effect.cuh).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_sdm.ops.permuted_effects import COLUMNS


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """Constants of K studies, float64.

    Parameters
    ----------
    effect : (K,)
        What an effect g is multiplied by: sqrt(h), or 1 where the standard deviation is not
        estimated again.
    residual : (K,)
        What a permuted mean of the residuals is multiplied by.
    slope, offset : (K,)
        a and b: f of a permutation becomes a f + b.
    table : (K, 3)
        s, t, c: y = s u, var(y) = t u^2 + c.
    rescale : bool
        Whether the subjects' standard deviation is estimated again.
    """

    effect: np.ndarray
    residual: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    table: np.ndarray
    rescale: bool

    @classmethod
    def of(cls, coefficients: np.ndarray) -> Scaled:
        """From the (K, 9) table of `study_coefficients`."""
        column = dict(zip(COLUMNS, np.asarray(coefficients, np.float64).T, strict=True))
        h = -column["beta"] * (column["inverse_j"] / column["a"]) ** 2
        rescale = bool((h > 0).any())
        unit = np.sqrt(h) if rescale else np.ones(len(h))
        v2 = column["v2_j2"] * column["inverse_j"] ** 2
        return cls(
            unit, unit * column["j"] * column["a"], column["a"], column["b"],
            np.stack([1 / unit, v2 / unit**2, column["c"]], axis=1), rescale,
        )  # fmt: skip

    def share(self, f: np.ndarray) -> np.ndarray:
        """Give a f + b of f (P, K) in rows of whole fours, float32: what the kernels read."""
        plain = f.astype(np.float64) * self.slope + self.offset
        rows = np.zeros((len(f), row_length(len(self.slope))), np.float32)
        rows[:, : plain.shape[1]] = plain
        return rows


def row_length(n_studies: int) -> int:
    """Floats of a row of shares: whole fours, which the kernels read at once."""
    return -(-n_studies // 4) * 4
