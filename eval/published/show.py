"""Printing a result and writing its table (whole or not at all), and progress where the work is worth it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd

from farm.base import progress
from farm.statistics.result import Result
from farm.tables.formats import check_table, write_table


def check_out(out: Path | None, *inputs: object) -> None:
    """Refuse a table that could not be written, before the work. Inputs that are files must not be overwritten."""
    if out is not None:
        check_table(out, inputs=[Path(given) for given in inputs if isinstance(given, (str, Path))])


def result(found: Result, out: Path | None, as_json: bool, *, table: pd.DataFrame | None = None) -> None:
    """Write the table of ``found`` to ``out`` if given, then print it as text, or all of it as JSON."""
    import typer

    if out is not None:
        write_table(found.table() if table is None else table, out)
    typer.echo(found.to_json() if as_json else str(found))
    if out is not None:
        typer.echo(f"written: {out}", err=True)


def working(description: str, total: int, *, worth: int) -> AbstractContextManager[progress.Task]:
    """A progress display for ``total`` units, silent below ``worth`` of them (a second or two)."""
    if total >= worth:
        return progress.task(description, total)
    return _Silent()


class _Silent(AbstractContextManager[progress.Task]):
    def __enter__(self) -> progress.Task:
        return progress.Task(lambda done, total, note: None)

    def __exit__(self, *raised: object) -> None:
        return None
