"""Constraints on settings, declared as data and rendered as mathematics in messages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpu_sdm.errors import SettingError


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers between `low` and `high`; `closed` says which ends belong to it."""

    low: float
    high: float
    integer: bool = False
    closed: str = "both"  # "both" | "left" | "right" | "neither"

    def __str__(self) -> str:
        left = "[" if self.closed in ("both", "left") else "("
        right = "]" if self.closed in ("both", "right") else ")"
        kind = " (whole numbers)" if self.integer else ""
        return f"{left}{self.low:g}, {self.high:g}{right}{kind}"

    def check(self, name: str, value: Any) -> None:
        """Raise SettingError unless `value` lies in the interval."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if (
            not number
            or not math.isfinite(value)
            or (self.integer and int(value) != value)
            or value < self.low
            or value > self.high
            or (value == self.low and self.closed in ("right", "neither"))
            or (value == self.high and self.closed in ("left", "neither"))
        ):
            raise SettingError(f"{name} is {value!r}; it must lie in {self}.")


@dataclass(frozen=True, slots=True)
class Options:
    """One of a few allowed values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join(str(v) for v in self.values)

    def check(self, name: str, value: Any) -> None:
        """Raise SettingError unless `value` is one of the allowed ones."""
        if value not in self.values:
            raise SettingError(f"{name} is {value!r}; it must be one of: {self}.")
