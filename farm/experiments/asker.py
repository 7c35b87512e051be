"""Who is asked for feedback while a method learns: one process asks, all get the answers, and the tally is kept."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from farm.asking import purse
from farm.asking.ask import ask
from farm.asking.kept import InStage
from farm.base.rng import Ids
from farm.feedback.kind import FeedbackKind
from farm.hardware import processes
from farm.tables.further import Further


@dataclass
class _Tally:
    """What was asked for one purpose."""

    queries: int = 0
    unanswered: int = 0
    price: float = 0.0
    """US dollars"""
    times: dict[int, int] = field(default_factory=dict)
    """how often each unit was asked"""

    def replicates(self, ids: Ids) -> NDArray[np.int64]:
        """How often each row's unit has been asked before, [n]; it counts as asked now."""
        asked = pd.Series(ids)
        times = asked.groupby(asked).cumcount() + asked.map(self.times).fillna(0).astype(int)
        self.times.update(zip(asked, times + 1, strict=True))
        return np.asarray(times, dtype=np.int64)


class FeedbackAsker:
    """An :class:`~farm.roles.protocols.Asker`: a giver of feedback of one kind, asked with the draws of one seed, and
    shown the further columns of the instructions; what it pays for is kept in ``store``."""

    def __init__(
        self, kind: FeedbackKind, giver: Any, seed: int, further: Further | None = None, store: InStage | None = None
    ) -> None:
        self.kind, self.giver, self.seed, self.further, self.store = kind, giver, seed, further, store
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)

    def ask(self, shown: pd.DataFrame, purpose: str) -> pd.DataFrame:
        tally = self._tallies[purpose]
        shown = shown if self.further is None else self.further.onto(shown)
        times = tally.replicates(self.kind.unit(shown))

        put = partial(ask, self.kind, self.giver, shown, seed=self.seed, replicate=times, store=self.store)
        table = processes.made_by_first(put)
        tally.queries += len(table)
        tally.unanswered += int((table["status"] != "ok").sum())
        tally.price += float(table["price"].sum())
        return table

    def queries(self, purpose: str) -> int:
        return self._tallies[purpose].queries

    def unanswered(self, purpose: str) -> int:
        return self._tallies[purpose].unanswered

    @property
    def price(self) -> float:
        """US dollars for all that was asked."""
        return sum(tally.price for tally in self._tallies.values())

    def state_dict(self) -> dict[str, torch.Tensor]:
        out: dict[str, torch.Tensor] = {}
        for purpose, tally in self._tallies.items():
            units = np.fromiter(tally.times, np.uint64, len(tally.times)).view(np.int64)
            out[f"{purpose}/counts"] = torch.tensor([tally.queries, tally.unanswered])
            out[f"{purpose}/price"] = torch.tensor([tally.price], dtype=torch.float64)
            out[f"{purpose}/units"] = torch.from_numpy(units)
            out[f"{purpose}/times"] = torch.tensor(list(tally.times.values()), dtype=torch.int64)
        return out

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        counted = self.price
        self._tallies.clear()
        for purpose in dict.fromkeys(name.rpartition("/")[0] for name in state):
            queries, unanswered = state[f"{purpose}/counts"].tolist()
            units = state[f"{purpose}/units"].numpy().view(np.uint64).tolist()
            times = dict(zip(units, state[f"{purpose}/times"].tolist(), strict=True))
            self._tallies[purpose] = _Tally(queries, unanswered, float(state[f"{purpose}/price"]), times)
        # None of it is asked again, so nothing else would count it; what is kept in the stage counts by itself.
        if self.store is None and (current := purse.current()) is not None:
            current.ledger.settle(0.0, max(0.0, self.price - counted))
