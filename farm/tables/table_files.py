"""Tables as files: JSON, JSON lines, CSV and Parquet, chosen by the suffix; what a cell may hold is checked on reading.

A sheet (.xlsx) is read, with openpyxl: the first of a workbook, the values that its formulas had when it was saved.
Whatever the format, a column is numbers, texts (missing ones null) or Python objects; nothing is a category or index.
In a **name** (:data:`NAMES`: who wrote, who judged, which pair) a list, an object, a truth value or bytes are refused.

In CSV a text that a spreadsheet would take for a formula (it begins with ``= + - @``, a tab or a line end, and is no
number) is written with ``'`` before it, and read without: ``=1+1`` is ``'=1+1`` in the file. So a text of a CSV that we
did not write, in which such a sign comes after quotes, is read without the first of them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.base import files
from farm.base.errors import UserError, need, shown

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
READ = (*SUFFIXES, ".xlsx")
"""what is read; what is written is one of the others"""
NAMES = frozenset(
    """generator generator_1 generator_2 model_a model_b model_x model_y model_dir method annotator annotator_index
    human_annotator_index worker evaluator judge strategy dataset subset topic status winner label id idx pair_id
    comparison_id item question_id instruction_id seed replicate sample""".split()
)
"""columns whose cells are texts or numbers that tell rows apart"""
TRUTHS = frozenset({"label"})
"""those of them that may be true or false (TRL's labels of responses)"""
TEXTS = frozenset({"instruction", "output", "output_1", "output_2", "prompt", "chosen", "rejected", "completion"})
"""columns whose cells are texts, or the turns of a conversation"""

_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def check_table(path: Path, table: pd.DataFrame | None = None, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a file that no table can be written to, before the work (see :func:`farm.base.files.check_out`).

    Args:
        table: what will be part of it, where its format may not hold everything.
        inputs: what is read, and must not be overwritten.
    """
    suffix = _suffix(path)
    if suffix == ".xlsx":
        raise UserError(f"{path}: sheets are read and not written; write one of {', '.join(SUFFIXES)}")
    files.check_out(path, tuple(inputs))
    if table is not None and suffix == ".parquet":
        _arrow(table, path)
    if table is not None and suffix == ".csv":
        if "turns" in table.columns:
            raise UserError(f"{path}: there are prompts of several turns, which CSV cannot hold; write .json or .jsonl")
        for column in table.columns:
            if any(isinstance(cell, (list, np.ndarray)) for cell in table[column].dropna().head(1)):
                raise UserError(f"{path}: `{column}` has lists, which CSV cannot hold; write .json or .jsonl")


def _suffix(path: Path) -> str:
    name = path.name[:-3] if path.name.endswith(".gz") else path.name
    suffix = Path(name).suffix
    if suffix not in READ or (suffix in (".parquet", ".xlsx") and name != path.name):
        raise UserError(f"{path}: the suffix tells the format; known: {', '.join(READ)} (and .gz of the text ones)")
    return suffix


# --- reading ----------------------------------------------------------------------------------------------------------


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a table file.

    Raises:
        UserError: naming the file, and the row or line at fault.
    """
    path = Path(path)
    suffix = _suffix(path)
    files.check(path)
    if suffix == ".jsonl":
        with files.refusals(path, "read"), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            return _checked(_columns(_json_lines(lines, path)), path)
    if suffix == ".json":
        return _checked(pd.DataFrame(_json_rows(files.read_bytes(path), path)), path)
    try:
        table = pd.read_parquet(path) if suffix == ".parquet" else _sheet(path) if suffix == ".xlsx" else _csv(path)
    except UserError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: not a readable {suffix[1:]} file ({said[0]})") from error
    return _checked(table, path)


def header(path: Path) -> list[str]:
    """The names of the columns of a CSV file; each stands there once."""
    text = files.read_bytes(path) if path.suffix == ".gz" else None
    with files.refusals(path, "read"), path.open("rb") as file:
        start = text if text is not None else file.read(1 << 20)
    try:
        names = next(csv.reader(io.StringIO(start.decode("utf-8-sig", "ignore"))), [])
    except csv.Error as error:
        raise UserError(f"{path}: not a readable csv file ({error})") from error
    named = [_restored(name) for name in names if name]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise UserError(f"{path}: the column {shown(twice)} stands there twice; rename one of them")
    return [_restored(name) for name in names]


def _csv(path: Path) -> pd.DataFrame:
    header(path)
    table = pd.read_csv(path, keep_default_na=True, na_values=[""], dtype_backend="numpy_nullable").astype(object)
    for column in table.columns:
        if pd.api.types.infer_dtype(table[column], skipna=True) != "integer":
            table[column] = pd.Series([_restored(v) for v in table[column]], dtype=object, index=table.index)
    return table.rename(columns=_restored)


def _sheet(path: Path) -> pd.DataFrame:
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise need("sheets", "openpyxl", f"{path}: a sheet") from error
    table = pd.read_excel(path, engine="openpyxl", dtype=object)
    numbered = [c for c in table.columns if isinstance(c, str) and c.startswith("Unnamed: ") and table[c].isna().all()]
    return table.drop(columns=numbered).dropna(how="all").reset_index(drop=True)


def _restored(value: Any) -> Any:
    """A cell as it was before :func:`_neutral`."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) else value


class _Rows:
    """What is asked of each object of a JSON text: no key twice, and equal texts kept once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known = self._texts
        row = {k: known.setdefault(v, v) if type(v) is str else v for k, v in pairs}
        if len(row) < len(pairs):
            keys = [k for k, _ in pairs]
            raise _Twice(next(k for k in keys if keys.count(k) > 1))
        return row


class _Twice(Exception):
    """A key that stands twice in one object."""


def parse_json(data: bytes, path: Path, kind: str = "file") -> Any:
    """Parsed JSON in which no object has a key twice. Raises UserError with the line."""
    text = files.decoded(data, path)
    try:
        return json.loads(text, object_pairs_hook=_Rows())
    except json.JSONDecodeError as error:
        cut = "; the file is cut off" if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg else ""
        raise UserError(f"{path}: line {error.lineno}: not JSON ({error.msg.lower()}{cut})") from error
    except (ValueError, RecursionError, _Twice) as error:
        raise UserError(f"{path}: {_said(error, kind)}") from error


def _said(error: Exception, kind: str) -> str:
    if isinstance(error, _Twice):
        return f"the key {shown(str(error))} stands twice in one object; remove one"
    if isinstance(error, RecursionError):
        return f"nested too deeply to be a {kind}"
    return "a number has thousands of digits"  # which Python refuses to read


def _json_rows(data: bytes, path: Path) -> list[dict[str, Any]]:
    rows = parse_json(data, path, "list of rows")
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of objects, found {type(rows).__name__}")
    halves = _HALF_ESCAPED.search(data) is not None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is not an object")
        if halves:
            _refuse_halves(row, f"{path}: row {number}")
    return rows


def _json_lines(lines: Iterable[bytes], path: Path) -> Iterator[dict[str, Any]]:
    hook = _Rows()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=hook)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number}: not JSON ({error.msg.lower()})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: line {number}: byte {error.start} is not UTF-8 text") from error
        except (ValueError, RecursionError, _Twice) as error:
            raise UserError(f"{path}: line {number}: {_said(error, 'row')}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number} is not an object")
        if _HALF_ESCAPED.search(line):
            _refuse_halves(row, f"{path}: line {number}")
        yield row


def _refuse_halves(row: dict[str, Any], where: str) -> None:
    """Half a surrogate pair is no character: neither a column of texts, nor Parquet, nor a server takes it."""
    for key, value in row.items():
        if _HALF.search(key) or holds_half(value):
            raise UserError(f"{where}: {shown(key)} holds half of a surrogate pair, which is no text; remove it")


def holds_half(value: Any) -> bool:
    """Whether a text within a value read from JSON holds half of a surrogate pair."""
    if isinstance(value, dict):
        return any(_HALF.search(key) or holds_half(inner) for key, inner in value.items())
    if isinstance(value, list):
        return any(map(holds_half, value))
    return isinstance(value, str) and _HALF.search(value) is not None


def _columns(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table, without ever holding all of them as objects."""
    columns: dict[str, list[Any]] = {}
    n = 0
    for row in rows:
        for key, value in row.items():
            column = columns.get(key)
            if column is None:
                column = columns[key] = []
            if len(column) < n:
                column.extend([None] * (n - len(column)))
            column.append(value)
        n += 1
    for column in columns.values():
        column.extend([None] * (n - len(column)))
    return pd.DataFrame({key: columns.pop(key) for key in list(columns)})


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table whose columns are plain, or the sentence on a cell that no command could use."""
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(drop=table.index.names == [None])
    table.columns = [str(name) for name in table.columns]
    for name in table.columns:
        column = table[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = table[name] = column.astype(column.cat.categories.dtype)
        elif pd.api.types.is_extension_array_dtype(column.dtype) and not isinstance(column.dtype, pd.StringDtype):
            column = table[name] = column.astype(object)
        if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) not in ("string", "floating"):
            _refuse_cells(column, name, path)
        elif (
            name in NAMES
            and column.dtype.kind not in ("OiufUb" if name in TRUTHS else "OiufU")
            and not isinstance(column.dtype, pd.StringDtype)
        ):
            raise UserError(f"{path}: the column `{name}` holds {column.dtype}, where names are due")
    return table


def _refuse_cells(column: pd.Series, name: str, path: Path) -> None:
    """Refuse whole numbers that no floating-point number is near to, what is no name where names are due, and bytes
    where texts are."""
    named = name in NAMES
    for row, value in enumerate(column, start=1):
        if isinstance(value, int) and value.bit_length() > 1023:
            raise UserError(f"{path}: row {row}: `{name}` is {shown(value)}, too large to count with")
        if name in TEXTS and isinstance(value, bytes):
            raise UserError(f"{path}: row {row}: `{name}` is not a text but bytes")
        truth = isinstance(value, bool) and name not in TRUTHS
        if named and (truth or not (isinstance(value, (str, int, float)) or is_missing(value))):
            raise UserError(f"{path}: row {row}: `{name}` is not a name or number: {shown(value)}")


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing."""
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table in the format of the suffix; the file appears whole or not at all.

    Raises:
        UserError: for a place that cannot be written, and for a column that the format cannot hold.
    """
    path = Path(path)
    suffix = _suffix(path)
    with files.replacing(path) as new:
        if suffix == ".parquet":
            import pyarrow.parquet

            pyarrow.parquet.write_table(_arrow(table, path), new)
            return
        if suffix == ".csv":
            safe = _neutralised(table)
            text = safe.to_csv(index=False)
            if "\r" in text:  # alone it ends a row, and is not quoted by itself
                text = safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
        else:
            lines = [json.dumps(row, ensure_ascii=False, default=_plain) for row in _records(table)]
            text = "\n".join(lines) + "\n" if suffix == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]\n"
        data = text.encode("utf-8", "backslashreplace")  # half a surrogate pair stays an escape, as JSON has it
        new.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _arrow(table: pd.DataFrame, path: Path) -> Any:
    """A table for Parquet, in which each column holds one kind of values."""
    import pyarrow as pa

    for name in table.columns:
        try:
            pa.Array.from_pandas(table[name])
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: Parquet cannot hold the column `{name}` ({error}); write .json") from error
    return pa.Table.from_pandas(table, preserve_index=False)


def _neutralised(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which no text is a formula to a spreadsheet."""
    out = table.rename(columns=_neutral)
    for place, dtype in enumerate(out.dtypes):
        if dtype.kind == "O":
            out.isetitem(place, pd.Series([_neutral(v) for v in out.iloc[:, place]], dtype=object, index=out.index))
    return out


def _neutral(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {str(c): [None if is_missing(v) else v for v in table[c].tolist()] for c in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
