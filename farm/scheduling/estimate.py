"""How long stages will take and what they will cost, from those that were made before.

A stage is compared with the most alike ones on record: the same spec in the same world first, then the same class, then
the same kind; seconds and price go with the number of responses, pairs or verdicts where a stage has one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from farm.scheduling.graph import Node


@dataclass(frozen=True)
class Estimate:
    """Of one stage; None where nothing is known."""

    seconds: float | None
    price: float | None
    """US dollars"""
    same: bool = False
    """they were made by the same spec in the same world"""
    gpu: bool = False
    """the stages it is compared with ran on a GPU"""


class Estimator:
    """Estimates from the facts of earlier stages (:meth:`farm.storage.artifacts.Artifacts.timings`)."""

    def __init__(self, timings: Sequence[dict[str, Any]]) -> None:
        self._by: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        for facts in timings:
            for place in _places(facts):
                self._by[place].append(facts)

    def __call__(self, node: Node) -> Estimate:
        for closeness, place in enumerate(_places(node.facts)):
            if alike := self._by.get(place):
                seconds = _scaled(((f["seconds"], f.get("units")) for f in alike), node.units)
                prices = [(f["price"], f.get("verdicts")) for f in alike if "price" in f]
                gpu = any(f.get("gpu") for f in alike)
                return Estimate(seconds, _scaled(prices, node.units) if prices else None, closeness == 0, gpu)
        return Estimate(None, None)


def _places(facts: Any) -> list[tuple[Any, ...]]:
    kind, world = facts.get("kind"), facts.get("world")
    return [("like", facts.get("like")), ("class", kind, world, facts.get("class")), ("kind", kind, world)]


def _scaled(found: Iterable[tuple[float, Any]], units: int) -> float:
    return median([float(value) * (units / count if count else 1.0) for value, count in found])


def total(values: Iterable[float | None]) -> tuple[float, int]:
    """The sum of those that are known, and how many are not."""
    listed = list(values)
    return sum(v for v in listed if v is not None), sum(v is None for v in listed)


def duration(seconds: float) -> str:
    """
    >>> duration(7), duration(200), duration(8000), duration(4e5)
    ('7 s', '3.3 min', '2.2 h', '4.6 days')
    """
    for unit, size, enough in (("days", 86400, 2 * 86400), ("h", 3600, 5400), ("min", 60, 90)):
        if seconds >= enough:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
