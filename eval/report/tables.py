"""What a table in the report is made of, and the colours of the methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from eval.report import wording
from farm.statistics.uncertainty import Estimate

HUES = 7


@dataclass(frozen=True)
class Palette:
    """A colour and a shape for each method: the same in every chart, by its place in the leaderboard."""

    methods: Sequence[str]
    baseline: str

    def colour(self, method: str) -> str:
        """Its classes: a hue, and where the hues begin anew also a shape."""
        if method == self.baseline:
            return "base"
        again, hue = divmod(self._place(method), HUES)
        return f"m{hue} s{again}" if again else f"m{hue}"

    def shape(self, method: str) -> int:
        return 0 if method == self.baseline else self._place(method) // HUES

    def _place(self, method: str) -> int:
        learned = [m for m in self.methods if m != self.baseline]
        return learned.index(method) if method in learned else 0


@dataclass(frozen=True)
class Column:
    head: str
    hint: str = ""
    """what the number is, shown under the pointer"""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    text: str = ""
    small: tuple[str, ...] = ()
    """lines below: the interval, n"""
    sort: float | str = ""
    drawing: Markup | None = None
    colour: str = ""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)
    sortable: bool = True

    @property
    def header(self) -> int:
        """The column that names the rows."""
        return next(i for i, column in enumerate(self.columns) if not column.numeric)


def counted(value: Any) -> Cell:
    return Cell(wording.count(value), sort=sortable(value))


def valued(value: Any, low: Any, high: Any, digits: int = 2) -> Cell:
    """A number above its interval."""
    bounds = wording.interval(low, high, digits)
    return Cell(wording.number(value, digits), (bounds,) if bounds else (), sortable(value))


def estimated(found: Estimate | None, digits: int = 2) -> Cell:
    """An estimate and its interval."""
    if found is None or not found.n:
        return Cell(wording.DASH, sort="")
    low, high = (float("nan"),) * 2 if constant(found) else (found.low, found.high)
    return valued(found.value, low, high, digits)


def share(found: Estimate | None, with_n: bool = True) -> Cell:
    """A share in percent, its interval ("too few" where there is none), and how many rows it is from."""
    if found is None or not found.n:
        return Cell(wording.DASH, sort="")
    cell = valued(100 * found.value, 100 * found.low, 100 * found.high, 1)
    small = cell.small or (wording.TOO_FEW,)
    return Cell(cell.text, (*small, f"n {wording.count(found.n)}") if with_n else small, cell.sort)


def constant(found: Estimate) -> bool:
    """Whether the same number stands in every row: it was not estimated, and an interval of no width would mislead."""
    return found.standard_error <= 1e-9 * max(abs(found.value), 1e-9)


def sortable(value: Any) -> float | str:
    """What a column is sorted by; a missing number goes last."""
    return float(value) if wording.known(value) else ""
