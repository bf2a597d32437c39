"""The project of `gpu-sdm demo`: eleven real studies' sizes and thresholds, SIMULATED peaks."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from gpu_sdm.errors import OutputError

_PACKAGED = Path(str(files("gpu_sdm"))) / "demo_project"
_CHECKOUT = Path(__file__).parents[1] / "examples" / "pain_empathy" / "project_simulated"
PROJECT = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def write_demo(folder: Path) -> Path:
    """Copy the demonstration project into a folder.

    Parameters
    ----------
    folder : path
        Gets the subfolder `project_simulated`; one that is there already is left as it is.

    Returns
    -------
    path
        The project.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    project = folder / _CHECKOUT.name
    if project.exists():
        return project
    try:
        shutil.copytree(PROJECT, project)
    except OSError as exc:
        raise OutputError(
            f"{project} cannot be written ({exc.strerror or exc}); name another folder."
        ) from exc
    return project
