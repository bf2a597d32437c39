"""`gpu-sdm report`: the page of a finished result, made again."""

from __future__ import annotations

from gpu_sdm.commands import _options as opt


def report(result: opt.Result) -> None:
    """Write OUT/report.html again, with what other commands have added since."""
    from gpu_sdm.report.build import report as write

    print(write(result))  # noqa: T201
