"""docs/performance.md: tables between markers and the picture come from the JSON files.

    python bench/performance_report.py

reads the newest bench/results/permute-cpu-*.json and peers-*.json; prose is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from page import between, table

HERE = Path(__file__).parent
DOC = HERE.parent / "docs" / "performance.md"
PICTURE = HERE.parent / "docs" / "pictures" / "performance.png"
STAGES = ("template", "bounds", "likelihood", "imputation", "pooling", "subjects")
# Issue 8, on 2 cores: studies -> seconds of 1,000 permutations, of all before them, and the
# permutations/s that a C loop with AVX-512 reached without TFCE.
BARS = {11: (60.0, 60.0, 31.0), 50: (300.0, 180.0, 5.2)}
TFCE_MS = 15.0

Content = dict[str, Any]
Row = dict[str, Any]


def newest(pattern: str, folder: Path = HERE / "results") -> Content:
    """Read the newest result by the date in its name; empty without one."""
    found = sorted(folder.glob(pattern))
    return json.loads(found[-1].read_text(encoding="ascii")) if found else {}


def figure(value: float | None, digits: int = 3) -> str:
    """Give a figure to some significant digits, thousands apart; a dash for none."""
    if value is None:
        return "-"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a Markdown table; a bar within a cell would end it."""
    return table(heads, ([cell.replace("|", "\\|") for cell in row] for row in rows))


def verdict(met: bool | None) -> str:
    """Tell whether a bar is met; a missed one cannot be overlooked."""
    return {True: "met", False: "**MISSED**", None: ""}[met]


def _rows(peers: Content, part: str) -> list[Row]:
    return peers.get("parts", {}).get(part, {}).get("rows", [])


def _machine(on: Content) -> str:
    return f"{on['processor']}, {on['cores']} cores"


def where(permute: Content, peers: Content) -> list[str]:
    """When, at which commit and on what each figure was measured, and how busy the machine was."""
    rows = []
    if permute:
        on, loads = permute["machine"], [c.get("load_before") for c in permute["cases"]]
        rows.append(("`bench/permute.py`", on["date"], on["commit"], _machine(on),
                     " to ".join(figure(x) for x in (min(loads), max(loads)))
                     if None not in loads else "-", "-"))  # fmt: skip
    for part, of in peers.get("parts", {}).items():
        on, load = of["machine"], of["load"]
        rows.append((f"`bench/peers.py --part {part}`", on["date"], on["commit"], _machine(on),
                     f"{load['before'][0]:.1f} to {load['after'][0]:.1f}",
                     figure(of["seconds"])))  # fmt: skip
    heads = ("command", "date", "commit", "machine", "load before, after", "took, s")
    listed = _table(heads, rows)
    on = (permute or next(iter(peers["parts"].values())))["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    return [listed, "", f"{versions}."]


def stages(permute: Content, peers: Content) -> list[str]:
    """Seconds of every stage and rates of the permutations, for both projects."""
    heads = ("studies", "subjects", "threads", *STAGES, "all before", "permutations/s, voxel and "
             "TFCE", "voxel alone", "processor s each", "peak GB")  # fmt: skip
    rows = []
    for case in permute.get("cases", []):
        spent = case["timings_s"]
        rows.append(
            (str(case["studies"]), f"{case['subjects']:,}", str(case["threads"]),
             *(figure(spent.get(stage)) for stage in STAGES), figure(_before(case)),
             figure(case["permutations_per_s"]), figure(case.get("voxel_only_permutations_per_s")),
             figure(case.get("processor_s_per_permutation")), figure(case["peak_gb"]))
        )  # fmt: skip
    return [_table(heads, rows)]


def _before(case: Row) -> float:
    listed = sum(case["timings_s"].get(stage, 0.0) for stage in STAGES)
    return float(case.get("before_permutations_s", listed))


def bars(permute: Content, peers: Content) -> list[str]:
    """Every bar, what was measured, and whether it is met."""
    rows: list[tuple[str, str, str, str]] = []

    def add(what: str, value: float | None, unit: str, bar: str, met: bool | None) -> None:
        said = "not measured" if value is None else f"{figure(value)} {unit}"
        rows.append((what, said, bar, verdict(met if value is not None else None)))

    for case in permute.get("cases", []):
        k = case["studies"]
        if case["threads"] < 2 or k not in BARS:
            continue
        most, before, loop = BARS[k]
        seconds = 1000 / case["permutations_per_s"]
        add(f"1,000 permutations, voxel and TFCE, {k} studies", seconds, "s", f"< {most:g} s",
            seconds < most)  # fmt: skip
        add(f"everything before the permutations, {k} studies", _before(case), "s",
            f"< {before:g} s", _before(case) < before)  # fmt: skip
        rate = case.get("voxel_only_permutations_per_s")
        add(f"permuted z alone, {k} studies, against a C loop", rate, "permutations/s",
            f">= {loop:g}", rate is not None and rate >= loop)  # fmt: skip
        tfce = case.get("largest_tfce_ms_per_map")
        add(f"largest TFCE score of a permuted map on one core, {k} studies", tfce, "ms",
            f"< {TFCE_MS:g} ms", tfce is not None and tfce < TFCE_MS)  # fmt: skip
    for row in _rows(peers, "start"):
        if row["bar_s"] is not None:
            add(row["what"], row["wall_s"], "s", f"< {row['bar_s']:g} s", row["met"])
    for part in ("pymare", "nilearn", "nimare"):
        for row in _rows(peers, part):
            if row["bar"] is not None:
                what = f"{row['peer']}: {row['what']}, {row['permutations']:,} permutations"
                if part == "pymare":
                    what += f", M = {row['imputations']}"
                add(what, row["ratio"], "times as fast", f">= {row['bar']:g}", row["met"])
    return [_table(("bar", "measured", "wanted", ""), rows)]


def _rate(seconds: Row, threads: str) -> str:
    return figure(1 / seconds[threads]["wall_s"]) if threads in seconds else "-"


def _judged(row: Row) -> str:
    judged = [a for a in row["agreement"] if a["met"] is not None]
    if not judged:
        return "not asked"
    good = sum(a["met"] for a in judged)
    return f"{good} of {len(judged)}" if row["agrees"] else f"**{good} of {len(judged)}**"


def compared(permute: Content, peers: Content) -> list[str]:
    """Ratio beside agreement for every peer; each agreement and what to know in a second table."""
    rows, details = [], []
    for part in ("pymare", "nilearn", "nimare", "labels"):
        for row in _rows(peers, part):
            number = str(len(rows) + 1)
            many = str(max(int(t) for t in {*row["theirs"], *row["ours"]}))
            rates = [_rate(row[who], t) if t == "1" or many != "1" else "-"
                     for who in ("theirs", "ours") for t in ("1", many)]  # fmt: skip
            rows.append(
                (number, row["peer"], row["what"], f"{row['voxels']:,} x {row['studies']}",
                 f"{row['permutations']:,}", str(row["imputations"]), _judged(row), *rates,
                 figure(row["ratio"]), figure(row["ratio_core"]))
            )  # fmt: skip
            for i, a in enumerate(row["agreement"]):
                sign = ">=" if a["at_least"] else "<="
                wanted = "" if a["bar"] is None else f"{sign} {a['bar']:.2g}"
                said = {True: "agrees", False: "**DIFFERS**", None: ""}[a["met"]]
                details.append((number if i == 0 else "", a["what"], f"{a['value']:.2g}", wanted,
                                said, row["note"] if i == 0 else ""))  # fmt: skip
    heads = ("", "peer", "work", "voxels x studies", "permutations", "M", "agree", "theirs /s, "
             "1 core", "all cores", "ours /s, 1 core", "all cores", "ratio",
             "ratio, 1 core")  # fmt: skip
    skipped = [f"Not compared: {of['skipped']}." for of in peers.get("parts", {}).values()
               if of["skipped"]]  # fmt: skip
    return [
        _table(heads, rows), "",
        _table(("", "agreement", "found", "wanted", "", "to know"), details),
        *(["", *skipped] if skipped else []),
    ]  # fmt: skip


def backends(permute: Content, peers: Content) -> list[str]:
    """Our own backends on 11 studies, 525 subjects, each held to the plain reference."""
    rows = [
        (row["backend"], row["where"], row["statistics"], f"{row['dz']:.1g}",
         f"{row['dtfce']:.1g}", figure(row.get("permutations_per_s")),
         figure(row.get("ratio_to_numpy")))
        for row in _rows(peers, "ours")
    ]  # fmt: skip
    heads = ("backend", "on", "statistics", "largest difference of z", "of the largest TFCE",
             "permutations/s", "times NumPy")  # fmt: skip
    said = "" if any(row[0] == "cuda" for row in rows) else (
        "Not measured: CUDA. No GPU was lent to this run; `gpu-sdm bench` and `make peers` measure "
        "it where one is."
    )  # fmt: skip
    return [_table(heads, rows), "", said]


def curves(permute: Content, peers: Content) -> list[str]:
    """Seconds and memory of the points of every curve."""
    rows = []
    for part, of in peers.get("parts", {}).items():
        for row in of["rows"] if part.startswith("curve-") else []:
            n = row["permutations"]
            rows.append(
                (row["axis"], f"{row['voxels']:,}", str(row["studies"]), str(row["imputations"]),
                 f"{row['subjects']:,}", str(n), figure(n / row["wall_s"]),
                 figure(row["wall_s"] / n), figure(row["cpu_s"] / n), f"{row['peak_gb']:.2f}")
            )  # fmt: skip
    heads = ("curve", "voxels", "studies", "imputations", "subjects", "permutations",
             "permutations/s", "s each, wall", "s each, processor", "peak GB")  # fmt: skip
    return [_table(heads, rows)]


SECTIONS: dict[str, Callable[[Content, Content], list[str]]] = {
    "where": where,
    "bars": bars,
    "stages": stages,
    "peers": compared,
    "backends": backends,
    "curves": curves,
}


def renewed(text: str, permute: Content, peers: Content) -> str:
    """Replace the tables of the page and keep everything else."""
    for name, section in SECTIONS.items():
        text = between(text, name, "\n".join(section(permute, peers)))
    return text


def main() -> int:
    """Renew the page and its picture."""
    from performance_picture import curves_figure

    from gpu_sdm.figures.save import save

    permute, peers = newest("permute-cpu-*.json"), newest("peers-*.json")
    text = DOC.read_text(encoding="utf-8")
    DOC.write_text(renewed(text, permute, peers), encoding="utf-8")
    PICTURE.parent.mkdir(exist_ok=True)
    save(curves_figure(peers), PICTURE, dpi=200)
    print(DOC)
    return 0


if __name__ == "__main__":
    sys.exit(main())
