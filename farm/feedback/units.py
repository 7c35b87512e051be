"""The ids of what is asked about: of draws, of what is asked again, and of the cache."""

from __future__ import annotations

import numpy as np
import pandas as pd

from farm.base import rng
from farm.tables import turns

SINGLE = ("generator", "agreement", "answer", "topic", "place_in_session", "user")
PAIRED = ("generator_1", "generator_2", "agreement_1", "agreement_2", "answer", "topic", "place_in_session", "user")
"""columns that an answer may depend on beside the texts"""


def of_singles(outputs: pd.DataFrame) -> rng.Ids:
    """The ids of single outputs: prompt and text."""
    return rng.combine(turns.row_ids(outputs), rng.text_ids(outputs["output"]))


def address_of_singles(outputs: pd.DataFrame) -> rng.Ids:
    """With what an answer may depend on beside the texts."""
    return beside(of_singles(outputs), outputs, SINGLE)


def beside(ids: rng.Ids, table: pd.DataFrame, columns: tuple[str, ...]) -> rng.Ids:
    """The ids with those of the columns that the table has."""
    for column in columns:
        if column in table.columns:
            ids = rng.combine(ids, rng.text_id(column), rng.text_ids([str(value) for value in table[column]]))
    return ids


def of_lists(lists: pd.Series, ordered: bool) -> rng.Ids:
    """One id a list of texts, [n]; ``ordered`` or the same for every order."""
    sizes = lists.map(len).to_numpy(dtype=np.int64)
    texts = rng.text_ids([str(text) for listed in lists for text in listed])
    rows = np.repeat(np.arange(len(lists)), sizes)
    if ordered:
        place = np.arange(len(texts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        texts = rng.combine(texts, place.astype(np.uint64))
    sums = np.zeros(len(lists), dtype=np.uint64)
    np.add.at(sums, rows, rng.combine(texts) if len(texts) else texts)  # wraps around, as ids do
    return rng.combine(sums, sizes.astype(np.uint64))
