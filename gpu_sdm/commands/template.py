"""`gpu-sdm template`: build a correlation template, learn one, show one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

app = typer.Typer(
    help="Correlation templates: build one from subjects' maps, learn SDM-PSI's, show one."
)

if TYPE_CHECKING:
    from gpu_sdm.template_build import Built, Progress

PEAK = "-46,16,-10"


@app.command()
def build(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Maps of subjects in MNI space: NIfTI files (3-D, or 4-D with subjects last), "
            "folders of them, or patterns in quotes.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Template to write, .nii.gz.", show_default=False),
    ],
    mask: Annotated[
        Path | None,
        typer.Option(help="NIfTI mask of the voxels that paths may visit; default: all with data."),
    ] = None,
    voxel_size: opt.VoxelSize = 2,
    min_subjects: Annotated[
        int | None,
        typer.Option(
            min=10,
            show_default="all",
            help="Subjects with data (no NaN, no background) at both voxels that a pair must have.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at --out.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Correlate adjacent voxels over subjects; write what `permute --template` reads."""
    from gpu_sdm import template_build

    template_build.check_out(out, force)

    def make(step: Progress) -> Built:
        return template_build.build_template(
            images,
            voxel_size,
            mask=mask,
            min_subjects=min_subjects,
            without=out,
            progress=step,
            say=_warn,
        )

    built = _make(make, out, "interrupted; nothing was written.", "subjects", _facts)
    shared.finish(out, as_json, built.report)


@app.command()
def learn(
    projects: Annotated[
        list[Path],
        typer.Argument(help="SDM projects that SDM-PSI preprocessed.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Template to write, .nii.gz.", show_default=False),
    ],
    bounds: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a project's STUDY_lower.nii.gz and STUDY_upper.nii.gz; repeat, in the "
            "order of the projects.",
            show_default="pp in each project",
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            help="Score studies in this many parts, each by what the others taught; 0: do not."
        ),
    ] = 2,
    threads: opt.Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at --out.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Learn SDM-PSI's own template from the bound maps of analyses that it made."""
    from gpu_sdm import template_build, template_learn

    template_build.check_out(out, force)

    def make(step: Progress) -> Built:
        return template_learn.learn_template(
            projects, bounds or (), folds=folds, threads=threads, progress=step, say=_warn
        )

    sentence = "interrupted; nothing was written, the same command goes on from here."
    built = _make(make, out, sentence, "studies", _learned)
    shared.finish(out, as_json, built.report)


@app.command()
def show(
    file: Annotated[
        Path | None,
        typer.Argument(help="Template file; default: the built-in one.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Picture to write, .png.")] = None,
    peak: Annotated[
        str, typer.Option(metavar="X,Y,Z", help="Where the picture's kernel stands, mm MNI.")
    ] = PEAK,
    mask: Annotated[
        Path | None,
        typer.Option(help="NIfTI mask: count only links within it; default: all links."),
    ] = None,
    voxel_size: Annotated[
        int, typer.Option(min=2, max=4, help="Grid of the built-in template, mm.")
    ] = 2,
    as_json: opt.Json = False,
) -> None:
    """Print how strongly the neighbours of a template correlate; draw it with --out."""
    from gpu_sdm import terminal
    from gpu_sdm.io.volumes import load_template, read_mask, voxel_size_of
    from gpu_sdm.stages.template import direction_rows, shape_of_domain
    from gpu_sdm.templates import default_mask

    size = voxel_size if file is None else voxel_size_of(file)
    place = shared.point(peak, "--peak")
    template = load_template(file, size)
    inside = None if mask is None else read_mask(mask, size)
    name = "built-in grey-matter template" if file is None else str(file)
    rows = direction_rows(template, inside)
    facts = shape_of_domain(template, default_mask(size) if inside is None else inside)
    if out is not None:
        from gpu_sdm.template_picture import draw

        shown = name if file is None else file.name
        draw(template, place, out, f"{shown}, {size} mm")
    if as_json:
        whole = {"template": name, "voxel_size": size, "domain": facts, "directions": rows}
        shared.print_json(whole)
    else:
        terminal.show_pairs(f"{name}, {size} mm", _domain(facts, inside is not None), stderr=True)
        _show_directions(rows)
    if out is not None:
        print(out)  # noqa: T201 -- the contract


def _warn(sentence: str) -> None:
    from gpu_sdm import terminal

    terminal.say(f"warning: {sentence}")


def _make(
    make: Callable[[Progress], Built],
    out: Path,
    interrupted: str,
    of: str,
    facts: Callable[[dict[str, Any]], dict[str, str]],
) -> Built:
    """Make a template of subjects or studies, show and write it; Ctrl-C stops after a step."""
    from gpu_sdm import template_build, terminal

    with terminal.StageProgress() as progress, terminal.StopAfterStep(progress) as step:
        try:
            built = make(step)
        except KeyboardInterrupt:
            progress.stop()
            terminal.say(interrupted)
            raise
        progress.stop()
        n = built.report[of]
        title = f"template of {n if isinstance(n, int) else len(n)} {of}"
        terminal.show_pairs(title, facts(built.report), stderr=True)
        _show_directions(built.report["directions"])
        template_build.write_template(built, out)
    return built


def _domain(facts: dict[str, Any], own_mask: bool) -> dict[str, str]:
    mask = "the mask" if own_mask else "the built-in grey-matter mask"
    return {
        "domain": f"{facts['domain_voxels']:,} voxels, {facts['share_of_grid']:.1%} of the grid, "
        f"{facts['share_of_mask']:.1%} of {mask}",
        "links": f"{facts['share_of_links']:.1%} of those that its voxels could have",
        "pieces": f"{facts['pieces']:,}; the largest holds {facts['largest_piece']:.1%}",
    }


def _facts(report: dict[str, Any]) -> dict[str, str]:
    voxels = report["voxels"]
    names = ("missing_data", "no_variance")
    left_out = (f"{voxels[f'left_out_for_{n}']:,} ({n.replace('_', ' ')})" for n in names)
    alone = voxels["left_out_without_neighbour"]
    return {
        **_domain(report["domain"], report["mask"] is not None),
        "left out": f"{', '.join(left_out)}, {alone:,} (no neighbour, or on the border)",
        "r <= 0": f"{report['pairs_with_r_not_positive']:,} pairs: not neighbours",
    }


def _learned(report: dict[str, Any]) -> dict[str, str]:
    def score(found: dict[str, float]) -> str:
        return f"RMSE {found['rmse']:.4f}, r {found['r']:.4f}, Dice {found['dice']:.3f}"

    kernels, rows = report["kernels"], {}
    if kernels["held_out"] is not None:
        rows["held out"] = f"{score(kernels['held_out'])}: studies not learned from"
    return {
        **_domain(report["domain"], own_mask=True),
        "reach": f"{report['share_reached_by_one']:.1%} of the mask by one study, "
        f"{report['share_reached_by_five']:.1%} by five or more",
        "built-in": f"{score(kernels['before'])}: kernels summed, against SDM-PSI's",
        "learned": f"{score(kernels['after'])}",
        **rows,
    }


def _show_directions(rows: Sequence[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from gpu_sdm import terminal

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = ("", "links", "mean r", "5 %", "95 %", "mm", "virtual mm", "ratio")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    forms = {
        "r": ".4f", "r_5": ".4f", "r_95": ".4f", "step_mm": ".2f", "virtual_mm": ".2f",
        "virtual_per_mm": ".2f",
    }  # fmt: skip
    for row in rows:
        figures = ("n/a" if row[n] is None else f"{row[n]:{form}}" for n, form in forms.items())
        table.add_row(row["direction"], f"{row['links']:,}", *figures)
    terminal.open_console().print(table)
