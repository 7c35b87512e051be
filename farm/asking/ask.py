"""The one way to put a table before one who gives feedback, whatever the kind: the one caller of a verb.

    rows ─▶ order drawn ─▶ (replicate by replicate, chunk by chunk) ─▶ store ─▶ giver ─▶ order undone

Rows are shown in an order drawn for each, so that a bias for the first place favours none. Within a budget all is
rehearsed first, so that what is in the store already counts before anything is paid for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.asking import purse
from farm.asking.givers import require_gives
from farm.asking.kept import InStage, kept
from farm.asking.limits import OverBudget
from farm.feedback.kind import FeedbackKind
from farm.storage.store import Store
from farm.tables.records import unannotated

Order = Literal["random", "given"]


def ask(
    kind: FeedbackKind,
    giver: Any,
    rows: pd.DataFrame,
    *,
    seed: int,
    replicate: int | NDArray[np.int64] = 0,
    order: Order = "random",
    store: Store | InStage | None = None,
) -> pd.DataFrame:
    """Answers on all rows, in their order, within the limits in force (:mod:`farm.asking.purse`).

    Args:
        rows: what ``kind.build`` makes; what earlier answers left in them is dropped.
        replicate: another one asks the same again, for all rows or one each, [n].
        order: "given" shows the outputs of a row as they stand.
        store: keep answers there, and look there first.

    Raises:
        OverBudget: where the budget ends before the last answer, if the limits say so; it tells what is lacking.
        UserError: where the giver has not the kind's verb, or its answers are not what the kind says.
    """
    if not isinstance(replicate, np.ndarray) or not len(rows):
        same = 0 if isinstance(replicate, np.ndarray) else int(replicate)
        [answers] = parts(kind, giver, rows, seed=seed, replicates=(same,), order=order, store=store)
        return answers
    answered = []
    for one in np.unique(replicate):
        at = np.flatnonzero(replicate == one)
        part = rows.iloc[at].reset_index(drop=True)
        [answers] = parts(kind, giver, part, seed=seed, replicates=(int(one),), order=order, store=store)
        answered.append(answers.set_axis(at, axis=0))
    return pd.concat(answered).sort_index().set_axis(rows.index, axis=0)


def parts(
    kind: FeedbackKind,
    giver: Any,
    rows: pd.DataFrame,
    *,
    seed: int,
    replicates: Sequence[int] = (0,),
    order: Order = "random",
    chunk: int | None = None,
    store: Store | InStage | None = None,
) -> Iterator[pd.DataFrame]:
    """The same replicate by replicate and in chunks of so many rows; whole replicates where ``chunk`` is None."""
    require_gives(giver, kind)
    again = partial(_parts, kind, giver, rows, seed, replicates, order, chunk, store)
    limits = purse.current()
    if limits is None or limits.limits.budget is None:
        yield from again()
        return
    limits.rehearse(lambda: deque(again(), maxlen=0))
    try:
        yield from again()
    except OverBudget:  # of the question that it stopped at, and of all behind it
        raise OverBudget(purse.rehearsed(lambda: deque(again(), maxlen=0)).estimate) from None


def _parts(
    kind: FeedbackKind,
    giver: Any,
    rows: pd.DataFrame,
    seed: int,
    replicates: Sequence[int],
    order: Order,
    chunk: int | None,
    store: Store | InStage | None,
) -> Iterator[pd.DataFrame]:
    rows = unannotated(rows, kind.columns)
    for replicate in replicates:
        for start in range(0, len(rows), chunk) if chunk else (0,):
            part = rows.iloc[start : start + chunk] if chunk else rows
            shown, undo = kind.orient(part, seed) if order == "random" else (part, _same)
            yield undo(kept(kind, giver, shown, seed=seed, replicate=replicate, store=store))


def _same(answers: pd.DataFrame) -> pd.DataFrame:
    return answers
