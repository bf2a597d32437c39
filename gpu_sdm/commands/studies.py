"""`gpu-sdm studies`: the tables of the studies that a paper prints, and its group comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_sdm.commands import _on_result as shared
from gpu_sdm.commands import _options as opt

if TYPE_CHECKING:
    from gpu_sdm.findings.group_comparisons import Compared


def studies(
    project: opt.Input,
    columns: Annotated[
        str,
        typer.Option(
            metavar="A,B|all",
            show_default="none",
            help="Print these columns of the input too; all: those whose name says nothing known.",
        ),
    ] = "",
    out: Annotated[
        Path | None,
        opt.option(
            opt.OUTPUT,
            "Folder for each table as TSV, CSV and LaTeX.",
            "--out",
            "-o",
            default="nothing is written",
        ),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Print the studies' samples and methods as papers do; compare patients with controls."""
    from gpu_sdm import terminal
    from gpu_sdm.findings.group_comparisons import compare_groups
    from gpu_sdm.findings.study_tables import study_tables
    from gpu_sdm.io import read_all
    from gpu_sdm.io.tables import new_folder

    dataset = read_all(project)
    further = [c.strip() for c in columns.split(",") if c.strip()]
    tables = study_tables(dataset.studies, further)
    compared = compare_groups(dataset.studies)
    for table in tables:
        left = _left(table.rows)
        shown = {f"{h}<" if h in left else h: shared.text(h) for h in table.rows[0]}
        shared.show_table(table.caption, shown, table.rows)
    _show(compared)
    for note in compared.notes:
        terminal.say(note)
    if out is not None:
        _write(new_folder(out), tables, compared)
    content: dict[str, Any] = {t.name: t.rows for t in tables}
    content |= {"totals": compared.totals, "tests": compared.tests, "notes": compared.notes}
    shared.finish(project if out is None else out, as_json, content)


def _left(rows: Sequence[Mapping[str, str]]) -> set[str]:
    """Headings of the columns that hold text."""
    from gpu_sdm.findings.study_tables import NUMBERS

    return {h for h in rows[0] if not all(NUMBERS.fullmatch(r[h]) for r in rows)}


def _show(compared: Compared) -> None:
    shared.show_table(
        "Groups over all studies; ages weighted by subjects.",
        {
            "group<": shared.text("group"),
            "studies": shared.text("studies"),
            "subjects": shared.text("subjects"),
            "mean age": shared.number("age_mean"),
            "of studies": shared.text("age_studies"),
            "women": shared.text("female"),
            "%": shared.number("female_percent", 1),
            "of studies ": shared.text("female_studies"),
        },
        compared.totals,
    )
    if compared.tests:
        shared.show_table(
            "Patients against controls, two-sided.",
            {
                "quantity<": shared.text("quantity"),
                "patients": lambda r: f"{r['patients']:.4g}",
                "controls": lambda r: f"{r['controls']:.4g}",
                "test<": shared.text("test"),
                "statistic": shared.number("statistic", 3),
                "df": lambda r: f"{r['df']:.4g}",
                "p": shared.number("p", 4),
                "studies": shared.text("studies"),
                "left out<": shared.text("left_out"),
            },
            compared.tests,
            ["t-tests: one value per study and group, unweighted. chi-square: all subjects."],
        )


def _write(folder: Path, tables: Sequence[Any], compared: Compared) -> None:
    from gpu_sdm.findings.study_tables import to_latex
    from gpu_sdm.findings.table3 import to_csv
    from gpu_sdm.io.tables import write_bytes, write_tsv

    for table in tables:
        write_tsv(folder / f"{table.name}.tsv", list(table.rows[0]), table.rows)
        write_bytes(folder / f"{table.name}.csv", to_csv(table.rows))
        write_bytes(folder / f"{table.name}.tex", to_latex(table.rows, table.caption).encode())
    write_tsv(folder / "groups.tsv", list(compared.totals[0]), compared.totals)
    if compared.tests:
        write_tsv(folder / "group_tests.tsv", list(compared.tests[0]), compared.tests)
