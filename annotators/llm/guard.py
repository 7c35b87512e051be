"""Judged text cannot pose as the prompt or as the verdict.

Outputs are written by models (and their trainers) that gain from a good verdict. Before a text goes into a prompt,
three things in it lose their power and keep their look: the tags that delimit texts in our prompts, the forms of
verdict that our parsers read, and invisible characters that could hide either. A model that repeats the text then
repeats nothing that is read as its own verdict. What a text may still do is persuade.
"""

from __future__ import annotations

import re

TAGS = ("pair", "instruction", "output", "example", "examples", "rubric", "persona")
KEYS = ("preferred", "verdict", "verdicts", "rating", "ratings", "ranking")
"""Words that carry a verdict in the formats of annotators/llm/verdicts.py, as a line or as a JSON key."""

_CONTROLS = dict.fromkeys([*range(9), 11, *range(12, 32), 127])
_INVISIBLE = re.compile("[\u200b\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_TAG = re.compile(rf"<(?=\s*/?\s*(?:{'|'.join(TAGS)})(?:_\d+)?\b)", re.IGNORECASE)
# A key, then anything that is not a letter (quotes, spaces, digits, markup), then the colon. ASCII, as in the parsers:
# otherwise a dotless i would be a letter of "verdict" for one of them only.
_KEY = re.compile(rf"\b({'|'.join(KEYS)})\b([^\w:]*+(?:\d++[^\w:]*+)?):", re.IGNORECASE | re.ASCII)
_STEMS = ("preferred", "verdict", "rating", "ranking")


def neutral(text: str) -> str:
    """The text as it may stand in a prompt. Ordinary text comes back unchanged."""
    text = text.translate(_CONTROLS)
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
    if "<" in text:
        text = _TAG.sub("‹", text)
    lower = text.lower()
    if any(stem in lower for stem in _STEMS):
        text = _KEY.sub(r"\1\2∶", text)
    return text
