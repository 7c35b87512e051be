"""Files of tables: JSON, JSON lines, CSV and Parquet, chosen by the suffix; a wrong file is refused with row and field.

The columns are AlpacaEval's (``instruction, output, generator``; ``output_1, output_2, generator_1, generator_2,
annotator, preference``) and TRL's (``prompt, chosen, rejected``; ``prompt, completion, label``; plain or
conversational). A prompt that is a conversation has its further turns in ``turns`` (farm.tables.turns). AlpacaEval's
dialects of a preference: 1 and 2 are verdicts, any number between is a soft one, 1.5 and the older 0 are ties, null
(and -1, its mark of a failed call) is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from farm.base.errors import UserError, nearest, shown
from farm.tables import turns, vote_layouts
from farm.tables.table_files import SUFFIXES, check_table, is_missing, read_table, write_table
from farm.tables.turns import Prompt

__all__ = ["SUFFIXES", "check_table", "read_table", "write_table"]


def require(table: pd.DataFrame, columns: Sequence[str], origin: str | Path) -> None:
    """Refuse a table without these columns, or with a row where one of them is not a text."""
    if table.empty and not len(table.columns):
        raise UserError(f"{origin}: holds no row")
    for column in columns:
        if column not in table.columns:
            raise UserError(f"{origin}: the field `{column}` is missing; {nearest(column, table.columns)}")
        wrong = np.flatnonzero([not isinstance(v, str) for v in table[column]])
        if wrong.size:
            value = table[column].iloc[int(wrong[0])]
            found = "missing" if is_missing(value) else f"not a text: {shown(value)}"
            raise UserError(f"{origin}: row {int(wrong[0]) + 1}: `{column}` is {found}")


def rows(given: object, origin: str) -> pd.DataFrame:
    """A table in memory as a table of its own: a DataFrame, or rows that are mappings.

    Raises:
        UserError: for anything else, and for a column that stands twice.
    """
    if isinstance(given, pd.DataFrame):
        table = given.copy()
    elif isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        wrong = next((i for i, row in enumerate(given) if not isinstance(row, Mapping)), None)
        if wrong is not None:
            found = type(given[wrong]).__name__
            raise UserError(f"{origin}: row {wrong + 1} is of type {found}; a row is a mapping of fields to values")
        table = pd.DataFrame(list(given))
    else:
        raise UserError(f"{origin}: give a table or a list of rows that are mappings, not {type(given).__name__}")
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise UserError(f"{origin}: the column `{twice[0]}` stands twice")
    return table


def require_labels(table: pd.DataFrame, column: str, origin: str | Path, missing: bool = False) -> None:
    """Refuse a table in which a row has no text or number in a column that tells rows apart; ``missing`` allows nothing
    there."""
    for row, value in enumerate(table[column], start=1):
        if is_missing(value):
            if missing:
                continue
            raise UserError(f"{origin}: row {row}: `{column}` is missing, which tells the rows apart")
        if not isinstance(value, (str, int, float, np.number)) or isinstance(value, bool):
            raise UserError(f"{origin}: row {row}: `{column}` is not a text or number: {shown(value)}")


def merge_input(table: pd.DataFrame) -> pd.DataFrame:
    """Alpaca's separate ``input`` field becomes part of the instruction, as AlpacaEval does."""
    if "input" not in table.columns or "instruction" not in table.columns:
        return table
    inputs = ["" if is_missing(v) else str(v) for v in table["input"]]
    merged = [f"{i}\n\n{x}" if x else i for i, x in zip(table["instruction"], inputs, strict=True)]
    return table.drop(columns="input").assign(instruction=merged)


def read_instructions(path: str | Path) -> pd.DataFrame:
    """The instructions of a file, as :func:`as_instructions`."""
    return as_instructions(read_table(path), path)


def as_instructions(table: pd.DataFrame, origin: str | Path) -> pd.DataFrame:
    """Rows with ``instruction`` and, where there are conversations, ``turns``; ``messages`` are read as both, and
    Alpaca's ``input`` is merged into the instruction."""
    table = turns.checked(table, origin)
    require(table, ["instruction"], origin)
    return merge_input(table)


def read_outputs(path: str | Path) -> pd.DataFrame:
    """Model outputs: ``instruction, output`` and, if there, ``turns`` and ``generator`` (else the file's name)."""
    return as_outputs(read_table(path), path, Path(path).stem)


def as_outputs(table: pd.DataFrame, origin: str | Path, generator: str) -> pd.DataFrame:
    """A table of model outputs with ``generator``, this one where it does not say."""
    table = turns.checked(table, origin)
    require(table, ["instruction", "output"], origin)
    known = table["generator"] if "generator" in table.columns else pd.Series(None, table.index, dtype=object)
    table["generator"] = known.where(known.notna(), generator)
    return merge_input(table)


def read_pairs(path: str | Path) -> pd.DataFrame:
    """Pairs to annotate: ``instruction, output_1, output_2``; missing generators become empty."""
    table = merge_input(turns.checked(read_table(path), path))
    require(table, ["instruction", "output_1", "output_2"], path)
    if table.empty:
        raise UserError(f"{path}: holds no row")
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
        raise UserError(f"{origin}: row {row + 1}: `preference` is not a number: {shown(values.iloc[row])}")
    numbers[numbers == 0] = 1.5
    numbers[numbers == -1] = np.nan
    wrong = np.flatnonzero(~np.isnan(numbers) & ((numbers < 1) | (numbers > 2)))
    if wrong.size:
        row = int(wrong[0])
        raise UserError(
            f"{origin}: row {row + 1}: `preference` = {numbers[row]:.15g} is outside [1, 2]; 0 is a tie, null missing"
        )
    return numbers


def _truth(values: pd.Series) -> np.ndarray:
    """Which values are true or false, that is neither a 1 nor a tie; bool [n]."""
    if values.dtype == object:
        return values.map(lambda value: isinstance(value, (bool, np.bool_))).to_numpy(bool)
    return np.full(len(values), pd.api.types.is_bool_dtype(values.dtype))


def read_annotations(path: str | Path) -> pd.DataFrame:
    """The annotations of a file, as :func:`as_annotations`."""
    return as_annotations(read_table(path), path)


def as_annotations(table: pd.DataFrame, origin: str | Path) -> pd.DataFrame:
    """Annotations: ``preference`` with ``instruction`` (or ``instruction_id`` where texts were left out).

    Votes in the layouts of PandaLM and of AlpacaEval's people (:mod:`farm.tables.vote_layouts`) are annotations, too.
    ``status`` is added where there is none: "ok", or "unparseable" for a missing preference.
    """
    table = merge_input(turns.checked(vote_layouts.as_annotations(table, str(origin)), origin))
    if "preference" not in table.columns:
        raise UserError(f"{origin}: the field `preference` is missing; {nearest('preference', table.columns)}")
    if "instruction" not in table.columns and "instruction_id" not in table.columns:
        raise UserError(f"{origin}: neither `instruction` nor `instruction_id` is there to tell the rows apart")
    if "instruction" in table.columns:
        require(table, ["instruction"], origin)
    for column in ("output_1", "output_2"):
        if column in table.columns:
            require_labels(table, column, origin, missing=True)
    table["preference"] = preferences(table["preference"], origin)
    if "status" not in table.columns:
        table["status"] = np.where(np.isnan(table["preference"]), "unparseable", "ok")
    return table


def write_annotations(table: pd.DataFrame, path: str | Path) -> None:
    """Write annotations in AlpacaEval's form (and our further columns); token columns are left out of text formats."""
    drop = (
        [] if Path(path).suffix == ".parquet" else [c for c in table.columns if "tokens_" in c or c == "prompt_tokens"]
    )
    write_table(table.drop(columns=drop), path)


def chosen_and_rejected(table: pd.DataFrame, origin: str | Path) -> pd.DataFrame:
    """TRL's ``prompt, chosen, rejected`` as annotations, the chosen output first (preference 1).

    Cells are texts, or conversations whose last turn is the answer; without ``prompt`` it is what both begin with.
    """
    answers = {column: texts_of(table[column], column, origin) for column in ("chosen", "rejected")}
    if "prompt" in table.columns:
        asked = table["prompt"]
        prompts = prompts_from(asked, "prompt", origin)
    else:
        starts = {
            column: [begun(v, origin, row, column) for row, v in enumerate(table[column], 1)] for column in answers
        }
        for row, (one, other) in enumerate(zip(starts["chosen"], starts["rejected"], strict=True), start=1):
            if one != other:
                raise UserError(f"{origin}: row {row}: `chosen` and `rejected` answer different conversations")
        asked, prompts = table["chosen"], starts["chosen"]
    out = table.drop(columns=["prompt", "chosen", "rejected"], errors="ignore")
    out = out.assign(**turns.columns(prompts, asked), output_1=answers["chosen"], output_2=answers["rejected"])
    missing = {"generator_1": "", "generator_2": "", "annotator": Path(origin).stem}
    out = out.assign(**{c: v for c, v in missing.items() if c not in out.columns})
    return out.assign(preference=1.0, status="ok")


def prompts_from(values: Sequence[object] | pd.Series, column: str, origin: str | Path) -> list[Prompt]:
    """Prompts from texts and lists of role/content turns. Raises UserError naming row and column."""
    return [turns.from_messages(value, f"{origin}: row {row}: `{column}`") for row, value in enumerate(values, start=1)]


def texts_of(values: Sequence[object] | pd.Series, column: str, origin: str | Path) -> list[str]:
    """Answers as texts: they are texts, or lists of role/content turns, of which the last counts.

    Raises:
        UserError: naming row and column, for anything else.
    """
    return [
        value if isinstance(value, str) else _turns(value, origin, row, column)[-1]["content"]
        for row, value in enumerate(values, start=1)
    ]


def _turns(value: object, origin: str | Path, row: int, column: str) -> list[dict[str, str]]:
    found = value.tolist() if isinstance(value, np.ndarray) else value
    if (
        isinstance(found, list)
        and found
        and all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in found)
    ):
        return found
    raise UserError(f"{origin}: row {row}: `{column}` is neither a text nor a list of role/content turns")


def begun(value: object, origin: str | Path, row: int, column: str) -> Prompt:
    """A conversation of role/content turns without its answer. Raises UserError naming row and column."""
    found = [] if isinstance(value, str) else _turns(value, origin, row, column)
    if len(found) < 2:
        raise UserError(f"{origin}: row {row}: `{column}` has an answer and no question; give a field `prompt`")
    return turns.from_messages(found[:-1], f"{origin}: row {row}: `{column}`")


def as_chosen_and_rejected(annotations: pd.DataFrame) -> pd.DataFrame:
    """Verdicts as TRL's ``prompt, chosen, rejected``, without ties and missing ones.

    Raises:
        UserError: for conversations, which the plain form has no place for.
    """
    if "turns" in annotations.columns:
        raise UserError(
            "prompts of several turns have no place in plain `prompt, chosen, rejected`: take conversational"
        )
    return decided(annotations)


def as_conversations(annotations: pd.DataFrame) -> pd.DataFrame:
    """The same as lists of turns."""
    table = decided(annotations)
    table["prompt"] = turns.conversations(_clear(annotations))
    for column in ("chosen", "rejected"):
        table[column] = [[{"role": "assistant", "content": x}] for x in table[column]]
    return table


def decided(annotations: pd.DataFrame) -> pd.DataFrame:
    """``prompt, chosen, rejected`` of the verdicts that are neither ties nor missing; prompts as they are inside."""
    decided = _clear(annotations)
    first = decided["preference"].to_numpy() < 1.5
    chosen = np.where(first, decided["output_1"], decided["output_2"])
    rejected = np.where(first, decided["output_2"], decided["output_1"])
    prompts = pd.Series(turns.prompts_of(decided), dtype=object)
    return pd.DataFrame({"prompt": prompts, "chosen": chosen, "rejected": rejected})


def _clear(annotations: pd.DataFrame) -> pd.DataFrame:
    return annotations[annotations["preference"].notna() & (annotations["preference"] != 1.5)]
