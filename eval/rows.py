"""Annotation files as the rows that a leaderboard needs: who, on what, which verdict, how long.

A published AlpacaEval file is 4 MB of which three quarters are the judge's raw answers, one token a line. Such a file
was written with two spaces of indent, and a text in JSON cannot hold a raw line break; so the lines that begin with
exactly four spaces and a quote are the fields of its rows, and the others need not be parsed. :func:`read_rows` finds
them with one vectorised pass and parses only the fields it wants (about 6 ms a file instead of 40). Every other file,
and one that departs from the pattern in the least, is read by :func:`farm.formats.read_annotations`.
"""

from __future__ import annotations

import json
from pathlib import Path

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

_TEXTS = ("instruction", "output_1", "output_2")
_WANTED = ("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference", "status")
_OPTIONAL = ("dataset",)


class Reader:
    """Reads many annotation files; what they share (instructions, the baseline's answers) is decoded once."""

    def __init__(self) -> None:
        self._decoded: dict[bytes, tuple[int, int]] = {}

    def read(self, path: Path) -> pd.DataFrame:
        """The rows of one file. Raises UserError naming the file and the row."""
        fields = self._scan(path) if path.suffix == ".json" and path.is_file() else None
        if fields is None:
            return from_table(read_annotations(path), path)
        try:
            return self._rows(fields, path)
        except _Unexpected:
            return from_table(read_annotations(path), path)

    def _scan(self, path: Path) -> dict[str, list[bytes]] | None:
        data = path.read_bytes()
        if not data.startswith(b'[\n  {\n    "') or not data.rstrip().endswith(b"}\n]"):
            return None
        text = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(text == 10)
        ends = ends[ends <= len(data) - 6]  # what follows closes the last row and the list
        starts = ends[:-1] + 1
        fields = np.flatnonzero((text[starts + 4] == 34) & (text[starts] == 32) & (text[starts + 3] == 32))
        rows = int(((text[starts] == 32) & (text[starts + 2] == 123) & (text[starts + 3] == 10)).sum())
        if not rows or len(fields) % rows:
            return None
        width = len(fields) // rows
        begin, end = starts[fields], ends[fields + 1]
        # The last field of each row ends before the line that closes it; where a value spans lines it is not wanted.
        names = [data[b + 5 : data.index(b'"', b + 5)].decode("utf-8", "replace") for b in begin[:width].tolist()]
        if len(set(names)) != width or "preference" not in names or "instruction" not in names:
            return None
        out: dict[str, list[bytes]] = {}
        for name in (*_WANTED, *_OPTIONAL):
            if name not in names:
                continue
            at = names.index(name)
            head = f'    "{name}":'.encode()
            lines = [data[b:e] for b, e in zip(begin[at::width].tolist(), end[at::width].tolist(), strict=True)]
            if not all(line.startswith(head) for line in lines):
                return None
            skip = len(head)
            out[name] = [line[skip:].strip().removesuffix(b",") for line in lines]
        return out

    def _texts(self, values: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Ids and lengths of JSON strings; each distinct one is decoded once in the life of the reader."""
        known = self._decoded
        new = [v for v in dict.fromkeys(values) if v not in known]
        if new:
            try:
                texts = json.loads(b"[" + b",".join(new) + b"]")
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise _Unexpected from error
            if len(texts) != len(new) or not all(isinstance(t, str) for t in texts):
                raise _Unexpected
            for raw, text in zip(new, texts, strict=True):
                known[raw] = (rng.text_id(text), len(text))
        found = [known[v] for v in values]
        return np.array([f[0] for f in found], np.uint64), np.array([f[1] for f in found], np.float64)

    def _lengths(self, values: list[bytes]) -> NDArray[np.float64]:
        """Lengths of JSON strings that are not expected to occur again."""
        try:
            texts = json.loads(b"[" + b",".join(values) + b"]")
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise _Unexpected from error
        if len(texts) != len(values) or not all(isinstance(t, str) for t in texts):
            raise _Unexpected
        return np.fromiter(map(len, texts), np.float64, len(texts))

    def _rows(self, fields: dict[str, list[bytes]], path: Path) -> pd.DataFrame:
        n = len(fields["preference"])
        key, _ = self._texts(fields["instruction"])
        try:
            verdicts = pd.Series(json.loads(b"[" + b",".join(fields["preference"]) + b"]"), dtype=object)
        except json.JSONDecodeError as error:
            raise _Unexpected from error
        if len(verdicts) != n:
            raise _Unexpected
        preference = preferences(verdicts, path)
        status = self._names(fields, "status", n) if "status" in fields else _status(preference)
        table = {
            "method": self._names(fields, "generator_2", n),
            "annotator": self._names(fields, "annotator", n),
            "baseline": self._names(fields, "generator_1", n),
            "key": key,
            "instruction_id": official_ids(key),
            "preference": preference,
            "status": status,
            "length_1": self._texts(fields["output_1"])[1] if "output_1" in fields else np.full(n, np.nan),
            "length_2": self._lengths(fields["output_2"]) if "output_2" in fields else np.full(n, np.nan),
            "row": np.arange(1, n + 1),
        }
        if "dataset" in fields:
            table["dataset"] = self._names(fields, "dataset", n)
        return pd.DataFrame(table)

    def _names(self, fields: dict[str, list[bytes]], name: str, n: int) -> pd.Categorical:
        if name not in fields:
            return pd.Categorical.from_codes(np.zeros(n, np.int8), [""])
        codes, found = pd.factorize(np.array(fields[name], dtype=object))
        try:
            names = [json.loads(v) for v in found]
        except json.JSONDecodeError as error:
            raise _Unexpected from error
        if not all(isinstance(v, str) for v in names) or len(set(names)) != len(names):
            raise _Unexpected
        return pd.Categorical.from_codes(codes, names)


class _Unexpected(Exception):
    """The file departs from the pattern; the general reader will say what is wrong, or read it."""


def _status(preference: NDArray[np.float64]) -> pd.Categorical:
    return pd.Categorical.from_codes(np.isnan(preference).astype(np.int8), ["ok", "unparseable"])


def from_table(table: pd.DataFrame, origin: Path | str) -> pd.DataFrame:
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
    out: dict[str, object] = {
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
    return pd.DataFrame(out)


def _category(table: pd.DataFrame, names: tuple[str, ...], n: int) -> pd.Categorical:
    for name in names:
        if name in table:
            values = table[name]
            if isinstance(values.dtype, pd.CategoricalDtype):
                return pd.Categorical(values.astype(values.cat.categories.dtype).fillna("").astype(str))
            return pd.Categorical(values.fillna("").astype(str))
    return pd.Categorical.from_codes(np.zeros(n, np.int8), [""])


def _whole(values: pd.Series, origin: Path | str) -> NDArray[np.int64]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) | (numbers != np.round(numbers)) | (numbers < 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"{origin}: row {row + 1}: `instruction_id` = {values.iloc[row]!r} is not a whole number from 0"
        )
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
