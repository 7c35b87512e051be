"""Money spent and promised for questions, so that a budget is never exceeded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def _unnoted(spent: float) -> None:
    pass


class Ledger:
    """Money spent and promised. Before a question is sent its worst case is reserved, so that the budget holds."""

    def __init__(self, budget: float | None) -> None:
        self.budget = budget
        self.spent = 0.0
        """for the questions of this run, whenever it was paid"""
        self.counted: dict[bytes, float] = {}
        """the questions that are in it, and their prices"""
        self.uncertain = 0.0
        """of questions that were lost on the way, and may have been charged"""
        self.noted: Callable[[float], None] = _unnoted
        """told what is spent, uncertain money included, whenever something was paid"""
        self._reserved = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    def known(self, key: bytes, price: float) -> None:
        """An answer was in the store, and cost so much when it was asked for."""
        if key not in self.counted:
            self.counted[key] = price
            self.spent += price

    async def reserve(self, worst: float) -> bool:
        """Set aside the worst case of one question; False when the budget has no room for it."""
        while self.budget is not None and self.spent + self.uncertain + self._reserved + worst > self.budget + 1e-12:
            if self._reserved <= 0:
                return False
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)  # what is in flight may turn out cheaper than its worst case
            await waiter
        self._reserved += worst
        return True

    def settle(self, worst: float, spent: float, uncertain: float = 0.0) -> None:
        """The question that had ``worst`` reserved cost ``spent``."""
        self._reserved = max(0.0, self._reserved - worst) if self._reserved - worst > 1e-9 else 0.0
        self.spent += spent
        self.uncertain += uncertain
        if spent or uncertain:
            self.noted(self.spent + self.uncertain)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
