"""Sweeps: one experiment as many, by settings that take several values.

    sweep: {annotator.rate: [0, 0.1, 0.25], sizes.pairs: [500, 2000]}     # a grid: every combination
    sweep:
      grid: {annotator: {simulated: training, people: humans}}            # values with names of their own
      list: [{methods.ppo.beta: 0.1, methods.ppo.steps: 20}, {methods.ppo.beta: 0.02, methods.ppo.steps: 40}]
      random: {draws: 20, over: {methods.dpo.beta: {log_uniform: [0.01, 1]}, methods.dpo.epochs: [1, 2, 3]}}

A key is the path of a setting, as with ``--set``. Where several of the three are given, every combination of them runs.
Random values are keyed draws of (seed, key, number of the draw): more draws leave the earlier ones as they are.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from farm.base import rng
from farm.base.bounds import Count
from farm.base.errors import UserError, nearest
from farm.roles import config
from farm.storage.store import canonical

Label = str | int | float | bool | None
_DISTRIBUTIONS = ("uniform", "log_uniform", "integers", "choice")


class Random(BaseModel):
    model_config = ConfigDict(extra="forbid")

    draws: Count
    over: dict[str, list[Any] | dict[str, list[Any]]] = Field(min_length=1)
    """key -> values to choose from, or {uniform | log_uniform | integers: [low, high]} or {choice: [...]}"""
    seed: int = 0


class Sweep(BaseModel):
    """What ``sweep`` of an experiment may say; a mapping of keys to values alone is its grid."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    grid: dict[str, list[Any] | dict[str, Any]] = {}
    rows: list[dict[str, Any]] = Field(default=[], alias="list")
    random: Random | None = None


@dataclass(frozen=True)
class Point:
    """One setting of everything that is swept."""

    labels: dict[str, Label]
    """key -> what stands for its value in tables"""
    settings: dict[str, Any]
    """key -> value"""


def parse(data: Any, origin: str) -> Sweep:
    """A sweep as it stands in YAML. Raises UserError naming the key that is wrong."""
    if not isinstance(data, dict) or not data:
        raise UserError(f"{origin}: `sweep` must be a mapping of keys to lists of values")
    if not set(data) & {"grid", "list", "random"}:
        data = {"grid": data}
    sweep = config.validate(Sweep, data, f"{origin}: sweep")
    for key, values in sweep.grid.items():
        if not values:
            raise UserError(f"{origin}: sweep: `{key}` has no value")
    return sweep


def keys(sweep: Sweep) -> list[str]:
    """All that is swept."""
    drawn = sweep.random.over if sweep.random is not None else {}
    return list(dict.fromkeys([*sweep.grid, *(key for row in sweep.rows for key in row), *drawn]))


def points(sweep: Sweep, origin: str = "") -> list[Point]:
    """Every combination, the last key changing fastest."""
    axes: list[list[Point]] = []
    for key, values in sweep.grid.items():
        named = values.items() if isinstance(values, dict) else ((label(v), v) for v in values)
        axes.append([Point({key: name}, {key: value}) for name, value in named])
    if sweep.rows:
        axes.append([Point({k: label(v) for k, v in row.items()}, row) for row in sweep.rows])
    if sweep.random is not None:
        axes.append([_drawn(sweep.random, number, origin) for number in range(sweep.random.draws)])
    out = []
    for combination in itertools.product(*axes):
        labels = {k: v for point in combination for k, v in point.labels.items()}
        out.append(Point(labels, {k: v for point in combination for k, v in point.settings.items()}))
    return out


def label(value: Any) -> Label:
    """What stands for a value in a table: itself, or its text where it is a mapping or a list."""
    return value if value is None or isinstance(value, (str, int, float, bool)) else canonical(value)


def _drawn(random: Random, number: int, origin: str) -> Point:
    values = {}
    for key, how in random.over.items():
        if isinstance(how, list):
            how = {"choice": how}
        if len(how) != 1 or (name := next(iter(how))) not in _DISTRIBUTIONS:
            odd = next((n for n in how if n not in _DISTRIBUTIONS), "")
            raise UserError(f"{origin}: sweep.random: `{key}` needs one distribution; {nearest(odd, _DISTRIBUTIONS)}")
        values[key] = _value(name, how[name], random.seed, key, number, origin)
    return Point({k: label(v) for k, v in values.items()}, values)


def _value(name: str, bounds: list[Any], seed: int, key: str, number: int, origin: str) -> Any:
    u = float(rng.uniform(seed, f"sweep {key}", number)[0])
    if name == "choice":
        if not bounds:
            raise UserError(f"{origin}: sweep.random: `{key}` has no value to choose")
        return bounds[min(int(u * len(bounds)), len(bounds) - 1)]
    numbers = [b for b in bounds if isinstance(b, (int, float)) and not isinstance(b, bool)]
    if len(bounds) != 2 or len(numbers) != 2 or numbers[0] > numbers[1] or (name == "log_uniform" and numbers[0] <= 0):
        raise UserError(f"{origin}: sweep.random: `{key}`: {name} takes [low, high], not {bounds}")
    low, high = numbers
    if name == "integers":
        return int(low) + min(int(u * (int(high) - int(low) + 1)), int(high) - int(low))
    if name == "uniform":
        return low + u * (high - low)
    return float(f"{math.exp(math.log(low) + u * (math.log(high) - math.log(low))):.6g}")
