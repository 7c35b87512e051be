"""Files of tables: JSON, JSON lines, CSV and Parquet, chosen by the suffix; a wrong file is refused with row and field.

The columns are AlpacaEval's (``instruction, output, generator``; ``output_1, output_2, generator_1, generator_2,
annotator, preference``) and TRL's (``prompt, chosen, rejected``; ``prompt, completion, label``; plain or
conversational). AlpacaEval's dialects of a preference: 1 and 2 are verdicts, any number between is a soft one, 1.5 and
the older 0 are ties, null (and -1, its mark of a failed call) is missing.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.errors import UserError, nearest

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


def _suffix(path: Path) -> str:
    name = path.name[:-3] if path.name.endswith(".gz") else path.name
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: the suffix tells the format; known: {', '.join(SUFFIXES)} (and .gz of the text ones)")
    return suffix


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a table file.

    Raises:
        UserError: naming the file, and the row or line at fault.
    """
    path = Path(path)
    suffix = _suffix(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix == ".csv":
            return pd.read_csv(path, keep_default_na=True, na_values=[""], dtype_backend="numpy_nullable").astype(
                object
            )
        text = _text(path)
    except UserError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise UserError(f"{path}: not a readable {suffix[1:]} file ({str(error).splitlines()[0]})") from error
    return _json_lines(text, path) if suffix == ".jsonl" else _json_rows(text, path)


def _text(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text") from error


def _json_rows(text: str, path: Path) -> pd.DataFrame:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        cut = "; the file is cut off" if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg else ""
        raise UserError(f"{path}: line {error.lineno}: not JSON ({error.msg.lower()}{cut})") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply to be a list of rows") from error
    if not isinstance(data, list):
        raise UserError(f"{path}: expected a list of objects, found {type(data).__name__}")
    for number, row in enumerate(data):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number + 1} is not an object")
    return pd.DataFrame(data)


def _json_lines(text: str, path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number}: not JSON ({error.msg.lower()})") from error
        except RecursionError as error:
            raise UserError(f"{path}: line {number}: nested too deeply to be a row") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number} is not an object")
        rows.append(row)
    return pd.DataFrame(rows)


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table in the format of the suffix; the file appears whole or not at all."""
    path = Path(path)
    suffix = _suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        elif suffix == ".csv":
            table.to_csv(temporary, index=False, compression="gzip" if path.suffix == ".gz" else None)
        else:
            lines = [json.dumps(row, ensure_ascii=False, default=_plain) for row in _records(table)]
            body = "\n".join(lines) + "\n" if suffix == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]\n"
            data = body.encode("utf-8", "surrogatepass")
            temporary.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {str(c): [None if _missing(v) else v for v in table[c].tolist()] for c in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def require(table: pd.DataFrame, columns: Sequence[str], origin: str | Path) -> None:
    """Refuse a table without these columns, or with a row where one of them is not a text."""
    for column in columns:
        if column not in table.columns:
            raise UserError(f"{origin}: the field `{column}` is missing; {nearest(column, table.columns)}")
        wrong = np.flatnonzero([not isinstance(v, str) for v in table[column]])
        if wrong.size:
            value = table[column].iloc[int(wrong[0])]
            found = "missing" if _missing(value) else f"not a text: {value!r}"
            raise UserError(f"{origin}: row {int(wrong[0]) + 1}: `{column}` is {found}")


def merge_input(table: pd.DataFrame) -> pd.DataFrame:
    """Alpaca's separate ``input`` field becomes part of the instruction, as AlpacaEval does."""
    if "input" not in table.columns or "instruction" not in table.columns:
        return table
    inputs = ["" if _missing(v) else str(v) for v in table["input"]]
    merged = [f"{i}\n\n{x}" if x else i for i, x in zip(table["instruction"], inputs, strict=True)]
    return table.drop(columns="input").assign(instruction=merged)


def read_instructions(path: str | Path) -> pd.DataFrame:
    """Rows with ``instruction``; Alpaca's ``input`` is merged into it."""
    table = read_table(path)
    require(table, ["instruction"], path)
    return merge_input(table)


def read_outputs(path: str | Path) -> pd.DataFrame:
    """Model outputs: ``instruction, output`` and, if there, ``generator`` (else the file's name)."""
    table = read_table(path)
    require(table, ["instruction", "output"], path)
    if "generator" not in table.columns:
        table["generator"] = Path(path).stem
    return merge_input(table)


def read_pairs(path: str | Path) -> pd.DataFrame:
    """Pairs to annotate: ``instruction, output_1, output_2``; missing generators become empty."""
    table = merge_input(read_table(path))
    require(table, ["instruction", "output_1", "output_2"], path)
    for column in ("generator_1", "generator_2"):
        if column not in table.columns:
            table[column] = ""
    return table


def preferences(values: pd.Series, origin: str | Path) -> np.ndarray:
    """AlpacaEval's dialects of a preference as float64 in [1, 2], 1.5 a tie, NaN missing."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan).copy()
    unread = np.flatnonzero((np.isnan(numbers) | _truth(values)) & values.notna().to_numpy())
    if unread.size:
        row = int(unread[0])
        raise UserError(f"{origin}: row {row + 1}: `preference` is not a number: {values.iloc[row]!r}")
    numbers[numbers == 0] = 1.5
    numbers[numbers == -1] = np.nan
    wrong = np.flatnonzero(~np.isnan(numbers) & ((numbers < 1) | (numbers > 2)))
    if wrong.size:
        row = int(wrong[0])
        raise UserError(
            f"{origin}: row {row + 1}: `preference` = {float(numbers[row])!r} is outside [1, 2]; 0 is a tie, "
            "null missing"
        )
    return numbers


def _truth(values: pd.Series) -> np.ndarray:
    """Which values are true or false, that is neither a 1 nor a tie; bool [n]."""
    if values.dtype == object:
        return values.map(lambda value: isinstance(value, (bool, np.bool_))).to_numpy(bool)
    return np.full(len(values), pd.api.types.is_bool_dtype(values.dtype))


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Annotations: ``preference`` with ``instruction`` (or ``instruction_id`` where texts were left out).

    ``status`` is added where the file has none: "ok", or "unparseable" for a missing preference.
    """
    table = merge_input(read_table(path))
    if "preference" not in table.columns:
        raise UserError(f"{path}: the field `preference` is missing; {nearest('preference', table.columns)}")
    if "instruction" not in table.columns and "instruction_id" not in table.columns:
        raise UserError(f"{path}: neither `instruction` nor `instruction_id` is there to tell the rows apart")
    if "instruction" in table.columns:
        require(table, ["instruction"], path)
    table["preference"] = preferences(table["preference"], path)
    if "status" not in table.columns:
        table["status"] = np.where(np.isnan(table["preference"]), "unparseable", "ok")
    return table


def write_annotations(table: pd.DataFrame, path: str | Path) -> None:
    """Write annotations in AlpacaEval's form (and our further columns); token columns are left out of text formats."""
    drop = (
        [] if Path(path).suffix == ".parquet" else [c for c in table.columns if "tokens_" in c or c == "prompt_tokens"]
    )
    write_table(table.drop(columns=drop), path)


def read_preferences(path: str | Path) -> pd.DataFrame:
    """A preference set for training as an annotation table (the chosen output first, preference 1).

    Reads TRL's ``prompt, chosen, rejected`` (texts, or conversations whose last turn is the answer), and annotations.
    """
    table = read_table(path)
    if "preference" in table.columns:
        return read_annotations(path)
    for column in ("prompt", "chosen", "rejected"):
        if column not in table.columns:
            raise UserError(f"{path}: the field `{column}` is missing; a preference set has prompt, chosen, rejected")
    rows = [
        (
            _turns(prompt, path, number, "prompt"),
            _answer(chosen, path, number, "chosen"),
            _answer(rejected, path, number, "rejected"),
        )
        for number, (prompt, chosen, rejected) in enumerate(
            zip(table["prompt"], table["chosen"], table["rejected"], strict=True), start=1
        )
    ]
    out = pd.DataFrame(rows, columns=["instruction", "output_1", "output_2"])
    return out.assign(generator_1="", generator_2="", annotator=Path(path).stem, preference=1.0, status="ok")


def _turns(value: object, path: str | Path, row: int, column: str) -> str:
    if isinstance(value, str):
        return value
    turns = value.tolist() if isinstance(value, np.ndarray) else value
    if (
        isinstance(turns, list)
        and turns
        and all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in turns)
    ):
        return "\n\n".join(t["content"] for t in turns)
    raise UserError(f"{path}: row {row}: `{column}` is neither a text nor a list of role/content turns")


def _answer(value: object, path: str | Path, row: int, column: str) -> str:
    if isinstance(value, str):
        return value
    turns = value.tolist() if isinstance(value, np.ndarray) else value
    return _turns(turns[-1:] if isinstance(turns, list) else turns, path, row, column)


def write_preferences(annotations: pd.DataFrame, path: str | Path, conversational: bool = False) -> int:
    """Write verdicts as TRL's ``prompt, chosen, rejected``, without ties and missing ones. Returns the rows written."""
    decided = annotations[annotations["preference"].notna() & (annotations["preference"] != 1.5)]
    first = decided["preference"].to_numpy() < 1.5
    chosen = np.where(first, decided["output_1"], decided["output_2"])
    rejected = np.where(first, decided["output_2"], decided["output_1"])
    table = pd.DataFrame({"prompt": decided["instruction"].to_numpy(), "chosen": chosen, "rejected": rejected})
    if conversational:
        table["prompt"] = [[{"role": "user", "content": x}] for x in table["prompt"]]
        for column in ("chosen", "rejected"):
            table[column] = [[{"role": "assistant", "content": x}] for x in table[column]]
    write_table(table, path)
    return len(table)
