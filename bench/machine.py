"""What a figure was measured on."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from pathlib import Path

from gpu_sdm.backend import available_cores
from gpu_sdm.environment import versions


def machine() -> dict[str, object]:
    """Processor, cores, date, versions and commit."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    commit = os.environ.get("GPU_SDM_COMMIT", "")
    # A machine may have a copy of the tree alone.
    if not commit and shutil.which("git") is not None:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    return {
        "processor": model,
        "cores": available_cores(),
        "date": datetime.date.today().isoformat(),
        "commit": commit or "unknown",
        "versions": versions(),
    }
