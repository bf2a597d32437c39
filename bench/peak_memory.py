"""The most memory that this process had."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Largest memory of this process; where there is no /proc, not less than its parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_mb() -> int:
    """Largest memory of this process in MB of 2^20 bytes."""
    return peak_bytes() >> 20
