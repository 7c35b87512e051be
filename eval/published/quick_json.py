"""Reads AlpacaEval's annotation files quickly: of a row only the fields that a leaderboard needs, by a typed decoder.

Such a file is 4 MB of which three quarters are the judge's raw answers; msgspec checks their syntax and builds nothing
of them. What is no such list, or has a field that changes what the others mean, is read by
:func:`farm.tables.formats.read_annotations`, which also words the errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from eval.published.official import official_ids
from eval.published.rows import Names, Part, from_table
from farm.base import files, rng
from farm.tables.formats import preferences, read_annotations


class _Row(msgspec.Struct, gc=False):
    """One annotation. Below ``dataset`` are the fields of which one is enough for the general reader."""

    instruction: str
    preference: float | str | None
    generator_2: str
    generator_1: str | None = ""
    annotator: str | None = ""
    output_1: str | None = None
    output_2: str | None = None
    status: str | UnsetType = UNSET
    dataset: str | UnsetType = UNSET
    input: Any = UNSET
    turns: Any = UNSET
    instruction_id: Any = UNSET
    model_dir: Any = UNSET
    method: Any = UNSET
    output_1_len: Any = UNSET
    output_2_len: Any = UNSET
    len_1: Any = UNSET
    len_2: Any = UNSET
    length_1: Any = UNSET
    length_2: Any = UNSET

    def plain(self) -> bool:
        """Whether it has none of these."""
        return (
            self.input is self.turns is self.instruction_id is self.model_dir is self.method is self.output_1_len
            is self.output_2_len is self.len_1 is self.len_2 is self.length_1 is self.length_2 is UNSET
        )  # fmt: skip


_ROWS = msgspec.json.Decoder(list[_Row])


class Reader:
    """Reads many annotation files; an instruction that they share gets its id once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def read(self, path: Path) -> Part:
        """The rows of one file. Raises UserError naming the file and the row."""
        rows = decoded(path) if path.suffix == ".json" else None
        return from_table(read_annotations(path), path) if rows is None else self._part(rows, path)

    def _part(self, rows: Sequence[_Row], path: Path) -> Part:
        preference = _preferences([row.preference for row in rows], path)
        key = self._ids([row.instruction for row in rows])
        second = _names([row.generator_2 for row in rows])
        missing = Names(np.isnan(preference).astype(np.int64), ["ok", "unparseable"])
        table: Part = {
            "method": second,
            "annotator": _names([row.annotator or "" for row in rows]),
            "baseline": _names([row.generator_1 or "" for row in rows]),
            "second": second,
            "key": key,
            "instruction_id": official_ids(key),
            "preference": preference,
            "status": missing if rows[0].status is UNSET else _names([row.status for row in rows]),
            "length_1": _lengths([row.output_1 for row in rows]),
            "length_2": _lengths([row.output_2 for row in rows]),
            "row": np.arange(1, len(rows) + 1),
        }
        if rows[0].dataset is not UNSET:
            table["dataset"] = _names([row.dataset for row in rows])
        return table

    def _ids(self, texts: Sequence[str]) -> NDArray[np.uint64]:
        known = self._known
        if new := [text for text in texts if text not in known]:
            known.update(zip(new, rng.text_ids(new).tolist(), strict=True))
        return np.array([known[text] for text in texts], dtype=np.uint64)


def decoded(path: Path) -> list[_Row] | None:
    """The rows of a file; None where the general reader is to read it."""
    try:
        rows = _ROWS.decode(files.read_bytes(path))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    alike = all(len({getattr(row, name) is UNSET for row in rows}) == 1 for name in ("status", "dataset"))
    return rows if alike and all(row.plain() and row.generator_2 for row in rows) else None


def _names(values: Sequence[Any]) -> Names:
    codes, found = pd.factorize(np.array(values, dtype=object))
    return Names(codes.astype(np.int64), list(found))


def _lengths(texts: Sequence[str | None]) -> NDArray[np.float64]:
    return np.array([np.nan if text is None else len(text) for text in texts], dtype=np.float64)


def _preferences(found: list[float | str | None], path: Path) -> NDArray[np.float64]:
    """Numbers and nulls, AlpacaEval's dialects as in :func:`farm.tables.formats.preferences`, which also words the
    errors."""
    if str not in set(map(type, found)):
        numbers = np.array(found, dtype=np.float64)  # None becomes NaN
        numbers[numbers == 0] = 1.5
        numbers[numbers == -1] = np.nan
        if not ((numbers < 1) | (numbers > 2)).any():
            return numbers
    return preferences(pd.Series(found, dtype=object), path)
