"""`gpu-sdm bias`: small-study effects and an excess of significant studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt


def bias(
    result: opt.Result,
    threshold: opt.Thresholds = None,
    at: opt.Points = None,
    mask: opt.Masks = None,
    regressor: Annotated[
        Literal["se", "inverse-root-n"],
        typer.Option(
            help="Egger's regressor: the standard error, or sqrt(1/n1 + 1/n2), which does not "
            "depend on the effect."
        ),
    ] = "se",
    significance: Annotated[
        float | None,
        typer.Option(
            min=1e-12,
            max=0.999,
            metavar="P",
            show_default="each study's own threshold",
            help="Two-sided p at which a study counts as significant.",
        ),
    ] = None,
    out: Annotated[Path | None, opt.out_option("bias")] = None,
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
) -> None:
    """Egger's test, funnel data and the excess of significant studies at clusters and peaks."""
    from gpu_sdm import terminal
    from gpu_sdm.findings import bias as findings
    from gpu_sdm.io.tables import new_folder, write_tsv

    _, effects = shared.effects_at(result, (backend, threads), threshold, at, mask)
    rows = findings.bias(effects, regressor, significance)
    funnel, doubts = findings.funnel(effects), findings.doubts(effects, rows)
    folder = new_folder(out or result / "bias")
    write_tsv(folder / "bias.tsv", list(rows[0]), rows)
    write_tsv(folder / "funnel.tsv", list(funnel[0]), funnel)
    columns = {
        "threshold<": shared.text("threshold"),
        "site<": shared.name,
        "MNI x y z": shared.place,
        "g": shared.number("g"),
        "Egger z": shared.number("egger_z"),
        "p": shared.number("egger_p", 4),
        "significant": shared.number("significant", 1),
        "expected": shared.number("expected"),
        "exact p": shared.number("excess_p_exact", 4),
        "chi2 p": shared.number("excess_p_chi2", 4),
        "label<": shared.text("label"),
    }
    notes = [
        f"Egger: {regressor}, REML in each imputation, Rubin, two-sided. Excess: exact p "
        "(Poisson-binomial, too many only) and chi2 (too many or too few), medians over "
        "imputations.",
    ]
    shared.show_table("bias", columns, rows, notes)
    for sentence in doubts:
        terminal.say(f"warning: {sentence}")
    shared.finish(folder, as_json, {"sites": rows, "funnel": funnel, "warnings": doubts})
