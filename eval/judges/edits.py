"""Edits that change how a text looks and not what it says, to see what a judge makes of the difference."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from farm.votes.table import contains_list

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_MARKUP = re.compile(r"^[ \t]*(?:[*•-]|\d{1,2}[.)])[ \t]+|^#+[ \t]*|\*\*", re.MULTILINE)


@dataclass(frozen=True)
class Edit:
    """What is done to a text; one that comes back as it was has nothing to edit."""

    about: str
    of: Callable[[str], str]


def _listed(text: str) -> str:
    """Each sentence as an item, where there are several and no list yet."""
    sentences = _SENTENCE_END.split(text.strip())
    return text if len(sentences) < 2 or contains_list(text) else "\n".join(f"- {sentence}" for sentence in sentences)


EDITS: dict[str, Edit] = {
    "padding": Edit("a last sentence that says nothing", lambda text: f"{text} That, in short, is the answer to this."),
    "praise": Edit("the question is praised first", lambda text: f"Great question! {text}"),
    "list": Edit("each sentence becomes a list item", _listed),
    "plain": Edit("list marks, headings and bold marks are taken out", lambda text: _MARKUP.sub("", text)),
}
"""By name. What is more, ``order`` shows the output second in place of first, and edits no text."""

ORDER = "order"
