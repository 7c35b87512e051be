"""Annotations in one orientation: the baseline first, in whatever order a row has the two outputs.

The baseline is the generator that every row has. A row that has it second is turned, with its verdict. Verdicts of
different judges are not comparable: :func:`check_judges` refuses a board of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.errors import OptionError, UserError
from farm.tables.records import PairIds, swapped

_SIDES = ("generator_1", "generator_2")
_SURELY = 10.0
"""rows that a judge of a common pool would have been given on average, and was not: by chance once in 20,000 times"""


def common(pairs: Iterable[tuple[str, str]]) -> str | None:
    """The one generator in all of these pairs, where some have it first; nothing where it could be either of two.

    Pairs that all have the same first generator have that baseline, as written. One that is always second may as well
    be a method against several baselines.
    """
    known = set(pairs)
    if len({one for one, _ in known}) == 1:
        return next(iter(known))[0]
    shared = set.intersection(*({one, two} for one, two in known)) - {""}
    shared &= {one for one, _ in known}
    return shared.pop() if len(shared) == 1 else None


def baseline_first(annotations: pd.DataFrame, where: Callable[[int], str] = lambda k: f"row {k + 1}") -> pd.DataFrame:
    """The annotations with the baseline as ``generator_1`` of every row; as they are without names of both.

    Raises:
        UserError: naming the row (by ``where``), for several baselines, and for two generators in both orders.
    """
    if not set(_SIDES) <= set(annotations.columns) or not len(annotations):
        return annotations
    one, two = (annotations[c].astype(str).to_numpy(object) for c in _SIDES)
    baseline = common(zip(one, two, strict=True))
    if baseline is None:
        k = int(np.flatnonzero(one != one[0])[0])
        if {one[k], two[k]} == {one[0], two[0]}:
            raise UserError(
                f"{where(k)}: `{one[k]}` and `{two[k]}` stand in both orders and nothing says which is the baseline; "
                "put the baseline first in every row"
            )
        raise UserError(
            f"{where(k)}: the baseline is `{one[k]}` but the first row has `{one[0]}`; evaluate one baseline at a time"
        )
    return turned_to(annotations, baseline)


def turned_to(annotations: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The annotations with this baseline first wherever it is one of the two."""
    if not set(_SIDES) <= set(annotations.columns):
        return annotations
    one, two = (annotations[c].astype(str).to_numpy(object) for c in _SIDES)
    turn = (two == baseline) & (one != baseline)
    return swapped(annotations, turn) if turn.any() else annotations


def like(humans: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """Human annotations in the order of these, whose baseline stands first; matched by generators or texts."""
    if all(set(_SIDES) <= set(t.columns) for t in (humans, annotations)):
        return turned_to(humans, str(annotations["generator_1"].iloc[0]))
    texts = ["instruction", "output_1", "output_2"]
    if not all(set(texts) <= set(t.columns) for t in (humans, annotations)):
        return humans
    ours, theirs = (PairIds(t[texts].fillna("").astype(str)) for t in (annotations, humans))
    order = pd.Series(ours.swapped, ours.pair).groupby(level=0).first()
    wanted = order.reindex(theirs.pair)
    turn = wanted.notna().to_numpy() & (wanted.to_numpy(object) != theirs.swapped)
    return swapped(humans, turn)


def check_judges(
    methods: Sequence[str], method: NDArray[np.int64], judges: Sequence[str], judge: NDArray[np.int64], remedy: str
) -> None:
    """Refuse methods that were judged by different judges. Rows of one pool of judges, drawn for each pair, may pass.

    Args:
        method, judge: codes [n] into ``methods`` and ``judges``; a judge without a name ("") may be any.
        remedy: what to do about it.

    Raises:
        UserError: where two methods have no judge in common, or a judge of the others was surely never asked about one.
    """
    cell = np.bincount(method * len(judges) + judge, minlength=len(methods) * len(judges))
    rows = cell.reshape(len(methods), len(judges)).astype(np.float64)
    rows[:, [not name for name in judges]] = 0.0
    apart = np.argwhere((rows @ rows.T == 0) & (rows.sum(axis=1) > 0) & (rows.sum(axis=1) > 0)[:, None])
    if apart.size:
        m, other = apart[0]
        first, second = judges[int(rows[m].argmax())], judges[int(rows[other].argmax())]
    else:
        elsewhere = rows.sum(axis=0) - rows
        with np.errstate(invalid="ignore"):
            expected = elsewhere / elsewhere.sum(axis=1, keepdims=True) * rows.sum(axis=1, keepdims=True)
        lacking = np.argwhere((rows == 0) & (expected >= _SURELY))
        if not lacking.size:
            return
        m, lacked = lacking[0]
        other = int(rows[:, lacked].argmax())
        first, second = judges[int(rows[m].argmax())], judges[int(lacked)]
    raise OptionError(
        f"`{methods[int(m)]}` was judged by `{first}` and `{methods[int(other)]}` by `{second}`: verdicts of different "
        f"judges do not make one ranking; {remedy}"
    )
