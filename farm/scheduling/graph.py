"""Stages and what they need: a graph without cycles, in which equal stages of many experiments are one.

A node's key is the content address of all that determines it, so that two experiments that agree up to some point
share their stages up to there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from farm.hardware.device import using
from farm.roles.work import Texts
from farm.storage.artifacts import Work


@dataclass(frozen=True)
class Node:
    """One stage, done or to do."""

    name: str
    """for people, and part of the key"""
    key: str
    kind: str
    """of the stage: "sft", "method", ..."""
    work: Work = field(repr=False)
    """it can be pickled, for other processes"""
    needs: tuple[str, ...] = ()
    """keys of the stages it reads"""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """what is noted with it; ``like`` and ``class`` serve estimates"""
    method: str | None = None
    """the method it belongs to; None where several share it"""
    units: int = 1
    """how many responses, pairs or verdicts it makes or reads"""
    texts: Texts | None = None
    """that its models go through; None where that is not known"""
    trains: bool = False
    """whether several processes take part, where a launcher has started them"""
    pays: bool = False
    """whether it may ask annotators that cost money"""
    cpus: float = 1
    gpus: float | None = None
    """None is one where there are any, for a stage that holds a model"""
    models: bool = False
    """whether it holds a model that belongs on an accelerator"""
    processes: int = 1
    """how many make it together, each on a GPU of its own where there are any"""

    def gpus_of(self, there: float) -> float:
        """How many GPUs it occupies where so many are: one for each of its processes, unless it says otherwise."""
        return self.gpus if self.gpus is not None else float(self.processes) if self.models and there else 0.0

    def where(self) -> AbstractContextManager[None]:
        """Within, models are put where it is made: of a stage without a GPU (``gpus: 0``) on the processor."""
        return using("cpu" if self.gpus == 0 else None)


Graph = dict[str, Node]
"""key -> node, those that are needed before those that need them"""


def merge(graphs: Iterable[Graph]) -> Graph:
    """One graph of several; equal stages are one."""
    out: Graph = {}
    for graph in graphs:
        for key, node in graph.items():
            out.setdefault(key, node)
    return out


def dependents(graph: Graph) -> dict[str, list[str]]:
    """key -> keys of the stages that read it."""
    out: dict[str, list[str]] = {key: [] for key in graph}
    for key, node in graph.items():
        for need in node.needs:
            out[need].append(key)
    return out


def bottlenecks(graph: Graph) -> set[str]:
    """The stages beside which no other can be made: each of the others is needed for them, or made from them."""
    place = {key: number for number, key in enumerate(graph)}
    below = dependents(graph)
    # Of those before a stage each must be read by one up to it, and each behind it must read one from it on.
    read_by = [min((place[other] for other in below[key]), default=len(graph)) for key in graph]
    reads = [max((place[need] for need in node.needs), default=-1) for node in graph.values()]
    first_read = [*accumulate(reversed(reads[1:]), min, initial=len(graph))][::-1]
    last_reader = accumulate(read_by[:-1], max, initial=-1)
    walk = zip(graph, range(len(graph)), last_reader, first_read, strict=False)
    return {key for key, n, last, first in walk if last <= n <= first}


def descendants(graph: Graph, keys: Iterable[str]) -> set[str]:
    """These stages and all that is made from them."""
    below = dependents(graph)
    found: set[str] = set()
    waiting = deque(keys)
    while waiting:
        key = waiting.popleft()
        if key not in found:
            found.add(key)
            waiting.extend(below[key])
    return found
