"""The run folder: everything an experiment leaves behind, in one folder that can be moved or sent.

The report is made from it alone, without the models:

    config.yaml            the resolved configuration, every default written out
    environment.json       date, versions, machine, threads
    metrics.jsonl          one line a training step: {"method", "step", ...}
    tables/*.parquet       preferences (annotated training pairs), ratings and other kinds of training feedback, outputs
                           (answers of all methods on held-out instructions, with gold, proxy, kl), judge_<role>
                           (verdicts of each judge), accuracy (of the models, where it was asked for), dialogues (with
                           held-out users, a row a turn)
    leaderboard.csv/.json  and the evaluator's other tables (agreement.csv, pairwise.csv, ...)
    costs.json             stages with their seconds, annotations with their number and price
    checkpoints/<method>/  policies in Hugging Face format
    failures.csv/.json     methods that failed, with the stage and the reason; only where there are any
    status.json            how far the run has got (farm.experiments.run_status)
    report.html

A sweep or replicates leave a folder of the same kind with the aggregator's tables, in which ``runs/`` has a folder for
each variant (without checkpoints) and ``variants.csv/.json`` says what each is.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import farm
from farm.base import files, platforms, progress
from farm.base.errors import OptionError, UserError
from farm.experiments import room, run_tables
from farm.experiments.experiment import BASELINE
from farm.roles.protocols import Comparison, Reporter
from farm.storage import sealed
from farm.storage.artifacts import Made
from farm.tables import formats

HUMAN_PRICE = 0.25
"""US dollars a pair, what AlpacaFarm paid its crowd workers (arXiv 2305.14387)"""


_OURS = {
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "tables",
    "costs.json",
    "checkpoints",
    "report.html",
    "runs",
    "status.json",
}
"""What a run folder holds, besides the evaluator's tables; a folder with anything else is never replaced"""


def check(folder: Path) -> None:
    """Refuse to write a run into a folder that holds something else, or that cannot be made or replaced."""
    files.check_folder(folder)
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{folder}: a run folder is replaced as a whole, so it cannot hold the working folder")
    try:
        found = list(folder.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        found = None
    # A run that was killed leaves its status, or the half-written next one.
    paths = [p for p in found or () if not p.name.startswith(".status.json.")]
    names = {p.name for p in paths}
    empty = names <= {"status.json"}
    if found is None or any(map(_strange, paths)) or not (empty or "environment.json" in names):
        raise OptionError(f"{folder}: is there already and is not a run folder; give another `out`")


def _strange(path: Path) -> bool:
    return path.name not in _OURS and path.suffix not in (".csv", ".json")


@dataclass(frozen=True)
class Finished:
    """What one experiment came to."""

    description: dict[str, Any]
    stages: Sequence[Made]
    feedback: dict[str, pd.DataFrame]
    """kind -> the training feedback of it"""
    comparison: Comparison
    tables: dict[str, pd.DataFrame]
    """of the evaluator"""
    failures: Sequence[dict[str, Any]] = ()
    """method, stage, reason, trace of what failed"""
    accuracy: pd.DataFrame | None = None
    """how often each model agrees with whom, where that was asked for"""
    device: Sequence[str] = ()
    """what it ran on, and what of it fits there"""


def write(folder: Path, finished: Finished, reporter: Reporter | None) -> None:
    """Write a run folder beside its place and put it there whole, in the place of an earlier one."""
    with replaced(folder) as new:
        fill(new, finished)
        report(new, reporter)


def report(folder: Path, reporter: Reporter | None) -> None:
    """Let the reporter write, if there is one."""
    if reporter is not None:
        with progress.task("writing the report"):
            reporter.write(folder)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder beside the place of a run folder, which takes that place when the block ends without an error."""
    with sealed.unfinished(folder) as place:
        (new := place / "new").mkdir(mode=0o755)
        yield new
        with held(folder):
            check(folder)
            if folder.exists():
                os.rename(folder, place / "old")
            os.rename(new, folder)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """No process replaces a run folder inside the block: two runs may end at once in one place."""
    try:
        beside = os.open(folder.parent, os.O_RDONLY)
    except OSError:  # there is no such place
        yield
        return
    try:
        with suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(beside, fcntl.LOCK_EX)
        yield
    finally:
        os.close(beside)


def fill(run: Path, finished: Finished, checkpoints: bool = True) -> None:
    """All files of a run folder but the report."""
    (run / "tables").mkdir()
    comparison, stages = finished.comparison, finished.stages
    write_config(run, finished.description, finished.device)
    with (run / "metrics.jsonl").open("w") as metrics:
        for stage in stages:
            if (lines := stage.folder / "metrics.jsonl").is_file():
                metrics.write(lines.read_text())
    write_tables(run, finished.tables)
    if finished.failures:
        write_tables(run, {"failures": pd.DataFrame(finished.failures)})
    annotated = dict(comparison.annotations)
    for kind, table in finished.feedback.items():
        formats.write_table(table, run / "tables" / f"{'preferences' if kind == 'pairs' else kind}.parquet")
        annotated = {"annotator" if kind == "pairs" else f"annotator of {kind}": table, **annotated}
    if finished.accuracy is not None:
        formats.write_table(finished.accuracy, run / "tables" / "accuracy.parquet")
    formats.write_table(comparison.outputs, run / "tables" / "outputs.parquet")
    if comparison.dialogues is not None:
        formats.write_table(comparison.dialogues, run / "tables" / "dialogues.parquet")
    for role, table in comparison.annotations.items():
        formats.write_table(table, run / "tables" / f"judge_{role}.parquet")
    (run / "costs.json").write_text(costs_text(stages, annotated))
    for stage in stages if checkpoints else ():
        if (model := stage.folder / "model").is_dir():
            # A copy, not a link: whoever trains a checkpoint further must not change what is stored.
            shutil.copytree(model, run / "checkpoints" / stage.name.rpartition("/")[2].replace(" ", "_"))


def write_config(run: Path, description: dict[str, Any], device: Sequence[str] = ()) -> None:
    """The resolved configuration and the environment; ``device`` in the place of what the description says of it."""
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (run / "config.yaml").write_text(text, encoding="utf-8")
    facts = {**environment(), "device": "; ".join(device or room.lines(description)), **_base_model(description)}
    (run / "environment.json").write_text(json.dumps(facts, indent=1))


def _base_model(description: dict[str, Any]) -> dict[str, str]:
    """The world's model where it is one of the hub: of a name that is a folder here, or was one in a folder that is,
    nobody could tell elsewhere."""
    world = description.get("world")
    name = world.get("model") if isinstance(world, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or Path(name.split("/")[0]).exists():
        return {}
    return {"base_model": name}


def write_tables(run: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Each table as CSV and as JSON."""
    for name, table in tables.items():
        formats.write_table(table, run / f"{name}.csv")
        formats.write_table(table, run / f"{name}.json")


def compact(board: pd.DataFrame, keys: Sequence[str] = ()) -> pd.DataFrame:
    """A leaderboard to look at: an estimate and its interval in one cell, counts left to the files."""

    def cell(value: float, low: float, high: float, digits: int) -> str:
        if value != value:
            return ""
        return f"{value:.{digits}f}" + (f" ±{(high - low) / 2:.{digits}f}" if low == low and high == high else "")

    shown: dict[str, Any] = {}
    for column in board.columns:
        column = str(column)
        low, high = f"{column}_low", f"{column}_high"
        if column == "rank" and low in board.columns:
            shown[column] = [f"{a}-{b}" if a < b else str(a) for a, b in zip(board[low], board[high], strict=True)]
        elif low in board.columns and high in board.columns and column != "proxy":
            digits = 1 if column.startswith("win_rate") else 2
            rows = zip(board[column], board[low], board[high], strict=True)
            shown[column.replace("win_rate_", "by ")] = [cell(*row, digits) for row in rows]
        elif column in keys:
            shown[column.rpartition(".")[2]] = board[column].tolist()
        elif column in ("method", "kl"):
            shown[column] = (board[column].round(2) + 0.0 if column == "kl" else board[column]).tolist()  # + 0: no -0
    return pd.DataFrame(shown)


def read_comparison(run: Path) -> Comparison:
    """What the evaluator was given, from the files of a run folder alone.

    Raises:
        UserError: for a folder that lacks the tables, or whose tables are not what they should be.
    """
    outputs = run / "tables" / "outputs.parquet"
    if not (run / "config.yaml").is_file() or not outputs.is_file():
        raise UserError(f"{run}: not a run folder with tables (it has no config.yaml or no tables/outputs.parquet)")
    config = run_tables.settings(run)[1]
    answers = run_tables.read(outputs)
    judged = {role: run_tables.read(_judge(run, role)) for role in _roles(run, config.get("judges"))}
    if "judge" not in judged:
        raise UserError(f"{run}: the verdicts of the judge are missing ({_judge(run, 'judge')})")
    talks = run / "tables" / "dialogues.parquet"
    talked = run_tables.read(talks) if talks.is_file() else None
    tables = [(outputs, answers), *((_judge(run, role), table) for role, table in judged.items())]
    for path, table in tables if talked is None else [*tables, (talks, talked)]:
        if not len(table):
            raise UserError(f"{path}: holds no row")
        if not {"method", "generator_2"} & set(table.columns):
            raise UserError(f"{path}: neither the column `method` nor `generator_2` says whose answers are judged")
    if talked is not None and not talked.groupby("method")["turn"].min().eq(0).all():
        raise UserError(f"{talks}: a method has no first turn, which is `turn` 0")
    return Comparison(answers, judged, BASELINE, config.get("seed") or 0, talked)


def _judge(run: Path, role: str) -> Path:
    return run / "tables" / f"judge_{role}.parquet"


def _roles(run: Path, named: Any) -> list[str]:
    """The roles that judged, in the order of the configuration."""
    there = sorted(p.stem.removeprefix("judge_") for p in (run / "tables").glob("judge_*.parquet"))
    order = [r for r in named if r in there] if isinstance(named, dict) else []
    return [*order, *(r for r in there if r not in order)]


def costs(stages: Sequence[Made], annotated: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Seconds of every stage, and number and price (US dollars) of the annotations of every role."""
    unique = {s.name: {"stage": s.name, "seconds": s.seconds, "found": s.found} for s in stages}
    return {
        "stages": list(unique.values()),
        "annotations": [
            {
                "role": role,
                "annotations": len(table),
                "statuses": table["status"].value_counts().to_dict(),
                "price": float(table["price"].sum()),
                "input_tokens": int(table["input_tokens"].sum()),
                "output_tokens": int(table["output_tokens"].sum()),
                "price_of_people": HUMAN_PRICE * len(table),
            }
            for role, table in annotated.items()
        ],
        "peak_memory_gib": platforms.peak_memory() / 2**30,
    }


def costs_text(stages: Sequence[Made], annotated: dict[str, pd.DataFrame]) -> str:
    """What stands in ``costs.json``."""
    return json.dumps(costs(stages, annotated), indent=1)


def environment() -> dict[str, Any]:
    """What this process runs on."""
    packages = ("torch", "transformers", "numpy", "pandas", "vllm")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "feedback-farm": farm.__version__,
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS") or os.cpu_count(),
        "packages": versions,
    }
