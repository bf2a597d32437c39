"""Commands that ask a finished null, or two results, for more: a file each."""

from __future__ import annotations

import typer

from gpu_sdm.commands.conjunction import conjunction
from gpu_sdm.commands.contrast import contrast
from gpu_sdm.commands.grade import grade
from gpu_sdm.commands.roi import roi
from gpu_sdm.commands.tail import tail

app = typer.Typer()
for command in (roi, tail, conjunction, contrast, grade):
    app.command()(command)
