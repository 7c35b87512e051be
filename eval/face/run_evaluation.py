"""A run folder evaluated again, from its verdicts alone: no model, no annotator, and no class that the folder names.

A folder may come from anyone, so only our own evaluators' numbers are taken over from its configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from eval.evaluators.leaderboard import Leaderboard
from eval.evaluators.replicates import Replicates
from eval.evaluators.validation_study import ValidationStudy
from farm.base.errors import UserError
from farm.base.files import exists
from farm.experiments import run_tables
from farm.experiments.run_folder import read_comparison
from farm.roles.protocols import Replication
from farm.statistics import terminal


def run_folder(rows: Any) -> Path | None:
    """The run folder that was named, if it is one."""
    named = rows[0] if isinstance(rows, (list, tuple)) and len(rows) == 1 else rows
    return Path(named) if isinstance(named, (str, Path)) and exists(Path(named) / "config.yaml") else None


def evaluate_run(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a run's evaluator, or of a study's aggregator, by name.

    Raises:
        UserError: for a folder that is not a run folder, or lacks its tables.
    """
    config = run_tables.settings(folder)[1]
    if (folder / "variants.json").is_file():
        return _study(folder, config)
    own = Leaderboard(**_numbers(config.get("evaluator"), "eval.evaluators.leaderboard.Leaderboard"))
    return own.evaluate(read_comparison(folder))


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
    replicates = Replicates(**_numbers(spec, "eval.evaluators.replicates.Replicates"))
    if isinstance(spec, dict) and spec.get("class") == "eval.evaluators.validation_study.ValidationStudy":
        inner = Replicates(**_numbers(spec.get("aggregator"), "eval.evaluators.replicates.Replicates"))
        return ValidationStudy(inner, **_numbers(spec, "eval.evaluators.validation_study.ValidationStudy")).aggregate(
            replication
        )
    return replicates.aggregate(replication)


def _numbers(spec: Any, path: str) -> dict[str, Any]:
    """The confidence and rounds of one of our own classes."""
    if not isinstance(spec, dict) or spec.get("class") != path:
        return {}
    known: dict[str, type | tuple[type, ...]] = {"confidence": float, "rounds": int}
    return {name: spec[name] for name, kind in known.items() if isinstance(spec.get(name), kind)}


def print_run(folder: Path, as_json: bool) -> None:
    """The tables of a run folder on the terminal: as JSON all of them, else the leaderboard."""
    tables = evaluate_run(folder)
    if as_json:
        print(json.dumps({name: json.loads(t.to_json(orient="records")) for name, t in tables.items()}, indent=1))
        return
    board = tables["leaderboard"]
    print(terminal.shown(board.drop(columns=["missing_why", "samples", "standard_error"], errors="ignore")))
