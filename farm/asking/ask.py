"""The one way to put a table of pairs before an annotator.

Pairs are shown in an order drawn for each, so that a bias for the first place favours neither column. Within a budget
all is rehearsed first, so that what is in the store already counts before anything is paid for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal

import pandas as pd

from farm.asking import purse
from farm.asking.limits import OverBudget
from farm.roles.protocols import Annotator
from farm.tables.records import in_random_order

Order = Literal["random", "given"]


def parts(
    annotator: Annotator,
    pairs: pd.DataFrame,
    *,
    seed: int,
    replicates: Iterable[int] = (0,),
    order: Order = "random",
    chunk: int | None = None,
) -> Iterator[pd.DataFrame]:
    """The verdicts, replicate by replicate and in chunks of so many rows; whole replicates where ``chunk`` is None."""
    for replicate in replicates:
        ask = partial(annotator.annotate, seed=seed, replicate=replicate)
        for start in range(0, len(pairs), chunk) if chunk else (0,):
            rows = pairs.iloc[start : start + chunk] if chunk else pairs
            yield in_random_order(ask, rows, seed) if order == "random" else ask(rows)


def ask(annotator: Annotator, pairs: pd.DataFrame, *, seed: int, chunk: int | None = None) -> Iterator[pd.DataFrame]:
    """The same within the limits in force (:mod:`farm.asking.purse`).

    Raises:
        OverBudget: where the budget ends before the last verdict, if the limits say so; it tells what is lacking.
    """
    again = partial(parts, annotator, pairs, seed=seed, chunk=chunk)
    limits = purse.current()
    if limits is None or limits.limits.budget is None:
        yield from again()
        return
    limits.rehearse(lambda: deque(again(), maxlen=0))
    try:
        yield from again()
    except OverBudget:  # of the question that it stopped at, and of all behind it
        raise OverBudget(purse.rehearsed(lambda: deque(again(), maxlen=0)).estimate) from None
