"""The run folder: everything an experiment leaves behind, in one folder that can be moved or sent.

The report is made from it alone, without the models:

    config.yaml            the resolved configuration, every default written out
    environment.json       date, versions, machine, threads
    metrics.jsonl          one line a training step: {"method", "step", ...}
    tables/*.parquet       preferences (annotated training pairs), outputs (answers of all methods on held-out
                           instructions, with gold, proxy, kl), judge_<role> (verdicts of each judge)
    leaderboard.csv/.json  and the evaluator's other tables (agreement.csv, pairwise.csv, ...)
    costs.json             stages with their seconds, annotations with their number and price
    checkpoints/<method>/  policies in Hugging Face format
    report.html
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import farm
from farm import formats, progress
from farm.artifacts import Stage
from farm.errors import UserError
from farm.protocols import Comparison, Reporter

HUMAN_PRICE = 0.25
"""US dollars a pair, what AlpacaFarm paid its crowd workers (arXiv 2305.14387)"""


_OURS = {"config.yaml", "environment.json", "metrics.jsonl", "tables", "costs.json", "checkpoints", "report.html"}
"""What a run folder holds, besides the evaluator's tables; a folder with anything else is never replaced"""


def check(folder: Path) -> None:
    """Refuse to write a run into a folder that holds something else, or that cannot be replaced."""
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{folder}: a run folder is replaced as a whole, so it cannot hold the working folder")
    if not folder.exists():
        return
    if not folder.is_dir() or any(p.name not in _OURS and p.suffix not in (".csv", ".json") for p in folder.iterdir()):
        raise UserError(f"{folder}: is there already and is not a run folder; give another --out")
    if any(folder.iterdir()) and not (folder / "environment.json").is_file():
        raise UserError(f"{folder}: is there already and is not a run folder; give another --out")


def write(
    folder: Path,
    description: dict[str, Any],
    stages: Sequence[Stage],
    training: pd.DataFrame | None,
    comparison: Comparison,
    tables: dict[str, pd.DataFrame],
    reporter: Reporter | None,
) -> None:
    """Write a run folder beside its place and put it there whole, in the place of an earlier one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _fill(new, description, stages, training, comparison, tables)
        if reporter is not None:
            with progress.task("writing the report"):
                reporter.write(new)
        new.chmod(0o755)
        check(folder)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fill(
    run: Path,
    description: dict[str, Any],
    stages: Sequence[Stage],
    training: pd.DataFrame | None,
    comparison: Comparison,
    tables: dict[str, pd.DataFrame],
) -> None:
    (run / "tables").mkdir()
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (run / "config.yaml").write_text(text, encoding="utf-8")
    (run / "environment.json").write_text(json.dumps(environment(), indent=1))
    with (run / "metrics.jsonl").open("w") as metrics:
        for stage in stages:
            if (lines := stage.folder / "metrics.jsonl").is_file():
                metrics.write(lines.read_text())
    for name, table in tables.items():
        formats.write_table(table, run / f"{name}.csv")
        formats.write_table(table, run / f"{name}.json")
    annotated = dict(comparison.annotations)
    if training is not None:
        formats.write_table(training, run / "tables" / "preferences.parquet")
        annotated = {"annotator": training, **annotated}
    formats.write_table(comparison.outputs, run / "tables" / "outputs.parquet")
    for role, table in comparison.annotations.items():
        formats.write_table(table, run / "tables" / f"judge_{role}.parquet")
    (run / "costs.json").write_text(json.dumps(costs(stages, annotated), indent=1))
    for stage in stages:
        if (model := stage.folder / "model").is_dir():
            # A copy, not a link: whoever trains a checkpoint further must not change what is stored.
            shutil.copytree(model, run / "checkpoints" / stage.name.rpartition("/")[2].replace(" ", "_"))


def costs(stages: Sequence[Stage], annotated: dict[str, pd.DataFrame]) -> dict[str, Any]:
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
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


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
        "packages": versions,
    }
