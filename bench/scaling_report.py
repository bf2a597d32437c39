"""Renew the tables of docs/scaling.md from the newest bench/results/scaling-*.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from page import between, table

HOME = Path(__file__).parent
PAGE = HOME.parent / "docs" / "scaling.md"
# Studies, imputations, subjects, voxels, permutations of the plan on paper.
PLANS = [(20, 50, 600, 193_768, 10_000_000), (1000, 50, 20_000, 193_768, 10_000_000),
         (1000, 50, 20_000, 193_768, 1000)]  # fmt: skip


def spent(seconds: float) -> str:
    """Processor time in words."""
    for unit, name in ((86_400 * 365, "years"), (86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def of_model(model: dict[str, Any]) -> str:
    """Predicted against measured, fitted sizes first."""
    rows = [
        [*(f"{p[c]:,}" for c in ("studies", "imputations", "subjects", "voxels")),
         "fitted" if p["fitted"] else "predicted",
         f"{p['measured_s']:.3g}", f"{p['predicted_s']:.3g}", f"{p['ratio']:.2f}"]
        for p in model["points"]
    ]  # fmt: skip
    head = ["studies", "imputations", "subjects", "voxels", "model", "measured, core s",
            "model, core s", "ratio"]  # fmt: skip
    ns = ", ".join(f"{v:.3g} ns per {n.replace('_', '-')}" for n, v in model["ns_per"].items())
    return f"{table(head, rows)}\n\nThe fitted constants: {ns}."


def of_plans(model: dict[str, Any], tile: float | None) -> str:
    """Processor time of large runs, by the model and from the measured tile."""
    from scaling import cost

    weights = [1e-9 * v for v in model["ns_per"].values()]
    rows = []
    for k, m, n, v, p in PLANS:
        each = sum(a * b for a, b in zip(cost(k, m, n, v), weights, strict=True))
        rows.append([
            f"{k:,}", f"{m}", f"{p:,}", f"{4 * v * (m * k + n) / 1e9:.1f}", f"{each:.3g}",
            f"{tile:.3g}" if tile and k == 1000 else "-", spent(each * p),
            *(spent(each * p / c) if p >= 32 * c else "-" for c in (2, 1000)),
        ])  # fmt: skip
    head = ["studies", "imputations", "permutations", "effects and subjects, GB",
            "one permutation, core s", "measured from disk, core s", "in all, one core",
            "2 cores", "1,000 cores"]  # fmt: skip
    return table(head, rows)


def of_workers(rows: list[dict[str, Any]]) -> str:
    """List the ways to run."""
    lines = [
        [str(r["workers"] or "none"), f"after {r['killed_after']}" if r["killed_after"] else "-",
         f"{r['permutations']:,}", f"{r['permutations_s']:.1f}", f"`{r['null_sha256'][:12]}`"]
        for r in rows
    ]  # fmt: skip
    return table(["workers", "one killed", "permutations", "s", "sha256 of the null"], lines)


def of_huge(h: dict[str, Any]) -> str:
    """List what one tile from disk took."""
    rows = [
        ["effects and subject images on disk", f"{h['bytes_on_disk'] / 1e9:.1f} GB"],
        ["memory free at the start", f"{h['memory_free'] / 1e9:.1f} GB"],
        ["most memory of its own while the files were written",
         f"{h['memory_writing'] / 1e9:.1f} GB"],
        ["the same during the tile", f"{h['memory_tile'] / 1e9:.1f} GB"],
        ["32 permutations, processor seconds", f"{h['tile_cpu_s']:.0f}"],
        ["their maxima of z and TFCE, processor seconds", f"{h['maxima_cpu_s']:.1f}"],
        ["a block of 8,192 voxels again from memory",
         "the same bits" if h["same_bits_as_memory"] else "DIFFERENT"],
    ]  # fmt: skip
    size = f"{h['studies']:,} studies x {h['imputations']} imputations x {h['voxels']:,} voxels"
    return table([f"{size}, {h['subjects']:,} subjects", "measured"], rows)


def of_whole(w: dict[str, Any]) -> str:
    """Say what an analysis within a memory limit took."""
    return (
        f"All stages, within a limit: {w['studies']} studies x {w['imputations']} imputations x "
        f"{w['voxels']:,} voxels (3 mm), {w['subjects']:,} subjects, {w['permutations']} "
        f"permutations. In memory that takes {w['in_memory_bytes'] / 1e9:.1f} GB; with `--memory "
        f"{w['allowed_bytes'] / 1e9:g}` the process had at most {w['memory_peak'] / 1e9:.2f} GB of "
        f"its own, and {w['layout']['disk'] / 1e9:.1f} GB on disk; {w['cpu_s']:.0f} processor "
        f"seconds after the bounds, {w['voxels_not_converged']} voxels not converged."
    )


def main() -> int:
    """Write the page."""
    stored = json.loads(sorted((HOME / "results").glob("scaling-*.json"))[-1].read_text())
    huge, model = stored["huge"], stored["model"]
    tile = (huge["tile_cpu_s"] + huge["maxima_cpu_s"]) / 32
    parts = {
        "model": of_model(model), "plans": of_plans(model, tile),
        "workers": of_workers(stored["workers"]), "huge": of_huge(huge),
        "whole": of_whole(stored["whole"]),
    }  # fmt: skip
    text = PAGE.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = between(text, name, f"\n{part}\n")
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
