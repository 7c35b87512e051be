"""Metrics to a tracker while a method learns, beside ``metrics.jsonl``, which is always written.

The environment variable FARM_TRACKER says where: ``tensorboard:FOLDER`` (each training a sub-folder), or a project or
experiment in which each training is a run: ``trackio:PROJECT``, ``wandb:PROJECT``, ``mlflow:EXPERIMENT``. The
package of that name is needed. What is learned does not depend on it.

Not by accelerate's trackers: they log through its process state, which would set up the group of processes that train
together before :mod:`farm.hardware.processes` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from farm.base.errors import UserError
from farm.base.launched import follows

VARIABLE = "FARM_TRACKER"
KINDS = ("tensorboard", "trackio", "wandb", "mlflow")
_MODULES = {"tensorboard": "torch.utils.tensorboard"}
"""what is imported, where it is not the package"""


def check() -> None:
    """Refuse a tracker that is unknown or not installed, before anything is made.

    Raises:
        UserError: it is.
    """
    kind, _ = _asked()
    if kind:
        _load(_MODULES.get(kind, kind), kind)


@contextmanager
def tracker(run: str) -> Iterator[Callable[[dict[str, float]], None]]:
    """Give a function that writes the metrics of a step of the training ``run``; it does nothing where none was asked,
    and in the processes beside the first.

    Raises:
        UserError: the tracker asked for is unknown or not installed.
    """
    kind, where = _asked()
    if follows():
        yield lambda metrics: None
    elif kind == "tensorboard":
        writer = _load("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(Path(where) / run))
        try:
            yield lambda metrics: _scalars(writer, metrics)
        finally:
            writer.close()
    elif kind == "mlflow":
        mlflow = _load("mlflow", "mlflow")
        mlflow.set_experiment(where)
        with mlflow.start_run(run_name=run):
            yield lambda metrics: mlflow.log_metrics(_named(metrics), step=_step(metrics))
    elif kind:  # trackio and wandb have the same functions
        module = _load(kind, kind)
        module.init(project=where, name=run)
        try:
            yield lambda metrics: module.log(_named(metrics), step=_step(metrics))
        finally:
            module.finish()
    else:
        yield lambda metrics: None


def _asked() -> tuple[str, str]:
    """Which tracker, and its folder or project; both empty where none was asked for."""
    asked = os.environ.get(VARIABLE, "")
    kind, _, where = asked.partition(":")
    if asked and not (kind in KINDS and where):
        raise UserError(
            f"{VARIABLE}={asked}: say tensorboard:FOLDER, or {', '.join(f'{k}:PROJECT' for k in KINDS[1:])}"
        )
    return kind, where


def _scalars(writer: Any, metrics: dict[str, float]) -> None:
    for name, value in _named(metrics).items():
        writer.add_scalar(name, value, _step(metrics) or 0)
    writer.flush()


def _named(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "step"}


def _step(metrics: dict[str, float]) -> int | None:
    """Where on the axis they belong; all of them take it beside the metrics, not among them."""
    return int(metrics["step"]) if "step" in metrics else None


def _load(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{VARIABLE} asks for {package}, which is not installed: pip install {package}") from error
