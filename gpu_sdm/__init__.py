"""gpu-sdm: open SDM-PSI, from reported peaks to permutation-corrected maps.

Examples
--------
>>> import gpu_sdm
>>> gpu_sdm.Settings(permutations=5000).seed
0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Result", "Settings", "__version__", "get_backend", "read", "run"]

if TYPE_CHECKING:
    from gpu_sdm.backend import get_backend
    from gpu_sdm.config import Settings
    from gpu_sdm.io import read
    from gpu_sdm.pipeline import run
    from gpu_sdm.result import Result

# Imported on first use: `gpu-sdm --help` must not wait for numba and pandas.
_HOMES = {
    "read": "gpu_sdm.io",
    "Settings": "gpu_sdm.config",
    "run": "gpu_sdm.pipeline",
    "Result": "gpu_sdm.result",
    "get_backend": "gpu_sdm.backend",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gpu_sdm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
