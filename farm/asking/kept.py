"""Answers kept in the content-addressed store: what was asked once is not asked, or paid for, again.

The address of an answer is made of everything that determined it: the kind, the description of the giver (with the
code behind it), what the row shows in the order in which it was shown and what stands in the columns that the giver
says it ``reads``, the seed and the replicate. A changed prompt, model or parameter is another address. Rows that were
not answered (status "error" or "unobserved") are not kept, so that the next run asks again; unparseable and refused
answers are, with all their columns.

Language models and likelihoods keep their own answers, one question at a time. Of others who cost money, what a stage
pays for is kept beside it until it is done (:class:`InStage`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.asking.givers import description, is_free, keeps_answers, name_of, parts_of
from farm.asking.purse import current
from farm.base import rng
from farm.base.errors import UserError
from farm.feedback.kind import FeedbackKind
from farm.feedback.units import PAIRED, SINGLE, beside
from farm.storage.store import Entry, Store, address
from farm.tables.records import USAGE_COLUMNS, merged

_OF_A_RUN = ("seed", "replicate", "cached")
"""what a row says of the run, and not of the answer"""
_AT_ONCE = 100
"""rows that are asked about before their answers are kept in a stage: what a kill can lose"""
_NUMBERS = ("preference", "p_first", "score", "polarity", "nearer", "propensity", *USAGE_COLUMNS)


class InStage:
    """What a stage paid for, in a file that is there from the first price on; the stage determines who gives it.

    Args:
        file: what is in it was paid for by an earlier attempt, and counts at once.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._store = Store(file) if file.exists() else None
        if self._store is not None and (purse := current()) is not None:
            for key, price in self._store.prices().items():
                purse.ledger.known(key, price)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        return {} if self._store is None else self._store.get(keys)

    def put(self, kind: str, entries: Sequence[Entry]) -> None:
        if self._store is None and any(entry.price for entry in entries):
            self._store = Store(self.file)
        if self._store is not None:
            self._store.put(kind, entries)


def in_stage(giver: Any, folder: Path) -> InStage | None:
    """Where the answers of one who costs money, or may, are kept in a stage; None of one who is free or keeps them."""
    return None if is_free(giver) or keeps_answers(giver) else InStage(folder / "answers.sqlite")


def kept(
    kind: FeedbackKind, giver: Any, rows: pd.DataFrame, *, seed: int, replicate: int, store: Store | InStage | None
) -> pd.DataFrame:
    """Answers on unanswered rows, as they are shown. With a store, those that it had have ``cached`` true.

    ``price`` and the other usage columns of a found row are those of the call that made it; it costs nothing now.
    """
    if store is None:
        return _ordered(kind, rows, _asked(kind, giver, rows, seed, replicate))
    at = keys(kind, giver, rows, seed, replicate, described=not isinstance(store, InStage))
    known = store.get(at)
    there = np.fromiter((key in known for key in at), dtype=bool, count=len(at))
    found, missing = np.flatnonzero(there), np.flatnonzero(~there)
    purse = current()
    if purse is not None:
        for i in found:  # a budget is for all that was paid for a run's answers, whenever it was
            purse.ledger.known(at[i], float(known[at[i]]["price"] or 0.0))
    parts = [(found, _table(rows.iloc[found], [known[at[i]] for i in found], seed, replicate))] if found.size else []
    size = _AT_ONCE if isinstance(store, InStage) else max(len(missing), 1)
    for start in range(0, len(missing), size) if missing.size or parts else (0,):
        some = missing[start : start + size]
        asked = _asked(kind, giver, rows.iloc[some], seed, replicate)
        if purse is None or not purse.limits.dry_run:
            new = _entries([at[i] for i in some], asked, set(rows.columns))
            store.put("annotation", new)
            if purse is not None:
                purse.ledger.counted.update({entry.key: entry.price for entry in new})
        parts.append((some, asked.assign(cached=False)))
    table = merged(rows, parts)
    return _ordered(kind, rows, table.drop(columns="cached") if isinstance(store, InStage) else table)


def _ordered(kind: FeedbackKind, rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """One order of columns, whether answers are fresh or from the store."""
    first = [*rows.columns, "annotator", *kind.columns, "status", "seed", "replicate", *USAGE_COLUMNS]
    first = [c for c in dict.fromkeys(first) if c in table.columns]
    return table[[*first, *sorted(set(table.columns) - set(first))]]


def _asked(kind: FeedbackKind, giver: Any, rows: pd.DataFrame, seed: int, replicate: int) -> pd.DataFrame:
    """The giver's answers, which must be what the kind says. One who does not keep to limits is spared a dry run."""
    purse, keeps = current(), keeps_answers(giver)
    if purse is not None and purse.limits.dry_run and not keeps:
        nothing: dict[str, Any] = {kind.answer: np.nan, "annotator": name_of(giver), "status": "unobserved"}
        return rows.assign(**nothing, seed=seed, replicate=replicate, **dict.fromkeys(USAGE_COLUMNS, 0.0))
    found: pd.DataFrame = getattr(giver, kind.verb)(rows, seed=seed, replicate=replicate)
    lacking = [c for c in (kind.answer, "annotator", "status", *USAGE_COLUMNS) if c not in found.columns]
    if lacking or len(found) != len(rows):
        what = f"gave no column `{lacking[0]}`" if lacking else f"gave {len(found):,} rows for {len(rows):,}"
        raise UserError(f"{name_of(giver)}: `{kind.verb}` {what}; see farm/feedback/{kind.name}.py")
    if purse is not None and not keeps and (price := float(found["price"].sum())):
        purse.ledger.settle(0.0, price)
    return found if "user" in found.columns else found.assign(user=found["annotator"])


def keys(
    kind: FeedbackKind, giver: Any, rows: pd.DataFrame, seed: int, replicate: int = 0, described: bool = True
) -> list[bytes]:
    """The 16-byte address of each row's answer; without a description of the giver where only one is asked."""
    whose = description(giver) if described else None
    who = int.from_bytes(address("annotation", kind.name, whose, seed, replicate), "little")
    reads = (column for part in parts_of(giver) for column in getattr(part, "reads", ()))
    ids = beside(kind.address(rows), rows, tuple(c for c in dict.fromkeys(reads) if c not in (*SINGLE, *PAIRED)))
    words = [rng.combine(half, ids) for half in (who % 2**64, who >> 64)]
    data = np.stack(np.broadcast_arrays(*words), axis=1).astype("<u8").tobytes()
    return [data[i : i + 16] for i in range(0, 16 * len(rows), 16)]


def _entries(at: list[bytes], table: pd.DataFrame, given: set[str]) -> list[Entry]:
    columns = {c: _plain(table[c]) for c in table.columns if c not in given and c not in _OF_A_RUN}
    entries = []
    for i, key in enumerate(at):
        value = {name: values[i] for name, values in columns.items()}
        if value["status"] not in ("error", "unobserved"):
            entries.append(
                Entry(key, value, int(value["input_tokens"]), int(value["output_tokens"]), float(value["price"]))
            )
    return entries


def _plain(column: pd.Series) -> list[Any]:
    return [None if v is None or v is pd.NA or (isinstance(v, float) and v != v) else v for v in column.tolist()]


def _table(rows: pd.DataFrame, values: list[dict[str, Any]], seed: int, replicate: int) -> pd.DataFrame:
    stored = pd.DataFrame(values, index=rows.index)
    columns = {c: stored[c].astype(np.float64) if c in _NUMBERS else stored[c] for c in stored.columns}
    return rows.assign(**columns, seed=seed, replicate=replicate, cached=True)
