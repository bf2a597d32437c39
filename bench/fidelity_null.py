"""Stage 4: the null of SDM-PSI's real sign vectors; every seed's maxima are kept and continued."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fidelity_data import OUTPUT, enge, sdm_maxima, sdm_signs
from fidelity_ledger import Bar, Ledger, within

from gpu_sdm import cache
from gpu_sdm.analysis import CODE_VERSION as PIPELINE_VERSION
from gpu_sdm.analysis import Analysis, limited_threads, silent
from gpu_sdm.data import Pooled
from gpu_sdm.permute.checkpoint import load_null, save_null
from gpu_sdm.permute.engine import Problem, permute
from gpu_sdm.permute.null import NullState
from gpu_sdm.problem import build_problem

STATISTICS = ("voxel", "tfce")
LEVELS = (0.5, 0.9, 0.95, 0.99)
LAGS = {1: 0.78, 2: 0.63, 4: 0.41, 8: 0.17, 16: 0.03}  # of the z maps of the scan law (design)
FULL = 1000  # permutations of the original; the bars speak of these
BARS = {"voxel": within(4.389, 0.02), "tfce": within(7423, 0.05)}
NAMES = {"voxel": "max z", "tfce": "max TFCE"}


class StoredNull:
    """Maxima kept in a file between chunks and between runs."""

    def __init__(self, path: Path, permutations: int) -> None:
        self.path, self.permutations = path, permutations

    def load(self) -> NullState:
        """Give what an earlier run finished."""
        return load_null(self.path, STATISTICS, self.permutations)

    def save(self, state: NullState) -> None:
        """Keep what is finished."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_null(self.path, state)


def finished(path: Path) -> int:
    """Count the permutations that a file holds."""
    return load_null(path, STATISTICS, FULL).done


def replay(
    start: str, seed: int, permutations: int, imputations: int
) -> tuple[Analysis, Problem, Pooled, NullState]:
    """Run, or continue, the null of one seed with SDM-PSI's own sign vectors.

    Parameters
    ----------
    start : {"bounds", "peaks", "learned"}
        What the effects come from, as for `enge`.
    seed : int
        Of the imputations and of the subjects' noise.
    permutations : int
        At least so many, the identity included; more where more are stored.
    imputations : int
        M.
    """
    analysis = enge(start, permutations=FULL, imputations=imputations, seed=seed)
    backend = analysis.backend
    with limited_threads(backend):
        problem, pooled, _ = build_problem(analysis, silent, {})
        # The observed map depends on bounds, fit and imputations; noise on seed and version.
        key = cache.key("null 1", PIPELINE_VERSION, analysis.settings.noise, problem.observed_z)
        path = OUTPUT / "null" / f"{start}-m{imputations}-seed{seed}-{key[:12]}.npz"
        wanted = max(permutations, finished(path))
        begin, before = time.monotonic(), finished(path)

        told = {before}

        def say(done: int) -> None:
            if done not in told and (done % 96 == 0 or done == wanted):
                told.add(done)
                rate = (done - before) / (time.monotonic() - begin)
                print(f"null: {start}, seed {seed}: {done} of {wanted}, {rate:.2f}/s", flush=True)

        plan = sdm_signs([s.n1 for s in analysis.design.dataset.studies], wanted)
        null = permute(
            problem,
            plan,
            wanted,
            STATISTICS,
            backend,
            store=StoredNull(path, wanted),
            progress=say,
        )
    return analysis, problem, pooled, null


def record_null(
    ledger: Ledger, where: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray],
    bars: dict[str, Bar],
) -> None:  # fmt: skip
    """Enter means and quantiles of the maxima (2, P) of permutations 1.. beside theirs."""
    for side, name in enumerate(("max z", "max -z")):
        ledger.add("null", f"mean {name}", ours["voxel"][side].mean(), where,
                   theirs["voxel"][side].mean())  # fmt: skip
    for statistic in STATISTICS:
        for level in LEVELS:
            ledger.add(
                "null",
                f"{level:.0%} of {NAMES[statistic]}, both sides",
                np.quantile(ours[statistic], level),
                where,
                np.quantile(theirs[statistic], level),
                bars.get(statistic) if level == 0.95 else None,
            )
        for side, name in enumerate(("positive", "negative")):
            ledger.add(
                "null",
                f"95% of {NAMES[statistic]}, {name} side",
                np.quantile(ours[statistic][side], 0.95),
                where,
                np.quantile(theirs[statistic][side], 0.95),
            )


def run(ledger: Ledger, permutations: int, imputations: int, seeds: Sequence[int]) -> None:
    """Compare the nulls of some seeds, and their mean, with SDM-PSI's 999 permutations."""
    theirs = {name: values[:, 1:] for name, values in sdm_maxima().items()}
    found: list[dict[str, np.ndarray]] = []
    counts = []
    for seed in seeds:
        _, problem, _, null = replay("bounds", seed, permutations, imputations)
        ours = {name: values[:, 1:] for name, values in null.maxima.items()}
        counts.append(null.done)
        bars = BARS if null.done >= FULL else {}
        where = f"seed {seed}, {null.done} permutations"
        record_null(ledger, where, ours, theirs, bars)
        same = theirs["voxel"][0][: null.done - 1]
        ledger.add(
            "null", "r with the real max z", np.corrcoef(ours["voxel"][0], same)[0, 1], where
        )
        found.append(ours)
        if seed == seeds[0] and problem.bank is not None:
            profile = problem.bank.lag_profile(problem.space, tuple(LAGS))
            for lag, value in profile.items():
                ledger.add("null", f"correlation {lag} voxels apart", value, where, LAGS[lag])
            ledger.add("null", "share of infeasible voxels", problem.bank.infeasible, where, 0.026)
    if len(found) > 1:
        enough = min(counts) >= FULL and len(found) >= 3
        for statistic in STATISTICS:
            for level in LEVELS:
                ledger.add(
                    "null",
                    f"{level:.0%} of {NAMES[statistic]}, both sides",
                    float(np.mean([np.quantile(f[statistic], level) for f in found])),
                    f"mean of {len(found)} seeds",
                    np.quantile(theirs[statistic], level),
                    BARS[statistic] if level == 0.95 and enough else None,
                )
