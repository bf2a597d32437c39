"""The same work side by side with other programs: agreement first, then the ratio of the speeds.

    python bench/peers.py                    # everything (some minutes)
    python bench/peers.py --part pymare      # one part
    python bench/peers.py --quick            # tiny sizes, seconds: does it all still run and agree?
    python bench/peers.py --write            # keeps the figures in bench/results/peers-DATE.json

Both programs get the same voxels, studies, permutations (the very same signs where they can be
given) and statistic. A ratio is printed only where the results agree; a program that is not
installed is skipped and says so. `make peers` measures everything and renews docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peers_curves import AXES

RESULTS = Path(__file__).parent / "results"
PEERS = {"pymare": "peers_pymare", "nilearn": "peers_nilearn", "nimare": "peers_nimare",
         "labels": "peers_labels"}  # fmt: skip
PARTS = (*PEERS, "ours", "start", *(f"curve-{axis}" for axis in AXES))
QUICK = (*PEERS, "ours", "start", "curve-voxels")


def _work(part: str) -> Callable[[bool], list[dict[str, Any]]]:
    if part in PEERS:
        return importlib.import_module(PEERS[part]).measure
    if part == "ours":
        return importlib.import_module("peers_ours").measure
    if part == "start":
        return importlib.import_module("peers_ours").start
    curves = importlib.import_module("peers_curves")
    return lambda quick: curves.measure(quick, [part.removeprefix("curve-")])


def run_part(part: str, quick: bool) -> dict[str, Any]:
    """Measure one part.

    Returns
    -------
    dict
        rows; skipped (why, or empty); load before and after; seconds, machine.
    """
    from machine import machine
    from peers_common import Absent, load

    before, begin, skipped = load(), time.monotonic(), ""
    rows: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers, about each other
        try:
            rows = _work(part)(quick)
        except Absent as missing:
            skipped = str(missing)
            print(f"SKIPPED {part}: {skipped}", file=sys.stderr)
    return {
        "rows": rows, "skipped": skipped, "load": {"before": before, "after": load()},
        "seconds": round(time.monotonic() - begin, 1), "machine": machine(),
    }  # fmt: skip


def _speed(seconds: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{1 / t['wall_s']:.4g}/s on {n}" for n, t in seconds.items())


def shown(part: str, found: dict[str, Any]) -> list[str]:
    """Lines for the terminal: agreement, then speed."""
    lines = []
    for row in found["rows"]:
        if part in PEERS:
            lines.append(
                f"{row['peer']}: {row['what']}; {row['voxels']} voxels, {row['studies']} studies, "
                f"{row['permutations']} permutations, imputations {row['imputations']}"
            )
            for a in row["agreement"]:
                verdict = {True: "agrees", False: "DIFFERS", None: "for information"}[a["met"]]
                lines.append(f"    {a['what']}: {a['value']:.3g} ({verdict})")
            if row["agrees"]:
                lines.append(
                    f"    theirs {_speed(row['theirs'])} threads; ours {_speed(row['ours'])}"
                )
            if row["ratio"] is not None:
                said = (
                    ""
                    if row["met"] is None
                    else (f", bar {row['bar']:g}: {'met' if row['met'] else 'MISSED'}")
                )
                lines.append(
                    f"    ratio {row['ratio']:.4g} (one core, processor time: "
                    f"{row['ratio_core']:.4g}){said}"
                )
        elif part == "ours":
            lines.append(
                f"{row['backend']} on {row['where']}: dz {row['dz']:.2g}, dTFCE {row['dtfce']:.2g}"
                + (f"; {row['statistics']} {row['permutations_per_s']:.4g} permutations/s, "
                   f"{row['ratio_to_numpy']:.4g} x NumPy" if row["agrees"] else " DIFFERS")
            )  # fmt: skip
        elif part == "start":
            lines.append(f"{row['what']}: {row['wall_s']:.2f} s wall, {row['cpu_s']:.2f} s "
                         "processor")  # fmt: skip
    return lines


def disagreements(content: dict[str, Any]) -> list[str]:
    """Name whatever does not agree."""
    found = []
    for part, of in content["parts"].items():
        if part in PEERS or part == "ours":
            found += [f"{part}: {row.get('what', row.get('backend'))}"
                      for row in of["rows"] if not row["agrees"]]  # fmt: skip
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and keep; 1 if any results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--write", action="store_true", help="into bench/results/")
    parser.add_argument("--out", type=Path, help="JSON file; parts that it holds stay")
    asked = parser.parse_args(arguments)
    from machine import machine

    target, before = asked.out, [asked.out] if asked.out is not None and asked.out.exists() else []
    if asked.write and target is None:
        target = RESULTS / f"peers-{machine()['date']}.json"
        before = sorted(RESULTS.glob("peers-*.json"))  # the page is made of the newest alone
    content: dict[str, Any] = {"quick": asked.quick, "parts": {}}
    if before:
        content["parts"] = json.loads(before[-1].read_text(encoding="ascii"))["parts"]
    for part in asked.part or (QUICK if asked.quick else PARTS):
        print(f"== {part}", file=sys.stderr, flush=True)
        found = run_part(part, asked.quick)
        if found["rows"] or part not in content["parts"]:
            content["parts"][part] = found
        print("\n".join(shown(part, found)), flush=True)
        if target is not None:  # after every part: a run may be stopped
            target.parent.mkdir(parents=True, exist_ok=True)
            ordered = {p: content["parts"][p] for p in PARTS if p in content["parts"]}
            target.write_text(
                json.dumps(content | {"parts": ordered}, indent=1) + "\n", encoding="ascii"
            )
    wrong = disagreements(content)
    print("DIFFERENT: " + "; ".join(wrong) if wrong else "all results agree", file=sys.stderr)
    if target is not None:
        print(target)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
