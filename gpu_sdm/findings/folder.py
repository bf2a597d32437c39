"""A folder of findings: written whole, replaced only where it holds the same thing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpu_sdm.errors import OutputError
from gpu_sdm.io.claimed import abandoned, remove
from gpu_sdm.io.tables import stored_json, write_json
from gpu_sdm.output import MARK


def _refuse_other(out: Path, kind: str, identity: Mapping[str, Any]) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    stored = stored_json(out / f"{kind}.json")
    if stored.get("program") != MARK or stored.get("kind") != kind:
        raise OutputError(
            f"{out} exists and holds no {kind} of gpu-sdm, so it is not replaced; choose another "
            "--out."
        )
    for name, value in identity.items():
        if stored.get(name) != value:
            raise OutputError(
                f"{out} holds another {kind} ({name} is {stored.get(name)!r}, this one's is "
                f"{value!r}); choose another --out."
            )


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def _keep_others(old: Path, out: Path, kind: str) -> None:
    """Move what somebody else put into a folder of findings into the one that replaces it."""
    written = stored_json(old / f"{kind}.json").get("files")
    if written is None:
        return
    for name in set(_files(old)) - {*written, f"{kind}.json"}:
        if not (out / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (old / name).rename(out / name)


def _put_back(out: Path, kind: str) -> None:
    """Complete or take back what a process was killed at."""
    for new in abandoned(out, "partial"):
        remove(new)
    for old in abandoned(out, "old"):
        if out.exists():
            _keep_others(old, out, kind)
            remove(old)
        else:
            old.rename(out)


def replace_folder(
    out: Path,
    kind: str,
    identity: Mapping[str, Any],
    content: Mapping[str, Any],
    write: Callable[[Path], None],
) -> Path:
    """Write a folder of findings, or replace it by its like.

    Parameters
    ----------
    out : path
        The folder.
    kind : str
        What it holds; `KIND.json` marks it as ours.
    identity : mapping
        What an existing folder must agree in to be replaced; part of KIND.json.
    content : mapping
        The rest of KIND.json.
    write : callable
        Writes everything else into an empty folder.

    Returns
    -------
    path
        `out`, absolute. At any moment it is absent, the old folder or the new one, whole (for the
        instant between two renames the old one is `.NAME.PID.old`, which the next call puts
        back). Files that others put into the old one are kept.

    Raises
    ------
    OutputError
        If something else is there, or it cannot be written: what was there stays.
    """
    out = out.absolute()
    _put_back(out, kind)
    _refuse_other(out, kind, identity)
    new = out.with_name(f".{out.name}.{os.getpid()}.partial")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    made = [p for p in (out.parent, *out.parent.parents) if not p.exists()]
    try:
        new.mkdir(parents=True)
        write(new)
        about = {"program": MARK, "kind": kind, **identity, **content, "files": _files(new)}
        write_json(new / f"{kind}.json", about)
        if out.exists():
            out.rename(old)
        new.rename(out)
        if old.exists():
            _keep_others(old, out, kind)
    except BaseException as error:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(new, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, OSError):
            raise OutputError(
                f"{out} cannot be written ({error.strerror or error}); choose another --out."
            ) from error
        raise
    shutil.rmtree(old, ignore_errors=True)
    return out
