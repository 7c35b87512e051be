"""Evaluation from Python: ``farm.evaluate``, ``farm.leaderboard`` and ``farm.report``, as the commands do it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from eval import judging
from eval.evaluation import Evaluation, evaluate_table, read_files
from farm import formats
from farm.errors import UserError

Table: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]] | str | Path


def evaluate(
    rows: Table,
    *,
    judge: str | None = None,
    baseline: Table | None = None,
    seed: int = 0,
    **settings: Any,
) -> Evaluation | dict[str, pd.DataFrame]:
    """Win rates with intervals of annotations, or of model outputs that a judge compares with a baseline's.

    Args:
        rows: annotations, or with ``judge`` and ``baseline`` outputs (``instruction, output, generator``): a table,
            rows or a file. A run folder gives the tables of its evaluator, by name.
        settings: as in :func:`eval.evaluation.evaluate_table`: ``confidence``, ``by``, ``flip_rate``, ...
    """
    if isinstance(rows, (str, Path)) and Path(rows).is_dir():
        from eval.run_evaluation import evaluate_run

        return evaluate_run(Path(rows))
    if judge is None and baseline is None:
        table = read_files([Path(rows)]) if isinstance(rows, (str, Path)) else _read(rows)
        return evaluate_table(table, seed=seed, **settings)
    if judge is None or baseline is None:
        raise UserError("model outputs need both `judge` and `baseline`")
    with tempfile.TemporaryDirectory() as place:
        files = [_written(table, Path(place) / f"{name}.json") for name, table in (("own", rows), ("base", baseline))]
        pairs = judging.pairs(files[:1], files[1])
    judged = judging.judge(pairs, judge, seed=seed)
    return evaluate_table(judged.rows, seed=seed, **settings)


def leaderboard(sources: str | Path | Sequence[str | Path], *, metrics: Sequence[str] = ("win_rate",)) -> pd.DataFrame:
    """The published columns with intervals, from results directories and annotation files."""
    from eval.board import board
    from eval.sources import read

    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    table: pd.DataFrame = board(read([Path(s) for s in listed]), metrics=metrics).table
    return table


def report(run: str | Path, examples: int = 20) -> Path:
    """Write the report of a run folder again, from its files alone."""
    from eval.report.html import Html

    return Html(examples).write(Path(run))


def _read(rows: Table) -> pd.DataFrame:
    if isinstance(rows, (str, Path)):
        return formats.read_table(Path(rows))
    return rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))


def _written(rows: Table, path: Path) -> Path:
    if isinstance(rows, (str, Path)):
        return Path(rows)
    formats.write_table(_read(rows), path)
    return path
