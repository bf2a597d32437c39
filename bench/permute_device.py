"""Permutations a second on a GPU: beside its ceilings, by stage, over long runs, by size.

Usage: python bench/permute.py --device PART [--write]     PART: rates, stages, scaling, long

Needs numpy, scipy, numba and CuPy; noise in a mask of 193,768 voxels in the place
of data. Nothing is timed before z and TFCE of a tile agree with the plain reference. `rates` are
medians of 5 times 4 seconds after 2 seconds of warm-up. `--write` puts a part into
bench/results/permute-cuda-DATE.json. Each part is made for a call of at most ten minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np
from device_clock import StageClock, card, ceilings
from machine import machine

from gpu_sdm.backend import Backend
from gpu_sdm.backend.cuda import CudaDevice, Device, probe
from gpu_sdm.bench import Measured, errors, first_tile, reference_block
from gpu_sdm.config import Settings
from gpu_sdm.data import Peaks, Study
from gpu_sdm.errors import BackendUnavailable
from gpu_sdm.permute.device import DeviceEngine
from gpu_sdm.permute.engine import permute, z_tile
from gpu_sdm.permute.launch import knobs
from gpu_sdm.permute.plan import PermutationPlan
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.effects import study_terms
from gpu_sdm.workload import Workload

CASES = {11: 525, 50: 1_000, 135: 3_000}  # studies: subjects
VOXELS, IMPUTATIONS = 193_768, 50
BOTH = ("voxel", "tfce")
# Permutations a second that are wanted: by the voxel statistic alone, and with TFCE.
BARS = {(11, "voxel"): 6_000.0, (50, "voxel"): 1_500.0, (50, "tfce"): 500.0}
LONGEST_S = 420.0  # of one run: a call takes ten minutes at most
WARM_UP_S, TIMED_S, REPEATS = 2.0, 4.0, 5
# Of a study's effect in one imputation: float32 instructions (an FMA is one) and special functions
# in the PTX of permuted_z, where the effect waits in registers and where it is computed twice.
KEPT_TERM, OTHER_TERM = np.array([19.5, 2.5]), np.array([28.0, 4.0])


def brain(n_voxels: int) -> Space:
    """Give the voxels of the 2 mm grid that are nearest to its middle, as an ellipsoid."""
    shape = np.array(SHAPES[2])
    centre = (shape - 1) / 2
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    far = sum(((a - c) / c) ** 2 for a, c in zip(axes, centre, strict=True))
    inside = np.zeros(far.size, bool)
    inside[np.argsort(far, axis=None, kind="stable")[:n_voxels]] = True
    return Space(2, inside.reshape(far.shape))


def workload(
    studies: int, subjects: int, imputations: int = IMPUTATIONS, voxels: int = VOXELS
) -> Workload:
    """Make noise of a stated size: one-sample studies of nearly the same number of subjects."""
    none = np.zeros((0, 3))
    peaks = Peaks(none, none.copy(), none[:, 0].copy(), np.zeros(0, bool), np.zeros(0, int),
                  "no_peaks", "")  # fmt: skip
    sizes = [subjects // studies + (k < subjects % studies) for k in range(studies)]
    made = tuple(Study(f"study{k:03d}", n, 0, 3.0, peaks) for k, n in enumerate(sizes))
    settings = Settings(imputations=imputations)
    plan = PermutationPlan.of(made, settings.seed, settings.exchange)
    return Workload(settings, study_terms(made), np.ones((studies, 1)), plan, brain(voxels))


def agreement(work: Workload, device: Device) -> dict[str, Any]:
    """Errors of z and of TFCE against the plain reference; refuses a device that is wrong."""
    block = reference_block(work)
    reference = first_tile(block, Backend("numpy", "", 1))
    dz, dtfce = errors(first_tile(block, Backend("cuda", "", 1, device)), reference)
    found = {"max_abs_dz": dz, "max_relative_dtfce": dtfce, "voxels": block.space.n_voxels}
    if not Measured("cuda", device.name, block.space.n_voxels, dz, dtfce, {}).agrees:
        raise SystemExit(f"{device.name} does not agree with the reference: {found}")
    return found


def timed(
    engine: DeviceEngine, repeats: int = REPEATS, seconds: float = TIMED_S, warm: float = WARM_UP_S
) -> list[float]:
    """Permutations a second, several times."""

    def run(least: float) -> float:
        done, begin = 0, monotonic()
        while done == 0 or monotonic() - begin < least:
            engine.maxima(done, engine.launch.tiles)
            done += engine.group
        return done / (monotonic() - begin)

    run(warm)
    return [run(seconds) for _ in range(repeats)]


def rates(device: Device, work: Workload, top: dict[str, float], **times: Any) -> dict[str, Any]:
    """Permutations a second of one size, and the share of the ceilings that permuted z takes."""
    sizes = work.sizes()
    found: dict[str, Any] = {**sizes, "agreement": agreement(work, device)}
    problem = work.problem()
    for statistic, statistics in (("voxel", ("voxel",)), ("tfce", BOTH)):
        engine = DeviceEngine(problem, work.plan, device, statistics)
        all_ = timed(engine, **times)
        found[statistic] = {
            "permutations_per_s": median(all_), "all": all_, "in_flight": engine.group,
            "device_bytes": engine.launch.needed, "card_after": card(),
        }  # fmt: skip
        del engine
    kept = knobs(sizes["studies"], True)["KEEP"]
    arithmetic, special = (
        (kept * KEPT_TERM + (sizes["studies"] - kept) * OTHER_TERM)
        * sizes["imputations"] * sizes["voxels"] * found["voxel"]["permutations_per_s"]
    ).tolist()  # fmt: skip
    if top:
        found["share_of_ceilings"] = {
            "fma": arithmetic / top["fma_per_s"],
            "special": special / top["special_per_s"],
        }
    return found


def stages(device: Device, work: Workload, elapsed: Callable[[Any, Any], float]) -> dict[str, Any]:
    """Milliseconds of each kernel for a permutation, in the second of two groups."""
    clock: Any = StageClock(device, elapsed)
    engine = DeviceEngine(work.problem(), work.plan, clock, BOTH)
    engine.maxima(0, engine.launch.tiles)
    clock.clear()
    begin = monotonic()
    engine.maxima(engine.group, engine.launch.tiles)
    whole = 1e3 * (monotonic() - begin) / engine.group
    parts = {name: ms / engine.group for name, ms in clock.totals_ms().items()}
    return {**work.sizes(), "ms_per_permutation": parts, "wall_ms_per_permutation": whole}


def scaling(
    device: Device,
    base: Workload,
    studies: tuple[int, ...] = (5, 20, 30, 64, 65, 100),
    imputations: tuple[int, ...] = (5, 20, 100),
    **times: Any,
) -> list[dict[str, Any]]:
    """Permutations a second (both statistics) as voxels, studies and imputations grow."""
    sizes = base.sizes()
    k, n, m, v = (sizes[name] for name in ("studies", "subjects", "imputations", "voxels"))
    points = [(k, n, m, v // 4), (k, n, m, v // 2), (k, n, m, v)]
    points += [(c, n // k * c, m, v) for c in studies]
    points += [(k, n, c, v) for c in imputations]
    found = []
    for point in points:
        work = workload(*point)
        engine = DeviceEngine(work.problem(), work.plan, device, BOTH)
        (speed,) = timed(engine, 1, **times)
        found.append({**work.sizes(), "permutations_per_s": speed})
        print(found[-1], flush=True)
        del engine
    return found


def long_runs(device: Device, work: Workload, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Seconds of whole nulls by the engine, the check of its identity included."""
    from concurrent.futures import ThreadPoolExecutor

    backend = Backend("cuda", "", 1, device)
    problem = work.problem()
    with ThreadPoolExecutor(1) as pool:
        observed = z_tile(problem, work.plan, 0, Backend("cpu", "", 1), pool)[0]
    problem = replace(problem, observed_z=observed)
    found = []
    for count in counts:
        if found and found[-1]["seconds"] * count / found[-1]["permutations"] > LONGEST_S:
            print(f"{count} permutations would take longer than {LONGEST_S:.0f} s: left out")
            break
        begin = monotonic()
        null = permute(problem, work.plan, count, BOTH, backend)
        row = {**work.sizes(), "permutations": count, "seconds": monotonic() - begin}
        row |= {f"p95_{s}": float(np.quantile(null.maxima[s][0], 0.95)) for s in BOTH}
        found.append(row)
        print(row, flush=True)
    return found


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """Name the bars that are not met."""
    return [
        f"{k} studies, {s}: {row[s]['permutations_per_s']:.0f} < {bar:.0f} permutations/s"
        for (k, s), bar in BARS.items()
        for row in rows
        if row["studies"] == k and row[s]["permutations_per_s"] < bar
    ]


def open_card() -> tuple[CudaDevice, dict[str, Any]]:
    """Open the first GPU and describe it; ends with a sentence where there is none."""
    try:
        device = probe(announce=print)
    except BackendUnavailable as exc:
        raise SystemExit(f"No GPU to measure: {exc}") from exc
    import cupy

    driver = int(cupy.cuda.runtime.driverGetVersion())
    where = {**machine(), "device": device.name, "cuda_driver": driver, "cupy": cupy.__version__}
    return device, {**where, "card": card()}


def measure(part: str, device: Device, cases: list[int]) -> Any:
    """Do one part."""
    if part == "long":
        return long_runs(device, workload(11, CASES[11]), (1_000, 10_000, 100_000, 1_000_000))
    if part == "scaling":
        return scaling(device, workload(11, CASES[11]), seconds=TIMED_S, warm=WARM_UP_S)
    works = ((k, workload(k, CASES[k])) for k in cases)
    found = []
    if part == "stages":
        import cupy

        found = [stages(device, work, cupy.cuda.get_elapsed_time) for _, work in works]
    else:
        top = ceilings(device)
        print(top, flush=True)
        for k, work in works:
            found.append({"ceilings": top, **rates(device, work, top)})
            speeds = {s: round(found[-1][s]["permutations_per_s"], 1) for s in ("voxel", "tfce")}
            print(f"{k} studies: {speeds} permutations/s", flush=True)
    return found


def main(arguments: list[str]) -> int:
    """Measure one part; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="bench/permute.py --device")
    parser.add_argument("part", choices=("rates", "stages", "scaling", "long"))
    parser.add_argument("--cases", nargs="+", type=int, choices=CASES, default=list(CASES))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(arguments)
    device, where = open_card()
    print(json.dumps(where), flush=True)
    found = measure(args.part, device, args.cases)
    print(json.dumps({args.part: found}))
    if args.write:
        target = Path(__file__).parent / "results" / f"permute-cuda-{where['date']}.json"
        target.parent.mkdir(exist_ok=True)
        old = json.loads(target.read_text())["parts"] if target.exists() else {}
        whole = {"machine": where, "parts": {**old, args.part: found}}
        target.write_text(json.dumps(whole, indent=2) + "\n")
    bars = missed(found) if args.part == "rates" else []
    print("bars missed: " + "; ".join(bars) if bars else "done")
    return 1 if bars else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
