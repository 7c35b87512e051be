"""A prompt is a conversation: the turns of a user and a policy, the user's last. A text alone is one turn.

In a table the column ``instruction`` holds the first turn and ``turns`` the list of the others; a table in which no
prompt has more than one turn has no such column. The id of a prompt is that of all its turns, and of a single turn
that of its text. Turns stay apart everywhere: only a policy's template, and the question to a judge, put them into one
text. In files a prompt may also be ``messages``, the conversational form: ``[{"role": "user", "content": ...}, ...]``;
a system turn before it becomes the beginning of the user's first turn, with an empty line between. The column
``system`` says which beginning that is, so that it is a system turn again where a conversation is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.errors import UserError, shown
from farm.base.rng import Ids

Prompt = str | tuple[str, ...]
"""One turn, or an odd number of them, three or more: user, policy, ..., user."""

ROLES = ("user", "assistant")
SYSTEM = "system"


def turns_of(prompt: Prompt) -> tuple[str, ...]:
    """All turns, the user's first."""
    return (prompt,) if isinstance(prompt, str) else prompt


def prompt_of(turns: Iterable[str]) -> Prompt:
    """The prompt of these turns: a text where there is one.

    Raises:
        ValueError: for a number of turns that does not end with the user's.
    """
    listed = tuple(turns)
    if len(listed) % 2 == 0:
        raise ValueError(f"a prompt ends with the user's turn, so it has an odd number of turns, not {len(listed)}")
    return listed[0] if len(listed) == 1 else listed


def continued(prompt: Prompt, response: str, reply: str) -> Prompt:
    """The prompt of the next turn: what the policy answered, and what the user replies."""
    return (*turns_of(prompt), response, reply)


def prefixed(text: str, prompt: Prompt) -> Prompt:
    """The prompt with a text before its first turn."""
    return text + prompt if isinstance(prompt, str) else (text + prompt[0], *prompt[1:])


def in_context(context: str, prompt: Prompt) -> Prompt:
    """The prompt as a model sees it that reads in which context a response is judged: "context prompt"."""
    return prefixed(f"{context} ", prompt)


def last(prompt: Prompt) -> str:
    """The user's last turn: what a response answers."""
    return turns_of(prompt)[-1]


def transcript(prompt: Prompt) -> str:
    """The prompt as one text to be shown to a judge: a single turn as it is, of more each with who speaks."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages(prompt))


def prompt_ids(prompts: Iterable[Prompt]) -> Ids:
    """The 64-bit id of each prompt, [n]."""
    to_list = getattr(prompts, "tolist", None)
    listed: list[Prompt] = to_list() if to_list is not None else list(prompts)
    if all(isinstance(prompt, str) for prompt in listed):
        return rng.text_ids(listed)  # type: ignore[arg-type]
    turns = [turns_of(prompt) for prompt in listed]
    lengths, out = np.array([len(t) for t in turns]), np.empty(len(turns), dtype=np.uint64)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        parts = [rng.text_ids([turns[row][place] for row in rows]) for place in range(length)]
        out[rows] = parts[0] if length == 1 else rng.combine(*parts)
    return out


def prompts_of(table: pd.DataFrame) -> list[Prompt]:
    """The prompt of each row, from ``instruction`` and, where it is there, ``turns``."""
    first = table["instruction"].tolist()
    if "turns" not in table.columns:
        return first
    return [one if _none(rest) else (one, *rest) for one, rest in zip(first, table["turns"], strict=True)]


def row_ids(table: pd.DataFrame) -> Ids:
    """The id of each row's prompt, [n]."""
    return rng.text_ids(table["instruction"]) if "turns" not in table.columns else prompt_ids(prompts_of(table))


def columns(prompts: Sequence[Prompt], read_from: Iterable[object] = ()) -> dict[str, list[Any]]:
    """The columns of a table with these prompts: ``instruction``, and ``turns`` where any has more than one; and
    ``system`` where any of the conversations that they were read from begins with a system turn."""
    systems = [_system_of(value) for value in read_from]
    said: dict[str, list[Any]] = {SYSTEM: systems} if any(systems) else {}
    if all(isinstance(prompt, str) for prompt in prompts):
        return {"instruction": list(prompts), **said}
    turns = [turns_of(prompt) for prompt in prompts]
    return {"instruction": [t[0] for t in turns], "turns": [list(t[1:]) for t in turns], **said}


def kept(table: pd.DataFrame) -> list[str]:
    """The names of the columns that hold a table's prompts."""
    return ["instruction", "turns"] if "turns" in table.columns else ["instruction"]


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """The conversational form."""
    return [{"role": ROLES[place % 2], "content": text} for place, text in enumerate(turns_of(prompt))]


def conversations(table: pd.DataFrame) -> list[list[dict[str, str]]]:
    """The conversational form of each row's prompt; what ``system`` holds is a system turn where the first one begins
    with it."""
    prompts = prompts_of(table)
    systems = table[SYSTEM].tolist() if SYSTEM in table.columns else [""] * len(prompts)
    out = []
    for prompt, system in zip(prompts, systems, strict=True):
        first, *rest = turns_of(prompt)
        if isinstance(system, str) and system and first.startswith(f"{system}\n\n"):
            user = first.removeprefix(f"{system}\n\n")
            out.append([{"role": SYSTEM, "content": system}, *messages((user, *rest))])
        else:
            out.append(messages(prompt))
    return out


def from_messages(value: object, place: str) -> Prompt:
    """The prompt in a text or in the conversational form.

    Args:
        place: what is read, for errors: file, row and field.

    Raises:
        UserError: for anything else, and for roles other than user and assistant in turn, the user's last, behind at
            most one system turn.
    """
    if isinstance(value, str):
        return value
    found = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(found, (list, tuple)) or not found or not all(map(_is_message, found)):
        raise UserError(f"{place} is neither a text nor a list of role/content turns")
    system = _system_of(found)
    if found[0]["role"] == SYSTEM:
        found = found[1:]
        if not found:
            raise UserError(f"{place}: there is no turn behind the system's; a prompt ends with the user's")
    for number, message in enumerate(found):
        if message["role"] != ROLES[number % 2]:
            said, due = shown(message["role"]), ROLES[number % 2]
            raise UserError(f"{place}: turn {number + 1} is of {said} and should be of {due}: the two take turns")
    if len(found) % 2 == 0:
        raise UserError(f"{place}: the last turn is the assistant's; a prompt ends with the user's")
    prompt = prompt_of(message["content"] for message in found)
    return prefixed(f"{system}\n\n", prompt) if system else prompt


def checked(table: pd.DataFrame, origin: object) -> pd.DataFrame:
    """A table from a file whose prompts are whole: ``messages`` as the two columns, ``turns`` as lists of texts.

    Raises:
        UserError: naming the row.
    """
    if "messages" in table.columns and "instruction" not in table.columns:
        prompts = [
            from_messages(value, f"{origin}: row {row}: `messages`") for row, value in enumerate(table["messages"], 1)
        ]
        return table.drop(columns="messages").assign(**columns(prompts, table["messages"]))
    if "turns" not in table.columns:
        return table
    rest = []
    for row, value in enumerate(table["turns"], start=1):
        found = value.tolist() if isinstance(value, np.ndarray) else [] if _missing(value) else value
        if not isinstance(found, (list, tuple)) or not all(isinstance(turn, str) for turn in found):
            raise UserError(f"{origin}: row {row}: `turns` is not a list of texts: {shown(value)}")
        if len(found) % 2:
            raise UserError(f"{origin}: row {row}: `turns` has {len(found)} texts: the user has the last word, so give"
                            " pairs of the policy's and the user's turns")  # fmt: skip
        rest.append(list(found))
    return table.assign(turns=rest) if any(rest) else table.drop(columns="turns")


def _system_of(value: object) -> str:
    """The text of a conversation's system turn, "" where it has none."""
    first: Any = value[0] if isinstance(value, (list, tuple, np.ndarray)) and len(value) else None
    return str(first["content"]) if _is_message(first) and first["role"] == SYSTEM else ""


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str) and isinstance(value.get("role"), str)


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _none(rest: object) -> bool:
    """Whether a cell of ``turns`` holds none: an empty list, or nothing at all where tables were joined."""
    return not isinstance(rest, (list, tuple, np.ndarray)) or len(rest) == 0
