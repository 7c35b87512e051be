"""Cells of a grid, and where moves lead: what a Markov policy in a table needs to know of its state.

A cell is a text, "cell 3,1 of 6x1": column and row, counted from 1 at the lower left, of a grid so wide and so high. A
move against a wall leads nowhere, so that a grid of one row is a chain whose ends hold.
"""

from __future__ import annotations

import re
from functools import lru_cache

from farm.base.errors import UserError, nearest

MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, 1), "down": (0, -1)}
_CELL = re.compile(r"cell (\d+),(\d+) of (\d+)x(\d+)")


def cell(column: int, row: int, width: int, height: int) -> str:
    """
    >>> cell(3, 1, 6, 1)
    'cell 3,1 of 6x1'
    """
    return f"cell {column},{row} of {width}x{height}"


@lru_cache(maxsize=65_536)
def after(start: str, moves: tuple[str, ...]) -> str:
    """The cell that moves lead to.

    Raises:
        UserError: a text that is no cell, or no move.

    >>> after("cell 5,1 of 6x1", ("right", "right", "left"))
    'cell 5,1 of 6x1'
    """
    found = _CELL.fullmatch(start)
    if found is None:
        raise UserError(f"{start[:60]!r} is no cell of a grid; one is written like 'cell 3,1 of 6x1'")
    column, row, width, height = map(int, found.groups())
    for move in moves:
        if move not in MOVES:
            raise UserError(f"{move[:60]!r} is no move on a grid; {nearest(move, MOVES)}")
        right, up = MOVES[move]
        column, row = min(max(column + right, 1), width), min(max(row + up, 1), height)
    return cell(column, row, width, height)
