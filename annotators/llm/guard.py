"""Judged text cannot pose as the prompt or as the verdict.

Outputs are written by models (and their trainers) that gain from a good verdict. Before a text goes into a prompt,
these lose their power and keep their look: the tags that delimit texts in our prompts, the tokens that delimit turns
in chat templates, and the head of a verdict (``Verdict:``, ``"preferred":``). A model that repeats the text then
repeats nothing that is read as its own verdict. What a text may still do is persuade.

The parsers of annotators/llm/verdicts.py read a verdict behind :func:`head`, and the guard takes the colon out of
whatever :func:`head` matches. It looks at a text as a reader could who normalises Unicode (compatibility forms, case,
marks and invisible characters left out, JSON's escapes read), so nothing can hide in a spelling.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

TAGS = ("pair", "instruction", "output", "example", "examples", "rubric", "persona")
KEYS = ("preferred", "verdict", "verdicts", "rating", "ratings", "ranking")
"""Words that carry a verdict in the formats of annotators/llm/verdicts.py, as a line or as a JSON key."""


def head(*keys: str) -> str:
    """The pattern of what stands before a value: a key, perhaps a number (a group), markup, a colon; on one line."""
    blank = r"[ *_`\"'()\[\]#\\]*+"
    return rf"(?:{'|'.join(sorted(keys, key=len, reverse=True))}){blank}(\d++)?{blank}:"


_HEAD = re.compile(head(*KEYS), re.ASCII)
_TURN = re.compile(r"<(?=\|[^ <>|]{1,64}\|>|/?(?:s|bos|eos|start_of_turn|end_of_turn)>)|\[(?=/?inst\])")
_CONTROLS = dict.fromkeys([*range(9), 11, *range(12, 32), 127])
_INVISIBLE = re.compile("[\u200b\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that show nothing."""
_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»", '"') | dict.fromkeys("‘’‚‛", "'"))
_UNIT = re.compile(r"\\u([0-9a-f]{4})|.", re.DOTALL)


def neutral(text: str, further: tuple[str, ...] = ()) -> str:
    """The text as it may stand in a prompt. Ordinary text comes back unchanged.

    Args:
        further: tags that this prompt delimits texts with, besides :data:`TAGS`.
    """
    text = _INVISIBLE.sub("", text.translate(_CONTROLS))
    read, starts, ends = _read(text)
    inert = {
        m.start(): "‹" if m[0] == "<" else "⁅" for mark in (_tag(TAGS + further), _TURN) for m in mark.finditer(read)
    }
    if read.lstrip().startswith(":"):  # the text before it may end with a key
        inert[read.index(":")] = "∶"
    for found in _HEAD.finditer(read):
        before = text[starts[found.start() - 1] : starts[found.start()]] if found.start() else ""
        if not (len(before) == 1 and before.isascii() and before.isalpha()):  # else it ends a longer word
            inert[found.end() - 1] = "∶"
    parts, at = [], 0
    for place in sorted(inert):
        if starts[place] >= at:  # else a character that stands for several, which is gone already
            parts += [text[at : starts[place]], inert[place]]
            at = ends[place]
    return "".join([*parts, text[at:]])


@lru_cache
def _tag(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<(?=[ /\\]*(?:{'|'.join(tags)})(?![a-z]))")


def _read(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """The text as a reader could take it, and where the text has what each of its characters stands for."""
    if text.isascii() and "\\u" not in text:
        return text.lower().translate({9: " ", 10: " "}), range(len(text)), range(1, len(text) + 1)
    seen = [(plain, at, at + 1) for at, character in enumerate(text) for plain in _plain(character)]
    if "\\u" in (read := "".join(plain for plain, _, _ in seen)):
        units = [(_plain(chr(int(u[1], 16))) if u[1] else u[0], u.start(), u.end() - 1) for u in _UNIT.finditer(read)]
        seen = [(plain, seen[first][1], seen[last][2]) for folded, first, last in units for plain in folded]
        read = "".join(plain for plain, _, _ in seen)
    return read, [start for _, start, _ in seen], [end for _, _, end in seen]


@lru_cache(maxsize=2**16)
def _plain(character: str) -> str:
    """What a character stands for: none, one or several plain ones in lower case."""
    kept = [c for c in unicodedata.normalize("NFKD", character) if c.isspace() or not _unseen(c)]
    return "".join(" " if c.isspace() else c for c in kept).translate(_QUOTES).upper().lower()


def _unseen(character: str) -> bool:
    return character in _BLANK or unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf", "Cc", "Cn", "Cs")
