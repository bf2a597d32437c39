"""The CUDA sources: where they are, and their text with every include inlined.

CuPy keys its disk cache by the source text and does not look into included files, so a kernel is
always compiled from one text that holds its headers.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

_PACKAGED = Path(str(files("gpu_sdm"))) / "kernels"
KERNELS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "kernels"

OPTIONS = ("-std=c++17",)

_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)


def source(name: str) -> str:
    """Give the text of a kernel file, each include of our own inlined once, where first named.

    Parameters
    ----------
    name : str
        File name in the kernels folder, for example "permuted_z.cu".

    Examples
    --------
    >>> '#include "' in source("permuted_z.cu")
    False
    """
    seen: set[str] = set()

    def text(file: str) -> str:
        def inline(match: re.Match[str]) -> str:
            if match[1] in seen:
                return ""
            seen.add(match[1])
            return text(match[1])

        return _INCLUDE.sub(inline, (KERNELS / file).read_text(encoding="utf-8"))

    return text(name)


def defines(knobs: dict[str, int | str]) -> str:
    """Give the lines that set the knobs of a kernel, in a fixed order."""
    return "".join(f"#define {name} {value}\n" for name, value in sorted(knobs.items()))


@cache
def kernel(file: str, entry: str, device: int, **knobs: int | str) -> tuple[Any, Any]:
    """Compile a kernel for a device, once; CuPy keeps the result on disk between runs.

    Parameters
    ----------
    file, entry : str
        Kernel file and the function in it.
    device : int
        CUDA device number; must be the current device.
    **knobs : int or str
        Values of the knobs named in the header of the file.

    Returns
    -------
    function, module
        CuPy's kernel and the module that holds its constants.
    """
    import cupy

    module = cupy.RawModule(code=defines(knobs) + source(file), options=OPTIONS)
    return module.get_function(entry), module
