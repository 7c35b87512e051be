"""Critiques in words, and marks on parts of a text, made from the terms of a utility.

Each term of the utility contributes w_k (φ_k(y) - φ_k of an empty opinion, 0). The critic names the terms that cost
most and those that earn most, and marks each sentence with what the text gains by it: the utility of the text minus
that of the text without the sentence. In the pocket world the terms are the truth, so a critique is right by
construction, and a deceptive critic (arXiv 2506.03332) is wrong by a known probability:

    constructive    names faults and merits as they are
    hypercritical   names faults only, and a merit as a fault with probability ``deception``
    malicious       turns every remark, and the sign of every mark, round with probability ``deception``
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.feedback.roles import said_by
from annotators.feedback.utility import look
from farm.base import rng
from farm.base.bounds import Share, check
from farm.roles.protocols import Features

Floats = NDArray[np.float64]
Intent = Literal["constructive", "hypercritical", "malicious"]

_SENTENCE = re.compile(r"[^.!?\n]*[.!?]+|[^.!?\n]+")
_FAULTS = {
    "too_long": "It is too long.",
    "too_short": "It is too short.",
    "unfinished": "It breaks off.",
    "relevance": "It says too little about the subject.",
    "surplus": "It dwells on the subject.",
    "strays": "It strays from the subject.",
    "opening": "It does not open as it should.",
    "closing": "It lacks a proper ending.",
    "constraint": "It ignores what was asked for.",
    "repetition": "It repeats itself.",
    "broken_grammar": "The grammar is broken.",
    "broken_form": "It mixes forms.",
}
_MERITS = {
    "relevance": "It stays with the subject.",
    "opening": "It opens well.",
    "closing": "It ends well.",
    "constraint": "It does what was asked for.",
    "finished": "It comes to an end.",
}


@dataclass(frozen=True)
class PersonCritic:
    """A critic who knows what a text is worth to them.

    ``polarity`` is tanh of the utility over ``scale``, as the remarks put it; ``spans`` are (start, end, value) of the
    sentences whose value is at least ``threshold``.
    """

    features: Features
    name: str = "critic"
    weights: dict[str, float] | None = None
    """default: the gold weights"""
    remarks: int = 2
    """at most so many faults, and so many merits"""
    centre: float = 0.0
    scale: float = 4.0
    threshold: float = 0.1
    intent: Intent = "constructive"
    deception: Share = 0.0

    def __post_init__(self) -> None:
        check(self)
        if self.intent == "constructive" and self.deception:
            raise ValueError("a constructive critic does not deceive: choose another `intent`")

    def critique(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        seen = look(self.features, outputs)
        weights = self.features.gold_weights if self.weights is None else self.weights
        terms, worth = _merged_terms(weights, seen.table)
        lies = rng.uniform(seed, f"deceives: {self.name}", seen.ids, replicate) < self.deception
        texts, polarity = [], np.tanh((worth.sum(axis=1) - self.centre) / self.scale)
        for row, lie in zip(worth, lies, strict=True):
            texts.append(self._words(terms, -row if lie and self.intent == "malicious" else row, bool(lie)))
        if self.intent == "malicious":
            polarity = np.where(lies, -polarity, polarity)
        elif self.intent == "hypercritical":
            polarity = np.where(lies, -np.abs(polarity), polarity)
        marks = self._marks(outputs, weights, worth.sum(axis=1))
        turn = -1.0 if self.intent == "malicious" else 1.0
        spans = [
            [(start, end, round(turn * value if lie else value, 4)) for start, end, value in row]
            for row, lie in zip(marks, lies, strict=True)
        ]
        return said_by(
            self.name, outputs, seed, replicate, text=texts, polarity=polarity,
            spans=pd.Series(spans, index=outputs.index, dtype=object), deceived=lies,
        )  # fmt: skip

    def _words(self, terms: list[str], worth: Floats, lie: bool) -> str:
        order = np.argsort(worth, kind="stable")
        bad = [terms[k] for k in order[: self.remarks] if worth[k] < -1e-9]
        good = [terms[k] for k in order[::-1][: self.remarks] if worth[k] > 1e-9]
        if self.intent == "hypercritical":
            bad, good = (bad + good if lie else bad), []
        said = [_MERITS.get(t, f"The {_plain(t)} is welcome.") for t in good]
        said += [_FAULTS.get(t, f"The {_plain(t)} spoils it.") for t in bad]
        return " ".join(said) or "There is nothing to say about it."

    def _marks(
        self, outputs: pd.DataFrame, weights: dict[str, float], whole: Floats
    ) -> list[list[tuple[int, int, float]]]:
        """Of each output its sentences and what they add: leave one out."""
        places = [
            [(m.start(), m.end()) for m in _SENTENCE.finditer(text) if m.group().strip()] for text in outputs["output"]
        ]
        without = [
            (i, text, text[:start] + text[end:].lstrip(" "))
            for i, (text, spots) in enumerate(zip(outputs["output"], places, strict=True))
            for start, end in spots
        ]
        if not without:
            return [[] for _ in places]
        rows = np.array([i for i, _, _ in without])
        asked = outputs["instruction"].to_numpy(dtype=object)[rows]
        shorter = pd.DataFrame({"instruction": asked, "output": [rest for _, _, rest in without]})
        value = whole[rows] - look(self.features, shorter).utility(weights)
        found: list[list[tuple[int, int, float]]] = [[] for _ in places]
        flat = [(i, start, end) for i, spots in enumerate(places) for start, end in spots]
        for (i, start, end), v in zip(flat, value, strict=True):
            if abs(v) >= self.threshold:
                found[i].append((start, end, float(v)))
        return found


def _merged_terms(weights: dict[str, float], table: pd.DataFrame) -> tuple[list[str], Floats]:
    """What each term is worth in each text, [n, terms]; a term and its square are one."""
    names = [n for n in weights if not n.endswith("_squared")]
    worth = np.stack([weights[n] * table[n].to_numpy(dtype=np.float64) for n in names], axis=1)
    for k, name in enumerate(names):
        if (squared := f"{name}_squared") in weights:
            worth[:, k] += weights[squared] * table[squared].to_numpy(dtype=np.float64)
    return names, worth


def _plain(term: str) -> str:
    return term.replace("_", " ")
