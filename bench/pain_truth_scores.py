"""How well a map stands for the truth, and the tables of docs/image-truth.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fidelity_scores import agreement
from page import between, table
from scipy.stats import rankdata

from gpu_sdm.data import Pooled

DOC = Path(__file__).parents[1] / "docs" / "image-truth.md"
SIGNIFICANT = 3.0902  # z of a one-sided p of .001
TOP = 0.75  # quantile of |truth| above which a voxel is in its top quartile
Row = dict[str, Any]

SCORES = {
    "r": "r",
    "slope": "slope",
    "bias": "bias",
    "rmse": "rmse",
    "r_top": "r, top quartile",
    "slope_top": "slope, top quartile",
    "auc_pos": "AUC +",
    "auc_neg": "AUC -",
    "dice": "Dice",
}


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive voxel (bool) scores higher than another, ties counting half.

    NaN where all or none are positive.
    """
    n = int(positive.sum())
    if not 0 < n < len(positive):
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * (len(positive) - n)))


def dice_equal_size(ours: np.ndarray, theirs: np.ndarray, threshold: float = SIGNIFICANT) -> float:
    """Overlap of the voxels where `theirs` passes the threshold with as many of our most extreme.

    Both signs: the n largest of ours with the n above it, the m smallest with the m below its
    negative; NaN where no voxel passes.
    """
    overlap = total = 0
    for sign in (1, -1):
        passing = sign * theirs > threshold
        n = int(passing.sum())
        if n:
            best = np.argsort(-sign * ours, kind="stable")[:n]
            overlap += int(passing[best].sum())
            total += n
    return overlap / total if total else float("nan")


def score(ours: Pooled, truth: Pooled) -> dict[str, float]:
    """Compare g and z of an analysis with those of the images.

    Returns
    -------
    dict
        r, slope (of ours on the truth), bias and rmse of g over all voxels; r_top and slope_top,
        the same in the truth's top quartile of |g|; auc_pos and auc_neg of our z for the voxels
        where that of the truth is above 3.09 or below -3.09; dice at equal size.
    """
    everywhere = agreement(ours.g, truth.g)
    size = np.abs(truth.g)
    top = agreement(ours.g, truth.g, size >= np.quantile(size, TOP))
    return {
        **everywhere._asdict(),
        "r_top": top.r,
        "slope_top": top.slope,
        "auc_pos": auc(ours.z, truth.z > SIGNIFICANT),
        "auc_neg": auc(-ours.z, truth.z < -SIGNIFICANT),
        "dice": dice_equal_size(ours.z, truth.z),
    }


def mean_scores(rows: Iterable[Row]) -> dict[str, float]:
    """Mean of every score over rows; those without a value (stored as None) do not count."""
    rows = list(rows)
    return {name: _mean([row[name] for row in rows]) for name in SCORES}


def _mean(values: Sequence[float | None]) -> float:
    there = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.mean(there)) if there else float("nan")


def chosen(
    rows: Sequence[Row], default: str, eligible: Iterable[str], images: int = 0
) -> str | None:
    """Name the variant of least rmse among those that beat the default in both r and slope.

    Means over the rows of that many images; None where no variant does.
    """
    means = {
        name: mean_scores(r for r in rows if r["variant"] == name and r["images"] == images)
        for name in (default, *eligible)
    }
    base = means.pop(default)
    better = [n for n, m in means.items() if m["r"] > base["r"] and m["slope"] > base["slope"]]
    return min(better, key=lambda n: means[n]["rmse"], default=None)


def _figure(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _scores_table(groups: Mapping[tuple[str, ...], list[Row]], heads: Sequence[str]) -> str:
    shown = []
    for key, rows in groups.items():
        means = mean_scores(rows)
        shown.append((*key, str(len(rows)), *(_figure(means[name]) for name in SCORES)))
    return table((*heads, "splits", *SCORES.values()), shown)


def _grouped(rows: Sequence[Row], by: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(str(row[b]) for b in by), []).append(row)
    return found


def _paired(rows: Sequence[Row], default: str, winner: str | None) -> str:
    """Compare the winner with the default split by split."""
    if winner is None:
        return "No variant beat the default in r and slope on the even splits."
    lines = []
    for images in sorted({row["images"] for row in rows}):
        pair = [
            {r["split"]: r for r in rows if r["variant"] == name and r["images"] == images}
            for name in (default, winner)
        ]
        splits = sorted(pair[0].keys() & pair[1].keys())
        for name in ("r", "slope", "rmse", "auc_pos", "auc_neg", "dice"):
            change = [
                pair[1][s][name] - pair[0][s][name]
                for s in splits
                if pair[0][s][name] is not None and pair[1][s][name] is not None
            ]
            if change:
                better = sum((c < 0) if name == "rmse" else (c > 0) for c in change)
                low, high = min(change), max(change)
                lines.append(
                    (str(images), SCORES[name], f"{np.mean(change):+.3f}",
                     f"{low:+.3f} to {high:+.3f}", f"{better} of {len(change)}")
                )  # fmt: skip
    heads = ("images", "score", "mean change", "range", "splits better")
    return f"Winner on the even splits: **{winner}**.\n\n" + table(heads, lines)


def sections(content: Mapping[str, Any]) -> dict[str, str]:
    """Lay out every table of the document by the name of its markers."""
    splits, default, winner = content["splits"], content["default"], content["winner"]
    base = [row for row in splits if row["variant"] == default]
    even = [row for row in splits if row["variant"] != default or row["split"] % 2 == 0]
    tuning = [row for row in even if row["split"] % 2 == 0 and row["images"] == 0]
    held_out = [row for row in splits if row["split"] % 2 and row["variant"] in (default, winner)]
    held_out = [row for row in held_out if row["images"] < content["half"]]
    whole = content["whole"]
    on, seconds = content["machine"], content["seconds"]
    ran = (
        f"{on['date']}, commit {on['commit']}, {on['cores']} cores of {on['processor']}; "
        f"{seconds:,.0f} s. Halves: {content['voxels']:,} voxels of {content['voxel_size']} mm, "
        f"{content['imputations']} imputations; peaks per study "
        + "; ".join(f"{rule} {np.mean(n):.0f}" for rule, n in content["peaks"].items())
        + "."
    )
    why = [(row["what"], *(_figure(row[s]) for s in ("r", "slope", "bias"))) for row in
           content["why"]["maps"]]  # fmt: skip
    places = [
        (row["where"], f"{row['share']:.1%}", _figure(row["r"]), _figure(row["slope"]),
         f"{row['excluded']:.1%}") for row in content["why"]["places"]
    ]  # fmt: skip
    return {
        "run": ran,
        "halves": _scores_table(_grouped(base, ("images",)), ("images of 10",)),
        "whole": _scores_table(_grouped(whole, ("voxel_size", "variant")), ("mm", "variant")),
        "why": table(("map", "r", "slope", "bias"), why)
        + "\n\n"
        + table(("studies' voxels", "share", "r", "slope", "image outside its bounds"), places),
        "variants": _scores_table(_grouped(tuning, ("variant",)), ("variant",)),
        "held-out": _scores_table(_grouped(held_out, ("images", "variant")), ("images", "variant"))
        + "\n\n"
        + _paired(held_out, default, winner),
        "fine": _scores_table(_grouped(content["fine"], ("variant",)), ("variant",)),
    }


def write_report(content: Mapping[str, Any], doc: Path = DOC) -> Path:
    """Renew the tables of the page; its prose stays as it is."""
    text = doc.read_text(encoding="utf-8")
    for name, made in sections(content).items():
        text = between(text, name, made)
    doc.write_text(text, encoding="utf-8")
    return doc
