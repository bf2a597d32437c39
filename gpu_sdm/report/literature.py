"""What `gpu-sdm decode` found: for each region its terms, and the regions reported with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_sdm.errors import InputError
from gpu_sdm.figures.palette import Look
from gpu_sdm.figures.radar import LEAST_SPOKES, radar_of_terms, term_text
from gpu_sdm.io.tables import MISSING
from gpu_sdm.report.facts import Facts, Row, count, number, read_rows
from gpu_sdm.report.html import Html, join, tag
from gpu_sdm.report.pictures import drawn
from gpu_sdm.report.tables import Column, fixed, p_value, plain, short, table

SPOKES = 20  # of all seeds together; more would be written along the spokes
WIDTH_MM = {False: 106.0, True: 115.0}  # of the chart of a seed, and of several
NAMES = {"neurosynth": "Neurosynth", "neuroquery": "NeuroQuery"}


def _share(text: str) -> str:
    value = number(text)
    return plain(text) if value is None else f"{100 * value:.0f} %"


PLACE = tuple(Column(f"{a}_mm", a, fixed(0)) for a in "xyz")
SEEDS = (
    Column("seed", "#"),
    Column("label", "Region", plain, text=True),
    *PLACE,
    Column("studies", "Studies"),
    Column("coactivation_voxels", "Co-activated voxels"),
    Column("connectivity_voxels", "Connected voxels"),
    Column("conjunction_voxels", "Both"),
)
TERMS = (
    Column("term", "Term", term_text, text=True),
    Column("z", "z", fixed(1)),
    Column("q", "q", p_value),
    Column("posterior", "Posterior", fixed(2)),
    Column("studies_seed", "Studies"),
    Column("studies", "of all"),
)
PEAKS = (
    Column("label", "Region", plain, text=True),
    *PLACE,
    Column("distance_mm", "mm away", fixed(0)),
    Column("z", "z", fixed(1)),
    Column("q", "q", p_value),
    Column("posterior", "Posterior", fixed(2)),
    Column("studies_active", "Studies here"),
)
REGIONS = (
    Column("region", "Atlas region", plain, text=True),
    Column("map", "Map", plain, text=True),
    Column("share_of_region", "Region covered", _share),
    Column("share_of_map", "Share of the map", _share),
    Column("z_max", "Largest z", fixed(1)),
    *PLACE,
)
OVERLAP = (
    Column("label_a", "Region", plain, text=True),
    Column("label_b", "and", plain, text=True),
    Column("map", "Map", plain, text=True),
    Column("voxels_both", "Common voxels"),
    Column("dice", "Dice", fixed(2)),
    Column("share_a", "Of the first", _share),
    Column("share_b", "Of the second", _share),
)


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    path = folder / f"{name}.tsv"
    return read_rows(path)[1] if path.is_file() else []


def _millimetres(row: Row) -> str:
    return ", ".join(fixed(0)(row[f"{a}_mm"]) for a in "xyz")


def _name(row: Row) -> str:
    return plain(row["label"]).replace("_", " ") or "point"


def _place(row: Row, column: Column) -> Html | None:
    """Let a region's name lead into the maps."""
    if column.name not in ("label", "region") or MISSING in (row["x_mm"], row["y_mm"]):
        return None
    text = plain(row[column.name]) or "show"
    return tag("span", text, data_mm=",".join(row[f"{a}_mm"] for a in "xyz"))


def _database(folder: Path) -> tuple[str, float, float]:
    """Name of the database; radius of a seed and of a peak in the maps, mm."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        kind, _, version = str(run["database_name"]).partition("-")
        rules = run["rules"]
        name = f"{NAMES.get(kind, kind)} {version}".strip()
        return name, float(rules["radius_mm"]), float(rules["kernel_mm"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"run.json cannot be read ({error}); run gpu-sdm decode again.", folder
        ) from error


def _numbers(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{"term": r["term"], "z": float(r["z"]), "q": float(r["q"])} for r in rows]


def _radar(seeds: Mapping[str, Sequence[Row]], alt: str, caption: str) -> Html:
    look = Look(width_mm=WIDTH_MM[len(seeds) > 1])
    chart = radar_of_terms({name: _numbers(rows) for name, rows in seeds.items()}, look=look)
    return drawn(chart, alt, caption)


def _seed(
    stem: str, seed: Row, tables: Mapping[str, Sequence[Row]], kernel: float, first: bool
) -> Html:
    own = {name: [r for r in rows if r["seed"] == seed["seed"]] for name, rows in tables.items()}
    title, terms = f"{_name(seed)} ({_millimetres(seed)})", own["terms"]
    file = f"{stem}_seed{seed['seed']}"
    parts: list[Any] = []
    if terms:
        listed = tag("div", table(f"Terms of {title}", TERMS, terms, f"terms_{file}.csv"))
        first_terms = ", ".join(f"{term_text(r['term'])} {fixed(1)(r['z'])}" for r in terms[:5])
        chart = (
            _radar(
                {title: terms},
                f"Radar chart of the {len(terms)} terms that go most with {title}; association z: "
                f"{first_terms}.",
                "Association z of each term. Full marks: false discovery rate q at most .05.",
            )
            if len(terms) >= LEAST_SPOKES
            else None
        )
        parts += [tag("h4", "Terms"), tag("div", chart, listed, class_="pictures terms")]
    away = [r for r in own["coactivation"] if (number(r["distance_mm"]) or 0) > kernel]
    if away:
        parts += [
            tag("h4", "Places reported together with it"),
            table(f"Highest local maxima of co-activation with {title}", PEAKS, away,
                  f"coactivation_{file}.csv", cell=_place),
        ]  # fmt: skip
    if own["conjunction_regions"]:
        n = len(own["conjunction_regions"])
        parts.append(
            tag(
                "details",
                tag("summary", f"Every atlas region that is reported with it ({n:,})"),
                table(f"Atlas regions co-activated with {title}", REGIONS,
                      own["conjunction_regions"], f"regions_{file}.csv", cell=_place),
                class_="plain",
            )
        )  # fmt: skip
    return tag(
        "details",
        tag(
            "summary",
            tag("span", seed["seed"], class_="number"),
            tag("span", _name(seed), class_="name"),
            tag("span", f"{short(seed['studies'])} studies", class_="detail"),
        ),
        tag("p", "At ", tag("span", f"({_millimetres(seed)})",
                            data_mm=",".join(seed[f"{a}_mm"] for a in "xyz")), " mm MNI."),
        *parts,
        class_="panel",
        id=f"literature-{file}",
        open=first,
    )  # fmt: skip


def _together(folder: Path, seeds: Sequence[Row], terms: Sequence[Row]) -> Html | None:
    """Draw all seeds on the first terms of each."""
    for most in range(max((int(row["rank"]) for row in terms), default=0), 0, -1):
        wanted = list(dict.fromkeys(r["term"] for r in terms if int(r["rank"]) <= most))
        if len(wanted) <= SPOKES:
            break
    else:
        return None
    if len(seeds) < 2 or len(wanted) < LEAST_SPOKES:
        return None
    every = {(row["seed"], row["term"]): row for row in _rows(folder, "terms_all")}
    found: dict[str, list[Row]] = {}
    for seed in seeds:
        own: list[Row] = [every[seed["seed"], t] for t in wanted if (seed["seed"], t) in every]
        if len(own) == len(wanted):
            found[f"{seed['seed']}: {_name(seed)} ({_millimetres(seed)})"] = own
    if len(found) < 2:
        return None
    return _radar(
        found,
        f"Radar chart of {len(found)} regions on {len(wanted)} terms, the first {most} of each; "
        "the panels below have the numbers.",
        f"All regions on the first {count(most, 'term', 'terms')} of each. Full marks: false "
        "discovery rate q at most .05.",
    )


def _characterised(folder: Path) -> Iterator[Any]:
    base, radius, kernel = _database(folder)
    seeds = _rows(folder, "seeds")
    names = ("terms", "coactivation", "conjunction_regions")
    tables = {name: _rows(folder, name) for name in names}
    yield tag("h3", f"The regions in the literature: {base}")
    if not seeds:
        yield tag("p", "No region had enough studies to be looked up.")
        return
    yield tag(
        "p",
        f"Each region was looked up in the {short(seeds[0]['studies_all'])} studies of {base}. The "
        f"studies that report a peak there (within {radius:g} mm of a point) were compared with "
        "all others: which words do they use more often, and which other places of the brain do "
        "they report more often? z is the strength of that association and q its false discovery "
        "rate. The posterior is the probability of the word given a peak in the region, or of the "
        "region given a peak at the other place, if a half was expected beforehand.",
    )
    yield tag(
        "p",
        "Studies with a peak at one place report more peaks everywhere, so most of the brain is "
        "associated to some degree: the order of the lists tells more than their length. A word "
        "belongs to a region also where authors speak of it and find nothing.",
    )
    shown = [c for c in SEEDS if any(r[c.name] != MISSING for r in seeds)]
    listed = table(f"Regions looked up in {base}", shown, seeds, f"regions_{folder.name}.csv",
                   cell=_place)  # fmt: skip
    yield tag("div", listed, class_="block")
    together = _together(folder, seeds, tables["terms"])
    if together is not None:
        yield tag("div", together, class_="single")
    for i, seed in enumerate(seeds):
        yield _seed(folder.name, seed, tables, kernel, i == 0)
    if overlap := _rows(folder, "overlap"):
        yield tag(
            "details",
            tag("summary", "How far the maps of the regions overlap"),
            table(f"Overlap of maps of {base}", OVERLAP, overlap, f"overlap_{folder.name}.csv"),
            class_="plain",
        )


def literature(facts: Facts) -> Html:
    """Give a block for each database that the result was looked up in; nothing without any."""
    place = facts.finished.folder / "decode"
    folders = sorted(place.iterdir()) if place.is_dir() else []
    kept = [folder for folder in folders if (folder / "seeds.tsv").is_file()]
    return join(part for folder in kept for part in _characterised(folder))
