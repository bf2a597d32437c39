"""`gpu-sdm decode`: what the regions of a finding do, by the peaks and words of the literature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from gpu_sdm.decode.connectivity import Connectivity
    from gpu_sdm.decode.seeds import Seed
    from gpu_sdm.finished import Finished
    from gpu_sdm.spaces import Space

BASE, TERMS, CONNECTIVITY = "Database", "Terms", "Connectivity"


def decode(
    result: Annotated[
        Path | None,
        typer.Argument(
            help="Result folder of gpu-sdm permute; none with --at and --out.",
            show_default=False,
            metavar="[OUT]",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=BASE, metavar="DIR", show_default="neurosynth",
            help="Folder of the database, or neurosynth or neuroquery once fetched.",
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch", rich_help_panel=BASE,
            help="Download the database once, through NiMARE; alone, that is all.",
        ),
    ] = False,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=BASE, show_default="terms, where there are",
            help="Terms or topics to use: terms, LDA50, neuroquery7547, ...",
        ),
    ] = None,
    talairach: Annotated[
        bool,
        typer.Option(
            "--talairach",
            rich_help_panel=BASE,
            help="Take studies that Neurosynth guesses to be in Talairach space to MNI.",
        ),
    ] = False,
    at: opt.Points = None,
    threshold: opt.Thresholds = None,
    seeds: Annotated[
        Literal["peak", "cluster"],
        typer.Option(
            rich_help_panel=opt.WHERE, help="Look at the peak of a cluster or all its voxels."
        ),
    ] = "peak",
    radius: Annotated[
        float,
        typer.Option(
            min=1, max=30, rich_help_panel=opt.WHERE,
            help="A study counts with a peak at most this far, mm.",
        ),
    ] = 6.0,
    min_studies: Annotated[
        int, typer.Option(min=2, rich_help_panel=opt.WHERE, help="Seeds of fewer are refused.")
    ] = 20,
    voxel_size: Annotated[
        int,
        typer.Option(
            min=2, max=4, rich_help_panel=opt.WHERE, help="Grid of the maps without an OUT, mm."
        ),
    ] = 2,
    kernel: Annotated[
        float, typer.Option(min=1, max=30, help="Radius of a peak in the maps (MKDA), mm.")
    ] = 10.0,
    q: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="False discovery rate of the maps.")
    ] = 0.05,
    connectivity: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=CONNECTIVITY, metavar="PEAK=FILE", show_default="none",
            help="Map of r with a seed, which is its number or x,y,z; repeat for several.",
        ),
    ] = None,
    r: Annotated[
        float,
        typer.Option(
            "--r", min=0, max=1, rich_help_panel=CONNECTIVITY,
            help="Larger correlations count as connected.",
        ),
    ] = 0.2,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=4, rich_help_panel=CONNECTIVITY, show_default="r alone decides",
            help="Independent observations behind r (subjects): adds its test and the minimum z.",
        ),
    ] = None,
    terms: Annotated[
        int, typer.Option(min=1, max=200, rich_help_panel=TERMS, help="Terms to list of a seed.")
    ] = 15,
    terms_file: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=TERMS, show_default="none",
            help="Look at the terms in this file only, one a line; -term leaves one out.",
        ),
    ] = None,
    all_terms: Annotated[
        bool,
        typer.Option(
            "--all-terms", rich_help_panel=TERMS,
            help="Keep words of anatomy, methods and plain English too.",
        ),
    ] = False,
    min_term_studies: Annotated[
        int, typer.Option(min=1, rich_help_panel=TERMS, help="Rarer terms are not tested.")
    ] = 100,
    out: Annotated[Path | None, opt.out_option("decode/NAME")] = None,
    as_json: opt.AsJson = False,
) -> None:  # fmt: skip
    """Co-activation, connectivity and the terms that go with the peaks of a result."""
    from gpu_sdm import terminal
    from gpu_sdm.atlas import load_atlas
    from gpu_sdm.commands._decode_view import charts, show
    from gpu_sdm.decode import decoded as d
    from gpu_sdm.decode.fetch import database_of
    from gpu_sdm.decode.folder import save
    from gpu_sdm.decode.seeds import seeds_of
    from gpu_sdm.decode.words import chosen_terms
    from gpu_sdm.errors import SettingError

    if fetch:
        folder = _fetched(database)
        if result is None and not at:
            shared.finish(folder, as_json, {})
            return
    if result is None and (not at or out is None or threshold):
        raise SettingError(
            "there is no result: give the OUT folder of gpu-sdm permute, or both --at x,y,z and "
            "--out DIR to look at points alone."
        )
    finished, space = _space(result, voxel_size)
    chosen = seeds_of(_sites(finished, space, threshold, at), seeds)
    maps = _connectivity(connectivity or [], chosen, space, (r, n, q))
    base = database_of(database, vocabulary, talairach)
    keep = chosen_terms(base.terms, base.kind, terms_file, all_terms)
    rules = d.Rules(
        radius, kernel, q, min_studies, r_min=r, n=n, terms=terms,
        min_term_studies=min_term_studies,
    )  # fmt: skip
    with terminal.StageProgress() as progress:
        found = d.decode(base, chosen, space, keep, load_atlas(), rules, maps, progress)
    if out is None:
        out = (result or Path()) / "decode" / base.label
    said = {
        "out": None if result is None else str(result.absolute()),
        "terms_file": terms_file,
        "all_terms": all_terms,
        "seeds": seeds,
    }
    folder = save(found, out, said, charts(found))
    show(found)
    shared.finish(
        folder,
        as_json,
        {
            "seeds": found.seeds,
            "refused": found.refused,
            "terms": found.terms,
            "regions": found.regions,
            "overlap": found.overlap,
        },
    )


def _fetched(database: str | None) -> Path:
    from gpu_sdm import terminal
    from gpu_sdm.decode.fetch import fetch

    base = fetch(database or "neurosynth")
    said = base.said()
    terminal.say(
        f"{base.label}: {said['studies']:,} studies, {said['peaks']:,} peaks, "
        f"{said['terms']:,} terms. Licence: {said['licence']}. Cite: {said['citation']}"
    )
    return base.folder


def _space(result: Path | None, voxel_size: int) -> tuple[Finished | None, Space]:
    """Open the result, if there is one, and give its grid, else the default one."""
    from gpu_sdm.finished import open_result
    from gpu_sdm.spaces import Space
    from gpu_sdm.templates import default_mask

    if result is None:
        return None, Space(voxel_size, default_mask(voxel_size))
    finished = open_result(result)
    return finished, finished.space


def _sites(
    finished: Finished | None,
    space: Space,
    threshold: Sequence[str] | None,
    at: Sequence[str] | None,
) -> list[Any]:
    from gpu_sdm.findings.sites import distinct_names, point_sites

    if finished is None:
        return distinct_names(point_sites(space, [shared.point(p) for p in at or ()]))
    return shared.chosen_sites(finished, threshold, at, None)


def _connectivity(
    given: Sequence[str],
    seeds: Sequence[Seed],
    space: Space,
    rules: tuple[float, int | None, float],
) -> dict[int, Connectivity]:
    """Read the maps of --connectivity: seed number -> map."""
    from gpu_sdm.decode.connectivity import read_connectivity
    from gpu_sdm.errors import SettingError

    known = {str(s.number): s for s in seeds} | {s.where: s for s in seeds}
    there = "; ".join(f"{s.number} or {s.where}" for s in seeds)
    found: dict[int, Connectivity] = {}
    for text in given:
        peak, mark, file = text.partition("=")
        seed = known.get(peak.replace(" ", ""))
        if not mark or not file or seed is None:
            raise SettingError(
                f"--connectivity is {text!r}; write PEAK=FILE, PEAK one of: {there}."
            )
        if seed.number in found:
            raise SettingError(f"--connectivity gives seed {seed.number} two maps; give one.")
        found[seed.number] = read_connectivity(Path(file), space, *rules)
    return found
