"""What an op is: one heavy operation, its plain NumPy twin and its faster versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Op:
    """One heavy operation.

    Parameters
    ----------
    name : str
        What it does, a verb or a noun of the method.
    numpy : callable
        The plain twin: the oracle and the `numpy` backend. Carries the docstring.
    cpu : callable, optional
        The compiled version of the `cpu` backend; None uses the twin.
    sample : callable
        `sample(rng) -> (args, kwargs)`: small inputs for tests.
    rtol : float
        Stated agreement of the compiled version with the twin, relative to the largest value.
    """

    name: str
    numpy: Callable[..., Any]
    cpu: Callable[..., Any] | None
    sample: Callable[[np.random.Generator], tuple[tuple[Any, ...], dict[str, Any]]]
    rtol: float

    def on(self, backend: str) -> Callable[..., Any]:
        """Give the implementation for a backend name."""
        return self.numpy if backend == "numpy" or self.cpu is None else self.cpu
