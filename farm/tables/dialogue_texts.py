"""HH-RLHF's raw form: ``chosen`` and ``rejected`` are whole dialogues as texts, each turn after ``Human:`` or
``Assistant:``.

Where one speaks twice in a row it is one turn. A dialogue's last turn is the answer; what stands before it is the
prompt, which both must have in common: rows in which they differ say nothing of two answers, and are left out with a
warning.
"""

from __future__ import annotations

import re
import warnings
from itertools import groupby
from pathlib import Path

import pandas as pd

from farm.base.errors import Alarm, UserError
from farm.tables import turns
from farm.tables.turns import Prompt

_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_MARK = re.compile(r"\n\n(Human|Assistant):")


def looks_like(value: object) -> bool:
    """Whether a cell is such a dialogue."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def parsed(text: str) -> list[dict[str, str]]:
    """The dialogue as role/content turns.

    >>> parsed("\\n\\nHuman: Hi.\\n\\nAssistant: Yes?")
    [{'role': 'user', 'content': 'Hi.'}, {'role': 'assistant', 'content': 'Yes?'}]
    """
    _, *parts = _TURN.split(text)
    said = zip(parts[::2], parts[1::2], strict=True)
    return [
        {"role": _SPEAKERS[who], "content": "\n\n".join(words.strip() for _, words in group)}
        for who, group in groupby(said, key=lambda turn: turn[0])
    ]


def written(prompt: Prompt, answer: str) -> str:
    """The dialogue of a prompt and its answer as a text."""
    names = {role: name for name, role in _SPEAKERS.items()}
    said = [*turns.messages(prompt), {"role": "assistant", "content": answer}]
    return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in said)


def check(table: pd.DataFrame, origin: str) -> None:
    """Refuse verdicts on texts that would be read back as other turns. Raises UserError naming row and field."""
    texts = zip(table["preference"], turns.prompts_of(table), table["output_1"], table["output_2"], strict=True)
    for row, (preference, prompt, one, two) in enumerate(texts, start=1):
        if pd.isna(preference) or preference == 1.5:  # is not written
            continue
        for field, said in (("instruction", turns.turns_of(prompt)), ("output_1", (one,)), ("output_2", (two,))):
            if (mark := next(filter(None, map(_MARK.search, said)), None)) is not None:
                raise UserError(
                    f"{origin}: row {row}: `{field}` has a line `{mark[1]}:`, which hh would read as a turn of its "
                    "own; write conversational"
                )


def read(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Pairs, the chosen answer first. Raises UserError naming the row that is no dialogue, or where none is left."""
    prompts: list[Prompt] = []
    kept: list[tuple[int, str, str]] = []
    for row, (chosen, rejected) in enumerate(zip(table["chosen"], table["rejected"], strict=True), start=1):
        both = [
            _halves(value, f"{origin}: row {row}: `{c}`") for c, value in (("chosen", chosen), ("rejected", rejected))
        ]
        (prompt, better), (other, worse) = both
        if prompt == other:
            prompts.append(prompt)
            kept.append((row - 1, better, worse))
    if not kept:
        raise UserError(f"{origin}: in no row do `chosen` and `rejected` answer the same dialogue")
    if len(kept) < len(table):
        lost = len(table) - len(kept)
        said = f"{origin}: {lost:,} of {len(table):,} rows were left out: their two dialogues differ before the answer"
        warnings.warn(Alarm(said), stacklevel=2)
    rest = table.drop(columns=["chosen", "rejected"]).iloc[[row for row, _, _ in kept]].reset_index(drop=True)
    answers = {"output_1": [better for _, better, _ in kept], "output_2": [worse for _, _, worse in kept]}
    missing = {"generator_1": "", "generator_2": "", "annotator": Path(origin).stem}
    out = rest.assign(**turns.columns(prompts), **answers)
    return out.assign(**{c: v for c, v in missing.items() if c not in out.columns}, preference=1.0, status="ok")


def _halves(value: object, place: str) -> tuple[Prompt, str]:
    if not looks_like(value):
        raise UserError(f"{place} is no dialogue that begins with `Human:` and has an `Assistant:`")
    assert isinstance(value, str)
    said = parsed(value)
    answer = said.pop()["content"] if said[-1]["role"] == "assistant" else ""
    return turns.from_messages(said, place), answer
