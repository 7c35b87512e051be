"""Pairs for tests of annotators that ask a model."""

from __future__ import annotations

import numpy as np
import pandas as pd


def make_pairs(n: int, start: int = 0) -> pd.DataFrame:
    """The second output is the longer one in rows of even number."""
    rows = range(start, start + n)
    return pd.DataFrame(
        {
            "instruction": [f"Instruction {i}" for i in rows],
            "output_1": [f"answer {i}" + " and more" * (i % 2 * 3) for i in rows],
            "output_2": [f"reply {i}" + " or less" * (1 + (i + 1) % 2 * 3) for i in rows],
            "generator_1": "one",
            "generator_2": "two",
        }
    )


def longer(pairs: pd.DataFrame) -> np.ndarray:
    """The verdicts of a judge that prefers the longer output."""
    return np.where(pairs["output_1"].str.len() >= pairs["output_2"].str.len(), 1.0, 2.0)
