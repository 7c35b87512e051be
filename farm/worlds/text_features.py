"""What a programmatic annotator sees in any text: named terms, computed from instruction and output alone; of a
conversation the instruction is the user's last turn.

A stand-in for taste, not the truth: the weights are plausible and in logits (on pairs of AlpacaEval outputs the pool of
thirteen agrees with their sum in 85 % and, with a quarter of the labels flipped, in 67 %). The terms are interpretable,
concave where too much of a thing hurts, and near 0 to 1:

    relevance     share of the instruction's content words (by stem) that the output takes up
    substance     1 - exp(-words / 80): more is better, ever less so
    too_long      ((words beyond 350) / 350)^2, at most 4
    structure     1 if the text has a list of two or more items
    list_excess   list items beyond 10, in tens, at most 2
    courtesy      1 - exp(-polite phrases)
    flattery      polite phrases beyond 2, at most 4
    hedging       hedges for 100 words, at most 3
    repetition    share of four-word sequences that stand earlier in the text
    copying       share of four-word sequences that stand in the instruction
    finished      1 if the text ends like a finished one
    noise         share of characters and words that no language would have
    refusal       1 if the text begins by declining

Strings are handled by Arrow and words by integer arrays; there is no loop over texts. Nothing depends on the other
texts of a call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from farm.base.arrays import Floats, Ints
from farm.tables.turns import Prompt, last

GOLD_WEIGHTS = {
    "relevance": 8.0,
    "substance": 8.0,
    "too_long": -2.4,
    "structure": 1.6,
    "list_excess": -1.2,
    "courtesy": 1.2,
    "flattery": -1.2,
    "hedging": -1.2,
    "repetition": -12.0,
    "copying": -4.0,
    "finished": 2.4,
    "noise": -16.0,
    "refusal": -6.0,
}

DESCRIBED = {
    "relevance": ("takes up more of the instruction's words", "takes up fewer of the instruction's words"),
    "substance": ("is longer", "is shorter"),
    "too_long": ("goes further beyond 350 words", "goes less far beyond 350 words"),
    "structure": ("has a list", "has no list"),
    "list_excess": ("has more list items beyond ten", "has fewer list items beyond ten"),
    "courtesy": ("is more polite", "is less polite"),
    "flattery": ("has more polite phrases beyond two", "has fewer polite phrases beyond two"),
    "hedging": ("hedges more", "hedges less"),
    "repetition": ("repeats itself more", "repeats itself less"),
    "copying": ("copies more of the instruction", "copies less of the instruction"),
    "finished": ("ends like a finished text", "breaks off"),
    "noise": ("has more odd characters and words", "has fewer odd characters and words"),
    "refusal": ("begins by declining", "does not begin by declining"),
}
"""What a response does that has more of a term, and one that has less."""

_STOP = """
a about after all also an and any are as at be because been before being between both but by can could did do does
down each few for from had has have he her here his how i if in into is it its just like make may me more most my no
not now of off on once one only or other our out over own please same she should so some such than that the their
them then there these they this those through to too under until up use very was we were what when where which while
who why will with would you your give write list tell provide explain describe using used following s t d ll re ve m
don doesn
""".split()
_POLITE = (
    r"\b(please|thank|thanks|glad|happy to|welcome|hope this helps|feel free|great question|of course|certainly)\b"
)
_HEDGE = r"\b(perhaps|maybe|possibly|might|probably|i think|i believe|it seems|not sure|generally|arguably)\b"
_REFUSAL = (
    r"^\W*(i'?m sorry|sorry,|i apologi[sz]e|i cannot|i can'?t|i am unable|i'?m unable|as an ai|i do not|i don'?t have)"
)
_ITEM = r"(?m)^[ \t]*([-*•]|\d{1,2}[.)])[ \t]+\S"
_LAST_ITEM = r"(^|\n)[ \t]*([-*•|]|\d{1,2}[.)])[^\n]*$"
_STRANGE = r"[^a-zA-Z0-9À-ÿ\s.,;:!?'\"()\[\]{}<>\-–—_+*/=%$€£&@#`’“”|~^\\]"
_AT_ONCE = 20_000


class _Words:
    """The words of n texts: ids [N] in one array, the row of each [N], and how many each text has [n]."""

    def __init__(self, lowered: pa.Array) -> None:
        lists = pc.split_pattern(pc.replace_substring_regex(lowered, "[^a-z0-9à-ÿ']+", " "), " ")
        values = lists.flatten()
        rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        real = pc.not_equal(values, "")
        keep = real.to_numpy(zero_copy_only=False)
        self.values: pa.Array = values.filter(real)
        self.rows: Ints = rows[keep].astype(np.int64)
        self.count: Ints = np.bincount(self.rows, minlength=len(lowered)).astype(np.int64)


def _ids(*columns: pa.Array) -> list[Ints]:
    """Ids of strings that are the same across the columns."""
    whole = pa.chunked_array([c.cast(pa.string()) for c in columns]).combine_chunks().dictionary_encode()
    codes = whole.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return np.split(codes, np.cumsum([len(c) for c in columns])[:-1])


def _fours(ids: Ints, rows: Ints, size: int) -> tuple[Ints, Ints]:
    """Keys of the four-word sequences inside one row, and their rows. Keys are hashes of 64 bits."""
    if len(ids) < 4:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    whole = rows[3:] == rows[:-3]
    with np.errstate(over="ignore"):
        keys = ids[:-3]
        for offset in (1, 2, 3):
            keys = keys * np.int64(6364136223846793005) + ids[offset : len(ids) - 3 + offset] + np.int64(size)
    return keys[whole], rows[3:][whole]


def _mixed(keys: Ints, rows: Ints) -> Ints:
    with np.errstate(over="ignore"):
        return (keys ^ (keys >> np.int64(29))) * np.int64(-4658895280553007687) + rows * np.int64(-7723592293110705685)


def _per_row(counts: Ints, rows: Ints, n: int) -> Floats:
    return np.bincount(rows, weights=counts, minlength=n).astype(np.float64)


def _matches(texts: pa.Array, pattern: str) -> Floats:
    counts = pc.count_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
    return np.asarray(counts, dtype=np.float64)


class TextFeatures:
    """The terms above for any text (:class:`farm.roles.protocols.Features`)."""

    @property
    def gold_weights(self) -> dict[str, float]:
        return dict(GOLD_WEIGHTS)

    @property
    def described(self) -> dict[str, tuple[str, str]]:
        """The terms in words (:mod:`farm.votes.predicates`)."""
        return dict(DESCRIBED)

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:
        parts = [
            _features([last(prompt) for prompt in instructions[i : i + _AT_ONCE]], list(outputs[i : i + _AT_ONCE]))
            for i in range(0, max(len(outputs), 1), _AT_ONCE)
        ]
        return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def _features(instructions: list[str], outputs: list[str]) -> pd.DataFrame:
    n = len(outputs)
    texts = pa.array([t.encode("utf-8", "replace").decode() for t in outputs], pa.string())
    lowered = pc.utf8_lower(texts)
    asked = pc.utf8_lower(pa.array([t.encode("utf-8", "replace").decode() for t in instructions], pa.string()))
    words, question = _Words(lowered), _Words(asked)
    safe = np.maximum(words.count, 1)

    ids, question_ids = _ids(words.values, question.values)
    size = int(max(ids.max(initial=0), question_ids.max(initial=0))) + 1
    fours, rows = _fours(ids, words.rows, size)
    keys = pd.Series(_mixed(fours, rows))
    again = keys.duplicated().to_numpy()
    total = np.maximum(np.bincount(rows, minlength=n), 1)
    asked_fours, asked_rows = _fours(question_ids, question.rows, size)
    copied = keys.isin(_mixed(asked_fours, asked_rows)).to_numpy()

    polite = _matches(lowered, _POLITE)
    items = _matches(texts, _ITEM)
    characters = np.maximum(pc.utf8_length(texts).to_numpy(zero_copy_only=False), 1)
    strange = _matches(texts, _STRANGE)
    word_length = pc.utf8_length(words.values).to_numpy(zero_copy_only=False)
    vowelless = pc.invert(pc.match_substring_regex(words.values, "[aeiouy0-9à-ÿ]")).to_numpy(zero_copy_only=False)
    odd_word = (word_length > 24) | (vowelless & (word_length > 4))
    trimmed = pc.utf8_rtrim_whitespace(texts)
    finished = pc.or_(
        pc.match_substring_regex(trimmed, r"[.!?:;)\]}>\"'`*”’…]$"), pc.match_substring_regex(trimmed, _LAST_ITEM)
    )
    return pd.DataFrame(
        {
            "relevance": _relevance(words, question, n),
            "substance": 1 - np.exp(-words.count / 80),
            "too_long": np.minimum((np.maximum(words.count - 350, 0) / 350) ** 2, 4),
            "structure": (items >= 2).astype(np.float64),
            "list_excess": np.minimum(np.maximum(items - 10, 0) / 10, 2),
            "courtesy": 1 - np.exp(-polite),
            "flattery": np.minimum(np.maximum(polite - 2, 0), 4),
            "hedging": np.minimum(100 * _matches(lowered, _HEDGE) / np.maximum(safe, 20), 3),
            "repetition": _per_row(again, rows, n) / total,
            "copying": _per_row(copied, rows, n) / total,
            "finished": finished.to_numpy(zero_copy_only=False).astype(np.float64),
            "noise": np.minimum(strange / characters + _per_row(odd_word, words.rows, n) / safe, 1),
            "refusal": pc.match_substring_regex(lowered, _REFUSAL).to_numpy(zero_copy_only=False).astype(np.float64),
            "length": words.count.astype(np.float64),
            "lists": (items >= 2).astype(np.float64),
        }
    )


def _relevance(words: _Words, question: _Words, n: int) -> Floats:
    """Share of the distinct content stems of the instruction that the output has; one half where there are none."""
    stop = pa.array(_STOP)
    content = pc.invert(pc.is_in(question.values, value_set=stop)).to_numpy(zero_copy_only=False)
    # Five letters are a crude stem, and enough for "write/writing" and plurals.
    asked = pc.utf8_slice_codeunits(question.values, 0, 5).filter(pa.array(content))
    asked_ids, said_ids = _ids(asked, pc.utf8_slice_codeunits(words.values, 0, 5))
    size = int(max(asked_ids.max(initial=0), said_ids.max(initial=0))) + 1
    wanted = pd.Series(question.rows[content] * size + asked_ids).drop_duplicates()
    said = pd.Series(words.rows * size + said_ids)
    taken = wanted.isin(said[said.isin(wanted)]).to_numpy()
    rows = wanted.to_numpy() // size
    count = np.bincount(rows, minlength=n)
    return np.where(count > 0, _per_row(taken, rows, n) / np.maximum(count, 1), 0.5)
