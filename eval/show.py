"""Printing a result and writing its table: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eval.result import Result
from farm.formats import write_table


def result(found: Result, out: Path | None, as_json: bool, *, table: pd.DataFrame | None = None) -> None:
    """Write the table of ``found`` to ``out`` if given, then print it as text, or all of it as JSON."""
    import typer

    if out is not None:
        write_table(found.table() if table is None else table, out)
    typer.echo(found.to_json() if as_json else str(found))
    if out is not None:
        typer.echo(f"written: {out}", err=True)
