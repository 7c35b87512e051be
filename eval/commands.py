"""The commands of the evaluation wing. The work is imported inside each command, so that ``farm --help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_JSON = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
_OUT = Annotated[Path | None, typer.Option(help="also write the table here (.csv, .json, .jsonl or .parquet)")]
_CONFIDENCE = Annotated[float, typer.Option(help="of every interval")]


def register(app: typer.Typer) -> None:
    """Add the commands of this wing to the ``farm`` command line."""
    app.command()(evaluate)


def evaluate(
    files: Annotated[list[Path], typer.Argument(metavar="ANNOTATIONS...", help="annotation files, AlpacaEval's form")],
    by: Annotated[str, typer.Option(help="column to tabulate separately where the files have it")] = "dataset",
    confidence: _CONFIDENCE = 0.95,
    out: _OUT = None,
    as_json: _JSON = False,
) -> None:
    """Win rates of annotation files, overall and by dataset, with intervals clustered by instruction.

    Example: farm evaluate results/claude-2/alpaca_eval_gpt4/annotations.json --json
    """
    from eval import evaluation, show

    report = evaluation.evaluate_files(files, by=by, confidence=confidence)
    show.result(report, out, as_json)
