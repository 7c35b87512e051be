"""Which instruction of AlpacaEval's 805 is this? Recognised by the text, never from the position in a file.

The published difficulties are numbered by the official order of the evaluation set. ``alpaca_eval_order.txt`` holds
the ids (:func:`farm.base.rng.text_id`, 64 bits in hexadecimal) of the 805 texts in that order: enough to recognise an
instruction, and nothing of its content.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@cache
def _order() -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The ids sorted, and the official number of each."""
    lines = (Path(__file__).parent / "alpaca_eval_order.txt").read_text(encoding="ascii").split()
    ids = np.array([int(line, 16) for line in lines], dtype=np.uint64)
    order = np.argsort(ids)
    return ids[order], order.astype(np.int64)


def official_ids(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The official number (0 .. 804) of each instruction id [n], or -1 for an instruction of another set."""
    ids, numbers = _order()
    at = np.minimum(np.searchsorted(ids, keys), len(ids) - 1)
    return np.where(ids[at] == keys, numbers[at], -1)
