"""Reads a published AlpacaEval file in 3 ms instead of 40: only the fields of its rows, found by their indentation.

Such a file is 4 MB of which three quarters are the judge's raw answers, one token a line. It was written with two
spaces of indent, and a text in JSON cannot hold a raw line break; so the lines that begin with exactly four spaces and
a quote are the fields of its rows, and the others need not be parsed. One vectorised pass finds them; lengths are
counted from bytes, and what a file shares with the one before (instructions, the baseline's answers) is recognised by
its bytes. Every other file, and one that departs from the pattern in the least, is read by
:func:`farm.tables.formats.read_annotations`, which also words the errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.published.json_lengths import Bytes, Unexpected, characters
from eval.published.official import official_ids
from eval.published.rows import Names, Part, Places, from_table
from farm.base import files, rng
from farm.tables.formats import preferences, read_annotations

_WANTED = ("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference", "status")
_OPTIONAL = ("dataset",)
_OTHERS = ("input", "instruction_id", "model_dir", "method", "output_1_len", "output_2_len", "len_1", "length_1")
"""fields that change what the others mean; a file with one of them is left to the general reader"""
_BETWEEN = b"\n  },\n  {"
"""what lies between two rows"""


_KEPT = 4
"""so many different sets of values of a field are remembered: a few models lack a row"""


class _Fields:
    """Where the values of the wanted fields lie in a file: first and last byte of each, [n]."""

    def __init__(self, data: memoryview, text: Bytes, spans: dict[str, tuple[Places, Places]], rows: int) -> None:
        self.data = data
        self.text = text
        self.spans = spans
        self.rows = rows

    def __contains__(self, name: str) -> bool:
        return name in self.spans

    def joined(self, name: str) -> tuple[bytes, Places]:
        """The values one after another, and where each begins and ends in that, [n + 1]."""
        begin, end = self.spans[name]
        data = self.data
        blob = b"".join([data[b:e] for b, e in zip(begin.tolist(), end.tolist(), strict=True)])
        return blob, np.concatenate([[0], np.cumsum(end - begin)])

    def constant(self, name: str) -> bytes | None:
        """The one value of a field, where all rows have the same."""
        begin, end = self.spans[name]
        width = int(end[0] - begin[0])
        if width > 200 or (end - begin != width).any():
            return None
        found = _pieces(self.text, begin, width)
        return bytes(self.data[int(begin[0]) : int(end[0])]) if (found == found[0]).all() else None


def _pieces(text: Bytes, begin: Places, width: int) -> NDArray[np.bytes_]:
    """``width`` bytes from each place of a text, [n]."""
    every = np.ndarray((len(text) - width + 1,), f"S{width}", text.data, strides=(1,))
    return every[begin]


def _true_places(mask: NDArray[np.bool_]) -> Places:
    """Where a mask that is mostly false holds: eight at a time, four times as fast as :func:`numpy.flatnonzero`."""
    whole = len(mask) // 8 * 8
    eights = mask[:whole].view("<u8")
    at = np.flatnonzero(eights != 0)
    found = eights[at]
    if (found & (found - np.uint64(1))).any():  # two in one eight: no such file was written by a JSON library
        return np.flatnonzero(mask)
    place = np.bitwise_count(found - np.uint64(1)).astype(np.int64) >> 3
    return np.concatenate([8 * at + place, whole + np.flatnonzero(mask[whole:])])


def _split(blob: bytes, bounds: Places) -> list[bytes]:
    edges = bounds.tolist()
    return [blob[b:e] for b, e in pairwise(edges)]


class Reader:
    """Reads many annotation files; what they share (instructions, the baseline's answers) is decoded once."""

    def __init__(self) -> None:
        self._last: dict[str, list[tuple[bytes, Places, Any]]] = {}
        self._instructions: dict[bytes, int] = {}
        self._buffer = bytearray()
        self._masks = np.empty((2, 0), bool)

    def _load(self, path: Path) -> memoryview:
        """The bytes of a file in a buffer that the next file will reuse: fresh memory costs more than reading."""
        files.check(path)
        size = path.stat().st_size
        if size > len(self._buffer):
            self._buffer = bytearray(size + size // 4)
            self._masks = np.empty((2, len(self._buffer)), bool)
        view = memoryview(self._buffer)
        with files.refusals(path, "read"), path.open("rb", buffering=0) as file:
            read = 0
            while read < size and (n := file.readinto(view[read:size])):
                read += n
        return view[:read]

    def read(self, path: Path) -> Part:
        """The rows of one file. Raises UserError naming the file and the row."""
        fields = self._scan(path) if path.suffix == ".json" else None
        if fields is None:
            return from_table(read_annotations(path), path)
        try:
            return self._rows(fields, path)
        except Unexpected:
            return from_table(read_annotations(path), path)

    def _scan(self, path: Path) -> _Fields | None:
        data = self._load(path)
        end_of_rows = len(data) - (16 - bytes(data[-16:]).rfind(b"\n  }\n]"))
        closing = bytes(data[-16:]).rstrip()
        if bytes(data[:10]) != b"[\n  {\n    " or not closing.endswith(b"\n  }\n]"):
            return None
        text = np.frombuffer(data, np.uint8)
        breaks, quotes = self._masks[:, : len(text) - 5]
        np.equal(text[:-5], 10, out=breaks)
        np.equal(text[5:], 34, out=quotes)
        at = _true_places(np.logical_and(breaks, quotes, out=breaks))
        at = at[_pieces(text, at + 1, 4) == b"    "]
        opens = text[at - 1] == 123
        rows = int(opens.sum())
        if not rows or len(at) % rows or not opens.reshape(rows, -1)[:, 0].all():
            return None
        begin = (at + 1).reshape(rows, -1)
        width = begin.shape[1]
        names = [bytes(data[b + 5 : b + 60]).split(b'"')[0].decode("utf-8", "replace") for b in begin[0].tolist()]
        known = {"preference", "instruction"} <= set(names) and not set(_OTHERS) & set(names)
        if not known or len(set(names)) != width:
            return None
        spans = {}
        for place, name in enumerate(names):
            first = begin[:, place]
            head = f'    "{name}":'.encode()
            if first[-1] + len(head) > len(data) or (_pieces(text, first, len(head)) != head).any():
                return None  # among them a key that stands twice in one row
            if name not in (*_WANTED, *_OPTIONAL):
                continue
            if place + 1 < width:
                last = begin[:, place + 1] - 2
                stop = text[last] == 44
            else:
                last = np.append(begin[1:, 0] - 1 - len(_BETWEEN), end_of_rows)
                stop = _pieces(text, last[:-1], len(_BETWEEN)) == _BETWEEN
            if not stop.all() or (last - first <= len(head)).any():
                return None
            first = first + len(head)
            spans[name] = (first + (text[first] == 32), last)
        return _Fields(data, text, spans, rows)

    def _again(self, fields: _Fields, name: str, decode: Callable[[bytes, Places], Any]) -> Any:
        """The decoded values of a field; those of a file before where they are the same, byte for byte."""
        blob, bounds = fields.joined(name)
        before = self._last.setdefault(name, [])
        for known, edges, found in before:
            if known == blob and np.array_equal(edges, bounds):
                return found
        found = decode(blob, bounds)
        before.insert(0, (blob, bounds, found))
        del before[_KEPT:]
        return found

    def _rows(self, fields: _Fields, path: Path) -> Part:
        n = fields.rows
        key, ids = self._again(fields, "instruction", self._ids)
        preference = _preferences(_split(*fields.joined("preference")), path)
        unknown = np.full(n, np.nan)
        table: Part = {
            "method": self._names(fields, "generator_2"),
            "annotator": self._names(fields, "annotator"),
            "baseline": self._names(fields, "generator_1"),
            "second": self._names(fields, "generator_2"),
            "key": key,
            "instruction_id": ids,
            "preference": preference,
            "status": self._names(fields, "status") if "status" in fields else _status(preference),
            "length_1": self._again(fields, "output_1", characters) if "output_1" in fields else unknown,
            "length_2": self._again(fields, "output_2", characters) if "output_2" in fields else unknown,
            "row": np.arange(1, n + 1),
        }
        if "dataset" in fields:
            table["dataset"] = self._names(fields, "dataset")
        return table

    def _ids(self, blob: bytes, bounds: Places) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        values, known = _split(blob, bounds), self._instructions
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


def _loads(values: Sequence[bytes]) -> list[Any]:
    try:
        found = json.loads(b"[" + b",".join(values) + b"]")
    except (ValueError, RecursionError) as error:
        raise Unexpected from error
    if not isinstance(found, list) or len(found) != len(values):
        raise Unexpected
    return found


def _strings(values: list[bytes]) -> list[str]:
    found = _loads(values)
    if set(map(type, found)) != {str}:
        raise Unexpected
    return found


def _coded(blob: bytes, bounds: Places) -> Names:
    codes, found = pd.factorize(np.array(_split(blob, bounds), dtype=object))
    names = _strings(list(found))
    if len(set(names)) != len(names):
        raise Unexpected
    return Names(codes.astype(np.int64), names)


def _preferences(values: list[bytes], path: Path) -> NDArray[np.float64]:
    """Numbers and nulls, AlpacaEval's dialects as in :func:`farm.tables.formats.preferences`, which also words the
    errors."""
    found = _loads(values)
    if set(map(type, found)) <= {float, int, type(None)}:
        numbers = np.array(found, dtype=np.float64)  # None becomes NaN
        numbers[numbers == 0] = 1.5
        numbers[numbers == -1] = np.nan
        if not ((numbers < 1) | (numbers > 2)).any():
            return numbers
    return preferences(pd.Series(found, dtype=object), path)


def _status(preference: NDArray[np.float64]) -> Names:
    return Names(np.isnan(preference).astype(np.int64), ["ok", "unparseable"])
