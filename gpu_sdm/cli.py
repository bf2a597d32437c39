"""The command line: parse, call the library, render. No science."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gpu_sdm import log
from gpu_sdm.commands.bias import bias
from gpu_sdm.commands.check import check
from gpu_sdm.commands.combine import combine
from gpu_sdm.commands.conjunction import conjunction
from gpu_sdm.commands.contrast import contrast
from gpu_sdm.commands.convert import convert
from gpu_sdm.commands.decode import decode
from gpu_sdm.commands.demo import demo
from gpu_sdm.commands.extract import extract
from gpu_sdm.commands.grade import grade
from gpu_sdm.commands.heights import heights
from gpu_sdm.commands.heterogeneity import heterogeneity
from gpu_sdm.commands.jackknife import jackknife
from gpu_sdm.commands.machine import bench, cache, info
from gpu_sdm.commands.model import model
from gpu_sdm.commands.permute import permute
from gpu_sdm.commands.plot import plot
from gpu_sdm.commands.prisma import prisma
from gpu_sdm.commands.report import report
from gpu_sdm.commands.roi import roi
from gpu_sdm.commands.studies import studies
from gpu_sdm.commands.tail import tail
from gpu_sdm.commands.template import app as template_app
from gpu_sdm.commands.threshold import threshold
from gpu_sdm.errors import GpuSdmError

app = typer.Typer(
    name="gpu-sdm",
    help="Open SDM-PSI: coordinate-based meta-analysis from reported peaks to corrected maps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order of the work.
COMMANDS = {
    "Input": (check, studies, prisma, convert, combine, heights),
    "Analysis": (permute, model),
    "Findings of a result": (
        threshold,
        heterogeneity,
        jackknife,
        bias,
        extract,
        grade,
        roi,
        tail,
        conjunction,
        contrast,
        decode,
        plot,
        report,
    ),
    "Machine": (demo, bench, info, cache),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(template_app, name="template", rich_help_panel="Input")


def _version(asked: bool) -> None:
    if asked:
        from gpu_sdm import __version__

        print(f"gpu-sdm {__version__}")  # noqa: T201 -- asked for
        raise typer.Exit


@app.callback()
def options(
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE",
            show_default="none",
            help="Append times, stages, messages, versions and the exit code to this file.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Print the version."),
    ] = False,
) -> None:
    """Open SDM-PSI: coordinate-based meta-analysis from reported peaks to corrected maps."""
    if log_file is not None:
        from gpu_sdm import terminal
        from gpu_sdm.environment import versions

        log.start(log_file, ["gpu-sdm", *sys.argv[1:]], versions(), terminal.say)


def main() -> None:
    """Entry point: errors become one line and exit code 1, Ctrl-C exit code 130."""
    with log.ended():
        try:
            app(standalone_mode=True)
        except GpuSdmError as exc:
            from gpu_sdm import terminal

            terminal.show_error(str(exc))
            sys.exit(1)
        except MemoryError:
            from gpu_sdm import terminal

            terminal.show_error(
                "memory ran out; what was saved is kept. Close other programs and give the same "
                "command again, or ask for less (permute: --memory GB, --voxel-size 4)."
            )
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
