"""Every error a user can meet: one clear sentence, exit code 1, nothing written."""

from __future__ import annotations

from pathlib import Path


class GpuSdmError(Exception):
    """Parent of all errors gpu-sdm raises on purpose."""


class InputError(GpuSdmError):
    """A file or a value in it cannot be used.

    Parameters
    ----------
    message : str
        What was found, what is wanted and how to mend it.
    path : path, optional
        The file at fault.
    line : int, optional
        Line number in that file, from 1.
    """

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None):
        self.path, self.line = path, line
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(where + message)


class TooFewStudies(InputError):
    """An input holds fewer studies that can be used than a meta-analysis needs."""


class SettingError(GpuSdmError):
    """A setting is outside its range or does not fit the others."""


class SpaceError(GpuSdmError):
    """A mask, template or map does not fit the analysis grid."""


class BackendUnavailable(GpuSdmError):
    """The backend asked for cannot run here; the message says what is missing."""


class OutOfMemory(GpuSdmError):
    """The analysis does not fit; the message says what it needs and what there is."""


class OutputError(GpuSdmError):
    """The output folder cannot be used: locked, finished with other settings, or not writable."""


class CheckpointMismatch(OutputError):
    """A checkpoint was made with other settings; the message names the difference."""


class NumericalError(GpuSdmError):
    """A map holds NaN; the message gives the voxel in MNI millimetres."""


class WorkersLost(GpuSdmError):
    """The workers of a cluster are gone, or die on the same work; what is finished is kept."""
