"""Agreement with SDM-PSI 6.21, metansue and metafor, stage by stage; docs/fidelity.md.

Usage: python bench/fidelity.py [--part PART ...] [--full] [--write] [--report]

Needs the test data (GPU_SDM_DATA, default ../shared/data). Every figure is printed beside theirs
and its bar; returns 1 if a bar is missed. The null is short by default and continues what is kept
in fidelity-output/; `--full` runs SDM-PSI's 1,000 sign vectors with three seeds and 50 imputations.
`--write` replaces the parts that ran in bench/results/ and renews the tables of docs/fidelity.md;
`--report` only renews them, from the newest figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fidelity_bounds
import fidelity_clusters
import fidelity_images
import fidelity_maps
import fidelity_noise
import fidelity_null
import fidelity_pooling
import fidelity_rounding
import fidelity_template
import fidelity_variants
from fidelity_data import ALL_DATA, ENGE, HOME
from fidelity_ledger import Ledger, merged, newest
from fidelity_report import write_report
from machine import machine

RESULTS = HOME / "bench" / "results"
DOCUMENT = HOME / "docs" / "fidelity.md"

Part = Callable[[Ledger, argparse.Namespace], None]
PARTS: dict[str, Part] = {
    "bounds": lambda ledger, _: fidelity_bounds.run(ledger),
    "from-bounds": lambda ledger, a: fidelity_maps.run_start(ledger, "bounds", a.imputations),
    "from-peaks": lambda ledger, a: fidelity_maps.run_start(ledger, "peaks", a.imputations),
    "template": lambda ledger, _: fidelity_template.run(ledger),
    "from-learned": lambda ledger, a: fidelity_maps.run_start(ledger, "learned", a.imputations),
    "clusters-bounds": lambda ledger, a: fidelity_clusters.run_start(
        ledger, "bounds", a.permutations, a.imputations
    ),
    "clusters-peaks": lambda ledger, a: fidelity_clusters.run_start(
        ledger, "peaks", a.permutations, a.imputations
    ),
    "clusters-learned": lambda ledger, a: fidelity_clusters.run_start(
        ledger, "learned", a.permutations, a.imputations
    ),
    "noise": lambda ledger, a: fidelity_noise.run(ledger, a.imputations),
    "rounding": lambda ledger, a: fidelity_rounding.run(ledger, a.imputations),
    "null": lambda ledger, a: fidelity_null.run(ledger, a.permutations, a.imputations, a.seeds),
    "variants": lambda ledger, _: fidelity_variants.run(ledger),
    "images": lambda ledger, _: fidelity_images.run(ledger),
    "pooling": lambda ledger, _: fidelity_pooling.run(ledger),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=", ".join(PARTS))  # fmt: skip
    parser.add_argument("--full", action="store_true", help="1,000 permutations, three seeds")
    parser.add_argument("--permutations", type=int, help="of each null (200; 1000 with --full)")
    parser.add_argument("--imputations", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", help="of the null (0; 0 1 2 with --full)")
    parser.add_argument("--write", action="store_true", help="keep the figures, renew the document")
    parser.add_argument("--report", action="store_true", help="only renew the document")
    chosen = parser.parse_args()
    if chosen.permutations is None:
        chosen.permutations = fidelity_null.FULL if chosen.full else 200
    if chosen.seeds is None:
        chosen.seeds = [0, 1, 2] if chosen.full else [0]
    return chosen


def keep(ledger: Ledger, parts: dict[str, dict[str, object]], where: dict[str, object]) -> Path:
    """Write the figures of the parts that ran among those of the others."""
    target = RESULTS / f"fidelity-{where['date']}.json"
    target.parent.mkdir(exist_ok=True)
    content = merged(newest(RESULTS), ledger, parts, where)
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return target


def main() -> int:
    """Run the parts asked for."""
    chosen = arguments()
    if chosen.report:
        write_report(newest(RESULTS), DOCUMENT)
        print(DOCUMENT)
        return 0
    if not ENGE.exists():
        print(f"REAL DATA ABSENT: {ALL_DATA} (set GPU_SDM_DATA to the folder that holds enge2021)")
        return 1
    where, ledger, parts = machine(), Ledger(), {}
    for name in chosen.part:
        begin = time.monotonic()
        PARTS[name](ledger, chosen)
        seconds = round(time.monotonic() - begin)
        parts[name] = {"date": where["date"], "commit": where["commit"], "seconds": seconds}
        print(f"{name} took {seconds} s", flush=True)
    missed = ledger.missed()
    print(f"{len(ledger.rows)} figures, {len(missed)} bars missed")
    if chosen.write:
        print(keep(ledger, parts, where))
        write_report(newest(RESULTS), DOCUMENT)
        print(DOCUMENT)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
