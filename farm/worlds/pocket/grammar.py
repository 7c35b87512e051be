"""The grammar of the pocket world: which requests there are, and how a response to one may read.

A response is a row of sentences: flattery, an opening, a middle of points and asides in any order, a closing, and
courtesies. A form (tips, a story, a letter ...) is drawn once and kept, so that a response reads as one text even where
it answers another kind of request than was made. :class:`Quality` says how good the writer is.

Everything is drawn with array operations; a text is token ids of :mod:`farm.worlds.pocket.vocabulary`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Ints
from farm.worlds.pocket.vocabulary import ANSWER, BREAK, BULLET, END, pieces, surface, vocabulary
from farm.worlds.pocket.words import CONSTRAINTS, FORMS, STYLES, TOPICS, WORD

STYLE_NAMES = tuple(STYLES)
CONSTRAINT_NAMES = tuple(CONSTRAINTS)
TOPIC_NAMES = tuple(TOPICS)
FORM_NAMES = tuple(form.name for form in FORMS)
LIST = STYLE_NAMES.index("list")
WORDINGS = 4
WORDS_PER_TOPIC = 3

# The order of the parts of a response.
FLATTERY, OPENING, MIDDLE, CLOSING, COURTESY = range(5)
_STAGE = {"praise": FLATTERY, "polite": COURTESY, "question": COURTESY}

_NONE, _WORD = -1, -2


@dataclass(frozen=True)
class Quality:
    """How good a writer is: probabilities, and mean numbers of sentences."""

    right_form: float
    on_topic: float
    constraint: float
    closing: float
    opening: float = 0.92
    points: float = 2.2
    style: float = 0.2
    """mean number of sentences of each style"""
    burst: float = 0.3
    """probability of two to six further sentences of one style"""


@dataclass(frozen=True)
class Requests:
    """Requests as numbers, each [n]: form, topic, constraint and wording."""

    form: Ints
    topic: Ints
    constraint: Ints
    wording: Ints

    def __len__(self) -> int:
        return len(self.form)

    def take(self, rows: Ints) -> Requests:
        return Requests(self.form[rows], self.topic[rows], self.constraint[rows], self.wording[rows])


@dataclass(frozen=True)
class Texts:
    """Token ids of many texts, end to end [sum of T], and their lengths [n]."""

    ids: Ints
    lengths: Ints

    def split(self) -> list[Ints]:
        return np.split(self.ids, np.cumsum(self.lengths)[:-1])

    def strings(self) -> list[str]:
        decode = vocabulary().decode
        return [decode(ids) for ids in self.split()]


def all_requests() -> Requests:
    """Every request there is, in order of (form, topic, constraint, wording)."""
    sizes = (len(FORMS), len(TOPICS), len(CONSTRAINTS), WORDINGS)
    form, topic, constraint, wording = (axis.ravel() for axis in np.indices(sizes))
    return Requests(form, topic, constraint, wording)


@lru_cache(maxsize=1)
def topic_words() -> Ints:
    """Token ids of each topic's words, [topics, 3]."""
    ids = vocabulary().ids
    return np.array([[ids[surface("the " + word)] for word in words] for words in TOPICS.values()])


def request_texts(requests: Requests) -> Texts:
    """The token ids of requests."""
    ids = vocabulary().ids
    parts = [[ids.get(p, _WORD) for p in pieces(r)] for form in FORMS for r in form.requests]
    wished = [[ids[p] for p in pieces(w)] for wordings in CONSTRAINTS.values() for w in wordings]
    table = _padded([[*a, *b] for a in parts for b in wished]).reshape(len(parts), len(wished), -1)
    rows = table[requests.form * WORDINGS + requests.wording, requests.constraint * 2 + requests.wording % 2]
    topics = np.array([ids[surface(topic)] for topic in TOPICS])
    rows = np.where(rows == _WORD, topics[requests.topic][:, None], rows)
    return _joined(rows, np.arange(len(requests)), len(requests))


@dataclass(frozen=True)
class Sentences:
    """Every sentence, as a row of token ids with places for a topic word; and what each row is."""

    tokens: Ints
    """[sentences, longest], -2 where a topic word stands, -1 after the end"""
    stage: Ints
    rank: NDArray[np.float64]
    """[sentences]: where points come in order, the place of the point among them (0 to 1); elsewhere nan"""
    openings: Ints
    """rows of each form's openings, [forms, variants]; the next three alike"""
    points: Ints
    bullets: Ints
    closings: Ints
    styles: dict[int, Ints]
    """rows of each style but the list"""


@lru_cache(maxsize=1)
def sentences() -> Sentences:
    """The table of all sentences."""
    ids = vocabulary().ids
    rows: list[list[int]] = []
    stages: list[int] = []
    ranks: list[float] = []

    def add(stage: int, texts: list[str], in_order: bool = False) -> list[int]:
        first = len(rows)
        for i, text in enumerate(texts):
            rows.append([ids.get(piece, _WORD) for piece in pieces(text)])
            stages.append(stage)
            ranks.append(i / len(texts) if in_order else np.nan)
        return list(range(first, len(rows)))

    openings, points, bullets, closings = [], [], [], []
    for form in FORMS:
        said = [f"{head}|{WORD}|{tail}" for head in form.heads for tail in form.tails]
        openings.append(add(OPENING, list(form.openings)))
        points.append(add(MIDDLE, said, form.in_order))
        bullets.append(add(MIDDLE, [f"{BULLET}|{point}" for point in said], form.in_order))
        closings.append(add(CLOSING, list(form.closings)))
    styles = {
        k: np.array(add(_STAGE.get(name, MIDDLE), list(STYLES[name])))
        for k, name in enumerate(STYLE_NAMES)
        if STYLES[name]
    }
    return Sentences(
        tokens=_padded(rows),
        stage=np.array(stages),
        rank=np.array(ranks),
        openings=np.array(openings),
        points=np.array(points),
        bullets=np.array(bullets),
        closings=np.array(closings),
        styles=styles,
    )


def write(requests: Requests, quality: Quality, seed: int, purpose: str) -> Texts:
    """A response to each request, by a writer of the given quality."""
    n = len(requests)
    draw = rng.generator(seed, purpose)
    table = sentences()

    def happens(probability: float) -> NDArray[np.bool_]:
        return draw.random(n) < probability

    other = (requests.form + draw.integers(1, len(FORMS), n)) % len(FORMS)
    form = np.where(happens(quality.right_form), requests.form, other)
    points = np.maximum(draw.poisson(quality.points, n), 1)
    styles = draw.poisson(quality.style, (n, len(STYLE_NAMES)))
    styles[:, LIST] += styles[:, LIST] > 0  # one bullet alone is no list
    burst = np.flatnonzero(happens(quality.burst))
    styles[burst, draw.integers(0, len(STYLE_NAMES), len(burst))] += draw.integers(2, 7, len(burst))

    obeys = happens(quality.constraint)
    for c, name in enumerate(CONSTRAINT_NAMES):
        rows = np.flatnonzero(obeys & (requests.constraint == c))
        if name == "short":
            styles[rows] = 0
            points[rows] = np.clip(points[rows], 1, 2)
        elif name != "none":
            k = STYLE_NAMES.index(name)
            styles[rows, k] = np.maximum(styles[rows, k], 2 if k == LIST else 1)
    _limit(points, styles)

    says: list[tuple[Ints, Ints]] = []  # (document, sentence)

    def add(documents: Ints, choices: Ints) -> None:
        """One sentence a document, drawn from the row of choices [k, variants] of each."""
        says.append((documents, choices[np.arange(len(documents)), draw.integers(0, choices.shape[1], len(documents))]))

    everyone = np.arange(n)
    opened = np.flatnonzero(happens(quality.opening) | (points + styles.sum(1) == 0))
    add(opened, table.openings[form[opened]])
    closed = np.flatnonzero(happens(quality.closing))
    add(closed, table.closings[form[closed]])
    pointed = np.repeat(everyone, points)
    add(pointed, table.points[form[pointed]])
    for k in range(len(STYLE_NAMES)):
        who = np.repeat(everyone, styles[:, k])
        add(who, table.bullets[form[who]] if k == LIST else np.tile(table.styles[k], (len(who), 1)))

    document = np.concatenate([d for d, _ in says])
    sentence = np.concatenate([s for _, s in says])
    is_bullet = np.isin(sentence, table.bullets)
    rank = table.rank[sentence]
    loose = draw.random(len(document))
    place = np.where(is_bullet, draw.random(n)[document] + 1e-6 * loose, np.where(np.isnan(rank), loose, rank))
    place += table.stage[sentence] + 1e-3 * np.nan_to_num(rank)
    order = np.lexsort((place, document))
    document, sentence, is_bullet = document[order], sentence[order], is_bullet[order]

    topic = requests.topic[document]
    stray = (topic + draw.integers(1, len(TOPICS), len(topic))) % len(TOPICS)
    topic = np.where(draw.random(len(topic)) < quality.on_topic, topic, stray)
    word = topic_words()[topic, draw.integers(0, WORDS_PER_TOPIC, len(topic))]
    after_list = np.r_[False, is_bullet[:-1] & ~is_bullet[1:] & (document[1:] == document[:-1])]
    first = np.where(after_list, vocabulary().ids[BREAK], _NONE)
    body = table.tokens[sentence]
    body = np.where(body == _WORD, word[:, None], body)
    return _joined(np.column_stack([first, body]), document, n)


MAX_SENTENCES = 14
"""points and style sentences of a response at most"""


def _limit(points: Ints, styles: Ints) -> None:
    """Shorten the rare response that has too many sentences, in place: its most frequent kind first."""
    while len(over := np.flatnonzero(points + styles.sum(1) > MAX_SENTENCES)):
        counts = np.column_stack([points[over], styles[over]])
        most = counts.argmax(1)
        np.subtract.at(points, over[most == 0], 1)
        np.subtract.at(styles, (over[most > 0], most[most > 0] - 1), 1)


@lru_cache(maxsize=1)
def legal_bigrams() -> NDArray[np.bool_]:
    """Which token may follow which in a response, [V, V]; row ANSWER has the beginnings, column END the ends."""
    v, table = vocabulary(), sentences()
    legal = np.zeros((len(v), len(v)), dtype=bool)
    words = topic_words().ravel()

    def allow(before: Ints, after: Ints) -> None:
        legal[np.ix_(before, after)] = True

    def expanded(token: int) -> Ints:
        return words if token == _WORD else np.array([token])

    first, last = [], []
    for row in table.tokens:
        row = row[row != _NONE]
        first.append(expanded(row[0]))
        last.append(expanded(row[-1]))
        for a, b in pairwise(row):
            allow(expanded(a), expanded(b))
    starts = [np.unique(np.concatenate([first[i] for i in np.flatnonzero(table.stage == s)])) for s in range(5)]
    ends = [np.unique(np.concatenate([last[i] for i in np.flatnonzero(table.stage == s)])) for s in range(5)]
    new_line = np.array([v.ids[BREAK]])
    for earlier in range(5):
        allow(ends[earlier], np.array([v.ids[END]]))
        for later in range(earlier, 5):
            if earlier == later and earlier in (OPENING, CLOSING):
                continue
            allow(ends[earlier], starts[later])
    for stage in range(5):
        allow(np.array([v.ids[ANSWER]]), starts[stage])
    bullet = np.array([v.ids[BULLET]])
    allow(np.unique(np.concatenate([last[i] for i in table.bullets.ravel()])), new_line)
    for stage in (MIDDLE, CLOSING, COURTESY):
        allow(new_line, np.setdiff1d(starts[stage], bullet))
    return legal


def _padded(rows: list[list[int]]) -> Ints:
    out = np.full((len(rows), max(map(len, rows))), _NONE, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _joined(rows: Ints, document: Ints, n: int) -> Texts:
    """Rows of tokens [rows, longest], -1 where empty, joined to the texts of their documents."""
    real = rows != _NONE
    lengths = np.bincount(document, weights=real.sum(1), minlength=n).astype(np.int64)
    return Texts(rows[real], lengths)
