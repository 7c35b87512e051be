"""The limits in force, and what was spent under them.

Whoever asks for money opens a purse around it (:func:`limited`); annotators whose questions cost something look for the
innermost one (:func:`current`) and keep to it. So the ground needs to know no annotator, and an annotator need not know
who asks it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from farm.asking.ledger import Ledger
from farm.asking.limits import Limits
from farm.base import progress


class Closes(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closes)


class Purse:
    """Limits, the ledger of what was spent, and what annotators keep open as long as they are in force."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.ledger = Ledger(self.limits.budget)
        self.estimate = 0.0
        """US dollars that the questions of a dry run will cost, about"""
        self._open: dict[object, Closes] = {}
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """US dollars: the price of every answer that was used, and what may have been charged for lost ones."""
        return self.ledger.spent + self.ledger.uncertain

    def kept(self, make: Callable[[Purse], T]) -> T:
        """What ``make`` makes of this purse, made once, and closed with it."""
        with self._lock:
            if make not in self._open:
                self._open[make] = make(self)
            found: T = self._open[make]  # type: ignore[assignment]
            return found

    def rehearse(self, ask: Callable[[], object]) -> None:
        """Count what is in the store already against the budget, before anything is paid for."""
        for key, price in rehearsed(ask).ledger.counted.items():
            self.ledger.known(key, price)

    def close(self) -> None:
        """Close what was opened for it."""
        with self._lock:
            opened, self._open = list(self._open.values()), {}
        for one in opened:
            one.close()


_purses: list[Purse] = []


def current() -> Purse | None:
    """The innermost purse; None where nobody has set a limit."""
    return _purses[-1] if _purses else None


def rehearsed(ask: Callable[[], object]) -> Purse:
    """Do as if asking: what is in the store already is in the ledger, what the rest will cost is the estimate."""
    with limited(Limits(dry_run=True)) as dry, progress.quiet():
        ask()
    return dry


@contextmanager
def limited(limits: Limits | None = None) -> Iterator[Purse]:
    """Everything that is asked inside the block keeps to these limits together."""
    purse = Purse(limits)
    _purses.append(purse)
    try:
        yield purse
    finally:
        _purses.remove(purse)
        purse.close()
