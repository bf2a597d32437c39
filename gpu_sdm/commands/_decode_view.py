"""What `gpu-sdm decode` shows of its findings: tables on stderr, radar charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpu_sdm.commands import _on_result as shared

if TYPE_CHECKING:
    from gpu_sdm.decode.decoded import Decoded

SHOWN = 8  # local maxima of each seed in the table


def charts(found: Decoded) -> dict[str, bytes]:
    """Draw the radar charts: file name -> content.

    Each seed with its own terms, and all seeds on the union of terms. A chart of fewer than
    three terms encloses nothing and is left out.
    """
    from gpu_sdm.figures.radar import LEAST_SPOKES, radar_of_terms
    from gpu_sdm.figures.save import as_bytes

    wanted = {
        f"radar_{f.seed.stem}": ([f], [f.terms.names[i] for i in f.terms.top(found.rules.terms)])
        for f in found.found
    }
    if len(found.found) > 1:
        wanted["radar_all"] = (found.found, list(found.spokes()))
    files: dict[str, bytes] = {}
    for name, (seeds, terms) in wanted.items():
        if len(terms) < LEAST_SPOKES:
            continue
        where = [found.found[0].terms.names.index(t) for t in terms]
        rows = {
            f.seed.title: [
                {"term": term, "z": float(f.terms.z[i]), "q": float(f.terms.q[i])}
                for term, i in zip(terms, where, strict=True)
            ]
            for f in seeds
        }
        figure = radar_of_terms(rows)
        files |= {f"{name}.{kind}": as_bytes(figure, kind) for kind in ("png", "svg")}
    return files


def show(found: Decoded) -> None:
    """Print seeds, the first peaks of their maps, overlap and terms on stderr."""
    rules, base = found.rules, found.database

    def seed(row: Mapping[str, Any]) -> str:
        return f"{row['seed']}: {row['x_mm']:g} {row['y_mm']:g} {row['z_mm']:g}"

    notes = [f"refused: {row['why']}" for row in found.refused]
    notes.append(
        "A study with a peak at a seed has more peaks than others anywhere: association is "
        "widespread, its order tells more than its extent (docs/decode.md)."
    )
    columns = {
        "seed<": seed,
        "label<": shared.text("label"),
        "studies": lambda row: f"{row['studies']:,}",
        "co-active voxels": lambda row: f"{row['coactivation_voxels']:,}",
        "connected": shared.text("connectivity_voxels"),
        "both": shared.text("conjunction_voxels"),
    }
    title = f"{base.label}: seeds, FDR q <= {rules.q:g}"
    shared.show_table(title, columns, found.seeds, notes)
    _show_peaks(found)
    pairs = found.overlap
    if pairs:
        columns = {
            "map<": shared.text("map"),
            "seeds": lambda row: f"{row['seed_a']} and {row['seed_b']}",
            "both": lambda row: f"{row['voxels_both']:,}",
            "Dice": shared.number("dice"),
            "of first": shared.number("share_a"),
            "of second": shared.number("share_b"),
        }
        shared.show_table("overlap", columns, pairs)
    columns = {
        "seed<": seed,
        "term<": shared.text("term"),
        "z": shared.number("z", 1),
        "p": lambda row: f"{row['p']:.1e}",
        "q": lambda row: f"{row['q']:.1e}",
        "exact p": lambda row: f"{row['p_exact']:.1e}",
        "posterior": shared.number("posterior"),
        "studies": lambda row: f"{row['studies_seed']} of {row['studies']:,}",
    }
    title = f"terms ({base.vocabulary}), {len(found.found[0].terms.names):,} tested"
    shared.show_table(title, columns, found.terms)


def _show_peaks(found: Decoded) -> None:
    """Print the highest local maxima of each seed's map, the seed itself aside."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in found.peaks:
        if row["distance_mm"] > found.rules.kernel_mm:
            rows.setdefault(row["seed"], []).append(row)
    highest = [row for group in rows.values() for row in group[:SHOWN]]
    columns = {
        "seed<": shared.text("seed"),
        "MNI x y z": shared.place,
        "z": shared.number("z", 1),
        "q": lambda row: f"{row['q']:.1e}",
        "uniformity z": shared.number("uniformity_z", 1),
        "posterior": shared.number("posterior"),
        "studies": lambda row: f"{row['studies_active']} of {row['studies']:,}",
        "label<": shared.text("label"),
    }
    if highest:
        shared.show_table("co-activation: highest local maxima off the seed", columns, highest)
