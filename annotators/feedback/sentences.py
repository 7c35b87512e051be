"""The sentences of a text, as critics mark them and editors strike them out."""

from __future__ import annotations

import re

_SENTENCE = re.compile(r"[^.!?\n]*[.!?]+|[^.!?\n]+")


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence begins and ends, in characters."""
    return [(m.start(), m.end()) for m in _SENTENCE.finditer(text) if m.group().strip()]


def without(text: str, start: int, end: int) -> str:
    """The text with these characters left out."""
    return text[:start] + text[end:].lstrip(" ")
