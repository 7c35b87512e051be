"""A game in a JSON file: what `farm game` plays.

    {"preferences": [[0.5, 0.7], [0.3, 0.5]], "reference": [0.5, 0.5], "responses": ["yes", "no"]}

``preferences`` [K, K] are P(row beats column); where they are omitted, ``reference`` [K] is uniform and ``responses``
are numbered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farm.base import files
from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest, shown
from farm.tables.table_files import parse_json
from farm.worlds.matrix import checked

_KEYS = ("preferences", "reference", "responses")


@dataclass(frozen=True)
class Problem:
    """What the file says."""

    preferences: Floats
    """[K, K]"""
    reference: Floats
    """[K]"""
    responses: list[str]


def read(path: Path) -> Problem:
    """The game in a JSON file. Raises UserError naming the cell, entry or key that is wrong."""
    return problem(parse_json(files.read_bytes(path), path), str(path))


def problem(data: Any, path: str | Path) -> Problem:
    """The game in what such a file holds; ``path`` is where it is from, for complaints."""
    if not isinstance(data, dict) or "preferences" not in data:
        raise UserError(f"{path}: expected an object with `preferences`, a list of K lists of K numbers")
    unknown = sorted(set(data) - set(_KEYS))
    if unknown:
        raise UserError(f"{path}: unknown key `{unknown[0]}`; {nearest(unknown[0], _KEYS)}")
    matrix = _matrix(data["preferences"], path)
    size = len(matrix)
    responses = data.get("responses") or [f"response {i + 1}" for i in range(size)]
    if not isinstance(responses, list) or len(responses) != size:
        raise UserError(f"{path}: `responses` must be a list of {size} texts, one for each row of `preferences`")
    return Problem(matrix, _reference(data.get("reference"), size, path), [str(r) for r in responses])


def _matrix(rows: Any, path: str | Path) -> Floats:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise UserError(f"{path}: `preferences` must be a list of lists of numbers")
    size = len(rows)
    if size < 2:
        raise UserError(f"{path}: `preferences` must have at least 2 rows, not {size}")
    for i, row in enumerate(rows):
        if len(row) != size:
            raise UserError(f"{path}: `preferences` row {i + 1} has {len(row)} entries for {size} rows")
        for j, value in enumerate(row):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(f"{path}: `preferences` row {i + 1}, column {j + 1}: {shown(value)} is not a number")
    try:
        return checked(np.asarray(rows, dtype=np.float64))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {error}") from error


def _reference(values: Any, size: int, path: str | Path) -> Floats:
    if values is None:
        return np.full(size, 1 / size)
    if not isinstance(values, list) or len(values) != size:
        raise UserError(f"{path}: `reference` must be a list of {size} probabilities")
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise UserError(f"{path}: `reference` entry {i + 1}: {shown(value)} is not a positive probability")
    if abs(sum(values) - 1) > 1e-6:
        raise UserError(f"{path}: `reference` adds to {sum(values):g}, not to 1")
    return np.asarray(values, dtype=np.float64) / sum(values)
