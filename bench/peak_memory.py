"""The most memory that this process had."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_mb() -> int:
    """Largest memory of this process in MB; ru_maxrss begins at that of its parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) // 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
