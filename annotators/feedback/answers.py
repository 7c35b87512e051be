"""What those who give feedback other than pairs share: their tables, and preferences that scores imply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from farm.tables.records import USAGE_COLUMNS


def said_by(name: str, outputs: pd.DataFrame, seed: int, replicate: int, **columns: Any) -> pd.DataFrame:
    """``outputs`` with the columns of feedback that cost nothing."""
    free = dict.fromkeys(USAGE_COLUMNS, 0.0)
    table = outputs.assign(**columns, annotator=name)
    if "status" not in columns:
        table["status"] = "ok"
    return table.assign(seed=seed, replicate=replicate, **free)


def implied(scores: pd.Series, pairs: int) -> np.ndarray:
    """The preferences [n] that 2 n scores of both sides imply: for the higher one, a tie where they are equal."""
    values = scores.to_numpy(dtype=np.float64)
    return np.asarray(1.5 + 0.5 * np.sign(values[pairs:] - values[:pairs]))
