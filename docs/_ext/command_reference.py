"""Writes reference/cli.md from the commands themselves before each build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def _text(text: str | None) -> str:
    """One paragraph of Markdown: a pipe would end a cell of a table."""
    return " ".join((text or "").split()).replace("|", r"\|")


def _options(command: Any, context: Any) -> list[str]:
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    lines = [f"| `{_text(name)}` | {_text(given)} |" for name, given in filter(None, records)]
    return ["| option | meaning |", "|---|---|", *lines, ""] if lines else []


def _pages(command: Any, name: str, depth: int) -> list[str]:
    # Typer carries a click of its own: only what both have is used.
    context = command.make_context(name, [], resilient_parsing=True)
    lines = [f"{'#' * depth} {name}", ""]
    lines += ["\n\n".join(_text(part) for part in (command.help or "").split("\n\n")), ""]
    lines += ["```text", command.get_usage(context), "```", ""]
    lines += _options(command, context)
    for child, below in getattr(command, "commands", {}).items():
        lines += _pages(below, f"{name} {child}", depth + 1)
    return lines


def reference() -> str:
    """Markdown of every command, its arguments and options, in the order of --help."""
    from gpu_sdm.cli import app

    return "\n".join(_pages(typer.main.get_command(app), "gpu-sdm", 1))


def _write(app: Any) -> None:
    page = Path(app.srcdir) / "reference" / "cli.md"
    text = reference()
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
