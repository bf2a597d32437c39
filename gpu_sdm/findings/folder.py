"""A folder of findings: written whole, replaced only where it holds the same thing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpu_sdm.errors import OutputError
from gpu_sdm.io.tables import write_json
from gpu_sdm.output import MARK


def _stored(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _refuse_other(out: Path, kind: str, identity: Mapping[str, Any]) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    stored = _stored(out / f"{kind}.json")
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
        instant between two renames the old one is `.NAME.PID.old`).

    Raises
    ------
    OutputError
        If something else is there, or it cannot be written: what was there stays.
    """
    out = out.absolute()
    _refuse_other(out, kind, identity)
    new = out.with_name(f".{out.name}.{os.getpid()}.partial")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    made = [p for p in (out.parent, *out.parent.parents) if not p.exists()]
    try:
        new.mkdir(parents=True)
        write(new)
        write_json(new / f"{kind}.json", {"program": MARK, "kind": kind, **identity, **content})
        if out.exists():
            out.rename(old)
        new.rename(out)
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
