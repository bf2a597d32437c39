"""Reading on after an error, for `gpu-sdm check`.

A reader that is given a ledger notes there what it would have raised, and leaves out what the
error spoils.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gpu_sdm.data import Study
from gpu_sdm.errors import InputError, TooFewStudies


@dataclass(slots=True)
class Ledger:
    """What a reader would have stopped at, and studies that it read but cannot use."""

    errors: list[InputError] = field(default_factory=list)
    unused: list[Study] = field(default_factory=list)  # their t_threshold is NaN
    names: list[str] = field(default_factory=list)  # all studies, in the order of the input

    def errors_with(self, studies: int) -> list[InputError]:
        """Give the errors that stand once the unused studies are put back, which makes so many."""
        return [e for e in self.errors if studies < 2 or not isinstance(e, TooFewStudies)]


@contextmanager
def noted(ledger: Ledger | None) -> Iterator[None]:
    """Note an InputError of the block in the ledger and go on after it; without one, raise it."""
    try:
        yield
    except InputError as error:
        if ledger is None:
            raise
        ledger.errors.append(error)
