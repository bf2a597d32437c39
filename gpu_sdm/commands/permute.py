"""`gpu-sdm permute`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gpu_sdm.commands.model import Statistic

MODEL, NULL, OUTPUT, DEVICE = "Model", "Permutation", "Output", "Device"


def permute(
    project: Annotated[
        Path,
        typer.Argument(
            help="SDM project folder, CSV/TSV/XLSX, Sleuth, NiMARE or NIMADS file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Result folder. The same command again continues an "
            "interrupted run; more --permutations extend a finished one.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ],
    permutations: Annotated[
        int,
        typer.Option(
            "--permutations",
            "-n",
            min=1,
            rich_help_panel=NULL,
            help="Permutations, the identity included.",
        ),
    ] = 1000,
    imputations: Annotated[
        int, typer.Option(min=2, max=10_000, rich_help_panel=MODEL, help="Imputed data sets.")
    ] = 50,
    seed: Annotated[
        int, typer.Option(min=0, rich_help_panel=NULL, help="Seed of every random draw.")
    ] = 0,
    fwhm: Annotated[
        float,
        typer.Option(
            min=5, max=60, rich_help_panel=MODEL, help="Width of the anisotropic kernel, mm."
        ),
    ] = 20.0,
    anisotropy: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=MODEL,
            help="1: distances along the correlation template; 0: Euclidean.",
        ),
    ] = 1.0,
    voxel_size: Annotated[
        int, typer.Option(min=2, max=4, rich_help_panel=MODEL, help="Analysis grid, mm.")
    ] = 2,
    mask: Annotated[
        Path | None,
        typer.Option(rich_help_panel=MODEL, help="NIfTI mask; default: grey matter of MNI152."),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=MODEL, help="NIfTI of the 13 correlations between adjacent voxels."
        ),
    ] = None,
    tau2: Annotated[
        Literal["dl", "reml"],
        typer.Option(
            rich_help_panel=MODEL, help="Between-study variance: DerSimonian-Laird or REML."
        ),
    ] = "dl",
    imputation: Annotated[
        Literal["sdm", "truncated-normal"],
        typer.Option(
            rich_help_panel=MODEL,
            help="Law of the imputed effects: SDM-PSI's two spikes, or proper draws.",
        ),
    ] = "sdm",
    discards: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            rich_help_panel=MODEL,
            show_default="by the number of studies",
            help="Studies dropped by the conservative leave-one-out rule.",
        ),
    ] = None,
    covariates: Annotated[
        str,
        typer.Option(
            rich_help_panel=MODEL,
            metavar="A+B",
            show_default="none",
            help="Nuisance covariates, columns of the table; the mean is tested.",
        ),
    ] = "",
    exchange: Annotated[
        Literal["subjects", "studies", "peaks"],
        typer.Option(
            rich_help_panel=NULL,
            help="subjects: no effect in any study; studies: signs of whole studies flip; peaks: "
            "peaks move over the mask. The last two re-estimate everything each time: slow.",
        ),
    ] = "subjects",
    noise: Annotated[
        str,
        typer.Option(
            rich_help_panel=NULL,
            metavar="scan:R|gaussian:FWHM|template:POWER",
            help="Spatial law of the simulated subject images.",
        ),
    ] = "scan:0.77",
    statistic: Annotated[
        list[Statistic] | None,
        typer.Option(
            rich_help_panel=NULL,
            show_default="voxel and tfce",
            help="Statistic to correct; repeat for several.",
        ),
    ] = None,
    cluster_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=40,
            rich_help_panel=NULL,
            metavar="Z",
            show_default="3.0902 where clusters are asked for",
            help="Voxels of z above it form the clusters of the cluster statistics.",
        ),
    ] = None,
    sample_correlation: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=MODEL,
            help="Correlation of contrasts of one sample (same cell in the column sample), which "
            "are averaged into one study.",
        ),
    ] = 0.5,
    bounds: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=MODEL,
            metavar="DIR",
            help="Start from SDM-PSI's own STUDY_lower.nii.gz and STUDY_upper.nii.gz.",
        ),
    ] = None,
    compat: Annotated[
        Literal["sdm-6.21"] | None,
        typer.Option(
            rich_help_panel=MODEL,
            show_default="off",
            help="Reproduce the known deviations of that program.",
        ),
    ] = None,
    backend: Annotated[
        Literal["auto", "cuda", "cpu", "numpy"],
        typer.Option(
            rich_help_panel=DEVICE,
            help="auto takes CUDA where it can run, else the compiled CPU path, and says so.",
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            rich_help_panel=DEVICE,
            show_default="all cores",
            help="Worker threads.",
        ),
    ] = None,
    device: Annotated[
        int, typer.Option(min=0, rich_help_panel=DEVICE, help="CUDA device number.")
    ] = 0,
    device_memory: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            rich_help_panel=DEVICE,
            metavar="GB",
            show_default="what is free",
            help="Most memory to take on the CUDA device.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=OUTPUT,
            help="Read, plan, print memory and expected time; write nothing.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            rich_help_panel=OUTPUT,
            help="Discard unfinished work and replace a finished result at --out.",
        ),
    ] = False,
) -> None:
    """Run the meta-analysis: maps, permutation-corrected p values and cluster tables."""
    from gpu_sdm import terminal
    from gpu_sdm.analysis import prepare
    from gpu_sdm.backend import get_backend
    from gpu_sdm.config import DEFAULT_STATISTICS, Settings
    from gpu_sdm.forecast import check_memory, forecast
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
        noise=noise,
        statistic=tuple(s.value for s in statistic) if statistic else DEFAULT_STATISTICS,
        cluster_threshold=cluster_threshold,
        sample_correlation=sample_correlation,
        compat=compat,
    )
    most = None if device_memory is None else int(device_memory * 1e9)
    chosen = get_backend(backend, threads, device, most, terminal.say)
    analysis = prepare(read(project, compat=settings.sdm_compat), settings, chosen)
    terminal.show_summary(analysis)
    if dry_run:
        terminal.show_forecast(forecast(analysis), analysis.permutations)
        return
    check_memory(analysis)
    with terminal.StageProgress() as progress, terminal.StopAfterStep(progress) as step:
        try:
            result = execute(analysis, out=out, force=force, progress=step, say=terminal.say)
        except KeyboardInterrupt:
            progress.stop()
            terminal.say_interrupted(out)
            raise
    terminal.show_result(result)
    print(out)  # noqa: T201 -- the contract: last line of stdout is the path of the result
