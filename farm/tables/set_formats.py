"""The formats in which others write feedback: by which columns each is known, how it is read, and how written.

A reader gives the table of a kind (farm/tables/records.py) with the columns that say who, and refuses a cell by its row
and field; a writer takes such a table and gives the rows of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.base.errors import UserError
from farm.tables import arena_hard, dialogue_texts, formats, sheets, turns, vote_layouts
from farm.tables.given_answers import ANSWERS, complete, numbers, truths
from farm.tables.table_files import is_missing

ASPECT = "aspect_"
"""begins the columns of a rating's aspects"""
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
NESTED = ("conversational", "messages", "ultrafeedback", "rankings", "critiques", "sets")
"""formats with lists in their cells"""
ONE_TURN = ("battles", "annotated_pairs", "ultrafeedback", "helpsteer", "sheets")
"""formats in which a prompt is one text"""


@dataclass(frozen=True)
class Format:
    name: str
    kind: str
    columns: tuple[str, ...]
    """that a table of it has"""
    read: Callable[[pd.DataFrame, str], pd.DataFrame]
    write: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    """None for what is read alone"""
    fits: Callable[[pd.DataFrame], bool] = lambda table: True
    """whether a table with these columns is of it, where several formats have them"""


def _read_outputs(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    return formats.as_outputs(table, origin, Path(origin).stem)


def _read_completions(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    prompts = formats.prompts_from(table["prompt"], "prompt", origin)
    answers = formats.texts_of(table["completion"], "completion", origin)
    read = turns.columns(prompts, table["prompt"])
    table = table.drop(columns=["prompt", "completion"]).assign(**read, output=answers)
    return formats.as_outputs(table, origin, Path(origin).stem)


def _write_completions(table: pd.DataFrame) -> pd.DataFrame:
    asked = turns.conversations(table)
    if "turns" not in table and all(len(said) == 1 for said in asked):
        return pd.DataFrame({"prompt": table["instruction"], "completion": table["output"]})
    prompts = pd.Series(asked, index=table.index)
    answers = table["output"].map(lambda text: [{"role": "assistant", "content": text}])
    return pd.DataFrame({"prompt": prompts, "completion": answers})


def _read_messages(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    prompts = [formats.begun(v, origin, row, "messages") for row, v in enumerate(table["messages"], start=1)]
    answers = formats.texts_of(table["messages"], "messages", origin)
    table = table.drop(columns="messages").assign(**turns.columns(prompts, table["messages"]), output=answers)
    return formats.as_outputs(table, origin, Path(origin).stem)


def _write_messages(table: pd.DataFrame) -> pd.DataFrame:
    said = zip(turns.conversations(table), table["output"], strict=True)
    return pd.DataFrame({"messages": [[*asked, {"role": "assistant", "content": o}] for asked, o in said]})


def _read_annotations(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    formats.require(table, ["instruction", "output_1", "output_2"], origin)
    return _named(formats.as_annotations(table, origin), origin)


def _named(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """With the columns that say who, where they are not there."""
    missing = {"generator_1": "", "generator_2": "", "annotator": Path(origin).stem}
    return table.assign(**{c: v for c, v in missing.items() if c not in table.columns})


def _read_battles(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    names = {"prompt": "instruction", "response_a": "output_1", "response_b": "output_2", "judge": "annotator"}
    names |= {"model_a": "generator_1", "model_b": "generator_2"}
    return from_winners(table.rename(columns=names), origin)


def from_winners(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Pairs whose verdict is the word of a winner."""
    values = 2 - vote_layouts.shares(table["winner"], "winner", origin)
    table = table.drop(columns="winner").assign(preference=values)
    return _named(table.assign(status=np.where(np.isnan(values), "unparseable", "ok")), origin)


def _write_battles(table: pd.DataFrame) -> pd.DataFrame:
    values = table["preference"].to_numpy(dtype=np.float64)
    words = [None if v != v else "tie" if v == 1.5 else "model_a" if v < 1.5 else "model_b" for v in values]
    names = {"instruction": "prompt", "output_1": "response_a", "output_2": "response_b", "annotator": "judge"}
    names |= {"generator_1": "model_a", "generator_2": "model_b"}
    kept = [*(c for c in ("id", "instance_id") if c in table.columns), *(c for c in names if c in table.columns)]
    return table[kept].rename(columns=names).assign(winner=words)


def _write_sheets(table: pd.DataFrame) -> pd.DataFrame:
    return _write_battles(table).rename(
        columns={
            "response_a": "completion_a",
            "response_b": "completion_b",
            "judge": "evaluator",
            "winner": "preferred",
        }
    )


def _write_annotations(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=[c for c in table.columns if "tokens_" in c or c == "prompt_tokens"])


def _read_labels(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = _read_completions(table, origin)
    liked = truths(table["label"], "label", origin)
    for row, value in enumerate(liked, start=1):
        if value is None:
            raise UserError(f"{origin}: row {row}: `label` is missing, not true or false")
    table = table.drop(columns="label").assign(liked=liked.astype(bool), observed=True)
    return complete(table, "liked", origin)


def _write_labels(table: pd.DataFrame) -> pd.DataFrame:
    said = table[table["liked"].notna()]
    return _write_completions(said).assign(label=said["liked"].astype(bool))


def _write_dialogue_texts(table: pd.DataFrame) -> pd.DataFrame:
    decided = formats.decided(table)
    return pd.DataFrame(
        {
            side: [dialogue_texts.written(*said) for said in zip(decided["prompt"], decided[side], strict=True)]
            for side in ("chosen", "rejected")
        }
    )


def _read_ratings(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = turns.checked(table, origin)
    formats.require(table, ["instruction", "output"], origin)
    scores = ["score", *(c for c in table.columns if c.startswith(ASPECT))]
    table = table.assign(**{c: numbers(table[c], c, origin) for c in scores})
    return complete(table, "score", origin, generator="")


def _read_helpsteer(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    names = {"prompt": "instruction", "response": "output", "helpfulness": "score"}
    names |= {aspect: ASPECT + aspect for aspect in HELPSTEER[1:]}
    return _read_ratings(table.rename(columns=names), origin)


def _write_helpsteer(table: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame({"prompt": table["instruction"], "response": table["output"], "helpfulness": table["score"]})
    for aspect in HELPSTEER[1:]:
        out[aspect] = table[ASPECT + aspect] if ASPECT + aspect in table.columns else np.nan
    return out


def _read_ultrafeedback(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    formats.require(table, ["instruction"], origin)
    rows: list[dict[str, Any]] = []
    for number, (instruction, given) in enumerate(zip(table["instruction"], table["completions"], strict=True), 1):
        listed = given.tolist() if isinstance(given, np.ndarray) else given
        if not isinstance(listed, list) or not all(isinstance(c, dict) and "response" in c for c in listed):
            raise UserError(f"{origin}: row {number}: `completions` is no list of objects with a `response`")
        for one in listed:
            row = {"instruction": instruction, "output": one["response"], "generator": one.get("model") or ""}
            row["score"] = one.get("overall_score")
            aspects = one.get("annotations") or {}
            for aspect, said in aspects.items() if isinstance(aspects, dict) else ():
                if isinstance(said, dict) and "Rating" in said:
                    row[ASPECT + str(aspect)] = said["Rating"]
            rows.append(row)
    return _read_ratings(pd.DataFrame(rows), origin)


def _write_ultrafeedback(table: pd.DataFrame) -> pd.DataFrame:
    aspects = [c for c in table.columns if c.startswith(ASPECT)]
    rows = []
    for instruction, part in table.groupby("instruction", sort=False):
        completions = []
        for record in part.to_dict("records"):
            said = {c.removeprefix(ASPECT): {"Rating": _plain(record[c])} for c in aspects if not is_missing(record[c])}
            completions.append(
                {
                    "model": record.get("generator") or "",
                    "response": record["output"],
                    "overall_score": None if is_missing(record["score"]) else record["score"],
                    "annotations": said,
                }
            )
        rows.append({"instruction": instruction, "completions": completions})
    return pd.DataFrame(rows)


def _plain(number: float) -> str:
    """A rating as UltraFeedback writes it, a text."""
    return f"{number:.17g}"


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            "annotations",
            "pairs",
            ("instruction", "output_1", "output_2", "preference"),
            _read_annotations,
            _write_annotations,
        ),
        Format(
            "preferences",
            "pairs",
            ("prompt", "chosen", "rejected"),
            formats.chosen_and_rejected,
            formats.as_chosen_and_rejected,
            fits=lambda table: not len(table) or isinstance(table["chosen"].iloc[0], str),
        ),
        Format(
            "hh",
            "pairs",
            ("chosen", "rejected"),
            dialogue_texts.read,
            _write_dialogue_texts,
            fits=lambda table: len(table) > 0 and dialogue_texts.looks_like(table["chosen"].iloc[0]),
        ),
        Format(
            "conversational", "pairs", ("chosen", "rejected"), formats.chosen_and_rejected, formats.as_conversations
        ),
        Format("battles", "pairs", ("model_a", "model_b", "winner"), _read_battles, _write_battles),
        Format("sheets", "pairs", ("model_a", "model_b"), sheets.read, _write_sheets, fits=sheets.looks_like),
        Format("arena_hard", "pairs", ("model", "judge", "games"), arena_hard.read),
        Format("annotated_pairs", "pairs", (), from_winners, _write_annotations),
        Format("labels", "reactions", ("prompt", "completion", "label"), _read_labels, _write_labels),
        *(Format(kind, kind, columns, reader, lambda table: table) for kind, (columns, reader) in ANSWERS.items()),
        Format("ultrafeedback", "ratings", ("instruction", "completions"), _read_ultrafeedback, _write_ultrafeedback),
        Format("helpsteer", "ratings", ("prompt", "response", "helpfulness"), _read_helpsteer, _write_helpsteer),
        Format("ratings", "ratings", ("instruction", "output", "score"), _read_ratings, lambda table: table),
        Format("completions", "outputs", ("prompt", "completion"), _read_completions, _write_completions),
        Format(
            "messages",
            "outputs",
            ("messages",),
            _read_messages,
            _write_messages,
            fits=lambda table: "output" not in table.columns,
        ),
        Format("outputs", "outputs", ("instruction", "output"), _read_outputs, lambda table: table),
    )
}
