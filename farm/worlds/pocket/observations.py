"""What can be read off a text of the pocket world: which request it answers, and counts of what it says.

:func:`observe` counts, from tokens alone. :func:`verdicts` turns the counts into the tokens by which the base model
learns to describe a text. Neither says what anything is worth; that is in :mod:`farm.worlds.pocket.gold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from farm.base.arrays import Ints
from farm.base.errors import UserError
from farm.worlds.pocket.grammar import (
    CONSTRAINT_NAMES,
    FORM_NAMES,
    LIST,
    STYLE_NAMES,
    TOPIC_NAMES,
    Requests,
    Texts,
    legal_bigrams,
    topic_words,
)
from farm.worlds.pocket.vocabulary import ANSWER, ASPECTS, BULLET, END, pieces, surface, vocabulary
from farm.worlds.pocket.words import CONSTRAINTS, FORMS, STYLES, TOPICS

SHORT_WORDS = 35
"""what "keep it short" asks for, in words"""
BRIEF_WORDS, LONG_WORDS = 25, 90
"""below and above, a text is too short or too long for every annotator"""


@dataclass(frozen=True)
class Observations:
    """What is counted in n texts; every array is [n], styles [n, 12]."""

    words: Ints
    on_topic: Ints
    off_topic: Ints
    last_mention: Ints
    """the last topic word: 1 of the topic, -1 of another, 0 there is none"""
    opening: Ints
    """1 the form that was asked for, -1 another, 0 none; ``closing`` alike"""
    closing: Ints
    other_form: Ints
    """sentences in a form that was not asked for"""
    constraint: Ints
    """1 met, -1 missed, 0 none asked for"""
    repeated: Ints
    """places where three tokens stand that have stood in the text before"""
    styles: Ints
    illegal: Ints
    """bigrams that the grammar cannot produce"""
    finished: NDArray[np.bool_]


_FORM_MARKS = {"openings": 1, "heads": 2, "closings": 3}


@lru_cache(maxsize=1)
def _marks() -> tuple[Ints, Ints, Ints, Ints]:
    """For each token: the form and part it begins (-1, 0 where none), its style and its topic (-1 where none)."""
    v = vocabulary()
    form, part, style, topic = np.full(len(v), -1), np.zeros(len(v), int), np.full(len(v), -1), np.full(len(v), -1)
    for f, spec in enumerate(FORMS):
        for name, number in _FORM_MARKS.items():
            for sentence in getattr(spec, name):
                token = v.ids[pieces(sentence)[0]]
                form[token], part[token] = f, number
    for k, said in enumerate(STYLES.values()):
        style[[v.ids[pieces(sentence)[0]] for sentence in said]] = k
    style[v.ids[BULLET]] = LIST
    for t, words in enumerate(topic_words()):
        topic[words] = t
    return form, part, style, topic


def observe(texts: Texts, requests: Requests) -> Observations:
    """Count what the utility is made of, for each text and the request it answers."""
    v = vocabulary()
    n, ids = len(requests), texts.ids
    row = np.repeat(np.arange(n), texts.lengths)
    form_of, part_of, style_of, topic_of = _marks()

    def count(where: NDArray[np.bool_]) -> Ints:
        return np.bincount(row[where], minlength=n)

    form, part, topic = form_of[ids], part_of[ids], topic_of[ids]
    right = form == requests.form[row]
    on_topic = count((topic >= 0) & (topic == requests.topic[row]))
    off_topic = count((topic >= 0) & (topic != requests.topic[row]))

    mention = np.where(topic == requests.topic[row], 1, -1)
    last_mention = np.zeros(n, dtype=np.int64)
    last_mention[row[topic >= 0]] = mention[topic >= 0]  # of several, numpy keeps the last

    def present(number: int) -> Ints:
        good, any_ = count((part == number) & right), count(part == number)
        return np.where(good > 0, 1, np.where(any_ > 0, -1, 0))

    styles = np.zeros((n, len(STYLE_NAMES)), dtype=np.int64)
    shown = style_of[ids]
    np.add.at(styles, (row[shown >= 0], shown[shown >= 0]), 1)
    words = np.bincount(row, weights=v.words[ids], minlength=n).astype(np.int64)

    met = np.zeros(n, dtype=np.int64)
    for c, name in enumerate(CONSTRAINT_NAMES):
        asked = requests.constraint == c
        if name == "short":
            met[asked] = np.where((words[asked] <= SHORT_WORDS) & (words[asked] > 0), 1, -1)
        elif name != "none":
            met[asked] = np.where(styles[asked, STYLE_NAMES.index(name)] >= (2 if name == "list" else 1), 1, -1)

    before, after = _neighbours(texts)
    illegal_at = ~legal_bigrams()[before, after]
    at_end = after == v.ids[END]
    boundary_row = np.repeat(np.arange(n), texts.lengths + 1)
    return Observations(
        words=words,
        on_topic=on_topic,
        off_topic=off_topic,
        last_mention=last_mention,
        opening=present(1),
        closing=present(3),
        other_form=count((part > 0) & ~right),
        constraint=met,
        repeated=_repeated(texts, row),
        styles=styles,
        illegal=np.bincount(boundary_row[illegal_at & ~at_end], minlength=n),
        finished=~(np.bincount(boundary_row[illegal_at & at_end], minlength=n) > 0),
    )


def _neighbours(texts: Texts) -> tuple[Ints, Ints]:
    """All pairs of neighbouring tokens, the begin and the end of each text among them: [sum of T + n] each."""
    v, ends = vocabulary(), np.cumsum(texts.lengths)
    return (
        np.insert(texts.ids, ends - texts.lengths, v.ids[ANSWER]),
        np.insert(texts.ids, ends, v.ids[END]),
    )


def _repeated(texts: Texts, row: Ints) -> Ints:
    """In each text, the trigrams that have occurred before in it."""
    ids, v = texts.ids, len(vocabulary())
    if len(ids) < 3:
        return np.zeros(len(texts.lengths), dtype=np.int64)
    inside = row[2:] == row[:-2]
    key = ((row[2:] * v + ids[2:]) * v + ids[1:-1]) * v + ids[:-2]
    sorted_keys = np.sort(key[inside])  # numpy's `unique` hashes, which takes sixty times as long here
    again = sorted_keys[1:][sorted_keys[1:] == sorted_keys[:-1]]
    return np.bincount(again // v**3, minlength=len(texts.lengths))


def verdicts(seen: Observations) -> Ints:
    """The true verdict on each aspect of each text, as token ids [n, aspects]."""
    few = [np.digitize(seen.styles[:, k], [1, 3]) for k in range(len(STYLE_NAMES))]
    share_good = (seen.on_topic > 0) & (seen.off_topic == 0)
    columns = [
        np.where(share_good, 0, np.where(seen.on_topic > seen.off_topic, 1, 2)),
        np.digitize(seen.off_topic, [1, 3]),
        np.where(seen.last_mention > 0, 0, np.where(seen.last_mention < 0, 1, 2)),
        np.where(seen.opening > 0, 0, np.where(seen.opening < 0, 1, 2)),
        (seen.other_form > 0).astype(np.int64),
        np.where(seen.closing > 0, 0, np.where(seen.closing < 0, 1, 2)),
        np.where(seen.constraint > 0, 0, np.where(seen.constraint < 0, 1, 2)),
        (seen.repeated > 0).astype(np.int64),
        np.digitize(seen.words, [BRIEF_WORDS, LONG_WORDS]),
        *few,
    ]
    sizes = [len(all_of) for all_of in ASPECTS.values()]
    starts = int(vocabulary().verdicts[0]) + np.r_[0, np.cumsum(sizes)[:-1]]
    return np.asarray(np.column_stack(columns) + starts)


@lru_cache(maxsize=1)
def _request_marks() -> tuple[dict[int, tuple[int, int]], dict[int, int], dict[int, tuple[int, int]]]:
    """First token -> (form, wording); topic token -> topic; constraint token -> (constraint, wording)."""
    ids = vocabulary().ids
    heads = {ids[pieces(r)[0]]: (f, w) for f, form in enumerate(FORMS) for w, r in enumerate(form.requests)}
    topics = {ids[surface(name)]: t for t, name in enumerate(TOPICS)}
    wished = {
        ids[pieces(said)[0]]: (c, w)
        for c, name in enumerate(CONSTRAINTS)
        for w, said in enumerate(CONSTRAINTS[name])
        if said
    }
    return heads, topics, wished


def parse_requests(instructions: Sequence[str]) -> Requests:
    """The requests that these texts are. Raises UserError naming the first text that is none."""
    heads, topics, wished = _request_marks()
    places: dict[str, int] = {}
    which = np.fromiter((places.setdefault(text, len(places)) for text in instructions), np.int64, len(instructions))
    found = np.zeros((len(places), 4), dtype=np.int64)
    ids, lengths = vocabulary().encode(list(places))
    for i, (text, row) in enumerate(zip(places, Texts(ids, lengths).split() if len(places) else [], strict=True)):
        form = next((heads[t] for t in row.tolist() if t in heads), None)
        topic = next((topics[t] for t in row.tolist() if t in topics), None)
        if form is None or topic is None:
            raise UserError(f"instruction {text[:80]!r} is no request of the pocket world; the world `text` takes any")
        constraint = next((wished[t][0] for t in row.tolist() if t in wished), 0)
        found[i] = form[0], topic, constraint, form[1]
    form_, topic_, constraint_, wording = found[which].T
    return Requests(form_, topic_, constraint_, wording)


def request_columns(requests: Requests) -> dict[str, list[str]]:
    """The names of form, topic and constraint, for a table."""
    return {
        "task": [FORM_NAMES[i] for i in requests.form],
        "topic": [TOPIC_NAMES[i] for i in requests.topic],
        "constraint": [CONSTRAINT_NAMES[i] for i in requests.constraint],
    }
