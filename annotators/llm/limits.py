"""What holds questions to one server back: rates, and pauses that the server asks for."""

from __future__ import annotations

import asyncio
import time

from annotators.llm.completion import TryAgain
from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.base.progress import note


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
