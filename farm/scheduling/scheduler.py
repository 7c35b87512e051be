"""Makes the stages of a graph, each after those it needs; a stage that fails stops only what is made from it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from farm.asking.limits import Limits
from farm.base.errors import Fruitless
from farm.scheduling.account import Account
from farm.scheduling.graph import Graph, Node, bottlenecks, dependents
from farm.scheduling.perform import Outcome


class StageEngine(Protocol):
    """Where the stages of a run are made (`--engine`)."""

    slots: int
    """how many may be under way at once"""

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:
        """Begin a stage, which may ask within these limits; may return when it is done already. ``alone`` where no
        other of the graph can ever be made beside it, whatever is done already: the machine is its own."""

    def finished(self) -> list[Outcome]:
        """Those that came to an end since; waits for one if there is none."""

    def close(self) -> None:
        """Stop what is under way, at once."""


@dataclass(frozen=True)
class Failure:
    """A stage that could not be made."""

    node: Node
    reason: str
    trace: str = ""
    because: str | None = None
    """the key of the stage that failed, where this one was never tried"""
    lacks: float | None = None
    """US dollars that the budget lacks for it, about; None where that is not what stopped it"""


@dataclass
class Results:
    """What came of a graph."""

    found: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)


Watch = Callable[[str, Node, "Failure | None"], None]
"""called with "found", "started", "done" or "failed" of a stage as it happens"""


def _silent(state: str, node: Node, failure: Failure | None) -> None:
    """Watches nothing."""


class Done(Protocol):
    """Tells which stages are done: the artifact folders, or what several processes have agreed on."""

    def done(self, name: str, key: str) -> bool: ...


def schedule(
    graph: Graph,
    artifacts: Done,
    engine: StageEngine,
    again: Collection[str] = (),
    watch: Watch = _silent,
    account: Account | None = None,
    ways: Mapping[str, float] | None = None,
) -> Results:
    """Make every stage of a graph that is not done; the keys in ``again`` even if they are.

    Of the stages that are ready, the one with the longest of the ``ways`` goes first (:mod:`farm.scheduling.order`); of
    equal ones, or where none are given, the one that stands first in the graph. Each stage is looked at a number of
    times that depends on its needs alone, so a graph of many thousands costs seconds.

    Where limits on questions are shared, stages that may pay are made one at a time, each with what is left of the
    budget; once one has failed for want of it, no other is begun.
    """
    below, alone = dependents(graph), bottlenecks(graph)
    rank = sorted(graph, key=lambda key: -ways[key]) if ways is not None else list(graph)
    place = {key: number for number, key in enumerate(rank)}
    waiting = {key: len(node.needs) for key, node in graph.items()}
    ready: list[int] = []
    results = Results()
    running: set[str] = set()
    account = account or Account()
    held: list[int] = []
    short: Failure | None = None

    def complete(key: str) -> None:
        for other in below[key]:
            waiting[other] -= 1
            if waiting[other] == 0 and other not in results.failures:
                heapq.heappush(ready, place[other])

    def fail(failure: Failure) -> None:
        stack = [failure]
        while stack:
            one = stack.pop()
            if one.node.key in results.failures:
                continue
            results.failures[one.node.key] = one
            watch("failed", one.node, one)
            cause = one.because or one.node.key
            reason = f"{graph[cause].name} failed: {results.failures[cause].reason}"
            stack += [Failure(graph[k], reason, because=cause) for k in below[one.node.key]]

    for key in graph:
        if waiting[key] == 0:
            heapq.heappush(ready, place[key])
    while ready or running:
        while ready and len(running) < engine.slots:
            node = graph[rank[heapq.heappop(ready)]]
            if node.key not in again and artifacts.done(node.name, node.key):
                results.found.add(node.key)
                watch("found", node, None)
                complete(node.key)
                continue
            if node.pays and short is not None:
                fail(Failure(node, f"{short.node.name} failed: {short.reason}", because=short.node.key))
                continue
            if node.pays and account.limits.taking_turns and any(graph[key].pays for key in running):
                held.append(place[node.key])
                continue
            running.add(node.key)
            watch("started", node, None)
            engine.start(node, node.key in again, account.left(node.key), node.key in alone)
        if not running:
            continue
        for outcome in engine.finished():
            running.discard(outcome.key)
            node = graph[outcome.key]
            if outcome.paid:
                account.paid[node.key] = outcome.paid
            if outcome.error is not None:
                failure = Failure(node, outcome.error, outcome.trace, lacks=outcome.lacks)
                short = failure if outcome.lacks is not None else short
                fail(failure)
                continue
            (results.found if outcome.found else results.made).add(outcome.key)
            watch("done", node, None)
            complete(outcome.key)
        for number in held:
            heapq.heappush(ready, number)
        held.clear()
    return results


def check_budget(results: Results, account: Account) -> None:
    """Stop where a stage failed for want of budget, so that no table leaves a method out for that.

    Raises:
        Fruitless: with what is spent, and what the stage needs.
    """
    for failure in results.failures.values():
        if failure.lacks is not None:
            spent, budget = sum(account.paid.values()), account.limits.budget or 0.0
            ends = f"the budget of ${budget:,.2f} ends in the stage {failure.node.name}: ${spent:,.2f} is spent"
            goes_on = "all answers are kept, and the same command with a larger budget goes on"
            raise Fruitless(f"{ends}, and about ${failure.lacks:,.2f} more is needed for it; {goes_on}")
