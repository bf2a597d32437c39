"""Stage 6: pooling and small cases against SDM-PSI (li2024), metansue and metafor."""

from __future__ import annotations

import sys

import numpy as np
from fidelity_data import ALL_DATA, HOME
from fidelity_ledger import Bar, Ledger

sys.path.append(str(HOME / "tests"))  # the tests hold the same numbers
from reference_data import (
    N1,
    hedges,
    li_extract,
    metafor_cases,
    metansue_bounds,
    metansue_complete,
)

from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.pool import POOL, random_effects, rubin

PRINTED = 5e-7  # half of the last of six digits
SLOPE = np.array([0, 1.0])


def near(ledger: Ledger, what: str, where: str, ours: float, theirs: float, off: float) -> None:
    """Enter a figure that must lie within `off` of theirs."""
    ledger.add(
        "pooling", what, ours, where, theirs, Bar(theirs - off, theirs + off, f"+- {off:.2g}")
    )


def li2024(ledger: Ledger) -> None:
    """135 studies x 50 of SDM-PSI's own imputations at one voxel."""
    y, v, n, x, result = li_extract(ALL_DATA / "li2024")
    _, c, v2, _ = hedges(n)
    pool = POOL.on("cpu")
    mean = pool(y[..., None], c, v2, x, np.array([1.0, 0]))
    slope = pool(y[..., None], c, v2, x, SLOPE)
    where = "li2024, 135 x 50"
    g, variance, z = (float(cell) for cell in result["Hedges' g"][:3])
    near(ledger, "g at the mean covariate", where, mean.g[0], float(result["0"][0]), PRINTED)
    near(ledger, "slope", where, slope.g[0], g, PRINTED)
    near(ledger, "its variance", where, slope.se[0] ** 2, variance, PRINTED)
    near(ledger, "tau2", where, slope.tau2[0], 0.000230, PRINTED)
    # What is printed to six digits went in; these magnify its rounding.
    near(ledger, "z", where, slope.z[0], z, 3e-5)
    near(ledger, "Q", where, slope.q[0], 98.642357, 98.642357e-4)
    fits = [
        random_effects(a[:, None], b[:, None], x, SLOPE, "dl") for a, b in zip(y, v, strict=True)
    ]
    printed = rubin(np.stack(fits, axis=1), 133)
    near(ledger, "I2, percent", where, printed.i2[0], 0.553438, 1.6e-5)
    near(ledger, "H2", where, printed.h2[0], 1.005565, PRINTED)


def metansue(ledger: Ledger) -> None:
    """Complete and censored small cases of the R package."""
    path = ALL_DATA / "metansue_reference.txt"
    y, want = metansue_complete(path)
    _, c, v2, _ = hedges(N1)
    one = np.ones((10, 1))
    got = POOL.on("cpu")(y[None, :, None], c, v2, one, np.ones(1), "reml")
    for ours, theirs, scale in (("g", "coef", 1), ("se", "se", 1), ("tau2", "tau2", 1),
                                ("i2", "i2", 0.01), ("h2", "h2", 1), ("q", "Q", 1),
                                ("z", "z", 1)):  # fmt: skip
        value = want[theirs]
        near(ledger, f"{theirs}, complete", "metansue smc_complete",
             scale * getattr(got, ours)[0], value, 1e-5 * abs(value))  # fmt: skip
    for section in ("smc", "smd", "smc_complete"):
        lower, upper, c, v2, want = metansue_bounds(path, section)
        where = f"metansue {section}"
        fit = FIT_BOUNDS.on("cpu")
        # R's optimize stops at 1.2e-4: the optimum of a censored likelihood is that far off.
        off = 1e-6 if section == "smc_complete" else 3e-5
        for name, discards in (("mu_no_discard", 0), ("mu", int(want["n_discard"][0]))):
            beta, tau2, dropped, _ = fit(lower, upper, c, v2, one, np.ones(1), discards)
            near(ledger, name, where, beta[0, 0], want[name][0], off)
        near(ledger, "tau2", where, tau2[0], want["tau2"][0], 1.22e-4)
        near(ledger, "study discarded", where, dropped[0, 0] + 1, want["discarded"][0], 0)


def metafor(ledger: Ledger) -> None:
    """Largest differences over metafor's DL and REML cases; REML with its rule to stop."""
    worst = dict.fromkeys(("estimate", "standard error", "tau2", "Q, relative", "I2"), 0.0)
    cases = 0
    for case, y, v, x in metafor_cases():
        cases += 1
        for j, contrast in enumerate(np.eye(x.shape[1])):
            estimate, variance, tau2, q, i2 = random_effects(
                y[:, None], v[:, None], x, contrast, case["method"].lower(), tol=1e-5
            )
            off = {
                "estimate": estimate[0] - case["beta"][j],
                "tau2": tau2[0] - case["tau2"],
                "Q, relative": q[0] / case["QE"] - 1,
                "I2": 100 * i2[0] - case["I2"],
            }
            if case["test"] == "z":  # Knapp and Hartung rescale the standard error
                off["standard error"] = variance[0] ** 0.5 / case["se"][j] - 1
            for name, value in off.items():
                worst[name] = max(worst[name], abs(float(value)))
    for name, value in worst.items():
        ledger.add(
            "pooling", f"largest error of {name}", value, f"metafor, {cases} cases",
            bar=Bar(high=1e-9),
        )  # fmt: skip


def run(ledger: Ledger) -> None:
    """All three."""
    li2024(ledger)
    metansue(ledger)
    metafor(ledger)
