"""The budget of a run, stage by stage: what each may spend, and what it has spent.

A stage that may pay is made within what the others have left of the budget. What it paid is noted with it, and beside
it where it was not finished, so that a later run counts it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from farm.asking.limits import Limits
from farm.asking.purse import limited
from farm.scheduling.graph import Graph
from farm.storage.artifacts import PAID, Artifacts, Place, Work


@dataclass
class Account:
    """The limits of a run, and US dollars that each of its stages has paid."""

    limits: Limits = field(default_factory=Limits)
    paid: dict[str, float] = field(default_factory=dict)
    """by key"""

    def left(self, key: str | None = None) -> Limits:
        """The limits of one stage: it counts itself what an earlier attempt at it paid."""
        if self.limits.budget is None:
            return self.limits
        others = sum(price for other, price in self.paid.items() if other != key)
        return replace(self.limits, budget=max(self.limits.budget - others, 0.0), whole=True)


def opened(limits: Limits, graph: Graph, artifacts: Artifacts, again: Collection[str] = ()) -> Account:
    """The account of a run as it begins; stages that are made again count what is in the store themselves."""
    if limits.budget is None:
        return Account(limits)
    paying = [(key, node.name) for key, node in graph.items() if node.pays and key not in again]
    return Account(limits, {key: artifacts.paid(name, key) for key, name in paying})


@dataclass(frozen=True)
class Paying:
    """The work of a stage within limits; what it paid is noted, whatever comes of it."""

    work: Work
    limits: Limits

    def __call__(self, place: Place) -> dict[str, Any]:
        note = place.progress.with_name(PAID)

        def noted(spent: float) -> None:
            beside = note.with_suffix(".new")
            beside.write_text(json.dumps({"paid": spent}))
            os.replace(beside, note)

        with limited(self.limits) as purse:
            purse.ledger.noted = noted  # as it is paid: a process that is killed leaves no other word
            try:
                facts = self.work(place) or {}
            except BaseException:
                if purse.spent:
                    noted(purse.spent)
                raise
        return {**facts, "paid": purse.spent} if purse.spent else facts
