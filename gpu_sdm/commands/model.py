"""`gpu-sdm model`: linear models of the effects, subgroups and bubble plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_sdm.analysis import Analysis
    from gpu_sdm.findings.sites import Site
    from gpu_sdm.result import Result

AS_SOURCE = "as that of OUT, else as for permute"
MOST_PLOTS = 20
Point = tuple[float, float, float]  # MNI millimetres


def _setting(panel: str, text: str, **more: Any) -> Any:
    return opt.option(panel, text, default=AS_SOURCE, **more)


def model(
    source: Annotated[
        Path,
        opt.argument(
            "PROJECT|OUT",
            "SDM project folder, or a finished result whose project and settings are used.",
        ),
    ],
    formula: Annotated[
        str | None,
        opt.option(
            opt.MODEL,
            "Such as '1 + age + C(medication)': columns of the table, + - * :, C(), center(), "
            "scale(), poly(column, degree).",
            default=False,
        ),
    ] = None,
    contrast: Annotated[
        list[str] | None,
        opt.option(
            opt.MODEL,
            "A coefficient, 'a - b', or weights '0,1,-1'; repeat to test several jointly.",
            default="the mean",
        ),
    ] = None,
    subgroup: Annotated[
        str | None,
        opt.option(
            opt.MODEL,
            "Instead of a formula: the mean of each group and the difference of each pair.",
            metavar="COLUMN",
            default="none",
        ),
    ] = None,
    where: Annotated[
        str | None,
        _setting(opt.MODEL, "Only studies for which this holds, such as \"disorder == 'MDD'\"."),
    ] = None,
    plot: Annotated[
        list[str] | None,
        opt.option(
            opt.OUTPUT,
            "Bubble plot at this voxel (MNI mm), into OUT/plots; repeat for several.",
            metavar="X,Y,Z",
            default="peaks of corrected clusters",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        opt.option(
            opt.OUTPUT, "Result folder; not needed with --plot alone.", "--out", "-o", default=False
        ),
    ] = None,
    permutations: Annotated[
        int | None, _setting(opt.NULL, "Permutations, the identity included.", min=1)
    ] = None,
    seed: Annotated[int | None, _setting(opt.NULL, "Seed of every random draw.", min=0)] = None,
    statistic: Annotated[
        list[opt.Statistic] | None, _setting(opt.NULL, "Statistic to correct; repeat for several.")
    ] = None,
    cluster_threshold: Annotated[
        float | None, _setting(opt.NULL, "Forming threshold of the cluster statistics.", min=0.5)
    ] = None,
    exchange: Annotated[
        Literal["subjects", "studies"] | None,
        _setting(opt.NULL, "For the test of a mean; slopes and differences permute whole studies."),
    ] = None,
    noise: Annotated[str | None, _setting(opt.NULL, "Law of the simulated subject images.")] = None,
    imputations: Annotated[int | None, _setting(opt.MODEL, "Imputed data sets.", min=2)] = None,
    fwhm: Annotated[float | None, _setting(opt.MODEL, "Width of the kernel, mm.")] = None,
    anisotropy: Annotated[float | None, _setting(opt.MODEL, "Anisotropy of the kernel.")] = None,
    voxel_size: Annotated[
        int | None, _setting(opt.MODEL, "Analysis grid, mm.", min=2, max=4)
    ] = None,
    mask: Annotated[Path | None, _setting(opt.MODEL, "NIfTI mask.")] = None,
    template: Annotated[Path | None, _setting(opt.MODEL, "Correlation template.")] = None,
    bounds: Annotated[Path | None, _setting(opt.MODEL, "Start from SDM-PSI's own bounds.")] = None,
    tau2: Annotated[
        Literal["dl", "reml"] | None, _setting(opt.MODEL, "Between-study variance estimator.")
    ] = None,
    imputation: Annotated[
        Literal["sdm", "truncated-normal"] | None,
        _setting(opt.MODEL, "Law of the imputed effects."),
    ] = None,
    impute_under: Annotated[
        Literal["model", "null"] | None,
        _setting(
            opt.MODEL,
            "null (default): impute without the tested slope or difference; model: as SDM-PSI.",
        ),
    ] = None,
    discards: Annotated[
        int | None, _setting(opt.MODEL, "Studies dropped by the leave-one-out rule.", min=0)
    ] = None,
    sample_correlation: Annotated[
        float | None, _setting(opt.MODEL, "Correlation of contrasts of one sample.", min=0, max=1)
    ] = None,
    compat: Annotated[
        Literal["sdm-6.21"] | None, _setting(opt.MODEL, "Reproduce that program's deviations.")
    ] = None,
    search: Annotated[
        Literal["optimum", "sdm-6.21"] | None,
        _setting(opt.MODEL, "How a mean without covariates is found."),
    ] = None,
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    force: opt.Force = False,
    no_report: opt.NoReport = False,
    as_json: opt.AsJson = False,
) -> None:
    """Test a slope, a difference between groups, or a mean beside covariates."""
    from dataclasses import replace

    from gpu_sdm import terminal
    from gpu_sdm.backend import get_backend
    from gpu_sdm.errors import SettingError
    from gpu_sdm.findings.models import open_source, subgroups

    given: dict[str, Any] = {
        "where": where, "permutations": permutations, "seed": seed, "exchange": exchange,
        "cluster_threshold": cluster_threshold, "noise": noise, "imputations": imputations,
        "fwhm": fwhm, "anisotropy": anisotropy, "voxel_size": voxel_size, "mask": mask,
        "template": template, "bounds": bounds, "tau2": tau2, "imputation": imputation,
        "discards": discards, "impute_under": impute_under, "compat": compat, "search": search,
        "sample_correlation": sample_correlation,
        "statistic": tuple(s.value for s in statistic) if statistic else None,
    }  # fmt: skip
    points = [shared.point(text, "--plot") for text in plot or ()]
    if formula is None and subgroup is None and points and out is None:
        _plot(source, points, backend, threads, as_json)
        return
    if (formula is None) == (subgroup is None) or out is None:
        raise SettingError(
            "give --formula or --subgroup, and --out DIR; or a finished model and --plot X,Y,Z."
        )
    if subgroup is not None and (contrast or plot):
        raise SettingError("--subgroup chooses its own contrasts; leave --contrast and --plot out.")
    start = open_source(source)
    settings = start.settings.changed({k: v for k, v in given.items() if v is not None})
    dataset = start.dataset(settings.sdm_compat)
    chosen = get_backend(backend, threads, announce=terminal.say)
    if subgroup is None:
        settings = replace(settings, formula=formula, contrast=tuple(contrast or ()))
        result = _run(dataset, settings, chosen, out, force, points, as_json)
        shared.report_of(None, out, no_report)
        shared.finish(out, as_json, shared.found_in(result))
        return
    models, count = subgroups(dataset, subgroup, settings.where)
    terminal.say("groups: " + ", ".join(f"{g} ({n} studies)" for g, n in sorted(count.items())))
    rows = []
    for one in models:
        own = replace(settings, formula=one.formula, contrast=(one.contrast,))
        result = _run(dataset, own, chosen, out / one.folder, force, (), as_json)
        shared.report_of(None, out / one.folder, no_report)
        rows.append({"folder": one.folder, "contrast": one.contrast, **_row(result)})
    _show(rows, out)
    shared.finish(out, as_json, {"subgroups": rows})


def _run(
    dataset: Any,
    settings: Any,
    backend: Any,
    out: Path,
    force: bool,
    points: Sequence[Point],
    as_json: bool,
) -> Result:
    """Run one model and draw its bubble plots."""
    from gpu_sdm import terminal
    from gpu_sdm.analysis import prepare
    from gpu_sdm.findings.bubble import require_moderator
    from gpu_sdm.findings.sites import point_sites
    from gpu_sdm.pipeline import execute

    analysis = prepare(dataset, settings, backend)
    where = point_sites(analysis.space, points)  # refused before hours of work, not after them
    if where:
        require_moderator(analysis.design)
    terminal.show_summary(analysis, "model", as_json)
    with terminal.StageProgress() as progress, terminal.StopAfterStep(progress) as step:
        try:
            result = execute(analysis, out=out, force=force, progress=step, say=terminal.say)
        except KeyboardInterrupt:
            progress.stop()
            terminal.say_interrupted(out)
            raise
    terminal.show_result(result, as_json)
    if analysis.design.moderator and len(analysis.design.contrast) == 1:
        _bubbles(analysis, out, where)
    return result


def _bubbles(analysis: Analysis, out: Path, chosen: list[Site]) -> None:
    """Draw at the chosen voxels, or at the peaks of the clusters that survive a correction."""
    from gpu_sdm import terminal
    from gpu_sdm.errors import SettingError
    from gpu_sdm.findings import bubble, sites
    from gpu_sdm.findings.refit import site_effects
    from gpu_sdm.finished import open_result
    from gpu_sdm.io.tables import new_folder

    where = chosen
    if not chosen:
        finished = open_result(out)
        names = [n for n in sites.available_thresholds(finished) if n.startswith("fwe")]
        peaks = [s for s in sites.cluster_sites(finished, names) if s.kind == "peak"]
        where = list({s.xyz_mm: s for s in peaks}.values())
        if len(where) > MOST_PLOTS:
            terminal.say(
                f"bubble plots of {MOST_PLOTS} of {len(where)} peaks; --plot draws others."
            )
            where = where[:MOST_PLOTS]
    if not where:
        return
    effects = site_effects(analysis, where)
    try:
        pictures = bubble.write(effects, new_folder(out / "plots"))
    except SettingError as error:
        if chosen:
            raise
        terminal.say(str(error))
        return
    terminal.say(f"{len(pictures)} bubble plots in {out / 'plots'}")


def _plot(
    source: Path, points: Sequence[Point], backend: str, threads: int | None, as_json: bool
) -> None:
    """Draw at chosen voxels of a finished model."""
    from gpu_sdm import terminal
    from gpu_sdm.findings.bubble import require_moderator
    from gpu_sdm.findings.sites import point_sites
    from gpu_sdm.finished import open_result

    finished = open_result(source)
    where = point_sites(finished.space, points)
    with terminal.StageProgress() as progress:
        analysis = shared.prepared(finished, backend, threads, progress)
    require_moderator(analysis.design)
    _bubbles(analysis, source, where)
    shared.finish(source / "plots", as_json, {})


def _row(result: Result) -> dict[str, Any]:
    """One line of a subgroup analysis."""
    maps = result.maps
    smallest = {n: float(m.min()) for n, m in maps.items() if n.startswith("p_fwe_")}
    return {
        "studies": result.provenance["studies"],
        "max_z": float(maps["z"].max()),
        "min_z": float(maps["z"].min()),
        **smallest,
    }


def _show(rows: list[dict[str, Any]], out: Path) -> None:
    from gpu_sdm.io.tables import write_tsv

    write_tsv(out / "subgroups.tsv", list(rows[0]), rows)
    p = next(c for c in rows[0] if c.startswith("p_fwe"))
    columns = {
        "contrast<": shared.text("contrast"),
        "studies": shared.text("studies"),
        "max z": shared.number("max_z"),
        "min z": shared.number("min_z"),
        f"{p}": shared.number(p, 4),
        f"{p}_neg": shared.number(f"{p}_neg", 4),
        "folder<": shared.text("folder"),
    }
    shared.show_table("subgroups", columns, rows)
