"""What holds a run back: rates, pauses, and a budget that is never exceeded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from annotators.llm.completion import TryAgain
from farm.base.errors import UserError
from farm.base.progress import note


@dataclass(frozen=True)
class Limits:
    """The user's limits on a run."""

    budget: float | None = None
    """US dollars for all questions of a run, those included that earlier runs paid for; the run never asks for what
    might exceed it"""
    concurrency: int | None = None
    """questions in flight; default: what the backend takes with profit"""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 120.0
    """seconds for one answer, however slowly its bytes come"""
    attempts: int = 6
    """tries of one question before its row becomes an error"""
    quota_patience: float = 24 * 3600.0
    """seconds to wait for a spent quota before the run stops"""
    longest_wait: float = 60.0
    """seconds between two tries, unless the server asks for more"""
    shortest_wait: float = 0.5
    batches: bool = False
    """hand questions in as the provider's batches: half the price, answers within a day, the same command collects"""
    batch_patience: float = 0.0
    """seconds to wait for batches to end, before their rows are left for later"""
    dry_run: bool = False
    """count and price the questions, ask none"""


class Rate:
    """A token bucket: ``per_minute`` units, spent smoothly, with a burst of at most a second's worth."""

    def __init__(self, per_minute: float | None) -> None:
        self._rate = per_minute / 60 if per_minute else None
        self._next = 0.0

    async def take(self, units: float) -> None:
        """Wait until ``units`` may be spent."""
        if self._rate is None:
            return
        now = time.monotonic()
        start = max(self._next, now - 1.0)
        self._next = start + units / self._rate
        if start > now:
            await asyncio.sleep(start - now)


class Gate:
    """Lets questions to one server pass, all wait, or (after a spent quota) one go ahead and try."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open_at = 0.0
        self._quota_since: float | None = None
        self._quota_waits = 0
        self._trying = asyncio.Lock()

    async def passing(self) -> bool:
        """Wait until a question may be sent. True: it is the one that tries for all (call :meth:`tried` after it)."""
        while True:
            if (wait := self._open_at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
                continue
            if self._quota_since is None:
                return False
            await self._trying.acquire()
            if self._quota_since is not None and time.monotonic() >= self._open_at:
                return True
            self._trying.release()

    def tried(self) -> None:
        """The question that tried for all is done."""
        self._trying.release()

    def held(self, error: TryAgain) -> bool:
        """Whether the server asked that nothing pass for a while. A wait shorter than ours is none that was asked for.

        Raises:
            UserError: it asks for a longer wait than the user has patience for.
        """
        seconds = error.after
        if seconds is None or seconds < self._limits.shortest_wait:
            return False
        if seconds > self._limits.quota_patience:
            raise UserError(
                f"{error}; it asks to wait {seconds:,.0f} seconds: what is done is kept, and the same command goes on"
            )
        if seconds > self._limits.longest_wait and time.monotonic() + seconds > self._open_at + 1:
            note(f"{error}; paused for {seconds:,.0f} seconds, as the server asks")
        self._hold(seconds)
        return True

    def _hold(self, seconds: float) -> None:
        self._open_at = max(self._open_at, time.monotonic() + seconds)

    def spent(self, reason: str) -> bool:
        """The quota is spent: pause. False when the user's patience is over."""
        now = time.monotonic()
        if self._quota_since is None:
            self._quota_since, self._quota_waits = now, 0
            note(
                f"{reason}; paused: the run goes on by itself when there is quota again, or later with the same command"
            )
        if now - self._quota_since > self._limits.quota_patience:
            return False
        wait = min(self._limits.shortest_wait * 60 * 2**self._quota_waits, self._limits.longest_wait * 10)
        self._open_at = max(self._open_at, now + wait)
        self._quota_waits += 1
        return True

    def answered(self) -> None:
        """The server answers: a quota pause is over."""
        self._quota_since = None


class Ledger:
    """Money spent and promised. Before a question is sent its worst case is reserved, so that the budget holds."""

    def __init__(self, budget: float | None) -> None:
        self.budget = budget
        self.spent = 0.0
        """for the questions of this run, whenever it was paid"""
        self.counted: set[bytes] = set()
        """the questions that are in it"""
        self.uncertain = 0.0
        """of questions that were lost on the way, and may have been charged"""
        self._reserved = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    def known(self, key: bytes, price: float) -> None:
        """An answer was in the store, and cost so much when it was asked for."""
        if key not in self.counted:
            self.counted.add(key)
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
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
