"""NiMARE: the sign-flip null of PermutedOLS, and the Monte Carlo null of ALE on its own foci."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from peers_common import (
    STUDIES,
    agreement,
    both_threads,
    effects_of,
    equal_terms,
    limits,
    our_null,
    problem_of,
    require,
    row,
    space_of,
    study_sizes,
    timed,
)
from scipy.stats import spearmanr

from gpu_sdm.ops.permuted_z import PERMUTED_Z
from gpu_sdm.permute.plan import TILE

EXAMPLES = Path(__file__).parents[1] / "examples"


def _version() -> str:
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("nimare").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nilearn's own deprecations, at import
        require("pymare", "pymare")
        return require("nimare.meta.cbma.ale", "nimare")


def permuted_ols(quick: bool) -> list[dict[str, Any]]:
    """Time the null of max |t|, arrays in memory on both sides."""
    version = _version()
    from nimare.meta._permutation import _permuted_ols

    space = space_of(4, 900) if quick else space_of(2)
    n = 64 if quick else 512
    effects = effects_of(space, 1)
    maps = effects[0].astype(np.float64)
    signs = np.random.default_rng(3).choice(np.array([-1, 1], np.int8), (n, STUDIES))
    signs[0] = 1
    theirs, value = {}, None
    for threads in both_threads():
        with limits(threads):
            found = timed(
                lambda: _permuted_ols(maps, n_perm=n, sign_flips=signs),
                1 if quick else 3,
            )
        theirs[str(threads)], value = found.per(n), found.value
    rows = []
    for what, terms in (("t", equal_terms()), ("random effects", study_sizes())):
        t = PERMUTED_Z.on("cpu")(None, np.ones((STUDIES, 1), np.float32), effects, terms)[0]
        problem = problem_of(space, effects, terms, t)
        ours, found = our_null(problem, signs, ("voxel",), 1 if quick else 3)
        null = found.maxima["voxel"].max(axis=0).astype(np.float64)
        largest = np.ravel(value["h0_max_t"])
        if what == "t":
            agreements = [
                agreement(
                    "observed t, largest difference", np.abs(np.ravel(value["t"]) - t).max(), 1e-4
                ),
                agreement(
                    f"largest |t| of {n} flips, largest relative difference",
                    (np.abs(null - largest) / largest).max(),
                    1e-5,
                ),
            ]
            note = (
                "the same statistic: random effects with one small variance are the t. NiMARE's "
                "own inner function, arrays in memory"
            )
        else:
            agreements = [
                agreement(
                    "observed z and t, rank correlation",
                    spearmanr(np.ravel(value["t"]), t).statistic, None,
                ),
                agreement(
                    "maxima of the flips, rank correlation", spearmanr(null, largest).statistic,
                    None,
                ),
            ]  # fmt: skip
            note = "not the same statistic: ours weights by random effects, NiMARE by nothing"
        rows.append(
            row(
                "one-sample sign flips of whole maps, maximum, " + what,
                f"NiMARE {version} PermutedOLS",
                {"voxels": space.n_voxels, "studies": STUDIES, "permutations": n,
                 "imputations": 1},
                theirs, ours, agreements, None if quick or what != "t" else 1.0, note,
                what == "t",
            )
        )  # fmt: skip
    return rows


def _ale(n: int, threads: list[int]) -> tuple[dict[str, dict[str, float]], Any]:
    """Seconds of one iteration of the FWE null of ALE on 21 pain studies, and its z map."""
    import nimare
    from nimare.correct import FWECorrector
    from nimare.meta.cbma.ale import ALE

    file = Path(nimare.__file__).parent / "resources" / "nidm_pain_dset.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dataset is deprecated but is what the file holds
        from nimare.dataset import Dataset

        data = Dataset(str(file))
        result = ALE().fit(data)
        seconds = {}
        for t in threads:
            # To the clock: the null only, its set-up taken off by a run of few.
            runs = {}
            for iterations in (2, n):
                corrector = FWECorrector(
                    method="montecarlo", n_iters=iterations, n_cores=t, vfwe_only=True
                )
                runs[iterations] = timed(lambda: corrector.transform(result), 1)  # noqa: B023
            few, many = runs[2], runs[n]
            seconds[str(t)] = {
                "wall_s": (many.wall - few.wall) / (n - 2), "cpu_s": (many.cpu - few.cpu) / (n - 2)
            }  # fmt: skip
    return seconds, result.get_map("z")


def ale(quick: bool) -> list[dict[str, Any]]:
    """Time an iteration of ALE's null and a permutation of ours on the same foci.

    Not the same work: ours imputes and permutes subjects' images, ALE scatters foci.
    """
    version = _version()
    sys.path.insert(0, str(EXAMPLES))
    from pain21_project import write_project

    import gpu_sdm

    n = 200
    theirs, z_map = _ale(n, both_threads())
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder) / "project")
        data = gpu_sdm.read(Path(folder) / "project")
        ours, result = {}, None
        for threads in both_threads():
            done: list[tuple[float, float, int]] = []

            def progress(stage: str, i: int, total: int, done: list = done) -> None:
                from time import perf_counter, process_time

                if stage == "permutations" and i > 1:
                    done.append((perf_counter(), process_time(), i))

            result = gpu_sdm.run(
                data, gpu_sdm.Settings(permutations=5 * TILE, statistic=("voxel",)),
                threads=threads, progress=progress,
            )  # fmt: skip
            (w0, c0, i0), (w1, c1, i1) = done[0], done[-1]
            ours[str(threads)] = {"wall_s": (w1 - w0) / (i1 - i0), "cpu_s": (c1 - c0) / (i1 - i0)}
    from nilearn.image import resample_to_img

    space = result.space
    from nibabel.nifti1 import Nifti1Image

    image = Nifti1Image(space.embed(result.maps["z"]), space.affine)
    ours_there = np.ravel(
        resample_to_img(image, z_map, force_resample=True, copy_header=True).get_fdata()
    )
    ale_z = np.ravel(z_map.get_fdata())
    both = (ale_z != 0) & (ours_there != 0)
    top = ale_z[both] >= np.quantile(ale_z[both], 0.99)
    found = row(
        "foci of 21 pain studies, null of the largest value, voxel",
        f"NiMARE {version} ALE Monte Carlo",
        {"voxels": space.n_voxels, "studies": 21, "permutations": n,
         "imputations": result.settings.imputations},
        theirs,
        ours,
        [
            agreement(
                "z maps, rank correlation", spearmanr(ale_z[both], ours_there[both])[0], None
            ),
            agreement(
                "mean percentile in our z of ALE's highest hundredth",
                _percentile(ours_there[both], top), 90, at_least=True,
            ),
        ],
        None,
        "not the same work: SDM-PSI permutes the subjects of every study in "
        f"{result.settings.imputations} imputations, ALE scatters foci; divide ours by the "
        "imputations for the cost of one map",
        same=False,
    )  # fmt: skip
    return [found]


def _percentile(values: np.ndarray, chosen: np.ndarray) -> float:
    order = values.argsort().argsort()
    return float(100 * order[chosen].mean() / (len(values) - 1))


def measure(quick: bool) -> list[dict[str, Any]]:
    """Do both; ALE has one size and is left out of a quick run."""
    return permuted_ols(quick) + ([] if quick else ale(quick))
