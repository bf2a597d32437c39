"""How arrays enter compiled functions."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_only(array: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """Contiguous read-only view (or copy) of one type, so that a function is compiled once.

    Numba compiles anew for every combination of types, and a read-only array is a type of its own.
    """
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view
