"""A run folder evaluated again, from its verdicts alone: no model, no annotator, and no class that the folder names.

A folder may come from anyone, so only our own evaluators' numbers are taken over from its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from eval.evaluators.leaderboard import Leaderboard
from eval.evaluators.replicates import Replicates
from eval.evaluators.validation_study import ValidationStudy
from eval.face.options import EvaluateOptions
from farm.base.errors import OptionError, UserError
from farm.base.files import exists
from farm.experiments import run_tables
from farm.experiments.run_folder import read_comparison
from farm.roles.protocols import Replication
from farm.statistics import terminal

E = TypeVar("E")


def run_folder(rows: Any) -> Path | None:
    """The run folder that was named, if it is one."""
    named = rows[0] if isinstance(rows, (list, tuple)) and len(rows) == 1 else rows
    return Path(named) if isinstance(named, (str, Path)) and exists(Path(named) / "config.yaml") else None


def refuse_others(options: EvaluateOptions, folder: Path) -> None:
    """A run is evaluated as its configuration says, so an option that nothing would read is refused.

    Raises:
        OptionError: naming it.
    """
    plain = EvaluateOptions(folder)
    for name in (field.name for field in fields(options) if field.name != "rows"):
        given = getattr(options, name)
        if isinstance(given, pd.DataFrame) or given != getattr(plain, name):
            raise OptionError(f"{folder}: a run folder is evaluated as its configuration says; leave out `{name}`")


def evaluate_run(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a run's evaluator, or of a study's aggregator, by name.

    Raises:
        UserError: for a folder that is not a run folder, or lacks its tables.
    """
    config = run_tables.settings(folder)[1]
    if (folder / "variants.json").is_file():
        return _study(folder, config)
    return _own(Leaderboard, config.get("evaluator"), folder).evaluate(read_comparison(folder))


def _study(folder: Path, config: dict[str, Any]) -> dict[str, pd.DataFrame]:
    variants = run_tables.read(folder / "variants.json")
    folders = []
    for name in variants["variant"].astype(str):
        place = folder / "runs" / name
        if place.parent != folder / "runs":
            raise UserError(f"{folder / 'variants.json'}: `{name}` is not the name of a folder below runs/")
        folders.append(place)
    seed = config.get("seed")
    replication = Replication(variants, folders, seed if isinstance(seed, int) else 0)
    spec = config.get("aggregator")
    if isinstance(spec, dict) and spec.get("class") == _path(ValidationStudy):
        inner = _own(Replicates, spec.get("aggregator"), folder)
        return _own(ValidationStudy, spec, folder, inner).aggregate(replication)
    return _own(Replicates, spec, folder).aggregate(replication)


def _own(kind: Callable[..., E], spec: Any, folder: Path, *inner: Replicates) -> E:
    """One of our own classes with the confidence and rounds that a configuration gives it."""
    said = spec if isinstance(spec, dict) and spec.get("class") == _path(kind) else {}
    known: dict[str, type] = {"confidence": float, "rounds": int}
    numbers = {name: said[name] for name, number in known.items() if isinstance(said.get(name), number)}
    try:
        return kind(*inner, **numbers)
    except ValueError as error:
        raise UserError(f"{folder / 'config.yaml'}: {error}") from error


def _path(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def print_run(folder: Path, as_json: bool) -> None:
    """The tables of a run folder on the terminal: as JSON all of them, else the leaderboard."""
    tables = evaluate_run(folder)
    if as_json:
        print(json.dumps({name: json.loads(t.to_json(orient="records")) for name, t in tables.items()}, indent=1))
        return
    board = tables["leaderboard"]
    print(terminal.shown(board.drop(columns=["missing_why", "samples", "standard_error"], errors="ignore")))
