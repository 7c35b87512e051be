"""Annotation files as the rows that a leaderboard needs: who, on what, which verdict, how long.

A published AlpacaEval file is 4 MB of which three quarters are the judge's raw answers, one token a line. Such a file
was written with two spaces of indent, and a text in JSON cannot hold a raw line break; so the lines that begin with
exactly four spaces and a quote are the fields of its rows, and the others need not be parsed. :func:`read_rows` finds
them with one vectorised pass and parses only the fields it wants (about 6 ms a file instead of 40). Every other file,
and one that departs from the pattern in the least, is read by :func:`farm.formats.read_annotations`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.official import official_ids
from farm import rng
from farm.errors import UserError
from farm.formats import preferences, read_annotations

COLUMNS = (
    "method",
    "annotator",
    "baseline",
    "key",
    "instruction_id",
    "preference",
    "status",
    "length_1",
    "length_2",
    "row",
)
"""method, annotator and baseline are names; ``key`` is the id of the instruction, ``instruction_id`` its place in
AlpacaEval's official order (-1 if it is none of these); lengths are characters (NaN where unknown); ``row`` is the
row of the file, from 1. A ``dataset`` column is carried along where the file has it."""

_WANTED = ("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference", "status")
_OPTIONAL = ("dataset",)


Places = NDArray[np.int64]


class Names(NamedTuple):
    """A column of names as codes into a list."""

    codes: Places
    names: list[str]


Part = dict[str, Any]
"""The rows of one file: the columns of :data:`COLUMNS` as arrays [n], or :class:`Names`."""


class _Fields:
    """Where the values of the wanted fields lie in a file: first and last byte of each, [n]."""

    def __init__(self, data: memoryview, spans: dict[str, tuple[Places, Places]], rows: int) -> None:
        self.data = data
        self.bytes = np.frombuffer(data, np.uint8)
        self.spans = spans
        self.rows = rows
        self._escapes: tuple[Places, Places] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.spans

    def values(self, name: str) -> list[bytes]:
        begin, end = self.spans[name]
        data = self.data
        return [bytes(data[b:e]) for b, e in zip(begin.tolist(), end.tolist(), strict=True)]

    def constant(self, name: str) -> bytes | None:
        """The one value of a field, where all rows have the same."""
        begin, end = self.spans[name]
        width = int(end[0] - begin[0])
        if width > 200 or (end - begin != width).any():
            return None
        found = self.bytes[begin[:, None] + np.arange(width)]
        return bytes(self.data[int(begin[0]) : int(end[0])]) if (found == found[0]).all() else None

    def lengths(self, name: str, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Characters of JSON strings, from their bytes: an escape is one character (a pair of surrogates too)."""
        begin, end = self.spans[name]
        if (self.bytes[begin] != 34).any() or (self.bytes[end - 1] != 34).any() or (end - begin < 2).any():
            raise _Unexpected
        if self._escapes is None:
            self._escapes = _escapes(self.bytes, mask)
        at, spared = self._escapes
        total = np.concatenate([[0], np.cumsum(spared)])
        inside = total[np.searchsorted(at, end)] - total[np.searchsorted(at, begin)]
        return (end - begin - 2 - inside).astype(np.float64)


def _escapes(text: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[Places, Places]:
    """Where escapes begin in a JSON text of ASCII, and by how many bytes each is longer than what it stands for."""
    slashes = np.flatnonzero(np.equal(text, 92, out=mask))
    # In a run of backslashes every second one is escaped by the one before it.
    opens = np.concatenate([[True], np.diff(slashes) > 1])[: slashes.size]
    start = slashes[opens][np.cumsum(opens) - 1] if slashes.size else slashes
    at = slashes[(slashes - start) % 2 == 0]
    spared = np.ones(at.size, np.int64)
    unicode = np.flatnonzero(text[np.minimum(at + 1, len(text) - 1)] == 117)
    if unicode.size:
        places = at[unicode]
        if places[-1] + 5 >= len(text):
            raise _Unexpected
        spared[unicode] = 5
        is_d = (text[places + 2] | 32) == 100
        third = text[places + 3] | 32
        high = is_d & ((third == 56) | (third == 57) | (third == 97) | (third == 98))
        low = is_d & ((third >= 99) & (third <= 102))
        follows = np.concatenate([[False], (np.diff(places) == 6) & high[:-1]]) & low
        spared[unicode[follows]] = 6
    return at, spared


class Reader:
    """Reads many annotation files; what they share (instructions, the baseline's answers) is decoded once."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[list[bytes], Any]] = {}
        self._instructions: dict[bytes, int] = {}
        self._buffer = bytearray()
        self._mask = np.empty(0, bool)

    def _load(self, path: Path) -> memoryview:
        """The bytes of a file in a buffer that the next file will reuse: fresh memory costs more than reading."""
        size = path.stat().st_size
        if size > len(self._buffer):
            self._buffer = bytearray(size + size // 4)
            self._mask = np.empty(len(self._buffer), bool)
        view = memoryview(self._buffer)
        with path.open("rb", buffering=0) as file:
            read = 0
            while read < size and (n := file.readinto(view[read:size])):
                read += n
        return view[:read]

    def read(self, path: Path) -> Part:
        """The rows of one file. Raises UserError naming the file and the row."""
        fields = self._scan(path) if path.suffix == ".json" and path.is_file() else None
        if fields is None:
            return from_table(read_annotations(path), path)
        try:
            return self._rows(fields, path)
        except _Unexpected:
            return from_table(read_annotations(path), path)

    def _scan(self, path: Path) -> _Fields | None:
        data = self._load(path)
        if bytes(data[:9]) != b'[\n  {\n    "'[:9] or not bytes(data[-16:]).rstrip().endswith(b"}\n]"):
            return None
        text = np.frombuffer(data, np.uint8)
        mask = self._mask[: len(text)]
        if text.max() > 127:  # lengths are counted from bytes, which needs ASCII
            return None
        ends = np.flatnonzero(np.equal(text, 10, out=mask))
        ends = ends[ends <= len(text) - 6]  # what follows closes the last row and the list
        starts = ends[:-1] + 1
        indented = starts[text[starts] == 32]
        rows = int(((text[indented + 2] == 123) & (text[indented + 3] == 10)).sum())
        fields = np.flatnonzero((text[starts + 4] == 34) & (text[starts] == 32) & (text[starts + 3] == 32))
        if not rows or len(fields) % rows:
            return None
        width = len(fields) // rows
        begin, end = starts[fields], ends[fields + 1]
        names = [bytes(data[b + 5 : b + 60]).split(b'"')[0].decode("utf-8", "replace") for b in begin[:width].tolist()]
        if len(set(names)) != width or "preference" not in names or "instruction" not in names:
            return None
        spans = {}
        for name in (*_WANTED, *_OPTIONAL):
            if name not in names:
                continue
            first, last = begin[names.index(name) :: width], end[names.index(name) :: width]
            head = np.frombuffer(f'    "{name}":'.encode(), np.uint8)
            if (last - first <= len(head)).any() or (text[first[:, None] + np.arange(len(head))] != head).any():
                return None
            last = last - (text[last - 1] == 44)
            first = first + len(head)
            spans[name] = (first + (text[first] == 32), last)
        return _Fields(data, spans, rows)

    def _again(self, fields: _Fields, name: str, decode: Callable[[list[bytes]], Any]) -> Any:
        """The decoded values of a field; those of the file before where they are the same, byte for byte."""
        values = fields.values(name)
        before = self._last.get(name)
        if before is not None and before[0] == values:
            return before[1]
        found = decode(values)
        self._last[name] = (values, found)
        return found

    def _rows(self, fields: _Fields, path: Path) -> Part:
        n, mask = fields.rows, self._mask[: len(fields.bytes)]
        key, ids = self._again(fields, "instruction", self._ids)
        preference = _preferences(fields.values("preference"), path)
        table = {
            "method": self._names(fields, "generator_2"),
            "annotator": self._names(fields, "annotator"),
            "baseline": self._names(fields, "generator_1"),
            "key": key,
            "instruction_id": ids,
            "preference": preference,
            "status": self._names(fields, "status") if "status" in fields else _status(preference),
            "length_1": fields.lengths("output_1", mask) if "output_1" in fields else np.full(n, np.nan),
            "length_2": fields.lengths("output_2", mask) if "output_2" in fields else np.full(n, np.nan),
            "row": np.arange(1, n + 1),
        }
        if "dataset" in fields:
            table["dataset"] = self._names(fields, "dataset")
        return table

    def _ids(self, values: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        known = self._instructions
        new = [v for v in values if v not in known]
        if new:
            known.update(zip(new, rng.text_ids(_strings(new)).tolist(), strict=True))
        key = np.array([known[v] for v in values], dtype=np.uint64)
        return key, official_ids(key)

    def _names(self, fields: _Fields, name: str) -> Names:
        only = fields.constant(name) if name in fields else b'""'
        if only is not None:
            return Names(np.zeros(fields.rows, np.int64), _strings([only]))
        found: Names = self._again(fields, name, _coded)
        return found


def _loads(values: list[bytes]) -> list[Any]:
    try:
        found = json.loads(b"[" + b",".join(values) + b"]")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _Unexpected from error
    if not isinstance(found, list) or len(found) != len(values):
        raise _Unexpected
    return found


def _strings(values: list[bytes]) -> list[str]:
    found = _loads(values)
    if not all(isinstance(t, str) for t in found):
        raise _Unexpected
    return found


def _coded(values: list[bytes]) -> Names:
    codes, found = pd.factorize(np.array(values, dtype=object))
    names = _strings(list(found))
    if len(set(names)) != len(names):
        raise _Unexpected
    return Names(codes.astype(np.int64), names)


def _preferences(values: list[bytes], path: Path) -> NDArray[np.float64]:
    """Numbers and nulls, AlpacaEval's dialects as in :func:`farm.formats.preferences`, which also words the errors."""
    found = _loads(values)
    if all(type(v) in (float, int) or v is None for v in found):
        numbers = np.array(found, dtype=np.float64)  # None becomes NaN
        numbers[numbers == 0] = 1.5
        numbers[numbers == -1] = np.nan
        if not ((numbers < 1) | (numbers > 2)).any():
            return numbers
    return preferences(pd.Series(found, dtype=object), path)


class _Unexpected(Exception):
    """The file departs from the pattern; the general reader will say what is wrong, or read it."""


def _status(preference: NDArray[np.float64]) -> Names:
    return Names(np.isnan(preference).astype(np.int64), ["ok", "unparseable"])


def from_table(table: pd.DataFrame, origin: Path | str) -> Part:
    """The rows of an annotation table (see :data:`COLUMNS`); texts are replaced with ids and lengths."""
    n = len(table)
    if not n:
        raise UserError(f"{origin}: holds no annotation")
    if "instruction" in table:
        key = rng.text_ids(table["instruction"])
        ids = official_ids(key)
    else:
        ids = _whole(table["instruction_id"], origin)
        key = ids.astype(np.uint64)
    if "instruction" in table and "instruction_id" in table:
        ids = np.where(ids < 0, _whole(table["instruction_id"], origin), ids)
    out: Part = {
        "method": _category(table, ("model_dir", "method", "generator_2"), n),
        "annotator": _category(table, ("annotator",), n),
        "baseline": _category(table, ("generator_1",), n),
        "key": key,
        "instruction_id": ids,
        "preference": preferences(table["preference"], origin),
        "status": _category(table, ("status",), n),
    }
    for side in ("1", "2"):
        out[f"length_{side}"] = _lengths(table, side, n, origin)
    out["row"] = np.arange(1, n + 1)
    if "dataset" in table:
        out["dataset"] = _category(table, ("dataset",), n)
    return out


def _category(table: pd.DataFrame, names: tuple[str, ...], n: int) -> Names:
    for name in names:
        if name in table:
            values = table[name]
            if isinstance(values.dtype, pd.CategoricalDtype):
                values = values.astype(values.cat.categories.dtype)
            codes, found = pd.factorize(values.fillna("").astype(str))
            return Names(codes.astype(np.int64), [str(v) for v in found])
    return Names(np.zeros(n, np.int64), [""])


def subset(part: Part, kept: NDArray[np.bool_]) -> Part:
    """The rows of a part where ``kept`` is true."""
    return {k: Names(v.codes[kept], v.names) if isinstance(v, Names) else v[kept] for k, v in part.items()}


def frame(parts: Sequence[Part]) -> pd.DataFrame:
    """Parts as one table; names become categories, sorted."""
    columns: dict[str, Any] = {}
    for name, first in parts[0].items():
        if not all(name in p for p in parts):
            continue
        if not isinstance(first, Names):
            columns[name] = np.concatenate([p[name] for p in parts])
            continue
        used = [(p[name], np.bincount(p[name].codes, minlength=len(p[name].names)) > 0) for p in parts]
        union = sorted({n for names, seen in used for n, is_seen in zip(names.names, seen, strict=True) if is_seen})
        place = {n: k for k, n in enumerate(union)}
        codes = [np.array([place.get(n, -1) for n in names.names], np.int64)[names.codes] for names, _ in used]
        columns[name] = pd.Categorical.from_codes(np.concatenate(codes), union)
    return pd.DataFrame(columns)


def _whole(values: pd.Series, origin: Path | str) -> NDArray[np.int64]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) | (numbers != np.round(numbers)) | (numbers < 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(f"{origin}: row {row + 1}: `instruction_id` = {values.iloc[row]} is not a whole number from 0")
    return numbers.astype(np.int64)


def _lengths(table: pd.DataFrame, side: str, n: int, origin: Path | str) -> NDArray[np.float64]:
    for name in (f"output_{side}_len", f"len_{side}", f"length_{side}"):
        if name in table:
            numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            if (numbers < 0).any():
                row = int(np.flatnonzero(numbers < 0)[0])
                raise UserError(f"{origin}: row {row + 1}: `{name}` = {numbers[row]:g} is not a length")
            return numbers
    if f"output_{side}" not in table:
        return np.full(n, np.nan)
    return np.fromiter((len(t) if isinstance(t, str) else np.nan for t in table[f"output_{side}"]), np.float64, n)
