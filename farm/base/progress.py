"""Progress of anything longer than two seconds: rate, cost so far and time left, on the error stream.

On a terminal a live bar, and below it what there is to say, such as the numbers of a training. Elsewhere a line when a
task ends, and of a long one a line now and then, ever more seldom, so that logs stay readable. ``quiet()`` silences it.

Names, answers and messages of servers are data, which must not steer a terminal: ``printable`` makes their control
characters visible, and ``guard_terminal`` does so with all that is printed.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

PAUSE, SHARE = 30.0, 0.1
"""where there is no terminal, a task says a line after so many seconds, and after this share of its time so far"""
_LIVE = {
    "loss": "loss",
    "accuracy": "accuracy",
    "held_out_accuracy": "held-out accuracy",
    "reward": "reward",
    "gold": "gold",
    "kl": "kl",
    "win_rate": "win rate",
    "length": "length",
    "truncated_share": "truncated",
    "tokens_per_second": "tokens/s",
}
"""metrics of a training that are shown while it runs, and how they are called there; the first ones matter most, for a
narrow terminal cuts the last"""

_STEERING = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""control characters, those that turn the direction of writing, and halves of surrogate pairs"""

_quiet = False
_said: set[str] = set()
_running: list[Task] = []


def printable(text: str) -> str:
    r"""Text without what steers a terminal: such a character is written as in JSON, line ends and tabs stay.

    >>> printable("model \x1b[2J\n")
    'model \\u001b[2J\n'
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Guarded:
    """A text stream on which everything is :func:`printable`."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        """rich looks here for the stream itself: its colours pass, and who hands it text makes that printable"""

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def guard_terminal() -> None:
    """From now on nothing that is printed steers the terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))


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
        print(f"farm: {printable(sentence)}", file=sys.stderr, flush=True)


def numbers(metrics: Mapping[str, float]) -> str:
    """The few metrics of a training that are worth watching, on one line."""

    def short(value: float) -> str:
        size = abs(value)
        return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 100 else f"{value:,.0f}"

    return "  ".join(f"{shown} {short(metrics[name])}" for name, shown in _LIVE.items() if name in metrics)


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

    def said(self) -> str:
        """What there is to say besides how much is done; often nothing."""
        return "  ".join(x for x in (f"${self.cost:,.2f}" if self.cost else "", printable(self.note)) if x)

    def _render(self) -> None:
        self._show(self.done, self.total, self.said())


@contextmanager
def task(description: str, total: int = 0) -> Iterator[Task]:
    """Show the progress of one piece of work."""
    with _shown(printable(description), total) as work:
        _running.append(work)
        try:
            yield work
        finally:
            _running.remove(work)


def active() -> Task | None:
    """The innermost piece of work under way, for a part below that knows how far it has got; None if there is none."""
    return _running[-1] if _running else None


def step(name: str) -> None:
    """Say what the innermost piece of work has come to, if there is any under way."""
    if (work := active()) is not None:
        work.advance(0, note=name)


@contextmanager
def _shown(description: str, total: int) -> Iterator[Task]:
    if _quiet:
        yield Task(lambda done, total, note: None)
    elif sys.stderr.isatty():
        yield from _live(description, total)
    else:
        yield from _lines(description, total)


def _lines(description: str, total: int) -> Iterator[Task]:
    """For whatever is not a terminal."""
    started = last = time.monotonic()

    def say(*parts: str) -> None:
        print(f"{description}: {', '.join(part for part in parts if part)}", file=sys.stderr, flush=True)

    def show(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= max(PAUSE, SHARE * (now - started)):
            last = now
            say(f"{done:,} of {total:,}" if total else f"{done:,}", note)

    work = Task(show)
    work.total = total
    yield work
    say(f"{time.monotonic() - started:.1f} s", work.said())


def _live(description: str, total: int) -> Iterator[Task]:
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as Row
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Row) -> Text:
            done = f"{task.completed:,.0f}"
            return Text(f"{done} of {task.total:,.0f}" if task.total else done if task.completed else "")

    class Rate(ProgressColumn):
        def render(self, task: Row) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.1f}/s" if speed else "")

    class Lines(Progress):
        """A line for the bar, and one below for what is said, which beside it would not fit into 80 columns."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for row in self.tasks:
                if row.fields["note"]:
                    yield Text(f"  {row.fields['note']}", no_wrap=True, overflow="ellipsis")

    columns = (
        TextColumn("{task.description:<30}"),
        BarColumn(bar_width=16),
        Count(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Lines(*columns, console=Console(stderr=True), refresh_per_second=5) as bar:
        row = bar.add_task(description, total=total or None, note="")
        work = Task(lambda done, total, note: bar.update(row, completed=done, total=total or None, note=note))
        work.total = total
        yield work
        bar.update(row, total=work.total or work.done, completed=work.total or work.done)
