"""Watch the null grow: how sure it is by now, and when a named peak is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.errors import SettingError
from gpu_sdm.inference import critical_value
from gpu_sdm.permute.maxima import TIE_TOLERANCE
from gpu_sdm.permute.null import NullState
from gpu_sdm.permute.sequential import StopRule
from gpu_sdm.spaces import voxel_at

if TYPE_CHECKING:
    from gpu_sdm.analysis import Analysis

NOTE_S = 0.5  # between two notes


def check_stop(analysis: Analysis) -> None:
    """Refuse a rule that cannot be kept, before any work.

    Raises
    ------
    SettingError
        If the peak lies outside the mask, or every distinct permutation is used once.
    """
    if (place := analysis.settings.stop_at) is None:
        return
    voxel_at(analysis.space, place)
    if analysis.exact:
        raise SettingError(
            f"all {analysis.permutations:,} distinct permutations are used once, in order, so "
            "none of them can be left out; leave out stop_at."
        )


def stop_rule(
    analysis: Analysis, observed: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> StopRule:
    """Make the rule of the settings, or one that never stops for the highest peak.

    Parameters
    ----------
    analysis : Analysis
        The settings and the mask.
    observed : dict of str to two (V,) arrays
        Each statistic of the observed map, positive and negative side.
    """
    settings, space = analysis.settings, analysis.space
    statistic = settings.stop_statistic
    if statistic is None:
        statistic = "tfce" if "tfce" in settings.statistic else settings.statistic[0]
    if settings.stop_at is None:
        side = int(observed[statistic][1].max() > observed[statistic][0].max())
        voxel, hits = int(np.argmax(observed[statistic][side])), 0
    else:
        voxel, hits = voxel_at(space, settings.stop_at), settings.stop_hits
        side = int(observed["voxel"][1][voxel] > 0)
    value = float(observed[statistic][side][voxel])
    tolerance = TIE_TOLERANCE.get(statistic, 0.0) * (1.0 if statistic == "voxel" else abs(value))
    x, y, z = (float(v) for v in space.mm(np.array([voxel]))[0])
    return StopRule((x, y, z), statistic, side, value, value - tolerance, hits)


def accuracy(rule: StopRule, state: NullState) -> str:
    """Say how high the threshold is by now, and p at the peak with its 95 % interval."""
    threshold = critical_value(state.maxima[rule.statistic][rule.side, : state.done], 0.05)
    (low, high), sign = rule.interval(state), "-" if rule.side else "+"
    place = " ".join(f"{v:g}" for v in rule.xyz_mm)
    return (
        f"{sign}{rule.statistic}: threshold {threshold:.4g} at FWE .05, p {rule.p(state):.4f} "
        f"({low:.4f} to {high:.4f}) at {place}"
    )


class Watched:
    """A rule that also tells how sure the null is, for `decide` of `permute`.

    Parameters
    ----------
    rule : StopRule
        When to stop.
    note : callable
        Called with `accuracy`, at most twice a second, and at the end.
    """

    def __init__(self, rule: StopRule, note: Callable[[str], None]):
        self._rule, self._note, self._told = rule, note, -np.inf

    def __call__(self, state: NullState) -> int | None:
        """Give how many permutations are enough, or None."""
        enough = self._rule.enough(state)
        last = enough is not None or state.done == state.maxima[self._rule.statistic].shape[1]
        if last or monotonic() - self._told > NOTE_S:
            self._told = monotonic()
            self._note(accuracy(self._rule, state if enough is None else state.first(enough)))
        return enough


def stopped(analysis: Analysis, rule: StopRule, state: NullState) -> dict[str, Any]:
    """Tell run.json what became of a rule; nothing where there was none."""
    if analysis.settings.stop_at is None:
        return {}
    return {"permutations": state.done, "sequential": rule.report(state, analysis.permutations)}
