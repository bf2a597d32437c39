"""What permuted_z asks of a multiprocessor, read from its machine code: no GPU needed.

Usage: python bench/instructions.py [--card 90] [--studies 11 50 135] [--write]

Compiles the kernel by NVRTC as the engine does, disassembles it and counts the instructions of its
loop over imputations, for the effect of one study in one imputation and permutation. From these
follow the least cycles in which a multiprocessor does 32 of them (a warp's): four instructions
start in a cycle, and a special function (1/x, 1/sqrt(x)) takes two. How near a card comes to it is
for `bench/permute.py --device rates` to measure.

`--write` keeps the figures in bench/results and renews the table of docs/howto/gpu.md.

nvdisasm is found on the PATH, in /usr/local/cuda*/bin, or in the wheel of triton
(`pip install --no-deps triton`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from machine import machine
from page import between, table

from gpu_sdm.backend.kernels import defines, source
from gpu_sdm.permute.launch import knobs

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # NVRTC is called from there

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "gpu.md"
ISSUED = 4  # instructions of warps that start in a cycle of a multiprocessor (7.5 to 12.0)
SPECIAL = 0.5  # of them special functions
UNROLLED = 4  # studies whose effects do not wait, side by side in their loop
NAMES = {
    "float": ("FFMA", "FMUL", "FADD", "FMNMX", "FSEL", "FSETP"),
    "special": ("MUFU",),
    "memory": ("LDG", "LDS", "STS", "STL", "LDL"),
    "constants": ("LDC", "ULDC", "LDCU"),
}


def find_disassembler() -> Path | None:
    """Find nvdisasm."""
    found = shutil.which("nvdisasm")
    places = [Path(found)] if found else sorted(Path("/usr/local").glob("cuda*/bin/nvdisasm"))
    spec = importlib.util.find_spec("triton")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        places.append(Path(folder) / "backends" / "nvidia" / "bin" / "nvdisasm")
    return next((p for p in places if p.is_file()), None)


def disassemble(code: bytes, tool: Path) -> str:
    """Give the listing of machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        done = subprocess.run(
            [str(tool), "-c", file.name], capture_output=True, text=True, check=True
        )
    return done.stdout


def loops(listing: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Names of all instructions, and first and last of each loop."""
    names: list[str] = []
    labels: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_\S+):", line):
            labels[label[1]] = len(names)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)(.*);", line):
            if found[1] == "BRA" and (to := re.search(r"`\((\.L_\S+)\)", found[2])):
                jumps.append((len(names), to[1]))
            names.append(found[1])
    return names, [(labels[to], at) for at, to in jumps if labels.get(to, at) < at]


def of_an_effect(listing: str, chosen: dict[str, int]) -> dict[str, float]:
    """Count the instructions for a study's effect in an imputation and permutation."""
    names, found = loops(listing)
    studies, kept, together = chosen["K"], chosen["KEEP"], chosen["R"]

    def count(first: int, last: int) -> Counter[str]:
        return Counter(names[first : last + 1])

    # The loop over imputations: the smallest that holds two special functions of all kept effects
    span = min(
        (s for s in found if count(*s)["MUFU"] >= 2 * kept * together), key=lambda s: s[1] - s[0]
    )
    total = count(*span)
    again = (studies - kept) // UNROLLED - 1
    for first, last in found:
        if span[0] < first and last < span[1] and again > 0:
            total += Counter({name: again * n for name, n in count(first, last).items()})
    each = studies * together
    parts = {kind: sum(total[n] for n in names) / each for kind, names in NAMES.items()}
    whole = sum(total.values()) / each
    parts["others"] = whole - sum(parts.values())
    return {
        **parts,
        "instructions": whole,
        "least_cycles": max(whole / ISSUED, parts["special"] / SPECIAL),
    }


def renewed(page: str, rows: list[dict[str, Any]]) -> str:
    """Give the page with the table of these rows."""
    heads = [name.replace("_", " ") for name in rows[0]]
    cells = [[f"{row[name]:.3g}" for name in row] for row in rows]
    return between(page, "instructions", table(heads, cells))


def main(arguments: list[str]) -> int:
    """Print a row for each number of studies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", type=int, default=90)
    parser.add_argument("--studies", type=int, nargs="+", default=[11, 20, 30, 50, 64, 100, 135])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(arguments)
    from test_nvrtc import cubin, library_path, nvrtc_version

    tool = find_disassembler()
    if tool is None or library_path() is None:
        print("nvdisasm or NVRTC is absent; pip install --no-deps triton nvidia-cuda-nvrtc-cu12")
        return 1
    rows: list[dict[str, Any]] = []
    for k in args.studies:
        chosen = knobs(k, True)
        code, _ = cubin(defines(dict(chosen)) + source("permuted_z.cu"), args.card)
        listing = disassemble(code, tool)
        rows.append({"studies": k, **of_an_effect(listing, chosen)})
        print(" ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    if args.write:
        where = machine()
        target = Path(__file__).parent / "results" / f"instructions-{where['date']}.json"
        whole = {"machine": where, "nvrtc": nvrtc_version(), "card": args.card, "rows": rows}
        target.write_text(json.dumps(whole, indent=2) + "\n")
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
