"""How alike a method's answers to different instructions are: a policy that has collapsed says the same to everyone.

    F(a, b) = 2 |a and b| / (|a| + |b|),    |a and b| = the words that both have, each as often as in both
    m_i = mean of F(the answer to i, the answer to each other instruction),   m = mean of m_i
    value of an instruction = m + 2 (m_i - m)

The mean of the values is m. Each answer is in every pair of two, so m errs by twice what m_i tell: it is the values,
not m_i, whose spread gives its standard error (that of a U-statistic of order two, Hoeffding 1948).

SuperHF (arXiv 2310.16763) measures METEOR, which is a weighted F of unigrams with stems and an order penalty; this is
the plain F of words. The first answer to each instruction counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.measures.column import rows_of


@dataclass(frozen=True)
class Similarity:
    """How alike answers to different instructions are."""

    where: dict[str, Any] = field(default_factory=dict)
    """column -> the value that a row must have, or several"""
    tables: ClassVar[Sequence[str]] = ("outputs",)

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        first = rows_of(tables["outputs"], method, self.where).drop_duplicates("instruction")
        overlap = mean_overlap([str(text).split() for text in first["output"]])
        value = 2 * overlap - overlap.mean()
        return pd.DataFrame({"instruction": first["instruction"].to_numpy(), "value": value})


def mean_overlap(texts: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """The mean F of each text with all others, [n]; two texts without a word are alike.

    Raises:
        ValueError: with fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError("similarity is between answers to different instructions, of which there are fewer than two")
    columns = {word: k for k, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
    counts = np.zeros((len(texts), len(columns)))
    for row, text in enumerate(texts):
        for word, count in Counter(text).items():
            counts[row, columns[word]] = count
    lengths = counts.sum(1)
    out = np.empty(len(texts))
    for row in range(len(texts)):
        both, total = np.minimum(counts[row], counts).sum(1), lengths[row] + lengths
        overlap = np.divide(2 * both, total, out=np.ones_like(total), where=total > 0)
        out[row] = (overlap.sum() - overlap[row]) / (len(texts) - 1)
    return out
