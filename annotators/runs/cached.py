"""Verdicts kept in the content-addressed store: what was asked once is not asked, or paid for, again.

The address of a verdict is made of everything that determined it: the description of the annotator (with the code
behind it), the texts and generators in the order they were shown, the seed and the replicate. A changed prompt, model
or parameter is another address. Rows that were not answered (status "error" or "unobserved") are not kept, so that the
next run asks again; unparseable and refused answers are, with all their columns.

Annotators of language models and of likelihoods keep their answers themselves, and need no such wrapper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.asking.givers import description, name_of
from farm.asking.purse import current
from farm.base import rng
from farm.roles.protocols import Annotator
from farm.storage.store import Entry, Store, address
from farm.tables.records import USAGE_COLUMNS, PairIds, merged, unannotated

_BESIDE = ("generator_1", "generator_2", "agreement_1", "agreement_2")
"""What a verdict may depend on beside the texts."""
_KEPT = ("annotator", "preference", "p_first", "status", *USAGE_COLUMNS)
_OF_A_RUN = ("seed", "replicate", "cached")
"""what a row says of the run, and not of the verdict"""
_NUMBERS = ("preference", "p_first", *USAGE_COLUMNS)


@dataclass(frozen=True)
class Cached:
    """An annotator that looks in the store first. Rows found there have ``cached`` true, and cost nothing now.

    ``price`` and the other usage columns of a found row are those of the call that made it.
    """

    annotator: Annotator
    store: Store

    @property
    def name(self) -> str:
        return name_of(self.annotator)

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        keys = self.keys(pairs, seed, replicate)
        known = self.store.get(keys)
        there = np.fromiter((key in known for key in keys), dtype=bool, count=len(keys))
        missing = np.flatnonzero(~there)
        found = np.flatnonzero(there)
        purse = current()
        if purse is not None:
            for i in found:  # a budget is for all that was paid for a run's verdicts, whenever it was
                purse.ledger.known(keys[i], float(known[keys[i]]["price"] or 0.0))
        parts = [(found, _table(pairs.iloc[found], [known[keys[i]] for i in found], seed, replicate))]
        if missing.size:
            asked = self.annotator.annotate(pairs.iloc[missing], seed=seed, replicate=replicate)
            if purse is None or not purse.limits.dry_run:
                self.store.put("annotation", _entries([keys[i] for i in missing], asked, set(pairs.columns)))
            parts.append((missing, asked.assign(cached=False)))
        return merged(pairs, [part for part in parts if part[0].size] or parts)

    def keys(self, pairs: pd.DataFrame, seed: int, replicate: int = 0) -> list[bytes]:
        """The 16-byte address of each row's verdict."""
        who = int.from_bytes(address("annotation", description(self.annotator), seed, replicate), "little")
        ids = PairIds(pairs)
        beside = [rng.text_ids(pairs[c].astype(str)) for c in _BESIDE if c in pairs.columns]
        words = [
            rng.combine(half, ids.instruction, ids.first, ids.second, *beside) for half in (who % 2**64, who >> 64)
        ]
        data = np.stack(np.broadcast_arrays(*words), axis=1).astype("<u8").tobytes()
        return [data[i : i + 16] for i in range(0, 16 * len(pairs), 16)]


def _entries(keys: list[bytes], table: pd.DataFrame, given: set[str]) -> list[Entry]:
    columns = {c: _plain(table[c]) for c in table.columns if c in _KEPT or (c not in given and c not in _OF_A_RUN)}
    entries = []
    for i, key in enumerate(keys):
        value = {name: values[i] for name, values in columns.items()}
        if value["status"] not in ("error", "unobserved"):
            entries.append(
                Entry(key, value, int(value["input_tokens"]), int(value["output_tokens"]), float(value["price"]))
            )
    return entries


def _plain(column: pd.Series) -> list[Any]:
    return [None if v is None or v is pd.NA or v != v else v for v in column.tolist()]


def _table(pairs: pd.DataFrame, values: list[dict[str, Any]], seed: int, replicate: int) -> pd.DataFrame:
    stored = pd.DataFrame(values, columns=None if values else list(_KEPT), index=pairs.index)
    verdict: dict[str, pd.Series | NDArray[np.float64]] = {
        c: stored[c].to_numpy(dtype=np.float64) if c in _NUMBERS else stored[c] for c in _KEPT
    }
    further = {c: stored[c] for c in stored.columns if c not in (*_KEPT, *_OF_A_RUN)}
    usage = {c: verdict.pop(c) for c in USAGE_COLUMNS}
    return pairs.assign(**verdict, seed=seed, replicate=replicate, **usage, **further, cached=True)
