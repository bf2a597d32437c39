"""`gpu-sdm permute`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt
from gpu_sdm.commands import _scale_options as scale

DRY_RUN = "Read, plan, print memory and expected time; write nothing."
FORCE = "Discard unfinished work and replace a finished result at --out."


def permute(
    project: opt.Project,
    out: Annotated[
        Path,
        opt.option(
            opt.OUTPUT,
            "Result folder. The same command again continues an "
            "interrupted run; more --permutations extend a finished one.",
            "--out",
            "-o",
            default=False,
        ),
    ],
    permutations: Annotated[
        int,
        opt.option(opt.NULL, "Permutations, the identity included.", "--permutations", "-n", min=1),
    ] = 1000,
    imputations: Annotated[
        int, opt.option(opt.MODEL, "Imputed data sets.", min=2, max=10_000)
    ] = 50,
    seed: Annotated[int, opt.option(opt.NULL, "Seed of every random draw.", min=0)] = 0,
    fwhm: Annotated[
        float, opt.option(opt.MODEL, "Width of the anisotropic kernel, mm.", min=5, max=60)
    ] = 20.0,
    anisotropy: Annotated[
        float,
        opt.option(
            opt.MODEL, "1: distances along the correlation template; 0: Euclidean.", min=0, max=1
        ),
    ] = 1.0,
    voxel_size: Annotated[int, opt.option(opt.MODEL, "Analysis grid, mm.", min=2, max=4)] = 2,
    mask: Annotated[
        Path | None, opt.option(opt.MODEL, "NIfTI mask; default: grey matter of MNI152.")
    ] = None,
    template: Annotated[
        Path | None,
        opt.option(opt.MODEL, "NIfTI of the 13 correlations between adjacent voxels."),
    ] = None,
    tau2: Annotated[
        Literal["dl", "reml"],
        opt.option(opt.MODEL, "Between-study variance: DerSimonian-Laird or REML."),
    ] = "dl",
    imputation: Annotated[
        Literal["sdm", "truncated-normal"],
        opt.option(opt.MODEL, "Law of the imputed effects: SDM-PSI's two spikes, or proper draws."),
    ] = "sdm",
    discards: Annotated[
        int | None,
        opt.option(
            opt.MODEL,
            "Studies dropped by the conservative leave-one-out rule.",
            min=0,
            max=1000,
            default="by the number of studies",
        ),
    ] = None,
    covariates: Annotated[
        str,
        opt.option(
            opt.MODEL,
            "Nuisance covariates, columns of the table; the mean is tested.",
            metavar="A+B",
            default="none",
        ),
    ] = "",
    exchange: Annotated[
        Literal["subjects", "studies", "peaks"],
        opt.option(
            opt.NULL,
            "subjects: no effect in any study; studies: signs of whole studies flip; peaks: "
            "peaks move over the mask. The last two re-estimate everything each time: slow.",
        ),
    ] = "subjects",
    test: Annotated[
        Literal["z", "score"],
        opt.option(
            opt.NULL,
            "What the corrected p are of: z, or the score of the mean, from the bounds alone; the "
            "latter with --exchange studies (fast and exact) or peaks.",
        ),
    ] = "z",
    noise: Annotated[
        str,
        opt.option(
            opt.NULL,
            "Spatial law of the simulated subject images.",
            metavar="scan:R|gaussian:FWHM|template:POWER",
        ),
    ] = "scan:0.77",
    statistic: Annotated[
        list[opt.Statistic] | None,
        opt.option(opt.NULL, "Statistic to correct; repeat for several.", default="voxel and tfce"),
    ] = None,
    cluster_threshold: Annotated[
        float | None,
        opt.option(
            opt.NULL,
            "Voxels of z above it form the clusters of the cluster statistics.",
            min=0.5,
            max=40,
            metavar="Z",
            default="3.0902 where clusters are asked for",
        ),
    ] = None,
    sample_correlation: Annotated[
        float,
        opt.option(
            opt.MODEL,
            "Correlation of contrasts of one sample (same cell in the column sample), which "
            "are averaged into one study.",
            min=0,
            max=1,
        ),
    ] = 0.5,
    bounds: Annotated[
        Path | None,
        opt.option(
            opt.MODEL,
            "Start from SDM-PSI's own STUDY_lower.nii.gz and STUDY_upper.nii.gz.",
            metavar="DIR",
        ),
    ] = None,
    compat: Annotated[
        Literal["sdm-6.21"] | None,
        opt.option(opt.MODEL, "Reproduce the known deviations of that program.", default="off"),
    ] = None,
    search: Annotated[
        Literal["optimum", "sdm-6.21"],
        opt.option(
            opt.MODEL,
            "How the mean is found: the optimum, or SDM-PSI's search, which gets stuck; "
            "only to compare with its maps.",
        ),
    ] = "optimum",
    stop_at: scale.StopAt = None,
    stop_hits: scale.StopHits = 20,
    stop_statistic: scale.StopStatistic = None,
    backend: Annotated[
        Literal["auto", "cuda", "cpu", "numpy"],
        opt.option(
            opt.DEVICE,
            "auto takes CUDA where it can run, else the compiled CPU path, and says so.",
        ),
    ] = "auto",
    threads: opt.Threads = None,
    device: Annotated[int, opt.device_option()] = 0,
    device_memory: Annotated[float | None, opt.device_memory_option()] = None,
    memory: scale.Memory = None,
    workers: scale.Count = None,
    dask: scale.Address = None,
    dry_run: Annotated[bool, opt.option(opt.OUTPUT, DRY_RUN, "--dry-run")] = False,
    force: Annotated[bool, opt.option(opt.OUTPUT, FORCE, "--force")] = False,
    no_report: opt.NoReport = False,
    as_json: opt.AsJson = False,
) -> None:
    """Run the meta-analysis: maps, permutation-corrected p values and cluster tables."""
    from dataclasses import asdict

    from gpu_sdm import terminal
    from gpu_sdm.analysis import prepare
    from gpu_sdm.backend import get_backend
    from gpu_sdm.config import DEFAULT_STATISTICS, Settings
    from gpu_sdm.forecast import forecast
    from gpu_sdm.io import read
    from gpu_sdm.pipeline import execute

    settings = Settings(
        permutations=permutations,
        imputations=imputations,
        seed=seed,
        fwhm=fwhm,
        anisotropy=anisotropy,
        voxel_size=voxel_size,
        mask=mask,
        template=template,
        bounds=bounds,
        tau2=tau2,
        imputation=imputation,
        discards=discards,
        covariates=tuple(c.strip() for c in covariates.split("+")) if covariates.strip() else (),
        exchange=exchange,
        test=test,
        noise=noise,
        statistic=tuple(s.value for s in statistic) if statistic else DEFAULT_STATISTICS,
        cluster_threshold=cluster_threshold,
        sample_correlation=sample_correlation,
        compat=compat,
        search=search,
        stop_at=scale.place(stop_at),
        stop_hits=stop_hits,
        stop_statistic=stop_statistic,
    )
    crew = scale.workers_of(workers, dask, backend, threads, terminal.say)
    budget = None if memory is None else int(memory * 1e9)
    most = None if device_memory is None else int(device_memory * 1e9)
    chosen = get_backend(backend, threads, device, most, terminal.say)
    analysis = prepare(read(project, compat=settings.sdm_compat), settings, chosen)
    terminal.show_summary(analysis, stderr=as_json)
    if dry_run:
        found = forecast(analysis, budget)
        terminal.show_forecast(found, analysis.permutations, stderr=as_json)
        if as_json:
            shared.print_json({"permutations": analysis.permutations, **asdict(found)})
        return
    with (
        crew as hands,
        terminal.StageProgress() as progress,
        terminal.StopAfterStep(progress) as step,
    ):
        try:
            result = execute(
                analysis,
                out=out,
                force=force,
                progress=step,
                say=terminal.say,
                note=progress.note,
                memory=budget,
                workers=hands,
            )
        except KeyboardInterrupt:
            progress.stop()
            terminal.say_interrupted(out)
            raise
    terminal.show_result(result, stderr=as_json)
    shared.report_of(analysis, out, no_report)
    shared.finish(out, as_json, shared.found_in(result))
