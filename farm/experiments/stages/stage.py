"""What a stage declares: its label, what it reads, what determines it, its size, and how it is made.

A stage is a frozen dataclass, so that equal ones are one node of the graph. It holds the experiment's setting and what
tells it from others of its kind (a role, a method's name), and nothing that it reads: other stages are named by
:meth:`Stage.reads` and found in the folders that the context gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from farm.roles.work import Texts
from farm.storage.artifacts import Place

Facts = dict[str, Any]
"""what is noted with a stage that was made"""


@dataclass(frozen=True)
class Asks:
    """The verdicts that a stage asks for."""

    role: str
    """whose: "annotator", or the name of a judge"""
    rows: int
    split: str
    """of the instructions that the rows are about"""
    kind: str = "pairs"
    """of feedback"""


@dataclass(frozen=True)
class Size:
    """How much there is to do; forecasts, prices and status read this."""

    units: int = 1
    """responses, pairs or verdicts that it makes or reads"""
    like: Any = None
    """plain data: stages of one kind with the same are alike, and take as long"""
    texts: Texts | None = None
    """None where the work is not known from the settings"""
    asks: Asks | None = None
    asks_while_learning: bool = False
    """whether it also asks annotators, or talks to a user who is not free, nobody knows beforehand how much"""


@dataclass(frozen=True)
class StageContext:
    """Where a stage is made, and where those that it reads are."""

    place: Place
    folder: Callable[[Stage], Path]


class Stage(Protocol):
    """One stage of an experiment."""

    kind: ClassVar[str]
    """what `resources` and `--force` call it"""
    trains: ClassVar[bool]
    """whether several processes take part, where a launcher has started them"""

    @property
    def method(self) -> str | None:
        """The method it belongs to; None where several share it."""

    def label(self) -> str:
        """For people, and the beginning of the folder's name; one of its own within an experiment."""

    def reads(self) -> Sequence[Stage]:
        """The stages whose folders it reads."""

    def describe(self) -> dict[str, Any]:
        """All that determines it beside what it reads, as plain data; ``class`` names code that counts with it."""

    def size(self) -> Size: ...

    def make(self, at: StageContext) -> Facts | None:
        """Write its files into ``at.place.folder``."""
