"""Progress of anything longer than two seconds: rate, cost so far and time left, on the error stream.

On a terminal a live bar; elsewhere one line when a task ends, so that logs stay readable. ``quiet()`` silences it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_quiet = False
_said: set[str] = set()
_running: list[Task] = []


@contextmanager
def quiet() -> Iterator[None]:
    """No progress inside this block."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def note(sentence: str) -> None:
    """Say something to the user in the middle of a run, on the error stream; each sentence once, silenced by quiet."""
    if sentence not in _said and not _quiet:
        _said.add(sentence)
        print(f"farm: {sentence}", file=sys.stderr, flush=True)


class Task:
    """One piece of work under way."""

    def __init__(self, show: Callable[[int, int, str], None]) -> None:
        self._show = show
        self.done = 0
        self.total = 0
        self.cost = 0.0
        self.note = ""

    def advance(self, count: int = 1, cost: float = 0.0, note: str = "") -> None:
        """``count`` more units are done, for ``cost`` more US dollars."""
        self.done += count
        self.cost += cost
        self.note = note or self.note
        self._render()

    def expect(self, total: int) -> None:
        """How many units there are in all."""
        self.total = total
        self._render()

    def _render(self) -> None:
        cost = f"${self.cost:,.2f}" if self.cost else ""
        self._show(self.done, self.total, "  ".join(x for x in (cost, self.note) if x))


@contextmanager
def task(description: str, total: int = 0) -> Iterator[Task]:
    """Show the progress of one piece of work."""
    with _shown(description, total) as work:
        _running.append(work)
        try:
            yield work
        finally:
            _running.remove(work)


def active() -> Task | None:
    """The innermost piece of work under way, for a part below that knows how far it has got; None if there is none."""
    return _running[-1] if _running else None


@contextmanager
def _shown(description: str, total: int) -> Iterator[Task]:
    if _quiet:
        yield Task(lambda done, total, note: None)
    elif sys.stderr.isatty():
        yield from _live(description, total)
    else:
        started = time.monotonic()
        work = Task(lambda done, total, note: None)
        work.total = total
        yield work
        seconds = time.monotonic() - started
        cost = f", ${work.cost:,.2f}" if work.cost else ""
        print(f"{description}: {seconds:.1f} s{cost}", file=sys.stderr, flush=True)


def _live(description: str, total: int) -> Iterator[Task]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as Row
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Row) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.1f}/s" if speed else "")

    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as bar:
        row = bar.add_task(description, total=total or None, note="")
        work = Task(lambda done, total, note: bar.update(row, completed=done, total=total or None, note=note))
        work.total = total
        yield work
        bar.update(row, total=work.total or work.done, completed=work.total or work.done)
