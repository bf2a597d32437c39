"""What is killed: small projects of every kind and the commands that are run on them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import t as student

from gpu_sdm.spaces import SHAPES, grid_affine

NOTE = "my own notes on this analysis\n"
SIZES = ((16, 0), (22, 0), (14, 0), (19, 0), (15, 13), (20, 17), (18, 0), (24, 0))
SMALL = ["--voxel-size", "4", "--imputations", "3"]


@dataclass(frozen=True)
class Case:
    """A command, and what was done in its folder before.

    Parameters
    ----------
    name : str
    before : tuple of argv
        Commands that make the folder in which it starts.
    command : argv
        What is killed; OUT stands for the result folder.
    findings : bool
        It only adds to a finished OUT: nothing that was there may change.
    """

    name: str
    before: tuple[tuple[str, ...], ...]
    command: tuple[str, ...]
    findings: bool = False


def write_mask(path: Path, radius: int) -> None:
    """Write a ball of voxels in the middle of the 4 mm grid."""
    grid = np.indices(SHAPES[4]).reshape(3, -1).T - np.array(SHAPES[4]) // 2
    ball = (np.linalg.norm(grid, axis=1) <= radius).reshape(SHAPES[4])
    nib.save(nib.Nifti1Image(ball.astype(np.uint8), grid_affine(4)), path)


def write_project(folder: Path, images: int, seed: int = 5) -> None:
    """Write eight studies, one- and two-sample; the first `images` of them have a t map."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = ["study\tn1\tn2\tt_thr\tage"]
    for k, (n1, n2) in enumerate(SIZES):
        threshold = student.isf(0.001, n1 + n2 - 2 if n2 else n1 - 1)
        rows.append(f"s{k}\t{n1}\t{n2}\t{threshold:.4f}\t{20 + 4 * k + rng.random():.2f}")
        if k < images:
            field = gaussian_filter(rng.standard_normal(SHAPES[4]), 2)
            values = (0.8 + 1.2 * field / field.std()).astype(np.float32)
            nib.save(nib.Nifti1Image(values, grid_affine(4)), folder / f"s{k}.nii.gz")
            continue
        lines = []
        for centre, sign in (((0, -16, 18), 1), ((-14, -24, 10), -1), ((10, 0, 26), 1)):
            x, y, z = np.round(np.asarray(centre) + rng.normal(0, 5, 3))
            lines.append(f"{x:g} {y:g} {z:g} {sign * (threshold + rng.exponential(1.2)):.3f}")
        (folder / f"s{k}.spm_mni.txt").write_text("\n".join(lines) + "\n")
    (folder / "sdm_table.txt").write_text("\n".join(rows) + "\n")


def make_cases(home: Path, radius: int = 6) -> dict[str, Case]:
    """Write the projects into `home` and list what is run on them."""
    mask = home / "mask.nii.gz"
    write_mask(mask, radius)
    for name, images in (("peaks", 0), ("mixed", 3), ("images", len(SIZES))):
        write_project(home / name, images)
    small = [*SMALL, "--mask", str(mask), "--threads", "1"]

    def permute(project: str, n: int, *more: str) -> tuple[str, ...]:
        files = (str(home / project), "--out", "OUT", "-n", str(n))
        report = () if "REPORT" in more else ("--no-report",)  # a report takes longer than the rest
        return ("permute", *files, *small, *report, *(word for word in more if word != "REPORT"))

    tight = ("--map", "uncorrected", "--p", "0.005", "--extent", "1")
    finished = (permute("peaks", 40),)
    found = [
        Case("peaks: voxel and TFCE", (), permute("peaks", 200)),
        Case("images", (), permute("images", 200)),
        Case("peaks and images, with the report", (), permute("mixed", 64, "REPORT")),
        Case(
            "peaks and images: cluster statistics",
            (),
            permute("mixed", 64, "--statistic", "cluster-extent", "--statistic", "cluster-mass"),
        ),
        Case(
            "moderator: whole studies permuted",
            (),
            (
                *("model", str(home / "peaks"), "--formula", "1 + age", "--contrast", "age"),
                *("--out", "OUT", "--permutations", "200", "--no-report", *small),
            ),
        ),
        Case("peaks moved, all estimated again", (), permute("peaks", 6, "--exchange", "peaks")),
        Case("studies flipped, all estimated again", (),
             permute("mixed", 6, "--exchange", "studies")),
        Case(
            "more permutations for a result with findings and notes",
            (*finished, ("threshold", "OUT", *tight), ("NOTE",)),
            permute("peaks", 80),
        ),
        Case(
            "another result replaced by --force",
            (permute("peaks", 40, "--seed", "9"), ("threshold", "OUT", *tight), ("NOTE",)),
            permute("peaks", 64, "--force"),
        ),
        Case("threshold", finished, ("threshold", "OUT", *tight), findings=True),
        Case("jackknife", finished, ("jackknife", "OUT", "--threads", "1"), findings=True),
        Case("jackknife with permutations", finished,
             ("jackknife", "OUT", "--study", "s0", "--study", "s5", "-n", "20", "--threads", "1"),
             findings=True),
        Case("heterogeneity", finished,
             ("heterogeneity", "OUT", "--at", "0,-16,18", "--threads", "1"), findings=True),
    ]  # fmt: skip
    return {case.name: case for case in found}


def do_note(out: Path) -> None:
    """Put files of the user's own into a result."""
    (out / "notes.txt").write_text(NOTE)
    (out / "maps" / "mine.txt").write_text(NOTE)
    shutil.copytree(out / "tables", out / "my folder")
